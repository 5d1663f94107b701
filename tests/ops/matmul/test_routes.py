"""The kernels over packed weights: layouts, every variant of them, and what a load keeps on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor, plan_graph
from executorch_webgpu.ops.matmul import gemm, gemv
from executorch_webgpu.ops.matmul.formats import Q4GAW, Q4GSW, Q8CSW, Q8GSW, QuantizedMatrix, WeightFormat, dequantize
from executorch_webgpu.ops.matmul.packed import pack, pack_biases
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.values import Repacked, Tensor
from tests.graph_builder import GraphBuilder

from ..harness import OpProgram, call_graph
from ..samples import FLOATS, WEIGHT_FORMATS, Input, Sample, fused_linear_sample, matrix_of

LAYOUTS = {"q4gsw": Q4GSW, "q4gaw": Q4GAW, "q8gsw": Q8GSW, "q8csw": Q8CSW}
every_format = pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)


# -- layouts --------------------------------------------------------------------------------------------------------


def matrices(weight_format: str, rows: list[int], k: int, group: int) -> tuple[list[Any], list[list[np.ndarray]]]:
    """Matrices as plan functions know them, and the arrays of their tensors."""
    found, arrays = [], []
    for n in rows:
        constants = [c.array for c in matrix_of(weight_format, n, k, group)]
        tensors: Any = [Tensor(i, str(c.dtype), c.shape, i) for i, c in enumerate(constants)]
        arrays.append(constants)
        if weight_format in FLOATS:
            found.append(tensors[0])
            continue
        group_size = k if weight_format == "q8csw" else min(group, k)
        found.append(QuantizedMatrix(LAYOUTS[weight_format], *tensors, group_size, k, -(-n // 4)))
    return found, arrays


def contents(value: Any, arrays: list[np.ndarray]) -> np.ndarray:
    return value.pack(*arrays) if isinstance(value, Repacked) else arrays[0]


def unpacked(weight_format: WeightFormat, words: np.ndarray, scales: np.ndarray, group: int, k: int) -> np.ndarray:
    """The weights [4 * quads, k] that packed words and scales stand for, computed word by word."""
    words, per_word = words.reshape(-1, words.shape[-2], 4), weight_format.per_word
    scales = scales.reshape(len(words), -1, 4, 2 if weight_format.mins else 1).astype(np.float64)
    shifts = (np.arange(per_word) * weight_format.bits).astype(np.uint32)
    codes = (words[..., None] >> shifts) & (2**weight_format.bits - 1)  # [quads, units, 4, per_word]
    codes = codes.astype(np.int64)
    values = np.where(codes > 127, codes - 256, codes) if weight_format.bits == 8 else codes - weight_format.zero_point
    values = values.swapaxes(1, 2).reshape(len(words) * 4, -1)[:, :k]
    by_k = scales[:, np.arange(k) // group].swapaxes(1, 2).reshape(len(words) * 4, k, -1)
    return values * by_k[..., 0] + (by_k[..., 1] if weight_format.mins else 0)


@settings(max_examples=60, deadline=None)
@given(
    weight_format=st.sampled_from(list(LAYOUTS)),
    rows=st.lists(st.integers(1, 13), min_size=1, max_size=3),
    k=st.integers(1, 70),
    group=st.sampled_from([8, 16, 24, 128]),
    gated=st.booleans(),
)
def test_packed_weights_are_the_weights(weight_format: str, rows: list[int], k: int, group: int, gated: bool) -> None:
    rows = [rows[0]] * 2 if gated else rows
    given_, arrays = matrices(weight_format, rows, k, group)
    packed = pack(given_, gated)
    words = contents(packed.weights, [a[0] for a in arrays])
    scales = contents(packed.scales, [a[1] for a in arrays])
    assert isinstance(packed.weights, Repacked) and isinstance(packed.scales, Repacked)
    assert (words.nbytes, scales.nbytes) == (packed.weights.nbytes, packed.scales.nbytes)
    layout, group = LAYOUTS[weight_format], packed.group_size
    got = unpacked(layout, words, scales, group, k).reshape(packed.quads, 4, k)
    of_matrix = [got[i::2] for i in range(2)] if gated else np.split(got, packed.ends[:-1])
    for part, n, (codes, scale) in zip(of_matrix, rows, arrays, strict=True):
        expected = dequantize(layout, codes, scale[None] if scale.ndim == 1 else scale, group)[:, :k]
        np.testing.assert_array_equal(part.reshape(-1, k)[:n], expected)


@pytest.mark.parametrize("weight_format", FLOATS)
@pytest.mark.parametrize("gated", [False, True])
def test_packed_floats_and_biases_are_what_they_were(weight_format: str, gated: bool) -> None:
    rows, k = ([5, 5] if gated else [5, 2, 9]), 7
    given_, arrays = matrices(weight_format, rows, k, 0)
    packed = pack(given_, gated)
    values = contents(packed.weights, [a[0] for a in arrays]).reshape(packed.quads, 4, 8)
    biases = [Tensor(i, "float32", (n,), i) if i != 1 else None for i, n in enumerate(rows)]
    numbers = [np.arange(n, dtype=np.float32) + 1 for n, b in zip(rows, biases, strict=True) if b is not None]
    bias = contents(pack_biases(biases, rows, gated), numbers).reshape(packed.quads, 4)
    left = iter(numbers)
    for i, (n, (array,)) in enumerate(zip(rows, arrays, strict=True)):
        first = (0, *packed.ends)[i]
        quads = slice(i, None, 2) if gated else slice(first, first + -(-n // 4))
        np.testing.assert_array_equal(values[quads].reshape(-1, 8)[:n, :k], array)
        assert not values[quads].reshape(-1, 8)[:, k:].any()
        np.testing.assert_array_equal(bias[quads].reshape(-1)[:n], 0 if biases[i] is None else next(left))


def test_a_single_float_matrix_stays_as_it_is() -> None:
    (matrix,), _ = matrices("f32", [5], 8, 0)
    assert pack([matrix], False).weights is matrix


# -- variants -------------------------------------------------------------------------------------------------------


def gemv_tunings() -> Iterator[gemv.Tuning]:
    for lanes, quads, unroll in ((8, 1, 2), (16, 4, 1), (64, 2, 4)):
        yield gemv.Tuning(64, lanes, quads, unroll, invocations=1, workgroups=1)
    yield gemv.Tuning(invocations=1 << 20)


def calls(weight_format: str) -> Iterator[Sample]:
    """One row and two; three and one; eight; more than a tile of gemv, and rows that are no whole words."""
    yield fused_linear_sample(weight_format, 200, [67, 5, 13], norm=True, bias=True, rows=(2, 1))
    yield fused_linear_sample(weight_format, 200, [37, 37], norm=True, gated=True, residual=True, rows=(3, 1), group=40)
    yield fused_linear_sample(weight_format, 37, [21], norm=True, bias=True, residual=True, rows=(19, 8))


def check_all(device: Device, weight_format: str, route: str, tuning: gemv.Tuning | gemm.Tuning) -> None:
    options = {"routes": {"fused_linear": route}, "tunings": {f"matmul/{route}": tuning}}
    for sample in calls(weight_format):
        with OpProgram(device, sample.op, sample.args, sample.out, **options) as loaded:
            for live in (False, True):
                loaded.check(sample.inputs(live))


@pytest.mark.slow
@every_format
def test_every_tuning_of_gemv_is_right(device: Device, weight_format: str) -> None:
    for tuning in gemv_tunings():
        check_all(device, weight_format, "gemv", tuning)


@pytest.mark.slow
@every_format
def test_sums_by_subgroups_are_right(device: Device, weight_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their size is what the adapter really uses; one that has no subgroups of one size adds without."""
    size = subgroup_size(device)
    if size:
        features = replace(device.features, subgroup_min_size=size, subgroup_max_size=size)
        monkeypatch.setattr(device, "features", features)
    for tuning in gemv_tunings():
        check_all(device, weight_format, "gemv", tuning)


def subgroup_size(device: Device) -> int | None:
    features = device.features
    if features.cpu and features.subgroups:
        return 8  # of Mesa's CPU driver with 256-bit vectors
    return features.subgroup_min_size if features.subgroups else None


@pytest.mark.slow
@every_format
def test_every_tile_of_gemm_is_right(device: Device, weight_format: str) -> None:
    for tile in (*gemm.Tuning().tiles, gemm.Tile(2, 4, 16), gemm.Tile(2, 1, 8)):
        tiles = (tile,) if tile.column_quads % 2 == 0 else (tile, gemm.Tile(1, 2, 16))
        check_all(device, weight_format, "gemm", gemm.Tuning(tiles, workgroups=1))


@pytest.mark.parametrize("subgroup_size", [1, 8, 32, 64])
def test_variants_of_gemv_divide_their_work_evenly(subgroup_size: int) -> None:
    for rows, quads, units, vectors, gated, tuning in product(
        (1, 2, 4, 8), (1, 48, 2048, 32064), (1, 18, 72, 256, 1024), (1, 4), (False, True), [*gemv_tunings()]
    ):
        shape = gemv.Shape(rows, quads, units, vectors, 2, True, gated)
        variant = gemv.choose_variant(tuning, shape, subgroup_size, 256)
        assert variant.workgroup_size <= 256 and variant.workgroup_size % variant.lanes == 0
        assert variant.lanes % variant.subgroup_size == 0
        assert variant.quads % (2 if gated else 1) == 0
        parts = rows * variant.quads + (rows + 3) // 4
        assert 16 * parts * variant.overrides["partial_count"] <= 16 << 10


# -- memory ---------------------------------------------------------------------------------------------------------


def test_loads_share_packed_weights_and_drop_the_originals(device: Device) -> None:
    sample = fused_linear_sample("q4gsw", 256, [128, 64])
    pool = ConstantPool(device, lambda view: None)
    graph = build_graph(call_graph(sample.op, sample.args, sample.out))
    options: dict[str, Any] = {"routes": {"fused_linear": "gemv"}}
    executors = [GraphExecutor(graph, pool, Planning(device.features, device.limits, **options)) for _ in range(2)]
    assert pool.nbytes == 192 * (128 + 8 * 4)
    executors[0].close()
    assert pool.nbytes > 0
    executors[1].close()
    assert pool.nbytes == 0


def test_a_tied_head_and_its_embedding_share_one_copy(device: Device) -> None:
    rng, build = np.random.default_rng(0), GraphBuilder()
    table = build.constant(rng.integers(-128, 128, (32, 64), np.int8))
    scales = build.constant(rng.uniform(0.01, 0.1, (2, 32)).astype(np.float16))
    tokens, hidden, logits = build.input((1, 3), "int32"), build.tensor((1, 3, 64)), build.tensor((1, 3, 32))
    build.call("et_webgpu.embedding_q8gsw.default", table, scales, 32, tokens, hidden)
    build.call("et_webgpu.linear_q8gsw.default", hidden, table, scales, 32, None, logits)
    build.output(logits)
    graph = build_graph(build.build())
    for route, embedding in (("gemv", "packed"), ("columns", "rows")):
        pool = ConstantPool(device, lambda view: None)
        routes = {"linear_q8gsw": route, "embedding_q8gsw": embedding}
        executor = GraphExecutor(graph, pool, Planning(device.features, device.limits, routes))
        assert pool.nbytes == 32 * (64 + 2 * 2)
        executor.close()


def test_every_range_of_the_file_is_given_back(device: Device) -> None:
    sample = fused_linear_sample("q4gsw", 64, [12, 5], bias=True)
    forgotten: list[int] = []
    pool = ConstantPool(device, lambda view: forgotten.append(view.nbytes))
    graph = build_graph(call_graph(sample.op, sample.args, sample.out))
    planning = Planning(device.features, device.limits, {"fused_linear": "gemv"})
    GraphExecutor(graph, pool, planning).close()
    assert sorted(forgotten) == sorted(c.data.nbytes for c in graph.constants.values() if c.data.nbytes)


def test_weights_that_the_program_computes_take_the_route_that_reads_them_as_they_are(device: Device) -> None:
    sample = fused_linear_sample("q4gsw", 64, [12])
    weights = Input((12, 32), "uint8", low=0, high=255)
    sample = replace(sample, args=[*sample.args[:4], [weights], *sample.args[5:]])
    planning = Planning(replace(device.features, cpu=False), device.limits)
    plans = plan_graph(build_graph(call_graph(sample.op, sample.args, sample.out)), planning)
    assert plans.plans[0].route == "columns"
    with OpProgram(device, sample.op, sample.args, sample.out) as loaded:
        loaded.check(sample.inputs(live=False))

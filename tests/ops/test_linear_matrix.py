"""mm, bmm and addmm on tensor cores: run on them where they are, elsewhere on an emulation of their instructions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.resize import LivePlans
from executorch_webgpu.ops.matmul.gemm_matrix import TUNING, Tile, Tuning
from executorch_webgpu.ops.plan import MATMUL_PRECISIONS, Planning
from executorch_webgpu.ops.values import Tensor

from .harness import In, OpProgram, Out, call_graph
from .matrix_emulation import TENSOR_CORES, emulate

RNG = np.random.default_rng(0)
TILES = (Tile(1, 1, 1, 2, 16), Tile(2, 2, 1, 2, 32))  # of little workgroup memory
LARGE = replace(Limits.floor(), max_workgroup_bytes=48 << 10, max_invocations=1024, max_storage_buffers=16)


@pytest.fixture
def matrix_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    if not device.features.subgroup_matrix:
        emulate(monkeypatch, device)
    return device


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def product(device: Device, op: str, args: list[Any], out: tuple[int, ...], route: str, tile: Tile) -> OpProgram:
    tunings = {"matmul/gemm_matrix": Tuning((tile,))}
    return OpProgram(device, f"aten.{op}.default", args, Out(out), routes={"mm": route}, tunings=tunings)


def bmm(
    device: Device, batches: int, m: int, n: int, k: int, route: str = "matrix", tile: Tile = TILES[0]
) -> OpProgram:
    args = [In((batches, m, k)), In((batches, k, n))]
    return product(device, "bmm", args, (batches, m, n), route, tile)


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_batches_shrink_and_grow_with_every_size(matrix_device: Device, tile: Tile) -> None:
    with bmm(matrix_device, 3, 37, 67, 41, tile=tile) as program:
        for batches, m, n, k in ((3, 37, 67, 41), (2, 19, 5, 40), (1, 1, 1, 1), (3, 16, 64, 32), (3, 37, 67, 41)):
            program.check([floats(batches, m, k), floats(batches, k, n)])


def test_mm_and_addmm(matrix_device: Device) -> None:
    with product(matrix_device, "mm", [In((19, 300)), In((300, 13))], (19, 13), "matrix", TILES[0]) as program:
        program.check([floats(19, 300), floats(300, 13)])
    args = [In((13,)), In((19, 24)), In((24, 13)), 1.0, 1.0]
    with product(matrix_device, "addmm", args, (19, 13), "matrix", TILES[0]) as program:
        program.check([floats(13), floats(19, 24), floats(24, 13)])


@pytest.mark.parametrize(
    ("dims", "beta", "alpha"), [((19, 13), 1.0, 1.0), ((1,), 1.0, 1.0), ((13,), 2.0, 1.0), ((13,), 1.0, 0.5)]
)
def test_other_sums_stay_in_float32(dims: tuple[int, ...], beta: float, alpha: float) -> None:
    args = [In(dims), In((512, 512)), In((512, 512)), beta, alpha]
    if dims != (1,):
        args[0] = In(tuple(512 for _ in dims))
    graph = build_graph(call_graph("aten.addmm.default", args, Out((512, 512))))
    assert plan_graph(graph, Planning(TENSOR_CORES, LARGE)).plans[0].route == "gemm"


def test_the_rounded_route_is_as_exact_as_float16(matrix_device: Device) -> None:
    with bmm(matrix_device, 2, 19, 37, 104, "matrix_f16") as program:
        inputs = [floats(2, 19, 104), floats(2, 104, 37)]
        got, expected = program.run(inputs), program.reference(inputs)
        assert 1e-6 < np.abs(got - expected).max() / np.abs(expected).max() < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize(("route", "tile"), [(r, t) for r in ("matrix", "matrix_f16") for t in TUNING.tiles], ids=str)
def test_the_tiles_that_are_chosen(matrix_device: Device, route: str, tile: Tile) -> None:
    """More than one of them both ways, and more than one step."""
    allowed = 2e-5 if route == "matrix" else 2e-3
    with bmm(matrix_device, 2, 130, 133, 72, route, tile) as program:
        inputs = [floats(2, 130, 72), floats(2, 72, 133)]
        got, expected = program.run(inputs), program.reference(inputs)
        assert np.abs(got - expected).max() < allowed * np.abs(expected).max()


@pytest.mark.parametrize("power", [-60, 60])
def test_large_and_small_numbers_keep_their_bits(matrix_device: Device, power: int) -> None:
    """Rows of a and batches of both of very different size, far beyond what float16 holds."""
    a, b = floats(3, 17, 40), floats(3, 40, 13)
    a *= 2.0 ** (power / 2 * np.linspace(-1, 1, 17)).round()[:, None].astype(np.float32)
    b *= 2.0 ** (power / 2 * np.linspace(-1, 1, 3)).round()[:, None, None].astype(np.float32)
    with bmm(matrix_device, 3, 17, 13, 40) as program:
        got, expected = program.run([a, b]), program.reference([a, b])
        assert (np.abs(got - expected) <= 1e-6 * (np.abs(a).astype(np.float64) @ np.abs(b))).all()


def test_zeros_and_numbers_that_are_none(matrix_device: Device) -> None:
    """A batch of zeros gives zeros; NaN and infinity stay in their rows and columns."""
    a, b = floats(3, 17, 40), floats(3, 40, 13)
    a[0] = 0
    a[1, 3, 2], a[1, 5, 7], b[2, 4, 6] = np.nan, np.inf, np.nan
    with bmm(matrix_device, 3, 17, 13, 40) as program:
        with np.errstate(invalid="ignore"):
            got, expected = program.run([a, b]), program.reference([a, b])
        assert (got[0] == 0).all()
        special = np.zeros(got.shape, bool)
        special[1, [3, 5]] = special[2, :, 6] = True
        assert not np.isfinite(got[special]).any()
        np.testing.assert_allclose(got[~special], expected[~special], rtol=1e-3, atol=1e-4)


def plans_of(batches: int, m: int, n: int, k: int, precision: str = "highest", features: Any = None) -> LivePlans:
    graph = build_graph(
        call_graph("aten.bmm.default", [In((batches, m, k)), In((batches, k, n))], Out((batches, m, n)))
    )
    return plan_graph(graph, Planning(features or TENSOR_CORES, LARGE, matmul_precision=precision))


@pytest.mark.parametrize("precision", MATMUL_PRECISIONS)
def test_it_is_chosen_for_many_operations_and_compiles(precision: str) -> None:
    """Smaller sizes of the same program go by float32, or other tiles, and load has prepared all of it."""
    plans = plans_of(4, 1024, 1024, 1024, precision)
    assert plans.plans[0].route == {"highest": "matrix", "high": "matrix_f16"}[precision]
    prepared = {repr(pipeline) for pipeline in plans.pipelines()}
    for kernel, template, overrides in plans.prepared:
        if kernel.startswith("matmul/"):
            compile_check("dawn", kernel, template, overrides)
    a, b = plans.graph.inputs
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    for batches, m, n, k in ((4, 1024, 1024, 1024), (4, 509, 511, 513), (1, 7, 1, 13)):
        plans.set_dims(a, (batches, m, k))
        plans.set_dims(b, (batches, k, n))
        plans.update()
        assert {repr((d.kernel, d.template, d.overrides)) for d in plans.plans[0].dispatches} <= prepared
    assert plans.plans[0].route == "gemm"


def test_it_is_not_chosen_for_few_or_without_tensor_cores() -> None:
    assert plans_of(1, 64, 64, 64).plans[0].route == "gemm"
    assert plans_of(4, 1024, 1024, 1024, features=Features.none()).plans[0].route == "gemm"

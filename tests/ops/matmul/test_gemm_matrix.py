"""The routes on tensor cores: run on them where they are, elsewhere on an emulation of their instructions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.capabilities import Limits
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops.matmul import gemm_matrix
from executorch_webgpu.ops.matmul.formats import Q4GSW, dequantize
from executorch_webgpu.ops.matmul.gemm_matrix import Tile, Tuning
from executorch_webgpu.ops.plan import MATMUL_PRECISIONS, Planning
from tests.graph_builder import GraphBuilder
from tests.programs import write_delegated

from ..harness import Const, OpProgram, call_graph
from ..matrix_emulation import TENSOR_CORES, emulate
from ..samples import WEIGHT_FORMATS, Sample, fused_linear_sample

# Small enough for 32 KiB of workgroup memory: one subgroup; several both ways; more depth.
TILES = (Tile(1, 1, 1, 2, 16), Tile(2, 2, 1, 2, 32), Tile(1, 2, 2, 1, 32))
every_format = pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)


@pytest.fixture
def matrix_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    if not device.features.subgroup_matrix:
        emulate(monkeypatch, device)
    return device


def program(device: Device, sample: Sample, route: str = "matrix", tile: Tile = TILES[0]) -> OpProgram:
    tunings = {"matmul/gemm_matrix": Tuning((tile,))}
    return OpProgram(device, sample.op, sample.args, sample.out, routes={"fused_linear": route}, tunings=tunings)


@pytest.mark.slow
@every_format
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_it_agrees_with_the_reference(matrix_device: Device, weight_format: str, tile: Tile) -> None:
    """Within the tolerance of float32, with edges everywhere, at most rows and at fewer."""
    for sample in (
        fused_linear_sample(weight_format, 104, [37, 5, 13], norm=True, bias=True, rows=(19, 1), group=40),
        fused_linear_sample(weight_format, 37, [21, 21], norm=True, gated=True, residual=True, rows=(35, 16)),
        fused_linear_sample(weight_format, 64, [67], residual=True, rows=(33, 9)),
    ):
        with program(matrix_device, sample, tile=tile) as loaded:
            for live in (False, True):
                loaded.check(sample.inputs(live))


@every_format
def test_the_rounded_route_is_as_exact_as_float16(matrix_device: Device, weight_format: str) -> None:
    sample = fused_linear_sample(weight_format, 104, [37, 5], bias=True, rows=(19, 9))
    with program(matrix_device, sample, "matrix_f16") as loaded:
        inputs = sample.inputs(live=False)
        for got, expected in zip(loaded.run(inputs), loaded.reference(inputs), strict=True):
            error = np.abs(got - expected).max() / np.abs(expected).max()
            assert 1e-6 < error < 2e-3


@pytest.mark.parametrize("weight_format", ["f32", "f16"])
@pytest.mark.parametrize("parts", ["matrix", "matrix_f16"])
def test_several_workgroups_share_a_tile(matrix_device: Device, weight_format: str, parts: str) -> None:
    """Of few tiles, with bias and residual added once; with K of one split too many; at fewer rows."""
    sample = fused_linear_sample(weight_format, 104, [36], bias=True, residual=True, rows=(19, 9))
    tunings = {"matmul/gemm_matrix": Tuning((TILES[0],), shared=64, shared_k=24)}
    routes = {"fused_linear": parts}
    with OpProgram(matrix_device, sample.op, sample.args, sample.out, routes=routes, tunings=tunings) as loaded:
        (plan,) = loaded.executor.plans.plans
        assert [d.kernel.split("/")[1] for d in plan.dispatches] == ["split_rows", "gemm_matrix", "sum_splits"]
        for live in (False, True):
            inputs = sample.inputs(live)
            (got,), (expected,) = loaded.run(inputs), loaded.reference(inputs)
            allowed = 1e-5 if parts == "matrix" else 2e-3
            assert np.abs(got - expected).max() < allowed * np.abs(expected).max()


CHOSEN = [
    *(("matrix", tile) for tile in gemm_matrix.TUNING.of(parts=2)),
    *(("matrix_f16", tile) for tile in (*gemm_matrix.TUNING.of(parts=1), *TILES)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("route", "tile"), CHOSEN, ids=str)
def test_the_tiles_that_are_chosen(matrix_device: Device, route: str, tile: Tile) -> None:
    """More than one of them both ways, and more than one step."""
    sample = fused_linear_sample("q4gsw", 72, [133], rows=(130, 9))
    allowed = 2e-5 if route == "matrix" else 2e-3
    with program(matrix_device, sample, route, tile) as loaded:
        for live in (False, True):
            inputs = sample.inputs(live)
            (got,), (expected,) = loaded.run(inputs), loaded.reference(inputs)
            assert got.shape == expected.shape
            assert np.abs(got - expected).max() < allowed * np.abs(expected).max()


@pytest.mark.parametrize(
    "tile", [(2, 2, 3, 4, 16), (2, 1, 3, 2, 16), (2, 2, 4, 4, 48), (2, 4, 2, 2, 16), (1, 4, 1, 2, 16)]
)
def test_tiles_that_cannot_be(tile: tuple[int, ...]) -> None:
    with pytest.raises(KernelError, match="Tile"):
        Tile(*tile)


@pytest.mark.parametrize("power", [-60, -20, 20, 60])
def test_large_and_small_numbers_keep_their_bits(matrix_device: Device, power: int) -> None:
    """Rows and columns of very different size, far beyond what float16 holds."""
    sample = fused_linear_sample("q4gsw", 64, [13], rows=(17, 17))
    scales = sample.args[5][0].array
    sizes = 2.0 ** (power / 2 * np.linspace(-1, 1, scales.shape[1])).round()
    sample = replace(sample, args=[*sample.args[:5], [Const((scales * sizes).astype(np.float32))], *sample.args[6:]])
    with program(matrix_device, sample) as loaded:
        (x,) = sample.inputs(live=False)
        x = (x * 2.0 ** (power / 2 * np.linspace(-1, 1, 17)).round()[:, None]).astype(np.float32)
        (got,), (expected,) = loaded.run([x]), loaded.reference([x])
        terms = np.abs(x).astype(np.float64) @ np.abs(dequantized(sample)).T
        assert (np.abs(got - expected) <= 1e-6 * terms).all()


def dequantized(sample: Sample) -> np.ndarray:
    weights, scales = sample.args[4][0].array, sample.args[5][0].array
    return dequantize(Q4GSW, weights, scales, group_size=sample.args[6])


def test_zeros_and_numbers_that_are_none(matrix_device: Device) -> None:
    """A row of zeros gives zeros; NaN and infinity stay in their rows."""
    sample = fused_linear_sample("q4gaw", 64, [13], rows=(5, 5))
    with program(matrix_device, sample) as loaded:
        (x,) = sample.inputs(live=False)
        assert isinstance(x, np.ndarray)
        x[0, 1] = 0
        loaded.check([x])
        x[0, 2, 7], x[0, 3, 7] = np.nan, np.inf
        (out,) = loaded.run([x])
        assert np.isnan(out[0, 2]).all()
        assert not np.isfinite(out[0, 3]).any()
        assert np.isfinite(out[0, [0, 1, 4]]).all()


@pytest.mark.slow
def test_a_method_that_is_loaded_with_a_precision(matrix_device: Device) -> None:
    """With "high", its first prefill rounds and compiles nothing; its decode is that of the default."""
    sample = fused_linear_sample("q4gsw", 64, [13], rows=(131, 1))
    weights, scales = (sample.args[i][0].array for i in (4, 5))
    build = GraphBuilder()
    x = build.input((131, 64))
    build.output(build.call("et_vk.linear_q4gsw.default", x, weights, scales, 32, None, build.tensor((131, 13))))
    data = write_delegated(build, ["float32"] * 2, dynamic=[0])
    runtime = Runtime()
    runtime._device = matrix_device
    rows = np.random.default_rng(0).standard_normal((131, 64)).astype(np.float32)
    found: dict[str, list[np.ndarray]] = {}
    for precision in MATMUL_PRECISIONS:
        with (
            runtime.load_program(data) as program,
            program.load_method("forward", matmul_precision=precision, profile=True) as method,
        ):
            compiled = matrix_device.kernels.stats()
            found[precision] = [method.execute([rows[:count]])[0] for count in (131, 1)]
            assert matrix_device.kernels.stats() == compiled
            routes = {row.route for row in method.profile()}
            assert routes == {"matrix_f16" if precision == "high" else "matrix", "gemv"}
    (exact, decoded), (rounded, decoded_too) = (found[precision] for precision in MATMUL_PRECISIONS)
    assert 1e-6 < np.abs(rounded - exact).max() / np.abs(exact).max() < 2e-3
    np.testing.assert_array_equal(decoded, decoded_too)


@every_format
@pytest.mark.parametrize("route", ["matrix", "matrix_f16"])
def test_every_variant_compiles(weight_format: str, route: str) -> None:
    limits = replace(Limits.floor(), max_workgroup_bytes=48 << 10)
    for sample in (
        fused_linear_sample(weight_format, 72, [21, 6, 5], norm=True, bias=True, rows=(300, 9)),
        fused_linear_sample(weight_format, 37, [21, 21], gated=True, residual=True),
    ):
        graph = build_graph(call_graph(sample.op, sample.args, sample.out))
        plans = plan_graph(graph, Planning(TENSOR_CORES, limits, {"fused_linear": route}))
        assert len([p for p in plans.prepared if p[0] == "matmul/gemm_matrix"]) >= len(Tuning().tiles)
        for kernel, template, overrides in plans.prepared:
            compile_check("dawn", kernel, template, overrides)

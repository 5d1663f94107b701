"""The routes for few rows on tensor cores: run on them where they are, elsewhere on an emulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.capabilities import Limits
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops.matmul import gemm_few, gemm_matrix, gemv
from executorch_webgpu.ops.matmul.formats import Q4GSW, dequantize
from executorch_webgpu.ops.matmul.gemm_few import Tile, Tuning
from executorch_webgpu.ops.plan import Planning

from ..harness import Const, OpProgram, call_graph
from ..matrix_emulation import TENSOR_CORES, emulate
from ..samples import Sample, fused_linear_sample

FORMATS = ("q4gsw", "q4gaw", "q8gsw", "q8csw", "q4csw")  # of codes
every_format = pytest.mark.parametrize("weight_format", FORMATS)
# Small enough for 32 KiB of workgroup memory, and with few enough products for a CPU's compiler; several side by side,
# several along K, several matrices of each.
TILES = (
    Tile(1, 2, 1, 1, 64, ahead=2),
    Tile(1, 1, 1, 2, 64, ahead=2),
    Tile(1, 1, 1, 1, 64, ahead=3),
    Tile(1, 1, 2, 1, 32),
    Tile(2, 1, 1, 1, 64),
)
FAR_AHEAD = Tile(1, 1, 1, 1, 64, ahead=4)


@pytest.fixture
def matrix_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    if not device.features.subgroup_matrix:
        emulate(monkeypatch, device)
    return device


def program(device: Device, sample: Sample, tuning: Tuning, route: str = "few") -> OpProgram:
    tunings = {"matmul/gemm_few": replace(tuning, rounded=tuning.tiles, narrow=())}
    return OpProgram(device, sample.op, sample.args, sample.out, routes={"fused_linear": route}, tunings=tunings)


@pytest.mark.slow
@pytest.mark.parametrize("workgroups", [1, 64])
@pytest.mark.parametrize(("weight_format", "tile"), list(zip(FORMATS, TILES, strict=True)), ids=str)
def test_it_agrees_with_the_reference(matrix_device: Device, weight_format: str, tile: Tile, workgroups: int) -> None:
    """Within the tolerance of float32, with edges everywhere, at most rows and at fewer, alone and sharing tiles."""
    for sample in (
        fused_linear_sample(weight_format, 200, [37, 5, 13], norm=True, bias=True, rows=(19, 1), group=40),
        fused_linear_sample(weight_format, 133, [21, 21], norm=True, gated=True, residual=True, rows=(35, 16)),
    ):
        with program(matrix_device, sample, Tuning((tile,), workgroups=workgroups, steps=1)) as loaded:
            (plan,) = loaded.executor.plans.plans
            kernels = [d.kernel.split("/")[1] for d in plan.dispatches]
            assert ("sum_splits" in kernels) == (workgroups > 1)
            for live in (False, True):
                loaded.check(sample.inputs(live))


@pytest.mark.slow
@every_format
def test_random_shapes(matrix_device: Device, weight_format: str) -> None:
    """One tile, alone and with as many workgroups that share it as come out of the sizes."""
    rng = np.random.default_rng(FORMATS.index(weight_format))
    for _ in range(2):
        n, k, m = (int(rng.integers(1, most)) for most in (90, 400, 40))
        sample = fused_linear_sample(
            weight_format, k, [n], bias=True, residual=True, rows=(m, int(rng.integers(1, m + 1)))
        )
        tuning = Tuning((TILES[2],), workgroups=int(rng.integers(1, 40)), steps=1)
        with program(matrix_device, sample, tuning) as loaded:
            for live in (False, True):
                loaded.check(sample.inputs(live))


@pytest.mark.parametrize("power", [-60, 60])
def test_large_and_small_numbers_keep_their_bits(matrix_device: Device, power: int) -> None:
    """Rows and columns of very different size, far beyond what float16 holds; scales are rounded to 18 bits."""
    sample = fused_linear_sample("q4gsw", 64, [13], rows=(17, 17))
    scales = sample.args[5][0].array
    sizes = 2.0 ** (power / 2 * np.linspace(-1, 1, scales.shape[1])).round()
    sample = replace(sample, args=[*sample.args[:5], [Const((scales * sizes).astype(np.float32))], *sample.args[6:]])
    with program(matrix_device, sample, Tuning((TILES[0],))) as loaded:
        (x,) = sample.inputs(live=False)
        x = (x * 2.0 ** (power / 2 * np.linspace(-1, 1, 17)).round()[:, None]).astype(np.float32)
        (got,), (expected,) = loaded.run([x]), loaded.reference([x])
        weights = dequantize(Q4GSW, sample.args[4][0].array, sample.args[5][0].array, sample.args[6])
        terms = np.abs(x).astype(np.float64) @ np.abs(weights).T[:, :13]
        assert (np.abs(got - expected) <= 2.0**-18 * terms).all()


@every_format
def test_the_rounded_route_is_as_exact_as_float16(matrix_device: Device, weight_format: str) -> None:
    sample = fused_linear_sample(weight_format, 328, [37, 5], bias=True, rows=(19, 9))
    with program(matrix_device, sample, Tuning((FAR_AHEAD,)), "few_f16") as loaded:
        inputs = sample.inputs(live=False)
        for got, expected in zip(loaded.run(inputs), loaded.reference(inputs), strict=True):
            error = np.abs(got - expected).max() / np.abs(expected).max()
            assert 1e-6 < error < 2e-3


def small(tile: Tile, parts: int) -> Tile:
    """Large ones with fewer subgroups: software adapters have 32 KiB of workgroup memory."""
    if tile.workgroup_bytes(parts) <= 32 << 10:
        return tile
    if tile.column_subgroups > 1:
        return small(replace(tile, column_subgroups=tile.column_subgroups // 2), parts)
    return small(replace(tile, k_subgroups=tile.k_subgroups // 2), parts)


CHOSEN = [
    # Those for 64 rows in two parts have so many products that a CPU's compiler needs a minute.
    *(("few", small(tile, 2)) for tile in gemm_few.TUNING.tiles if tile.row_tiles < 4),
    *(("few_f16", small(tile, 1)) for tile in (*gemm_few.TUNING.rounded, *gemm_few.TUNING.narrow)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("route", "tile"), CHOSEN, ids=str)
def test_the_tiles_that_are_chosen(matrix_device: Device, route: str, tile: Tile) -> None:
    """More than one of them both ways, and more than one step; several workgroups share them."""
    sample = fused_linear_sample("q4gsw", 328, [133], rows=(tile.rows + 3, 9))
    allowed = 2e-5 if route == "few" else 2e-3
    for workgroups in (1, 64):
        with program(matrix_device, sample, Tuning((tile,), workgroups=workgroups, steps=1), route) as loaded:
            for live in (False, True):
                inputs = sample.inputs(live)
                (got,), (expected,) = loaded.run(inputs), loaded.reference(inputs)
                assert got.shape == expected.shape
                assert np.abs(got - expected).max() < allowed * np.abs(expected).max()


@pytest.mark.parametrize("tile", [(3,), (1, 4, 1, 2, 32), (1, 4, 1, 2, 48), (1, 4, 8, 2, 8)])
def test_tiles_that_cannot_be(tile: tuple[int, ...]) -> None:
    with pytest.raises(KernelError, match="Tile"):
        Tile(*tile)


def test_zeros_and_numbers_that_are_none(matrix_device: Device) -> None:
    """A row of zeros gives zeros; NaN and infinity stay in their rows."""
    sample = fused_linear_sample("q4gaw", 192, [13], rows=(5, 5))
    for workgroups in (1, 64):
        with program(matrix_device, sample, Tuning((TILES[0],), workgroups=workgroups, steps=1)) as loaded:
            (x,) = sample.inputs(live=False)
            assert isinstance(x, np.ndarray)
            x[0, 1] = 0
            loaded.check([x])
            x[0, 2, 7], x[0, 3, 7] = np.nan, np.inf
            (out,) = loaded.run([x])
            assert np.isnan(out[0, 2]).all()
            assert not np.isfinite(out[0, 3]).any()
            assert np.isfinite(out[0, [0, 1, 4]]).all()


@pytest.mark.parametrize("weight_format", ["q4gsw", "q8gsw"])
def test_rows_of_any_number_in_one_program(matrix_device: Device, weight_format: str) -> None:
    """On both sides of every change of route or tile; what a load compiled is all that they take."""
    sample = fused_linear_sample(weight_format, 136, [29, 6], norm=True, bias=True, rows=(130, 1))
    few = Tuning((TILES[0],), workgroups=64, steps=1, most=16, least=0, least_columns=0)
    tunings = {
        "matmul/gemm_few": few,
        "matmul/gemm_matrix": gemm_matrix.Tuning((gemm_matrix.Tile(1, 1, 1, 2, 16),)),
        "matmul/gemv": gemv.Tuning(subgroups=False),  # an emulated device has others than it says
    }
    with OpProgram(matrix_device, sample.op, sample.args, sample.out, tunings=tunings) as loaded:
        (x,) = sample.inputs(live=False)
        assert isinstance(x, np.ndarray)
        compiled, routes = matrix_device.kernels.stats(), []
        for rows in (1, 4, 5, 9, 16, 17, 130, 8, 1):
            loaded.check([x[:, :rows]])
            routes.append(loaded.executor.plans.plans[0].route)
        assert matrix_device.kernels.stats() == compiled
        assert routes == ["gemv", "gemv", "few", "few", "few", "matrix", "matrix", "few", "gemv"]


@pytest.mark.parametrize(
    ("widths", "k", "precision", "expected"),
    [
        ([512], 512, "highest", {1: "gemv", 8: "gemv", 9: "few", 64: "few", 65: "matrix"}),
        ([512], 512, "high", {1: "gemv", 8: "gemv", 9: "few_f16", 128: "few_f16", 129: "matrix_f16"}),
        ([4096], 1024, "high", {1: "gemv", 4: "gemv", 5: "few_f16", 8: "few_f16"}),
        ([4096], 1024, "highest", {1: "gemv", 8: "gemv", 9: "few"}),
        ([4096], 1536, "highest", {1: "gemv", 4: "gemv", 5: "few", 8: "few"}),
        ([1536], 4096, "highest", {1: "gemv", 8: "gemv", 9: "few"}),
    ],
)
def test_the_route_of_a_number_of_rows(widths: list[int], k: int, precision: str, expected: dict[int, str]) -> None:
    limits = replace(Limits.floor(), max_workgroup_bytes=48 << 10)
    for rows, route in expected.items():
        sample = fused_linear_sample("q4gsw", k, widths, rows=(rows, rows))
        graph = build_graph(call_graph(sample.op, sample.args, sample.out))
        plans = plan_graph(graph, Planning(TENSOR_CORES, limits, matmul_precision=precision))
        assert plans.plans[0].route == route


@every_format
@pytest.mark.parametrize("route", ["few", "few_f16"])
def test_every_variant_compiles(weight_format: str, route: str) -> None:
    limits = replace(Limits.floor(), max_workgroup_bytes=48 << 10)
    for sample in (
        fused_linear_sample(weight_format, 304, [21, 6, 5], norm=True, bias=True, rows=(300, 9)),
        fused_linear_sample(weight_format, 304, [3000], rows=(300, 9)),
        fused_linear_sample(weight_format, 37, [21, 21], gated=True, residual=True),
    ):
        graph = build_graph(call_graph(sample.op, sample.args, sample.out))
        plans = plan_graph(graph, Planning(TENSOR_CORES, limits, {"fused_linear": route}))
        assert any(kernel == "matmul/gemm_few" for kernel, *_ in plans.prepared)
        for kernel, template, overrides in plans.prepared:
            compile_check("dawn", kernel, template, overrides)

"""Convolutions on tensor cores: run on them where they are, elsewhere on an emulation of their instructions."""

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
from executorch_webgpu.ops.convolution.matrix.plan import TUNING, Tile, Tuning
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.values import Tensor

from .harness import Const, OpProgram
from .matrix_emulation import TENSOR_CORES, emulate
from .samples import Sample
from .samples_convolution import Layer

# Small enough for 32 KiB of workgroup memory: one subgroup; several both ways; more depth.
TILES = (Tile(1, 1, 1, 2, 16), Tile(2, 2, 1, 2, 32), Tile(2, 1, 2, 2, 32))
LAYERS = (
    Layer((2, 19, 5, 7), (1, 19, 4, 3), 21, (3, 3), padding=(1, 1)),
    Layer((3, 37, 6, 5), (2, 37, 3, 4), 35, (1, 1), bias=False),
    Layer((2, 16, 9, 8), (1, 16, 7, 7), 5, (3, 2), (2, 1), (0, 1), (1, 2)),
)


@pytest.fixture
def matrix_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    if not device.features.subgroup_matrix:
        emulate(monkeypatch, device)
    return device


def program(device: Device, sample: Sample, route: str, tile: Tile, splits: int = 1) -> OpProgram:
    tunings = {"convolution/matrix": Tuning((tile,), (1.0,), (splits,))}
    return OpProgram(device, sample.op, sample.args, sample.out, routes={"convolution": route}, tunings=tunings)


@pytest.mark.slow
@pytest.mark.parametrize(("tile", "layers"), [(TILES[0], LAYERS), (TILES[1], LAYERS[:1]), (TILES[2], LAYERS[1:2])])
def test_it_agrees_with_the_reference(matrix_device: Device, tile: Tile, layers: tuple[Layer, ...]) -> None:
    """Within the tolerance of float32, with edges everywhere, at most places and at fewer."""
    for layer in layers:
        sample = layer.sample((-2.5, 3.0))
        with program(matrix_device, sample, "matrix", tile) as loaded:
            for live in (False, True):
                loaded.check(sample.inputs(live))


def test_several_workgroups_share_a_tile(matrix_device: Device) -> None:
    sample = LAYERS[0].sample((-2.5, 3.0))
    with program(matrix_device, sample, "matrix", TILES[0], splits=4) as loaded:
        (plan,) = loaded.executor.plans.plans
        assert [d.kernel.split("/")[1] for d in plan.dispatches] == ["largest", "split_channels", "matrix", "sum"]
        for live in (False, True):
            loaded.check(sample.inputs(live))


def test_the_rounded_route_is_as_exact_as_float16(matrix_device: Device) -> None:
    sample = LAYERS[0].sample()
    with program(matrix_device, sample, "matrix_f16", TILES[0]) as loaded:
        inputs = sample.inputs(live=False)
        got, expected = loaded.run(inputs), loaded.reference(inputs)
        assert 1e-6 < np.abs(got - expected).max() / np.abs(expected).max() < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize(("route", "tile"), [(r, t) for r in ("matrix", "matrix_f16") for t in TUNING.tiles], ids=str)
def test_the_tiles_that_are_chosen(matrix_device: Device, route: str, tile: Tile) -> None:
    """More than one of them both ways, and more than one step."""
    sample = Layer((2, 17, 9, 9), (1, 17, 9, 9), 133, (1, 2)).sample()
    allowed = 2e-5 if route == "matrix" else 2e-3
    with program(matrix_device, sample, route, tile) as loaded:
        inputs = sample.inputs(live=False)
        got, expected = loaded.run(inputs), loaded.reference(inputs)
        assert np.abs(got - expected).max() < allowed * np.abs(expected).max()


@pytest.mark.parametrize("tile", [(2, 2, 3, 4, 16), (1, 1, 4, 4, 16), (4, 4, 1, 1, 16), (2, 2, 4, 4, 48)])
def test_tiles_that_cannot_be(tile: tuple[int, ...]) -> None:
    with pytest.raises(KernelError, match="Tile"):
        Tile(*tile)


@pytest.mark.parametrize("power", [-60, 60])
def test_large_and_small_numbers_keep_their_bits(matrix_device: Device, power: int) -> None:
    """Images and channels of very different size, far beyond what float16 holds."""
    sample = LAYERS[1].sample()
    weight = sample.args[1].array
    sizes = 2.0 ** (power / 2 * np.linspace(-1, 1, len(weight))).round()
    weight = (weight * sizes[:, None, None, None]).astype(np.float32)
    sample = replace(sample, args=[sample.args[0], Const(weight), *sample.args[2:]])
    with program(matrix_device, sample, "matrix", TILES[0]) as loaded:
        (x,) = sample.inputs(live=False)
        x = (x * 2.0 ** (power / 2 * np.linspace(-1, 1, 3)).round()[:, None, None, None]).astype(np.float32)
        got, expected = loaded.run([x]), loaded.reference([x])
        terms = np.einsum("nchw,oc->nohw", np.abs(x).astype(np.float64), np.abs(weight[:, :, 0, 0]))
        assert (np.abs(got - expected) <= 1e-6 * terms).all()


def test_zeros_and_numbers_that_are_none(matrix_device: Device) -> None:
    """An image of zeros gives zeros; NaN and infinity stay in their places."""
    sample = LAYERS[1].sample()
    with program(matrix_device, sample, "matrix", TILES[0]) as loaded:
        (x,) = sample.inputs(live=False)
        assert isinstance(x, np.ndarray)
        x[0] = 0
        x[1, 3, 2, 2], x[1, 4, 1, 1] = np.nan, np.inf
        got, expected = loaded.run([x]), loaded.reference([x])
        assert (got[0] == 0).all()
        special = np.zeros(got.shape, bool)
        special[1, :, 2, 2] = special[1, :, 1, 1] = True
        assert not np.isfinite(got[special]).any()
        np.testing.assert_allclose(got[~special], expected[~special], rtol=1e-3, atol=1e-4)


def test_it_is_chosen_for_many_operations_and_compiles() -> None:
    """Of a layer of a real network at a large batch, on a device with tensor cores; at a small one, gemm is."""
    large = replace(Limits.floor(), max_workgroup_bytes=48 << 10, max_invocations=1024, max_storage_buffers=16)
    layer = Layer((8, 128, 28, 28), (1, 128, 28, 28), 128, (3, 3), padding=(1, 1))
    routes = {}
    for precision in ("highest", "high"):
        planning = Planning(TENSOR_CORES, large, matmul_precision=precision)
        plans = plan_graph(build_graph(layer.sample().graph()), planning)
        routes[precision, 8] = plans.plans[0].route
        for kernel, template, overrides in plans.prepared:
            if kernel == "convolution/matrix":
                compile_check("dawn", kernel, template, overrides)
        (x,) = plans.graph.inputs
        assert isinstance(x, Tensor)
        plans.set_dims(x, layer.live)
        plans.update()
        routes[precision, 1] = plans.plans[0].route
    assert routes == {
        ("highest", 8): "matrix",
        ("highest", 1): "gemm",
        ("high", 8): "matrix_f16",
        ("high", 1): "gemm",
    }

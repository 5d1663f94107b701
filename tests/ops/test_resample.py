"""Resampling: against torch over random sizes and scales, SymInt sizes, and grids."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.resample.upsample import CUBIC_AA, LINEAR_AA, OPERATORS

from .harness import In, OpProgram, Out, Sym
from .torch_checks import check_device, check_reference

FACTORS = (0.5, 0.7, 1.0, 1.3, 1.5, 2.0, 3.0)


def normal(*dims: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(sum(dims)).normal(size=dims).astype(dtype)


@pytest.mark.parametrize("name", OPERATORS)
def test_references_are_torch(name: str) -> None:
    mode, n = OPERATORS[name]
    rng = np.random.default_rng(n)
    for corners in (False, True) if mode.corners else (None,):
        how = [] if corners is None else [corners]
        for _ in range(6):
            # Of results one element wide, torch repeats the first row if it averages.
            x, size = normal(2, 2, *rng.integers(2, 9, n)), rng.integers(2, 14, n).tolist()
            factors = rng.choice(FACTORS, n).tolist()
            check_reference(f"aten.{name}.vec", x, size, *how, None)
            averaged = mode in (LINEAR_AA, CUBIC_AA) and int(x.shape[-1] * factors[-1]) == 1
            if not averaged:
                check_reference(f"aten.{name}.vec", x, None, *how, factors)
        check_reference(f"aten.{name}.default", x, list(x.shape[2:]), *how, *[None] * n)


def test_nearest_elements_are_those_of_torch_at_every_scale(device: Device) -> None:
    """Rounding in float32 decides which it is: sizes where x * (in / out) lies at a whole number."""
    for size, out in ((7, 21), (49, 147), (10, 24), (3, 100)):
        x = normal(1, 1, 1, size)
        for name in ("upsample_nearest2d", "_upsample_nearest_exact2d"):
            check_reference(f"aten.{name}.vec", x, [1, out], None, absolute=0, relative=0)
            check_device(device, f"aten.{name}.vec", x, [1, out], None, absolute=0, relative=0)


def test_a_row_of_one_element_and_large_scales(device: Device) -> None:
    for corners, size in product((False, True), ([1, 1], [9, 1], [1, 67])):
        check_device(device, "aten.upsample_bilinear2d.vec", normal(2, 1, 1, 3), size, corners, None)


@pytest.mark.parametrize("width", [1, 3, 11])
def test_rows_that_four_elements_cross(device: Device, width: int) -> None:
    """Doubled and more, where four elements lie between four neighbours, and less, where each has its own."""
    x = normal(2, 3, 3, width)
    for size in ([6, 2 * width], [5, 3 * width], [7, 5 * width + 3], [4, width + 1]):
        for name, how in product(("upsample_bilinear2d", "upsample_bicubic2d"), (False, True)):
            check_device(device, f"aten.{name}.vec", x, size, how, None, absolute=1e-5)
        check_device(device, "aten.upsample_nearest2d.vec", x, size, None, absolute=0, relative=0)
    check_device(device, "aten.upsample_linear1d.vec", x[1], [4 * width + 1], False, None)
    check_device(device, "aten.upsample_trilinear3d.vec", x[None], [5, 6, 2 * width], False, None)


def test_infinity_stays_between_its_neighbours(device: Device) -> None:
    """What four elements have loaded together counts for those of them only that lie beside it."""
    x = normal(1, 1, 1, 9)
    x[..., 4] = np.inf
    with OpProgram(
        device, "aten.upsample_bilinear2d.vec", [In(x.shape), [1, 27], False, None], Out((1, 1, 1, 27))
    ) as program:
        found = np.isfinite(program.run([x])).ravel()
    assert found[:10].all() and found[17:].all() and not found[11:16].any()


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_kernels_compile(engine: str) -> None:
    for mode, n, dtype in (("nearest", 2, "uint8"), ("nearest-exact", 1, "float16"), ("linear", 3, "float32")):
        template = {"mode": mode, "n": n, "corners": False, "dtype": dtype}
        compile_check(engine, "resample/resample", template)
    compile_check(engine, "resample/resample", {"mode": "cubic", "n": 2, "corners": True, "dtype": "bfloat16"})


def test_sizes_from_symints(device: Device) -> None:
    """They are not known at load, and shrink and grow."""
    args = [In((2, 2, 5, 6)), [Sym(), Sym()], False, None]
    with OpProgram(device, "aten.upsample_bilinear2d.vec", args, Out((2, 2, 12, 13))) as program:
        for height, width in ((12, 13), (1, 7), (5, 6), (12, 2)):
            assert program.check([normal(2, 2, 5, 6), height, width]).shape == (2, 2, height, width)
        with pytest.raises(InvalidInputError, match="at most"):
            program.run([normal(2, 2, 5, 6), 13, 13])
        with pytest.raises(InvalidInputError, match="no elements"):
            program.run([normal(2, 2, 5, 6), 0, 13])


def test_live_inputs(device: Device) -> None:
    with OpProgram(
        device, "aten.upsample_nearest2d.vec", [In((2, 3, 7, 9)), None, [2.0, 1.5]], Out((2, 3, 14, 13))
    ) as p:
        for dims in ((2, 3, 7, 9), (1, 1, 1, 1), (0, 3, 2, 2), (2, 3, 6, 9)):
            p.check([normal(*dims)])


@pytest.mark.parametrize(
    ("size", "factors"), [(None, None), ([4], None), (None, [2.0]), ([4, 4, 4], None), (None, [2.0, float("nan")])]
)
def test_sizes_that_there_are_not(device: Device, size: Any, factors: Any) -> None:
    with pytest.raises(UnsupportedProgramError):
        OpProgram(device, "aten.upsample_nearest2d.vec", [In((1, 2, 3, 3)), size, factors], Out((1, 2, 6, 6)))


@pytest.mark.parametrize(("mode", "padding", "corners"), list(product(range(3), range(3), (False, True))))
def test_grids_are_sampled_as_torch_does(device: Device, mode: int, padding: int, corners: bool) -> None:
    """Within the edges, on them, and far beyond."""
    rng = np.random.default_rng(mode)
    grid = rng.uniform(-1.5, 1.5, (2, 5, 7, 2)).astype(np.float32)
    grid[:, 0, :4] = np.array([[-1, -1], [1, 1], [0, 0], [40, -70.3]])
    check_reference("aten.grid_sampler_2d.default", normal(2, 3, 4, 5), grid, mode, padding, corners)
    check_device(device, "aten.grid_sampler_2d.default", normal(2, 3, 4, 5), grid, mode, padding, corners)
    check_device(device, "aten.grid_sampler_2d.default", normal(2, 1, 1, 1), grid, mode, padding, corners)


def test_places_that_no_integer_holds_read_nothing(device: Device) -> None:
    grid = np.array([[[[np.nan, 0], [np.inf, 0], [0, -np.inf], [1e30, 1e30]]]], np.float32)
    for mode, padding, corners in product(range(3), range(3), (False, True)):
        args = [In((1, 1, 3, 3)), In((1, 1, 4, 2)), mode, padding, corners]
        with OpProgram(device, "aten.grid_sampler_2d.default", args, Out((1, 1, 1, 4))) as program:
            assert program.run([normal(1, 1, 3, 3), grid]).shape == (1, 1, 1, 4)


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_unshuffle_is_that_of_torch(factor: int) -> None:
    check_reference("aten.pixel_unshuffle.default", normal(2, 2, 6, 12), factor)
    check_reference("aten.pixel_unshuffle.default", normal(1, 6, 6), factor)
    check_reference("aten.channel_shuffle.default", normal(2, 6, 3, 2), factor)

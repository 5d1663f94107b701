"""Scans against torch: dtypes, dimensions, NaN, infinities, ties, rows of all lengths."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device

from .against_torch import CODES, check
from .harness import In, OpProgram, Out
from .test_reduce_torch import DTYPES, FLOATS, np_torch, numbers

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_dimensions(device: Device, dtype: str) -> None:
    """Rows that begin at words and that do not, and columns."""
    for shape, dim in (((3, 7), 1), ((3, 8), -1), ((2, 9, 5), 1)) if dtype != "float64" else (((7,), 0),):
        x = numbers(dtype, *shape)
        check(device, "aten.cumsum.default", x, dim, None)
        check(device, "aten.cummax.default", x, dim)
        if dtype in ("float32", "float64", "int64"):
            check(device, "aten.cumprod.default", x, dim, None)
            check(device, "aten.cummin.default", x, dim)
        if dtype in FLOATS:
            check(device, "aten.logcumsumexp.default", x, dim)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float64", "int64"])
def test_sums_in_another_dtype(device: Device, dtype: str) -> None:
    x = np.abs(RNG.uniform(-3, 3, (3, 13)).astype(np.float32))
    check(device, "aten.cumsum.default", x, 1, CODES[np_torch(dtype)])


@pytest.mark.parametrize(("shape", "dim"), [((1, 40_009), 1), ((5003, 7), 0), ((2, 2003, 66), 1)])
def test_long_rows(device: Device, shape: tuple[int, ...], dim: int) -> None:
    x = RNG.integers(-3, 4, shape).astype(np.float32)
    check(device, "aten.cumsum.default", x, dim, None)
    check(device, "aten.cummax.default", x.astype(np.int8), dim)


def test_a_long_sum_stays_accurate(device: Device) -> None:
    x = RNG.uniform(0, 1, (1, 300_007)).astype(np.float32)
    with OpProgram(device, "aten.cumsum.default", [In(x.shape), 1, None], Out(x.shape)) as program:
        program.check([x], absolute=0, relative=2e-6)


def test_live_dims(device: Device) -> None:
    for dim in (0, 1, 2):
        with OpProgram(device, "aten.cumsum.default", [In((5, 3, 1031)), dim, None], Out((5, 3, 1031))) as program:
            for dims in ((5, 3, 1031), (1, 3, 1031), (5, 1, 3), (2, 3, 1030), (0, 3, 4), (5, 3, 1031)):
                program.check([RNG.standard_normal(dims).astype(np.float32)])


def test_teams_of_one_to_four(device: Device) -> None:
    """Rows of one invocation, of two, of a team, and of several teams, on quads and not."""
    outs = [Out((5, 203)), Out((5, 203), "int32")]
    with OpProgram(device, "aten.cummax.default", [In((5, 203)), 1], outs) as program:
        for length in (203, 16, 17, 32, 37, 64, 65, 128, 131):
            program.check([RNG.integers(-9, 9, (5, length)).astype(np.float32)])


def test_empty_and_scalars(device: Device) -> None:
    for x in (np.zeros((0, 3), np.float32), np.array(-3.5, np.float32)):
        check(device, "aten.cumsum.default", x, 0, None)
        check(device, "aten.cummax.default", x, 0)
        check(device, "aten.logcumsumexp.default", x, -1)


def test_what_cannot_be(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="no dimension 2"):
        OpProgram(device, "aten.cumsum.default", [In((3, 4)), 2, None], Out((3, 4)))
    with pytest.raises(UnsupportedProgramError, match="int32 indices"):
        OpProgram(device, "aten.cummax.default", [In((3, 4)), 1], [Out((3, 4)), Out((3, 4))])


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("kind", ["sum", "product", "lse", "last_largest", "last_smallest"])
def test_kernels_compile(engine: str, kind: str) -> None:
    for across, whole in ((False, False), (False, True), (True, True)):
        how = {"across": across, "whole": whole, "chunked": True}
        template = {"kind": kind, "compute": "f32", "x": "float16", "out": "float32", **how}
        compile_check(engine, "scan/scan", {**template, "places": "last" in kind})

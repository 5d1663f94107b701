"""Tensors made from numbers: constants of every dtype, and ranges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.fill import element_word
from executorch_webgpu.ops.values import ELEMENT_TYPES, Tensor

from .harness import In, OpProgram, Out, Sym

PLAIN = [None] * 4  # dtype, layout, device, pin_memory
SHAPES = [(), (1,), (5,), (3, 5, 7)]


def value_of(dtype: str) -> int | float | bool:
    floats = {"float32": -2.1, "float16": -2.5, "bfloat16": -2.5}
    return {**floats, "int32": -(2**31), "int16": -(2**15), "uint8": 255, "int8": -128, "bool": True}[dtype]


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
def test_full(device: Device, dtype: str) -> None:
    value = value_of(dtype)
    for shape in SHAPES:
        with OpProgram(device, "aten.full.default", [list(shape), value, *PLAIN], Out(shape, dtype)) as program:
            program.check([])
    with OpProgram(device, "aten.full_like.default", [In((7, 5)), value, *PLAIN, None], Out((7, 5), dtype)) as program:
        for rows in (7, 3, 1, 7):
            program.check([np.zeros((rows, 5), np.float32)])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0.0, 1e39, 2**24 + 2])
def test_hard_values(device: Device, value: float) -> None:
    with OpProgram(device, "aten.scalar_tensor.default", [value, *PLAIN], Out(())) as program:
        program.poison()
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(program.run([]), np.float32(value))


def test_words() -> None:
    for dtype, value, word in (
        ("float32", 1.0, 0x3F800000),
        ("float16", 1.0, 0x3C003C00),
        ("int8", -2, 0xFEFEFEFE),
        ("uint8", 3.9, 0x03030303),
        ("int32", -1.9, 0xFFFFFFFF),
        ("bool", 0.5, 1),
        ("bool", math.nan, 1),
    ):
        assert element_word(value, Tensor(0, dtype, (4,))) == word, (dtype, value)


@pytest.mark.parametrize("name", ["zeros", "ones"])
def test_zeros_and_ones(device: Device, name: str) -> None:
    for dtype in ELEMENT_TYPES:
        with OpProgram(device, f"aten.{name}.default", [[3, 7], *PLAIN], Out((3, 7), dtype)) as program:
            program.check([])
        args = [In((3, 7)), *PLAIN, None]
        with OpProgram(device, f"aten.{name}_like.default", args, Out((3, 7), dtype)) as program:
            program.check([np.full((2, 7), np.nan, np.float32)])


def test_live_sizes_and_values(device: Device) -> None:
    with OpProgram(device, "aten.full.default", [[Sym(), 5], Sym(), *PLAIN], Out((9, 5), "int32")) as program:
        for rows, value in ((9, 4), (2, 4), (2, -7), (9, 0), (5, 1)):
            program.check([rows, value])
        with pytest.raises(InvalidInputError, match="planned at most"):
            program.run([10, 1])
        with pytest.raises(InvalidInputError, match="cannot have the dims"):
            program.run([-1, 1])
        program.check([3, 3])


def test_integers_cannot_be_infinite(device: Device) -> None:
    for value in (math.inf, math.nan):
        with pytest.raises(UnsupportedProgramError, match="cannot hold"):
            OpProgram(device, "aten.scalar_tensor.default", [value, *PLAIN], Out((), "int32"))


# -- ranges ---------------------------------------------------------------------------------------------------------


def arange(device: Device, *bounds: Any, most: int, dtype: str) -> OpProgram:
    return OpProgram(device, "aten.arange.start_step", [*bounds, *PLAIN], Out((most,), dtype))


@settings(max_examples=30, deadline=None)
@given(start=st.integers(-50, 50), length=st.integers(0, 150), step=st.integers(1, 7), down=st.booleans())
def test_integer_ranges(device: Device, start: int, length: int, step: int, down: bool) -> None:
    sign = -1 if down else 1
    most = -(-length // step)
    for dtype in ("int32", "float32"):
        with arange(device, start, start + sign * length, sign * step, most=most, dtype=dtype) as program:
            program.check([])


@pytest.mark.parametrize(
    ("start", "end", "step"), [(0.5, 10, 0.25), (3, -2.5, -0.5), (0, 1, 0.3), (-1.0, 1.0, 1 / 7), (2.0, 2.0, 1)]
)
def test_fractional_ranges(device: Device, start: float, end: float, step: float) -> None:
    with arange(device, start, end, step, most=len(np.arange(start, end, step)), dtype="float32") as program:
        program.check([])


def test_live_ends(device: Device) -> None:
    with arange(device, Sym(), Sym(), 3, most=40, dtype="int32") as program:
        for start, end in ((0, 120), (0, 7), (5, 7), (5, 5), (-60, 60), (0, 120)):
            program.check([start, end])
        with pytest.raises(InvalidInputError, match="planned at most"):
            program.run([0, 121])
        with pytest.raises(InvalidInputError, match="do not lead"):
            program.run([3, 2])
        program.check([1, 9])


@pytest.mark.parametrize(
    ("bounds", "dtype", "message"),
    [
        ((0, 5, 0), "int32", "must not be 0"),
        ((5, 0, 1), "int32", "do not lead"),
        ((0.5, 5, 1), "int32", "must be 32-bit integers"),
        ((0, 2**31, 2**30), "int32", "must be 32-bit integers"),
        ((0, math.inf, 1), "float32", "must be finite"),
        ((0, 5, 1), "bool", "cannot hold bools"),
    ],
)
def test_ranges_that_cannot_be(device: Device, bounds: tuple[float, ...], dtype: str, message: str) -> None:
    with pytest.raises(UnsupportedProgramError, match=message):
        arange(device, *bounds, most=5, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_few_evenly_spaced_numbers(device: Device, dtype: str) -> None:
    """A single one is the first; of an odd count the middle one is exact from both ends."""
    for steps in range(6):
        out = Out((steps,), dtype)
        with OpProgram(device, "aten.linspace.default", [-2, 10, steps, *PLAIN], out) as program:
            got = program.run([])
        np.testing.assert_array_equal(got, np.linspace(-2, 10, steps).astype(got.dtype), str(steps))

"""Live integers: sizes, elements of inputs, and arithmetic."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.device import Device

from .harness import In, OpProgram, Out, Sym

SYMINT = Out(dtype="symint")
OPERATORS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "sym_max": max,
    "sym_min": min,
}
SMALL = st.integers(-1000, 1000)


@pytest.mark.parametrize("name", OPERATORS)
def test_arithmetic_follows_python(device: Device, name: str) -> None:
    with OpProgram(device, name, [Sym(), Sym()], SYMINT) as program:

        @settings(max_examples=25, deadline=None)
        @given(SMALL, SMALL.filter(bool))
        def check(a: int, b: int) -> None:
            assert program.run([a, b]) == OPERATORS[name](a, b)

        check()


def test_one_operand_may_be_a_plain_integer(device: Device) -> None:
    with OpProgram(device, "floordiv", [Sym(), 4], SYMINT) as program:
        assert [program.run([a]) for a in (-1, 0, 3, 4, 17)] == [-1, 0, 0, 1, 4]
    with OpProgram(device, "sub", [100, Sym()], SYMINT) as program:
        assert program.run([1]) == 99


def test_neg(device: Device) -> None:
    with OpProgram(device, "neg", [Sym()], SYMINT) as program:
        assert [program.run([a]) for a in (5, -7, 0)] == [-5, 7, 0]


@pytest.mark.parametrize("name", ["floordiv", "mod"])
def test_division_by_zero_is_rejected_and_the_next_step_works(device: Device, name: str) -> None:
    with OpProgram(device, name, [Sym(), Sym()], SYMINT) as program:
        with pytest.raises(InvalidInputError, match="divides 7"):
            program.run([7, 0])  # the very first step
        assert program.run([7, 2]) == OPERATORS[name](7, 2)
        with pytest.raises(InvalidInputError, match="divides 7 by a live integer that is 0"):
            program.run([7, 0])
        assert program.run([9, 4]) == OPERATORS[name](9, 4)


@pytest.mark.parametrize("name", ["add", "mul"])
def test_int32_overflow_is_rejected_and_the_next_step_works(device: Device, name: str) -> None:
    with OpProgram(device, name, [Sym(), Sym()], SYMINT) as program:
        with pytest.raises(InvalidInputError, match="signed 32-bit"):
            program.run([2**31 - 1, 2])
        assert program.run([2**30, 1]) == OPERATORS[name](2**30, 1)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_sym_size_is_the_live_size(device: Device, dim: int) -> None:
    with OpProgram(device, "sym_size.int", [In((3, 511, 5)), dim], SYMINT) as program:
        for rows in (511, 1, 7, 7, 511):
            x = np.zeros((3, rows, 5), np.float32)
            assert program.run([x]) == x.shape[dim]


def test_sym_size_of_a_missing_dimension_is_refused_at_load(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="no dimension 2"):
        OpProgram(device, "sym_size.int", [In((3, 4)), 2], SYMINT)


@pytest.mark.parametrize(("dim", "index"), [(0, 0), (0, -1), (1, 2), (1, -3), (-1, -1), (2, 4)])
def test_select_as_symint_reads_this_steps_element(device: Device, dim: int, index: int) -> None:
    program = OpProgram(device, "et_vk.select_as_symint.default", [In((2, 3, 5), "int32"), dim, index], SYMINT)
    with program:
        rng = np.random.default_rng(0)
        for _ in range(3):
            x = rng.integers(-100, 100, (2, 3, 5), dtype=np.int32)
            program.check([x])


def test_select_as_symint_counts_negative_indices_from_the_live_end(device: Device) -> None:
    with OpProgram(device, "et_vk.select_as_symint.default", [In((9,), "int32"), 0, -1], SYMINT) as program:
        for n in (9, 4, 1, 9):
            assert program.run([np.arange(n, dtype=np.int32)]) == n - 1


def test_select_as_symint_takes_int32_extremes(device: Device) -> None:
    with OpProgram(device, "et_vk.select_as_symint.default", [In((1,), "int32"), 0, 0], SYMINT) as program:
        for value in (2**31 - 1, -(2**31), 0):
            assert program.run([value]) == value


def test_select_as_symint_of_floats_is_refused_at_load(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="does not hold integers"):
        OpProgram(device, "et_vk.select_as_symint.default", [In((3,)), 0, 0], SYMINT)

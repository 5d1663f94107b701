"""Sorting against torch: dtypes, dimensions, NaN, ties, rows of all lengths; and what torch leaves open."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.sort import reference
from executorch_webgpu.ops.sort.network import TILE

from .against_torch import check
from .harness import In, OpProgram, Out, Sym
from .test_reduce_torch import DTYPES, numbers

RNG = np.random.default_rng(0)


def distinct(*dims: int) -> np.ndarray:
    """Different numbers, so that the index of each is decided."""
    size = int(np.prod(dims))
    return RNG.permutation(size).reshape(dims).astype(np.float32) - size // 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_ties(device: Device, dtype: str) -> None:
    x = numbers(dtype, 3, 17)
    for dim, descending in ((1, False), (0, True), (-1, True)):
        check(device, "aten.sort.stable", x, True, dim, descending)
    if dtype != "bool":
        check(device, "aten.argsort.stable", x, True, 1, False)


def test_zeros_of_both_signs_are_equal(device: Device) -> None:
    x = np.array([[0.0, -0.0, 0.0, -1.0, -0.0, 1.0]], np.float32)
    with OpProgram(device, "aten.sort.default", [In((1, 6)), 1, False], [Out((1, 6)), Out((1, 6), "int32")]) as program:
        values, indices = program.check([x])
    np.testing.assert_array_equal(indices, [[3, 0, 1, 2, 4, 5]])
    np.testing.assert_array_equal(np.signbit(values), [[True, False, True, False, True, False]])


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_the_first_of_the_sorted(device: Device, dim: int) -> None:
    x = distinct(5, 7, 6)
    check(device, "aten.topk.default", x, 3, dim, True, True)
    check(device, "aten.topk.default", x, 4, dim - 3, False, True)
    check(device, "aten.topk.default", x, 0, dim, True, True)
    check(device, "aten.kthvalue.default", x, 2, dim, True)
    check(device, "aten.median.dim", x, dim, False)
    check(device, "aten.nanmedian.dim", x, dim, True)
    check(device, "aten.msort.default", x)
    check(device, "aten.median.default", x)


def test_of_equals_the_first_are_taken(device: Device) -> None:
    """Which torch leaves open."""
    x = np.array([[1, 3, 3, 2, 3, 1]], np.float32)
    outs = [Out((1, 2)), Out((1, 2), "int32")]
    for largest, expected in ((True, [[1, 2]]), (False, [[0, 5]])):
        with OpProgram(device, "aten.topk.default", [In((1, 6)), 2, 1, largest, False], outs) as program:
            np.testing.assert_array_equal(program.check([x])[1], expected)


def test_nan_is_the_largest(device: Device) -> None:
    x = distinct(4, 9)
    x[0, 3] = x[1, 0] = x[1, 5] = np.nan
    x[2] = np.nan
    x[3, 2], x[3, 4] = np.inf, -np.inf
    for largest in (True, False):
        check(device, "aten.topk.default", x[[0, 3]], 4, 1, largest, True)
    check(device, "aten.median.dim", x[[0, 3]], 1, False)
    check(device, "aten.nanmedian.dim", x[[0, 1, 3]], 1, False)
    check(device, "aten.median.default", x)
    check(device, "aten.nanmedian.default", x)
    values, indices = reference.median_reference(x.astype(np.float64), 1, False)
    np.testing.assert_array_equal(indices, [3, 0, 0, indices[3]])
    outs = [Out((4,)), Out((4,), "int32")]
    with OpProgram(device, "aten.median.dim", [In(x.shape), 1, False], outs) as program:
        np.testing.assert_array_equal(program.check([x])[0], values.astype(np.float32))


@pytest.mark.parametrize("length", [2, 64, 1023, TILE, TILE + 1, 3 * TILE - 5, 9001, 70_001])
def test_row_lengths(device: Device, length: int) -> None:
    """One tile, and more than fill a power of two of them."""
    x = RNG.integers(-1000, 1000, (2, length)).astype(np.float32)
    check(device, "aten.sort.stable", x, True, 1, length % 2 == 0)
    check(device, "aten.topk.default", distinct(1, length), min(length, 7), 1, True, True)
    if length > TILE:
        check(device, "aten.topk.default", distinct(1, length), 600, 1, False, True)
        check(device, "aten.sort.stable", np.ascontiguousarray(x.T), True, 0, False)


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
def test_modes(device: Device, dtype: str) -> None:
    """Of rows as short as torch sorts stably, so that its index is that of the last of equals."""
    x = RNG.integers(0, 4, (6, 13)).astype(dtype)
    for dim in (0, 1):
        check(device, "aten.mode.default", x, dim, True)
    if dtype == "float32":
        with OpProgram(device, "aten.mode.default", [In((4, 5)), 1, False], [Out((4,)), Out((4,), "int32")]) as program:
            nan = np.nan
            rows = [[nan, 1, nan, 2, nan], [nan] * 5, [3, 3, 2, 2, nan], [np.inf, -np.inf, np.inf, 1, 1]]
            values, indices = program.check([np.array(rows, np.float32)])
        np.testing.assert_array_equal(values, [1, nan, 2, 1])
        np.testing.assert_array_equal(indices, [1, 0, 3, 4])


def test_live_dims_and_a_live_count(device: Device) -> None:
    shape = (3, 5000)
    outs = [Out((3, 9)), Out((3, 9), "int32")]
    with OpProgram(device, "aten.topk.default", [In(shape), Sym(), 1, True, True], outs) as program:
        for dims, count in ((shape, 9), ((1, 2049), 4), ((3, 9), 9), ((2, 3), 0), ((3, 4096), 1)):
            program.check([distinct(*dims), count])
        with pytest.raises(InvalidInputError, match="7 of the 3 elements"):
            program.run([distinct(2, 3), 7])
    outs = [Out(shape), Out(shape, "int32")]
    with OpProgram(device, "aten.sort.default", [In(shape), 1, True], outs) as program:
        for dims in (shape, (1, 2049), (3, 1), (0, 7), (3, 0), (2, 4097)):
            program.check([RNG.integers(-9, 9, dims).astype(np.float32)])


def test_empty_and_scalars(device: Device) -> None:
    one = np.array(-3.5, np.float32)
    check(device, "aten.sort.default", one, 0, False)
    check(device, "aten.topk.default", one, 1, -1, True, True)
    check(device, "aten.median.dim", one, 0, False)
    check(device, "aten.median.default", one)
    check(device, "aten.sort.default", np.zeros((0, 3), np.float32), 0, False)


def test_what_cannot_be(device: Device) -> None:
    two = [Out((3, 2)), Out((3, 2), "int32")]
    with pytest.raises(UnsupportedProgramError, match="no dimension 2"):
        OpProgram(device, "aten.topk.default", [In((3, 4)), 2, 2, True, True], two)
    with pytest.raises(UnsupportedProgramError, match="5 of the 4 elements"):
        OpProgram(device, "aten.topk.default", [In((3, 4)), 5, 1, True, True], two)
    with pytest.raises(UnsupportedProgramError, match="indices in int32"):
        OpProgram(device, "aten.topk.default", [In((3, 4)), 2, 1, True, True], [Out((3, 2))] * 2)
    with pytest.raises(UnsupportedProgramError, match="element 0 of the 4"):
        OpProgram(device, "aten.kthvalue.default", [In((3, 4)), 0, 1, False], [Out((3,)), Out((3,), "int32")])


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_kernels_compile(engine: str) -> None:
    for source in ("float16", "int8", "pairs", "in_place"):
        compile_check(engine, "sort/block", {"source": source})
    for mirrored in (False, True):
        compile_check(engine, "sort/exchange", {"mirrored": mirrored})
    for choice in ("first", "median", "nanmedian"):
        compile_check(engine, "sort/results", {"x": "float16", "choice": choice, "results": "both"})

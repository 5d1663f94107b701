"""Pooling: against torch over random windows, NaN and ties, live sizes, and windows that there are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device

from .harness import In, OpProgram, Out
from .torch_checks import by_torch, check_device, check_reference

SEEDS = range(40)


def drawn(seed: int, dtypes: tuple[Any, ...]) -> tuple[Any, np.ndarray, int]:
    """A generator, and digits of which many are equal, with one to three dimensions after the channels."""
    rng = np.random.default_rng(seed)
    n = 1 + seed % 3
    lead = [(2, 3), (3,), (0, 2)][seed % 5 % 3]
    x = rng.integers(0, 5, (*lead, *rng.integers(3, 9, n))).astype(dtypes[seed % len(dtypes)])
    if x.dtype.kind == "f" and seed % 4 == 0:
        x[rng.random(x.shape) < 0.1] = [np.nan, np.inf, -np.inf][seed // 4 % 3]
    return rng, x, n


def windows(rng: Any, n: int) -> list[Any]:
    """Kernel, stride and padding."""
    kernel = rng.integers(1, 4, n)
    stride = [] if rng.random() < 0.3 else rng.integers(1, 4, n).tolist()
    return [kernel.tolist(), stride, [int(rng.integers(0, k // 2 + 1)) for k in kernel]]


@pytest.mark.parametrize("seed", SEEDS)
def test_references_are_torch(seed: int) -> None:
    rng, x, n = drawn(seed, (np.float32, np.float64, np.int64, np.int32, np.uint8, np.int8))
    parts = rng.integers(1, 9, n).tolist()
    check_reference(f"aten.max_pool{n}d_with_indices.default", x, *windows(rng, n), [1] * n, bool(seed % 2))
    rng, x, n = drawn(seed, (np.float32, np.float64))
    average = [x, *windows(rng, n), bool(seed % 2), bool(seed // 2 % 2), *[[None, 3, -2][seed % 3]] * (n > 1)]
    check_reference(f"aten.avg_pool{n}d.default", *average)
    check_reference(f"aten.{'_' * (n > 1)}adaptive_avg_pool{n}d.default", x, parts)
    check_reference(f"aten.adaptive_max_pool{n}d.default", x, parts)


def test_dilated_windows_are_those_of_torch(device: Device) -> None:
    x = np.random.default_rng(0).integers(-4, 5, (2, 3, 13, 11)).astype(np.float32)
    for args in (
        ([3, 2], [2, 1], [1, 1], [2, 3], True),
        ([2, 3], [1, 3], [1, 0], [4, 1], False),
        ([2, 2], [1, 1], [1, 1], [13, 12], False),
    ):
        check_reference("aten.max_pool2d_with_indices.default", x, *args)
        check_device(device, "aten.max_pool2d_with_indices.default", x, *args)


def test_averages_of_integers_are_cut_off(device: Device) -> None:
    x = np.random.default_rng(0).integers(-9, 9, (2, 5, 7))
    for divisor in (None, 4, -3):
        args = [x, [2, 3], [], 0, True, False, divisor]
        check_reference("aten.avg_pool2d.default", *args)
        check_device(device, "aten.avg_pool2d.default", *args)


def test_nan_wins_and_the_first_of_equals_is_named(device: Device) -> None:
    nan, inf = np.nan, np.inf
    rows = [[1, 3, 3, 2], [nan, 1, nan, 5], [-inf, -inf, -inf, -inf], [-0.0, 0.0, -1, -1], [2, inf, nan, inf]]
    x = np.array(rows, np.float32)[None, :, None]
    windows = [x, [1, 4], [], 0, 1, False]
    check_reference("aten.max_pool2d_with_indices.default", *windows)
    check_device(device, "aten.max_pool2d_with_indices.default", *windows)
    check_device(device, "aten.adaptive_max_pool2d.default", x, [1, 1])


def test_live_sizes(device: Device) -> None:
    args = [In((2, 3, 17, 19)), [3, 3], [2, 2], [1, 1], [1, 1], True]
    outs = [Out((2, 3, 9, 10)), Out((2, 3, 9, 10), "int32")]
    with OpProgram(device, "aten.max_pool2d_with_indices.default", args, outs) as program:
        for dims in ((2, 3, 17, 19), (1, 1, 2, 1), (2, 2, 16, 5), (0, 3, 4, 4), (2, 3, 17, 19)):
            values, places = program.check([np.random.default_rng(1).normal(size=dims).astype(np.float32)])
            assert values.shape == places.shape
        with pytest.raises(InvalidInputError, match="not empty"):
            program.run([np.zeros((2, 3, 0, 4), np.float32)])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (([3, 3], [1, 1], [2, 0], [1, 1], False), "half of a kernel"),
        (([3], [0], [0], [1], False), "no windows"),
        (([3, 3, 3], [1, 1], [0, 0], [1, 1], False), "no windows"),
        (([9, 9], [1, 1], [0, 0], [1, 1], False), "no room"),
    ],
)
def test_windows_that_there_are_not(device: Device, how: Any, message: str) -> None:
    with pytest.raises(UnsupportedProgramError, match=message):
        OpProgram(device, "aten.max_pool2d.default", [In((1, 2, 5, 5)), *how], Out((1, 2, 5, 5)))


def routed(device: Device, name: str, args: list[Any], out: Any, route: str, *inputs: np.ndarray) -> None:
    """Each input, live, against the reference; the first one has the largest sizes, and takes ``route``."""
    with OpProgram(device, name, args, out) as program:
        for x in inputs:
            program.check([x])
            if x is inputs[0]:
                assert program.executor.plans.plans[-1].route == route


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_averages_of_everything_are_reductions(device: Device, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for n, dims in ((1, (2, 3, 641)), (2, (2, 3, 1, 1)), (2, (2, 3, 67, 71)), (3, (3, 5, 6, 7))):
        sizes = [dims, (*dims[:-n], *(1,) * n), (*dims[:-n], *(max(d - 2, 1) for d in dims[-n:])), dims]
        name = f"aten.{'_' * (n > 1)}adaptive_avg_pool{n}d.default"
        out = Out((*dims[:-n], *(1,) * n), dtype)
        given = [rng.normal(1, 1, d).astype(dtype) for d in sizes]
        routed(device, name, [In(dims, dtype), [1] * n], out, "reduction", *given)


@pytest.mark.parametrize("parts", [[2, 3], [1, 3], [2, 1]])
def test_large_equal_parts_are_reductions(device: Device, parts: list[int]) -> None:
    """Live sizes that are no multiples of the numbers of parts, or small, go another way."""
    sizes = [(2, 3, 22, 39), (2, 3, 21, 38), (1, 3, 4, 6), (0, 3, 4, 6), (2, 1, 20, 36)]
    given = [np.random.default_rng(0).normal(size=d).astype(np.float32) for d in sizes]
    args = [In(sizes[0]), parts]
    routed(device, "aten._adaptive_avg_pool2d.default", args, Out((2, 3, *parts)), "reduction", *given)


def test_large_windows_side_by_side_are_reductions(device: Device) -> None:
    rng = np.random.default_rng(0)
    sizes = [(2, 3, 26, 33), (2, 3, 25, 32), (1, 2, 13, 11), (2, 3, 26, 33)]
    given = [rng.normal(size=d).astype(np.float32) for d in sizes]
    given[1][:, 1, 3] = np.nan
    x, how = In(sizes[0]), [[13, 11], [], 0]
    out = Out((2, 3, 2, 3))
    routed(device, "aten.avg_pool2d.default", [x, *how, True, True, None], out, "reduction", *given)
    routed(device, "aten.avg_pool2d.default", [x, *how, False, True, -7], out, "reduction", given[0])
    routed(device, "aten.max_pool2d.default", [x, *how, 1, False], out, "reduction", *given)
    whole = [x, [26, 33], [5, 3], 0, 1, False]
    routed(device, "aten.max_pool2d.default", whole, Out((2, 3, 1, 1)), "reduction", given[0])
    numbers = rng.integers(-99, 90, (2, 4, 8, 6))
    args = [[4, 4, 6], [], 0, False, True, None]
    check_device(device, "aten.avg_pool3d.default", numbers, *args)
    args = [In((2, 4, 8, 6), "int32"), *args]
    routed(device, "aten.avg_pool3d.default", args, Out((2, 1, 2, 1), "int32"), "reduction", numbers.astype(np.int32))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 12, 13])
def test_windows_of_neighbours_overlap(device: Device, width: int) -> None:
    """Rows that are shorter than what an invocation takes, and that no four elements begin."""
    x = np.random.default_rng(width).integers(-4, 5, (2, 3, 7, width)).astype(np.float32)
    x[0, 0, 3] = np.nan
    for kernel, stride, padding in (
        ([3, 3], [1, 1], [1, 1]),
        ([2, 1], [1, 2], [0, 0]),
        ([5, 3], [2, 3], [2, 1]),
        ([3, 2], [2, 2], [1, 0]),
    ):
        if kernel[1] <= width + 2 * padding[1]:
            check_device(device, "aten.avg_pool2d.default", x, kernel, stride, padding, False, width % 2 == 0, None)
            how = [x, kernel, stride, padding, [1, 1], True]
            check_device(device, "aten.max_pool2d_with_indices.default", *how)
            sizes = by_torch("aten.max_pool2d_with_indices.default", *how)[0].shape
            routed(device, "aten.max_pool2d.default", [In(x.shape), *how[1:]], Out(sizes), "rows", x)


def test_windows_of_many_places_are_not_unrolled(device: Device) -> None:
    x = np.random.default_rng(0).integers(-4, 5, (2, 3, 19, 17)).astype(np.float32)
    for args in (([9, 9], [2, 1], [4, 3], True, True, None), ([1, 70], [1, 1], [0, 35], False, False, None)):
        check_device(device, "aten.avg_pool2d.default", x, *args)
    check_device(device, "aten.max_pool2d_with_indices.default", x, [9, 9], [2, 1], [4, 3], [1, 1], False)


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_kernels_compile(engine: str) -> None:
    windows = {"kernel": [3, 2, 2], "dilation": [1, 1, 1], "stride": [1, 1], "places": [0, 1, 2, 3, 4, 5]}
    low = {"tall": 1, "lines": [0, 1], "whole": False, "ahead": None}
    tall = {"tall": 4, "lines": [0, 1, 2, 3, 4], "whole": True, "ahead": None}
    for dtype, indices in (("float32", True), ("float16", False), ("int8", True), ("int32", False)):
        how = {**windows, **(low if indices else tall)}
        compile_check(engine, "pool/rows", {"kind": "max", "indices": indices, "dtype": dtype, **how})
        quads = {**how, "whole": True, "ahead": 3}
        compile_check(engine, "pool/rows", {"kind": "max", "indices": indices, "dtype": dtype, **quads})
    for dtype in ("bfloat16", "int32"):
        compile_check(engine, "pool/rows", {"kind": "average", "indices": False, "dtype": dtype, **windows, **tall})

"""Pooling: against torch over random windows, NaN and ties, live sizes, and windows that there are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.device import Device

from .harness import In, OpProgram, Out
from .torch_checks import check_device, check_reference

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

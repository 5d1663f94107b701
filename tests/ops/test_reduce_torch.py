"""Reductions against torch: dtypes, sets of dimensions, NaN, infinities, ties, empty tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device

from .against_torch import CODES, check

RNG = np.random.default_rng(0)
DTYPES = ("float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool")
FLOATS = ("float32", "float16", "float64")
pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom")


def numbers(dtype: str, *dims: int) -> np.ndarray:
    """A few different ones, so that there are ties; of floats all kinds."""
    if dtype == "bool":
        return RNG.integers(0, 2, dims).astype(bool)
    if dtype in FLOATS:
        x = RNG.integers(-3, 4, dims).astype(dtype)
        flat = x.reshape(-1)
        for value in (np.nan, np.inf, -np.inf):
            flat[RNG.integers(0, flat.size, max(1, flat.size // 20))] = value
        return x
    return RNG.integers(0 if dtype == "uint8" else -5, 6, dims).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_and_extremes(device: Device, dtype: str) -> None:
    x = numbers(dtype, 5, 3, 7)
    for dims in ([1], [0, 2], [-1, 0, 1]):
        check(device, "aten.sum.dim_IntList", x, dims, True, None)
        check(device, "aten.amax.default", x, dims, False)
        check(device, "aten.any.dims", x, dims, False)
    for name in ("max", "min"):
        check(device, f"aten.{name}.dim", x, 1, False)
        check(device, f"aten.{name}.dim", x, -1, True)
        check(device, f"aten.{name}.default", x)
    check(device, "aten.aminmax.default", x, 0, False)
    check(device, "aten.prod.dim_int", x, 2, False, None)
    check(device, "aten.all.dim", x, 1, False)
    check(device, "aten.count_nonzero.default", x, None)
    check(device, "aten.mean.default", x, CODES[np_torch("float32")])
    if dtype != "bool":
        check(device, "aten.argmax.default", x, 1, False)
        check(device, "aten.argmin.default", x, None, False)


def np_torch(dtype: str) -> Any:
    import torch

    return getattr(torch, dtype)


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "float64", "uint8"])
def test_sums_in_another_dtype(device: Device, dtype: str) -> None:
    """Elements are cast before they are added."""
    x = RNG.uniform(-3, 3, (3, 67)).astype(np.float32)
    x = np.abs(x) if dtype == "uint8" else x
    check(device, "aten.sum.dim_IntList", x, [1], False, CODES[np_torch(dtype)])
    check(device, "aten.prod.dim_int", x[:, :3], 1, False, CODES[np_torch(dtype)])


def test_int32_sums_wrap(device: Device) -> None:
    x = np.full((3, 5), 2**30, np.int32)
    check(device, "aten.sum.dim_IntList", x, [1], False, CODES[np_torch("int32")])


@pytest.mark.parametrize("dtype", FLOATS)
def test_moments_and_norms(device: Device, dtype: str) -> None:
    for x in (RNG.standard_normal((4, 3, 9)).astype(dtype), numbers(dtype, 4, 3, 9)):
        for dims in ([1], [0, 2], None):
            check(device, "aten.var.correction", x, dims, 1, False)
            check(device, "aten.logsumexp.default", x, dims or [0, 1, 2], True)
        check(device, "aten.std.correction", x, [2], 0.5, True)
        for order in (0, 1, 2, 3, -1, math.inf, -math.inf):
            check(device, "aten.linalg_vector_norm.default", x, order, [1], False, None)


def test_variance_and_mean(device: Device) -> None:
    """Of finite numbers: where there are infinities, torch's mean depends on their places; here it is the mean."""
    for dtype in FLOATS:
        x = RNG.standard_normal((4, 3, 9)).astype(dtype)
        check(device, "aten.var_mean.correction", x, [2], 0, True)
        check(device, "aten.std_mean.dim", x, [0, 2], True, False)


def test_variance_far_from_zero(device: Device) -> None:
    x = (RNG.standard_normal((3, 4099)) + 1e4).astype(np.float32)
    check(device, "aten.var.correction", x, [1], 1, False)


@pytest.mark.parametrize("correction", [0, 1, 2, 3])
def test_variance_of_few(device: Device, correction: int) -> None:
    for x in (
        np.array([[1.0, 2.0], [3.0, 3.0]], np.float32),
        np.zeros((3, 1), np.float32),
        np.zeros((2, 0), np.float32),
    ):
        check(device, "aten.var.correction", x, [1], correction, False)


def test_empty_and_scalars(device: Device) -> None:
    empty, one = np.zeros((0, 3), np.float32), np.array(-3.5, np.float32)
    for x, dim in ((empty, 0), (one, 0), (one, -1)):
        check(device, "aten.sum.dim_IntList", x, [dim], False, None)
        check(device, "aten.mean.dim", x, [dim], False, None)
        check(device, "aten.prod.dim_int", x, dim, False, None)
        check(device, "aten.any.dim", x, dim, False)
        check(device, "aten.all.dim", x, dim, False)
        check(device, "aten.logsumexp.default", x, [dim], False)
        check(device, "aten.linalg_vector_norm.default", x, 2, [dim], False, None)
    check(device, "aten.max.dim", one, 0, False)
    check(device, "aten.max.dim", empty, 1, False)
    check(device, "aten.any.dims", empty, [], False)
    check(device, "aten.all.dims", numbers("uint8", 2, 3), [], True)


@pytest.mark.parametrize("shape", [(1, 40_009), (40_009,), (3, 5003, 7), (5003, 1, 1), (2, 2001, 64)])
def test_long_rows_in_several_passes(device: Device, shape: tuple[int, ...]) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    dim = int(np.argmax(shape))
    check(device, "aten.sum.dim_IntList", x, [dim], False, None)
    check(device, "aten.max.dim", x, dim, True)
    check(device, "aten.var.correction", x, [dim], 1, False)
    check(device, "aten.max.dim", numbers("int8", *shape), dim, True)

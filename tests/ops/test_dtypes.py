"""Every dtype in the kernels that take all of them: casts, moves, choices and arithmetic, edge values included."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.elementwise.cast import converted
from executorch_webgpu.ops.values import ELEMENT_TYPES

from .harness import Const, In, OpProgram, Out

TORCH = {**{name: getattr(torch, name) for name in ELEMENT_TYPES}, "bool": torch.bool}
INTEGERS = [name for name, element in ELEMENT_TYPES.items() if element.integer_limits]
FLOATS = [name for name, element in ELEMENT_TYPES.items() if element.is_float]
CAST = "dim_order_ops._to_dim_order_copy.default"


def edges(dtype: str) -> np.ndarray:
    """Elements of a dtype: the least, the largest, and what lies at the borders of other dtypes."""
    layout = ELEMENT_TYPES[dtype].numpy
    if limits := ELEMENT_TYPES[dtype].integer_limits:
        near = [0, 1, 2, 7, 127, 128, 255, 256, 2049, 32767, 32768, 65504, 65520, 2**24 + 1, 2**31 - 129, 2**31 - 1]
        return np.array([n for v in near for n in (v, -v, -v - 1) if limits[0] <= n <= limits[1]], layout)
    if dtype == "bool":
        return np.array([0, 1, 1, 0, 1], layout)
    whole = [0.0, 0.5, 1.0, 1.5, 2.5, 7.99, 127.9, 128.0, 255.9, 256.0, 300.0, 2049.0, 32768.0, 65519.0, 65520.0, 7e4]
    large = [2147483520.0, 2147483648.0, 3e9, 1e30, 3.4e38, np.inf]
    small = [1e-3, 6.1e-5, 6e-8, 3.1e-8, 2.9e-8, 1e-30, 1.2e-38]
    positive = np.array([*whole, *large, *small, np.nan])
    with np.errstate(over="ignore"):
        return np.concatenate([positive, -positive]).astype(layout)


def run(device: Device, op: str, args: list[Any], given: list[np.ndarray], out: Out) -> np.ndarray:
    with OpProgram(device, op, args, out) as program:
        program.poison()
        return np.asarray(program.run(given))


def bits(array: np.ndarray) -> np.ndarray:
    """The elements as they are stored, NaN as one of them."""
    kept = np.where(np.isnan(array.astype(np.float64)), np.zeros((), array.dtype), array) if array.size else array
    return np.ascontiguousarray(kept).view(f"u{array.dtype.itemsize}")


def of_torch(x: np.ndarray, dtype: str) -> torch.Tensor:
    if dtype == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x != 0 if dtype == "bool" else x)


@pytest.mark.parametrize(("source", "target"), itertools.permutations(ELEMENT_TYPES, 2))
def test_casts_are_torchs(device: Device, source: str, target: str) -> None:
    x = edges(source)
    got = run(device, CAST, [In(x.shape, source), *[None] * 6], [x], Out(x.shape, target))
    wanted = converted(x, ELEMENT_TYPES[target])
    np.testing.assert_array_equal(bits(got), bits(wanted))
    np.testing.assert_array_equal(np.isnan(got.astype(np.float64)), np.isnan(wanted.astype(np.float64)))
    defined = np.ones(x.shape, bool)
    if source in FLOATS and target in INTEGERS:  # C leaves the rest open
        with np.errstate(invalid="ignore"):
            defined = np.abs(np.nan_to_num(x.astype(np.float64), nan=1e30)) < 2**31
    if target in INTEGERS and target != "int32" and source in FLOATS:
        low, high = ELEMENT_TYPES[target].integer_limits or (0, 0)
        defined &= (np.trunc(x.astype(np.float64)) >= low) & (np.trunc(x.astype(np.float64)) <= high)
    torchs = of_torch(x[defined], source).to(TORCH[target]).to(torch.float64).numpy()
    np.testing.assert_array_equal(got[defined].astype(np.float64), torchs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_rounded_to_even_and_widened_exactly(device: Device, dtype: str) -> None:
    """All of their numbers, and of those between two of them the middle and its neighbours."""
    layout = ELEMENT_TYPES[dtype].numpy
    every = np.arange(2**16, dtype=np.uint16).view(layout)
    wide = run(device, CAST, [In(every.shape, dtype), *[None] * 6], [every], Out(every.shape))
    exact = every.astype(np.float32)
    normal = (np.abs(exact) >= 2**-126) | (exact == 0) | ~np.isfinite(exact)  # GPUs may flush the rest
    np.testing.assert_array_equal(wide[normal], exact[normal])
    finite = np.sort(every[np.isfinite(exact)].astype(np.float64))
    middle = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    beyond = np.array([65519.996, 65520.0, 1e5, 3.4e38, np.inf, -np.inf], np.float32)
    x = np.concatenate([middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(0)), beyond])
    x = x[(np.abs(x) >= 2**-126) | (x == 0)]
    got = run(device, CAST, [In(x.shape), *[None] * 6], [x], Out(x.shape, dtype))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(bits(got), bits(x.astype(layout)))


def elements(dtype: str, *dims: int) -> np.ndarray:
    """A tensor of the dtype's edges, again and again."""
    return np.resize(edges(dtype), dims)


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
def test_moves_keep_every_bit(device: Device, dtype: str) -> None:
    x, y = elements(dtype, 7, 5, 3), elements(dtype, 1, 5, 1)
    order = [2, 0, 1]
    got = run(device, "aten.permute_copy.default", [In(x.shape, dtype), order], [x], Out((3, 7, 5), dtype))
    np.testing.assert_array_equal(bits(got), bits(x.transpose(order)))
    args = [In(x.shape, dtype), 1, 1, 4, 2]
    got = run(device, "aten.slice_copy.Tensor", args, [x], Out((7, 2, 3), dtype))
    np.testing.assert_array_equal(bits(got), bits(x[:, 1:4:2]))
    condition = (np.arange(7 * 5).reshape(7, 5, 1) % 3 == 0).astype(np.uint32)
    args = [In(condition.shape, "bool"), In(x.shape, dtype), Const(y) if dtype == "int32" else In(y.shape, dtype)]
    got = run(device, "aten.where.self", args, [condition, x, y][: 2 if dtype == "int32" else 3], Out(x.shape, dtype))
    np.testing.assert_array_equal(bits(got), bits(np.where(condition, x, y)))


WRAPPING = {
    "aten.add.Tensor": ([3], lambda a, b: torch.add(a, b, alpha=3)),
    "aten.sub.Tensor": ([1], torch.sub),
    "aten.mul.Tensor": ([], torch.mul),
    "aten.minimum.default": ([], torch.minimum),
    "aten.div.Tensor_mode": (["floor"], lambda a, b: torch.div(a, b, rounding_mode="floor")),
    "aten.remainder.Tensor": ([], torch.remainder),
    "aten.fmod.Tensor": ([], torch.fmod),
    "aten.pow.Tensor_Tensor": ([], torch.pow),
    "aten.bitwise_left_shift.Tensor": ([], torch.bitwise_left_shift),
    "aten.bitwise_right_shift.Tensor": ([], torch.bitwise_right_shift),
}


@pytest.mark.parametrize("op", WRAPPING)
def test_integers_wrap_as_torchs_do(device: Device, op: str) -> None:
    scalars, compute = WRAPPING[op]
    for dtype in INTEGERS if "pow" not in op else ["int32", "int16"]:
        a, b = (m.reshape(-1) for m in np.meshgrid(edges(dtype), edges(dtype)))
        if "shift" in op:
            b = (b % 5 + 2).astype(b.dtype)
        elif op.split(".")[1] in ("div", "remainder", "fmod"):
            whole = (b != 0) & ~((b == -1) & (a == np.iinfo(a.dtype).min))  # torch may end the process there
            a, b = a[whole], b[whole]
        elif "pow" in op:
            b = (np.abs(b.astype(np.int64)) % 9).astype(b.dtype)
        args = [In(a.shape, dtype), In(b.shape, dtype), *scalars]
        got = run(device, op, args, [a, b], Out(a.shape, dtype))
        np.testing.assert_array_equal(got, compute(torch.from_numpy(a), torch.from_numpy(b)).numpy(), dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_floats_are_computed_as_torch_does(device: Device, dtype: str) -> None:
    a, b = (m.reshape(-1) for m in np.meshgrid(edges(dtype), edges(dtype)))
    for op, scalars, compute in (("aten.add.Tensor", [1], torch.add), ("aten.mul.Tensor", [], torch.mul)):
        got = run(device, op, [In(a.shape, dtype), In(b.shape, dtype), *scalars], [a, b], Out(a.shape, dtype))
        wanted = compute(of_torch(a, dtype), of_torch(b, dtype)).to(torch.float64).numpy()
        normal = ~(np.abs(wanted) < 1.2e-38)
        np.testing.assert_array_equal(got[normal].astype(np.float64), wanted[normal])
    got = run(
        device,
        "aten.eq.Scalar",
        [In(a.shape, dtype), 0.3],
        [np.full(a.shape, 0.3).astype(a.dtype)],
        Out(a.shape, "bool"),
    )
    assert got.all(), "a number that is compared with is rounded, too"


def test_bools_stay_zero_or_one(device: Device) -> None:
    """Sums are or, products and; of any words, since 1 is not the only one that holds."""
    a, b = np.array([0, 0, 1, 1, 2, 5], np.uint32), np.array([0, 1, 0, 1, 2, 0], np.uint32)
    for op, scalars, wanted in (
        ("aten.add.Tensor", [1], (a != 0) | (b != 0)),
        ("aten.maximum.default", [], (a != 0) | (b != 0)),
    ):
        args = [In((6,), "bool"), In((6,), "bool"), *scalars]
        np.testing.assert_array_equal(run(device, op, args, [a, b], Out((6,), "bool")), wanted)


def test_subnormal_numbers_are_true(device: Device) -> None:
    x = np.array([1e-40, -1e-45, 0.0, -0.0], np.float32)
    true = np.array([1, 1, 0, 0])
    for op, args, wanted in (
        (CAST, [In((4,)), *[None] * 6], true),
        ("aten.logical_not.default", [In((4,))], 1 - true),
        ("aten.logical_and.default", [In((4,)), In((4,))], true),
        ("aten.logical_or.default", [In((4,)), In((4,))], true),
        ("aten.logical_xor.default", [In((4,)), In((4,))], 0 * true),
    ):
        got = run(device, op, args, [x] * (1 if op == CAST or "not" in op else 2), Out((4,), "bool"))
        np.testing.assert_array_equal(got, wanted, op)


def test_bfloat16_is_that_of_ml_dtypes() -> None:
    assert ELEMENT_TYPES["bfloat16"].numpy == np.dtype(ml_dtypes.bfloat16)

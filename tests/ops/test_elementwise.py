"""Unary and binary operators: every row of the tables, dtypes, broadcasting, live dims, and hard values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.elementwise.activations import GELU
from executorch_webgpu.ops.elementwise.binary import BINARY, WITH_ALPHA
from executorch_webgpu.ops.elementwise.integers import BITWISE
from executorch_webgpu.ops.elementwise.quotients import QUOTIENTS, REMAINDERS
from executorch_webgpu.ops.elementwise.unary import FLOAT, PLAIN, WITH_SCALAR, WITH_TWO_SCALARS, Unary
from executorch_webgpu.ops.values import ELEMENT_TYPES

from .harness import Const, In, OpProgram, Out

BOOLEAN = ("eq.", "ne.", "lt.", "le.", "gt.", "ge.", "logical_", "isnan", "isinf", "isfinite")
HALF = {"absolute": 2e-3, "relative": 2e-3}
SHAPES = [(1,), (5,), (67,), (3, 5, 7, 11)]


def out_dtype(op: str, dtype: str) -> str:
    return "bool" if any(b in op for b in BOOLEAN) else dtype


def array(
    shape: tuple[int, ...], dtype: str = "float32", seed: int = 0, low: float = -3, high: float = 3
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.uniform(low, high, shape).astype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(np.uint32)
    return rng.integers(math.ceil(low), math.floor(high), shape, endpoint=True).astype(dtype)


# -- every row ------------------------------------------------------------------------------------------


def test_unary_of_any_shape(device: Device) -> None:
    for shape in (*SHAPES, (), (0,), (3, 0, 5)):
        with OpProgram(device, "aten.neg.default", [In(shape)], Out(shape)) as program:
            program.check([array(shape, low=-8, high=8)])


@pytest.mark.parametrize("op", [*PLAIN, *WITH_SCALAR, *WITH_TWO_SCALARS])
def test_unary_of_integers(device: Device, op: str) -> None:
    scalars = [] if op in PLAIN else [2] if op in WITH_SCALAR else [2, -3]
    out = "float32" if op == "aten.div.Scalar" else out_dtype(op, "int32")
    with OpProgram(device, op, [In((5, 7), "int32"), *scalars], Out((5, 7), out)) as program:
        program.check([array((5, 7), "int32")])


@pytest.mark.parametrize("op", [*WITH_SCALAR, *WITH_TWO_SCALARS])
def test_unary_with_scalars(device: Device, op: str) -> None:
    scalars = [0.5] if op in WITH_SCALAR else [0.5, -3.0]
    with OpProgram(device, op, [In((5, 7)), *scalars], Out((5, 7), out_dtype(op, "float32"))) as program:
        x = array((5, 7))
        x[1, 2:5] = 0.5, -0.5, 0
        program.check([x])


@pytest.mark.parametrize("op", [*BINARY, *WITH_ALPHA])
def test_binary(device: Device, op: str) -> None:
    alpha = [2.5] if op in WITH_ALPHA else []
    for shape in SHAPES[2:]:
        out = Out(shape, out_dtype(op, "float32"))
        with OpProgram(device, op, [In(shape), In(shape), *alpha], out) as program:
            a, b = array(shape), array(shape, seed=1)
            b[b == 0] = 1
            b.flat[::3] = np.where(a.flat[::3] == 0, 1, a.flat[::3])  # some equal pairs
            program.check([a, b])


@pytest.mark.parametrize("op", [*BINARY, *BITWISE, *WITH_ALPHA])
def test_binary_of_integers(device: Device, op: str) -> None:
    alpha = [-2] if op in WITH_ALPHA else []
    out = "float32" if op == "aten.div.Tensor" else out_dtype(op, "int32")
    args = [In((5, 7), "int32"), In((5, 7), "int32"), *alpha]
    with OpProgram(device, op, args, Out((5, 7), out)) as program:
        b = array((5, 7), "int32", seed=1)
        program.check([array((5, 7), "int32"), np.where(b == 0, 3, b).astype(np.int32)])


@pytest.mark.parametrize("op", [*BITWISE, "aten.logical_and.default", "aten.logical_or.default"])
def test_binary_of_bools(device: Device, op: str) -> None:
    with OpProgram(device, op, [In((5, 7), "bool"), In((5, 7), "bool")], Out((5, 7), "bool")) as program:
        program.check([array((5, 7), "bool"), array((5, 7), "bool", seed=1)])


# -- dtypes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (8,)])
def test_half_precision(device: Device, shape: tuple[int, ...]) -> None:
    x, y = array(shape, "float16"), array(shape[-1:], "float16", seed=1)
    with OpProgram(device, "aten.sigmoid.default", [In(shape, "float16")], Out(shape, "float16")) as program:
        program.check([x], **HALF)
    args = [In(shape, "float16"), In(shape[-1:], "float16"), 0.5]
    with OpProgram(device, "aten.add.Tensor", args, Out(shape, "float16")) as program:
        program.check([x, y], **HALF)


def test_bitwise_not(device: Device) -> None:
    with OpProgram(device, "aten.bitwise_not.default", [In((67,), "int32")], Out((67,), "int32")) as program:
        program.check([array((67,), "int32", low=-1000, high=1000)])
    with OpProgram(device, "aten.bitwise_not.default", [In((67,), "bool")], Out((67,), "bool")) as program:
        x = array((67,), "bool")
        np.testing.assert_array_equal(program.run([x]), 1 - x)


# -- scalar arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (None, 0.5), (0, None), (2.0, 1.0), (-math.inf, math.inf)])
@pytest.mark.parametrize("op", ["aten.clamp.default", "aten.hardtanh.default"])
def test_clamp(device: Device, op: str, low: float | None, high: float | None) -> None:
    with OpProgram(device, op, [In((5, 7)), low, high], Out((5, 7))) as program:
        program.check([array((5, 7))])


def test_clamp_of_integers_is_exact(device: Device) -> None:
    x = np.array([2**31 - 1, 2**24 + 1, -(2**31), 0, 7], np.int32)
    with OpProgram(device, "aten.clamp.default", [In((5,), "int32"), -5.0, None], Out((5,), "int32")) as program:
        program.check([x])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(device: Device, approximate: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 401), [1e30, -1e30, 1e4, -1e4]]).astype(np.float32)
    with OpProgram(device, "aten.gelu.default", [In(x.shape), approximate], Out(x.shape)) as program:
        program.check([x] if approximate == "none" else [x[:401]])
        assert np.isfinite(program.run([x[:401]])).all()


@pytest.mark.parametrize("exponent", [2.0, 3.0, -1.0, 0.5, 0.0, 7, -2])
def test_pow_scalar(device: Device, exponent: float) -> None:
    with OpProgram(device, "aten.pow.Tensor_Scalar", [In((5, 7)), exponent], Out((5, 7))) as program:
        program.check([array((5, 7))])


def test_pow_of_negative_bases(device: Device) -> None:
    base = np.array([-2, -2, -2, -2, -2, 0, 0, 0, 3, -1, -3], np.float32)
    exponent = np.array([3, 2, -1, 0.5, 0, 0, 2, -1, -2, 1e6, 4], np.float32)
    with OpProgram(device, "aten.pow.Tensor_Tensor", [In((11,)), In((11,))], Out((11,))) as program:
        program.check([base, exponent])


@pytest.mark.parametrize("mode", ["floor", "trunc", None])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_division_modes(device: Device, mode: str | None, dtype: str) -> None:
    a, b = (m.reshape(-1).astype(dtype) for m in np.meshgrid(np.arange(-30, 31), [-7, -3, -2, -1, 1, 2, 3, 7, 11]))
    out = "float32" if mode is None else dtype
    args = [In(a.shape, dtype), In(a.shape, dtype), mode]
    with OpProgram(device, "aten.div.Tensor_mode", args, Out(a.shape, out)) as program:
        program.check([a, b])


def test_rounding_is_to_even(device: Device) -> None:
    x = np.arange(-9, 10, dtype=np.float32) / 2
    with OpProgram(device, "aten.round.default", [In(x.shape)], Out(x.shape)) as program:
        np.testing.assert_array_equal(program.run([x]), np.round(x))


@pytest.mark.parametrize("op", ["aten.sigmoid.default", "aten.tanh.default", "aten.relu.default", "aten.exp.default"])
def test_nothing_overflows_to_nan(device: Device, op: str) -> None:
    largest = float(np.finfo(np.float32).max)
    x = np.array([0, 1e-6, 20, 88, 89, 100, 1e4, 1e30, largest, -20, -88, -104, -1e4, -1e30, -largest], np.float32)
    x = x[x < 89] if "exp" in op else x
    with OpProgram(device, op, [In(x.shape)], Out(x.shape)) as program:
        program.check([x])


@pytest.mark.parametrize(
    ("op", "scalars"),
    [
        ("aten.relu.default", []),
        ("aten.tanh.default", []),
        ("aten.clamp.default", [-1.0, 1.0]),
        ("aten.hardtanh.default", [None, 1.0]),
    ],
)
def test_nan_and_infinity_pass_through_bounds(device: Device, op: str, scalars: list[Any]) -> None:
    with OpProgram(device, op, [In((5,)), *scalars], Out((5,))) as program:
        program.check([np.array([np.nan, np.inf, -np.inf, 0.5, -0.5], np.float32)])


@pytest.mark.parametrize("op", BINARY)
def test_nan_and_infinity_in_binary(device: Device, op: str) -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1, -1], np.float32)
    a, b = (m.reshape(-1) for m in np.meshgrid(values, values))
    out = Out((25,), out_dtype(op, "float32"))
    with OpProgram(device, op, [In((25,)), In((25,))], out) as program:
        program.check([a, b])


@pytest.mark.parametrize("op", [o for o in WITH_SCALAR if out_dtype(o, "") == "bool"])
def test_comparing_nan_with_a_number(device: Device, op: str) -> None:
    with OpProgram(device, op, [In((3,)), 0.5], Out((3,), "bool")) as program:
        program.check([np.array([0, np.nan, 0.5], np.float32)])


@pytest.mark.parametrize("op", ["aten.log.default", "aten.reciprocal.default"])
def test_poles(device: Device, op: str) -> None:
    values = [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        1.0,
        np.finfo(np.float32).max,
        1e-30,
        0.99999,
        *([-1, -1e30] * ("log" in op)),
    ]
    x = np.array(values, np.float32)
    with OpProgram(device, op, [In(x.shape)], Out(x.shape)) as program:
        program.check([x])


def test_comparing_with_infinity(device: Device) -> None:
    with OpProgram(device, "aten.eq.Scalar", [In((3,)), -math.inf], Out((3,), "bool")) as program:
        program.check([np.array([0, -np.inf, -np.finfo(np.float32).max], np.float32)])


# -- choices --------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_where_broadcasts_three_shapes(device: Device, data: st.DataObject) -> None:
    full = data.draw(st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=5))
    shapes = []
    for _ in range(3):
        shape = [d if data.draw(st.booleans()) else 1 for d in full]
        shapes.append(tuple(shape[data.draw(st.integers(0, len(shape) - 1)) :]))
    condition, a, b = (
        array(s, t, seed=i) for i, (s, t) in enumerate(zip(shapes, ("bool", *["float32"] * 2), strict=True))
    )
    args = [In(condition.shape, "bool"), In(a.shape), In(b.shape)]
    with OpProgram(device, "aten.where.self", args, Out(np.broadcast_shapes(*shapes))) as program:
        program.check([condition, a, b])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "bool", "int8", "uint8"])
@pytest.mark.parametrize("n", [1, 3, 4, 67])
def test_where_of_every_dtype(device: Device, dtype: str, n: int) -> None:
    condition, a, b = array((n,), "bool"), array((n,), dtype, seed=1, low=0), array((n,), dtype, seed=2, low=0)
    with OpProgram(
        device, "aten.where.self", [In((n,), "bool"), In((n,), dtype), In((n,), dtype)], Out((n,), dtype)
    ) as p:
        np.testing.assert_array_equal(p.run([condition, a, b]), np.where(condition, a, b))


def test_where_leaves_out_what_was_not_chosen(device: Device) -> None:
    """NaN and infinity do not leak from the other side, and any word that is not 0 is true."""
    condition = np.array([0, 1, 2, 1 << 31, 0, 0], np.uint32)
    a, b = np.array([np.nan, 1, np.inf, -0.0, np.inf, 2], np.float32), np.array(-np.inf, np.float32)
    with OpProgram(device, "aten.where.self", [In((6,), "bool"), In((6,)), Const(b)], Out((6,))) as program:
        got = program.check([condition, a])
        np.testing.assert_array_equal(got, [-np.inf, 1, np.inf, 0, -np.inf, -np.inf])


def test_where_follows_live_dims(device: Device) -> None:
    args = [In((1, 13), "bool"), In((9, 13)), In((9, 1))]
    with OpProgram(device, "aten.where.self", args, Out((9, 13))) as program:
        for rows, columns in ((9, 13), (1, 13), (1, 1), (5, 7), (9, 13)):
            program.check([array((1, columns), "bool"), array((rows, columns)), array((rows, 1), seed=1)])
        with pytest.raises(InvalidInputError, match="do not broadcast"):
            program.run([array((1, 4), "bool"), array((2, 5)), array((2, 1))])
        program.check([array((1, 5), "bool"), array((2, 5)), array((2, 1))])


# -- shapes ---------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_broadcasting(device: Device, data: st.DataObject) -> None:
    full = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 5]), min_size=1, max_size=5))
    shapes = []
    for _ in range(2):
        shape = [d if data.draw(st.booleans()) else 1 for d in full]
        shapes.append(tuple(shape[data.draw(st.integers(0, len(shape) - 1)) :]))
    a, b = array(shapes[0]), array(shapes[1], seed=1)
    out = np.broadcast_shapes(*shapes)
    with OpProgram(device, "aten.sub.Tensor", [In(a.shape), In(b.shape), 2.0], Out(out)) as program:
        program.check([a, b])


def test_broadcasting_of_eight_dimensions(device: Device) -> None:
    a, b = array((2, 1, 3, 1, 2, 1, 3, 1)), array((1, 3, 1, 2, 1, 3, 1, 2), seed=1)
    with OpProgram(device, "aten.mul.Tensor", [In(a.shape), In(b.shape)], Out((2, 3, 3, 2, 2, 3, 3, 2))) as program:
        program.check([a, b])


def test_live_dims_change_between_broadcast_and_equal_shapes(device: Device) -> None:
    args = [In((1, 13, 6)), In((1, 1, 6)), 1]
    with OpProgram(device, "aten.add.Tensor", args, Out((1, 13, 6))) as program:
        modules = device.kernels.stats().modules
        for rows in (13, 1, 1, 5, 13, 1):
            program.check([array((1, rows, 6)), array((1, 1, 6), seed=1)])
        assert device.kernels.stats().modules == modules  # no step compiles


def test_unary_follows_live_dims(device: Device) -> None:
    with OpProgram(device, "aten.neg.default", [In((1, 13, 7))], Out((1, 13, 7))) as program:
        for rows in (13, 1, 1, 5, 13):
            program.check([array((1, rows, 7))])


def test_grids_past_the_limit_of_one_dimension(device: Device) -> None:
    n = 4 * 64 * device.limits.max_workgroups + 257
    with OpProgram(device, "aten.logical_not.default", [In((n,), "int8")], Out((n,), "int8")) as program:
        x = np.arange(n, dtype=np.int64).astype(np.int8)
        np.testing.assert_array_equal(program.run([x]), x == 0)


@pytest.mark.parametrize(
    ("op", "args", "out", "message"),
    [
        ("aten.add.Tensor", [In((3, 5)), In((3, 4)), 1], Out((3, 5)), "do not broadcast"),
        ("aten.gelu.default", [In((3,)), "cubic"], Out((3,)), "no approximation"),
        ("aten.div.Tensor_mode", [In((3,)), In((3,)), "up"], Out((3,)), "no rounding mode"),
        ("aten.bitwise_and.Tensor", [In((3,)), In((3,))], Out((3,)), "must hold integers"),
        ("aten.where.self", [In((3,)), In((3,)), In((3,))], Out((3,)), "must hold bools"),
        ("aten.where.self", [In((3,), "bool"), In((3,)), In((2,))], Out((3,)), "do not broadcast"),
        ("aten.sin.default", [In((3,), "int32")], Out((3,), "int32"), "must have a float dtype"),
    ],
)
def test_refused_at_load(device: Device, op: str, args: list[Any], out: Out, message: str) -> None:
    with pytest.raises(UnsupportedProgramError, match=message):
        OpProgram(device, op, args, out)


def test_live_shapes_that_do_not_fit_are_rejected_and_the_next_step_works(device: Device) -> None:
    with OpProgram(device, "aten.mul.Tensor", [In((9, 5)), In((9, 5))], Out((9, 5))) as program:
        with pytest.raises(InvalidInputError, match="do not broadcast"):
            program.run([array((4, 5)), array((3, 5))])
        program.check([array((4, 5)), array((4, 5), seed=1)])


# -- the other engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
def test_every_row_compiles_on_dawn(dtype: str) -> None:
    floats = ELEMENT_TYPES[dtype].is_float
    gelus = {f"gelu {name}": Unary(*row) for name, row in GELU.items()}
    unary = {**PLAIN, **WITH_SCALAR, **WITH_TWO_SCALARS, **({**FLOAT, **gelus} if floats else {})}
    binary = {**BINARY, **WITH_ALPHA, **QUOTIENTS, **REMAINDERS, **({} if floats else BITWISE)}
    compute = "f32" if floats else "i32"
    for op, row in unary.items() if dtype in ("float32", "int32") else ():
        values = {"out": out_dtype(op, dtype), "expression": row.expression(compute), "x": dtype}
        compile_check("dawn", "elementwise/unary", {**values, "compute": compute})
    for op, one in binary.items():
        for places in ("equal", "any") if dtype in ("float32", "int32") else ("quads",):
            values = {"out": out_dtype(str(op), dtype), "expression": one.expression(compute), "compute": compute}
            compile_check("dawn", "elementwise/broadcast", {**values, "places": places, "dtypes": (dtype, dtype)})


# -- quotients and large integers -----------------------------------------------------------------------------------


def quotient_operands(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose quotients are near integers, of any size, and special."""
    rng = np.random.default_rng(seed)
    b = (rng.standard_normal(count) * 10.0 ** rng.integers(-6, 6, count)).astype(np.float32)
    a = (rng.standard_normal(count) * 10.0 ** rng.integers(-8, 8, count)).astype(np.float32)
    near = (b.astype(np.float64) * rng.integers(-(2**21), 2**21, count)).astype(np.float32)
    tenths = (rng.integers(-50, 50, count) * np.float32(0.1)).astype(np.float32)
    special = rng.choice(
        np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 3.4e38, 2e-38], np.float32), count
    )  # GPUs may flush what is smaller
    kind = rng.integers(0, 6, count)
    a = np.select([kind == 0, kind == 1, kind == 2], [near, tenths, special], a)
    b = np.select([kind == 1, kind == 3], [rng.choice(np.array([0.1, 0.3, -0.7], np.float32), count), special], b)
    return a, b


@pytest.mark.parametrize("mode", ["floor", "trunc"])
def test_rounded_quotients_are_torchs(device: Device, mode: str) -> None:
    count = 20011
    with OpProgram(device, "aten.div.Tensor_mode", [In((count,)), In((count,)), mode], Out((count,))) as program:
        for seed in range(3):
            a, b = quotient_operands(count, seed)
            got = np.asarray(program.run([a, b]))
            wanted = torch.div(torch.from_numpy(a), torch.from_numpy(b), rounding_mode=mode).numpy()
            exact = np.abs(wanted) < 2**21  # beyond, torch's own floor rounds on its way
            np.testing.assert_array_equal(got[exact], wanted[exact])
            np.testing.assert_allclose(got, wanted, rtol=3e-7)


@pytest.mark.parametrize("op", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**40, 2**31 - 1, -(2**31)])
def test_comparisons_with_integers_beyond_32_bits(device: Device, op: str, number: int) -> None:
    x = np.array([-(2**31), -1, 0, 2**31 - 1], np.int32)
    with OpProgram(device, f"aten.{op}.Scalar", [In((4,), "int32"), number], Out((4,), "bool")) as program:
        wanted = getattr(torch, op)(torch.from_numpy(x).long(), number).numpy()
        np.testing.assert_array_equal(np.asarray(program.run([x])) != 0, wanted)


@pytest.mark.parametrize("op", ["aten.add.Scalar", "aten.mul.Scalar"])
def test_other_numbers_beyond_32_bits_are_refused(device: Device, op: str) -> None:
    scalars = [2**33, 1] if op == "aten.add.Scalar" else [2**33]
    with pytest.raises(UnsupportedProgramError, match="8589934592 does not fit in 32 bits"):
        OpProgram(device, op, [In((4,), "int32"), *scalars], Out((4,), "int32"))

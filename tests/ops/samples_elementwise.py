"""Samples of elementwise operators, of chains of them, and of tensors that are made from numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from executorch_webgpu.ops.elementwise.activations import GELU
from executorch_webgpu.ops.elementwise.binary import BINARY, FLOAT_BINARY, WITH_ALPHA
from executorch_webgpu.ops.elementwise.chain import link
from executorch_webgpu.ops.elementwise.integers import BITWISE, OF_NUMBER, SHIFTS, WITH_NUMBER
from executorch_webgpu.ops.elementwise.quotients import QUOTIENTS, REMAINDERS
from executorch_webgpu.ops.elementwise.unary import FLOAT, PLAIN, WITH_SCALAR, WITH_TWO_SCALARS
from executorch_webgpu.ops.registry import find, names
from executorch_webgpu.ops.values import ELEMENT_TYPES

from .harness import Const, Out
from .samples import DTYPES, Input, Position, Sample, _rows

POSITIVE = ("sqrt", "log10", "log.", "log2", "log1p", "reciprocal", "acosh")
UNIT = ("acos.", "asin.", "atanh", "logit")
TO_BOOL = ("eq.", "ne.", "lt.", "le.", "gt.", "ge.", "logical_", "isnan", "isinf", "isfinite")
FLOATS = [name for name, element in ELEMENT_TYPES.items() if element.is_float]


def result_dtype(op: str, dtype: str) -> str:
    if any(name in op for name in TO_BOOL):
        return "bool"
    return "float32" if op in ("aten.div.Tensor", "aten.div.Scalar") and dtype == "int32" else dtype


def _unary(op: str, *scalars: Any, dtype: str = "float32", out: str | None = None) -> Sample:
    low, high = -4.0, 4.0
    if any(name in op for name in POSITIVE) or out == "uint8":
        low = 1.05 if "acosh" in op else 0.05
    if any(name in op for name in UNIT):
        low, high = 0.05 if "logit" in op else -0.95, 0.95
    x = _rows(7, 3, 13, dtype=dtype, low=low, high=high)
    return Sample(op, [x, *scalars], Out((7, 13), out or result_dtype(op, dtype)))


EQUAL, REPEATED, CROSSED = ((7, 13), (7, 13)), ((7, 13), (1, 13)), ((5, 1, 13), (3, 1))
WIDE = ((7, 3, 8), (1, 8))


def _binary(
    op: str, *scalars: Any, dtype: str = "float32", other: str | None = None, shapes: Any = (REPEATED,)
) -> Iterator[Sample]:
    """With equal dims; broadcast; and with dims that are equal only while they are live."""
    for a, b in shapes:
        dims = np.broadcast_shapes(a, b)
        low = 0.1 if "pow" in op else 1 if dtype == "int32" else -2
        left = Input(a, dtype, live=(1, *a[1:]) if a[0] == 7 else a, low=low)
        right = Input(b, other or dtype, live=(1, *b[1:]) if b[0] == 7 else b, low=low, high=3)
        yield Sample(op, [left, right, *scalars], Out(dims, result_dtype(op, dtype)))


def unary() -> Iterator[Sample]:
    for op in (*FLOAT, *PLAIN):
        yield _unary(op)
    for op, row in PLAIN.items():
        if row.of_integers is not None:
            yield _unary(op, dtype="int32")
    for dtype in DTYPES[1:]:
        yield _unary("aten.relu.default", dtype=dtype)
    yield _unary("aten.sigmoid.default", dtype="bfloat16")
    yield _unary("aten.exp.default", dtype="int32", out="float32")
    for op in (*WITH_SCALAR, *WITH_TWO_SCALARS):
        count = 1 if op in WITH_SCALAR else 2
        yield _unary(op, *[0.5, -3.0][:count])
        yield _unary(op, *[2, -3][:count], dtype="int32")
    for op in ("aten.clamp.default", "aten.hardtanh.default"):
        yield _unary(op, -1.0, 1.5)
        yield _unary(op, None, 1, dtype="int32")
        yield _unary(op, math.nan, 1.5)
    for op in ("aten.clamp_min.default", "aten.clamp_max.default"):
        yield _unary(op, 0.5)
    yield _unary("aten.relu6.default")
    yield _unary("aten.copysign.Scalar", -0.0)
    infinite = _rows(7, 3, 13, dtype="float16", low=-1e5, high=1e5)
    yield Sample("aten.nan_to_num.default", [infinite, None, 1.0, -2.0], Out((7, 13), "float16"))
    yield _unary("aten.round.decimals", 1)
    yield from activations()
    for op, scalar, dtype in (
        *itertools.product(("aten.pow.Tensor_Scalar",), (2, 2.5), ("float32",)),
        ("aten.pow.Tensor_Scalar", 3, "int32"),
        ("aten.div.Scalar_mode", 3, "float32"),
    ):
        more = ["trunc"] if "mode" in op else []
        yield _unary(op, scalar, *more, dtype=dtype)
    for base, dtype in ((2.5, "float32"), (2, "float32"), (3, "int32")):
        yield Sample("aten.pow.Scalar", [base, _rows(7, 3, 13, dtype=dtype)], Out((7, 13), dtype))
    for op, dtype in itertools.product(("floor_divide", *REMAINDERS), ("float32", "int32")):
        yield _unary(f"aten.{op}.Scalar", 3, dtype=dtype)
    args = [7, _rows(7, 3, 13, low=0.5)]
    yield Sample("aten.remainder.Scalar_Tensor", args, Out((7, 13)))
    for dtype in ("int32", "uint8", "int8"):
        yield _unary("aten.bitwise_not.default", dtype=dtype)
    for op in WITH_NUMBER:
        yield _unary(op, 3, dtype="int32")
    for op in OF_NUMBER:
        yield Sample(op, [5, _rows(7, 3, 13, dtype="int32", low=0)], Out((7, 13), "int32"))


def activations() -> Iterator[Sample]:
    for approximate in GELU:
        yield _unary("aten.gelu.default", approximate)
    yield _unary("aten.elu.default", 0.7, 1.5, 2.0)
    yield _unary("aten.celu.default", 0.7)
    yield _unary("aten.selu.default")
    yield _unary("aten.softplus.default", 2.0, 3.0)
    yield _unary("aten.threshold.default", 0.5, -1.0)
    yield _unary("aten.logit.default", None)
    yield _unary("aten.logit.default", 0.1)
    for dim, out in ((-1, (7, 4, 3)), (1, (7, 2, 6))):
        yield Sample("aten.glu.default", [_rows(7, 3, 4, 6), dim], Out(out))
    yield Sample("aten.glu.default", [_rows(7, 3, 16), 1], Out((7, 8)))
    for count in (1, 5):
        weight = Const(np.linspace(-1, 1, count, dtype=np.float32))
        yield Sample("aten.prelu.default", [_rows(7, 3, 5, 3), weight], Out((7, 5, 3)))
    yield from _binary("aten._prelu_kernel.default")


def binary() -> Iterator[Sample]:
    for op in BINARY:
        yield from _binary(op)
    for op in FLOAT_BINARY:
        yield from _binary(op)
    yield from _binary("aten.mul.Tensor", shapes=(EQUAL, CROSSED, WIDE))
    yield from itertools.chain.from_iterable(
        _binary(op, dtype="int32", shapes=(EQUAL,)) for op in (*BITWISE, *SHIFTS, "aten.div.Tensor")
    )
    yield from _binary("aten.maximum.default", dtype="int32")
    for op in WITH_ALPHA:
        yield from _binary(op, 2.5)
    yield from _binary("aten.add.Tensor", 2, dtype="int32")
    for mode, dtype in itertools.product(QUOTIENTS, ("float32", "int32")):
        if (mode, dtype) != (None, "int32"):  # is div.Tensor
            yield from _binary("aten.div.Tensor_mode", mode, dtype=dtype, shapes=(EQUAL, REPEATED))
    yield from _binary("aten.floor_divide.default", dtype="int32", shapes=(EQUAL,))
    for op, dtype in itertools.product(REMAINDERS, ("float32", "int32")):
        yield from _binary(f"aten.{op}.Tensor", dtype=dtype, shapes=(EQUAL,))
    for dtype in ("float32", "int32"):
        yield from _binary("aten.pow.Tensor_Tensor", dtype=dtype)
    for dtype in DTYPES[1:]:
        yield from _binary("aten.mul.Tensor", dtype=dtype)
    yield from _binary("aten.lt.Tensor", dtype="int32", other="float32")
    for weight in (0.25, 0.75):
        yield from _binary("aten.lerp.Scalar", weight)


def ternary() -> Iterator[Sample]:
    condition = _rows(7, 3, 1, dtype="bool")
    for dtype in DTYPES:
        choices = [Input((7, 13), dtype, live=(3, 13)), Input((13,), dtype)]
        yield Sample("aten.where.self", [condition, *choices], Out((7, 13), dtype))
    mixed = [Input((7, 13), "int32", live=(3, 13)), Const(np.array(0.5, np.float32))]
    yield Sample("aten.where.self", [_rows(7, 3, 13, dtype="bool"), *mixed], Out((7, 13)))
    whole = [_rows(7, 3, 16) for _ in range(3)]
    yield Sample("aten.where.self", [_rows(7, 3, 16, dtype="bool"), *whole[:2]], Out((7, 16)))
    x = Input((7, 13), live=(3, 13))
    yield Sample("aten.where.ScalarOther", [condition, x, 0.5], Out((7, 13)))
    yield Sample("aten.where.ScalarSelf", [condition, 0.5, x], Out((7, 13)))
    yield Sample("aten.where.Scalar", [condition, 2, -3], Out((7, 1), "int32"))
    for op in ("aten.addcmul.default", "aten.addcdiv.default"):
        yield Sample(op, [x, Input((13,)), Input((1, 13), low=0.5), -1.5], Out((7, 13)))
    yield Sample("aten.addcmul.default", [*whole, 2.0], Out((7, 16)))
    yield Sample("aten.lerp.Tensor", [x, Input((13,)), _rows(7, 3, 1)], Out((7, 13)))
    low, high = Input((13,), high=0), Input((7, 1), live=(3, 1), low=0)
    for bounds in ([low, high], [low, None], [None, high]):
        yield Sample("aten.clamp.Tensor", [x, *bounds], Out((7, 13)))
    for op in ("aten.clamp_min.Tensor", "aten.clamp_max.Tensor"):
        yield Sample(op, [x, low], Out((7, 13)))


def casts() -> Iterator[Sample]:
    for dtype, out in itertools.product(DTYPES, DTYPES):
        yield _unary("dim_order_ops._to_dim_order_copy.default", *[None] * 6, dtype=dtype, out=out)
    for dtype in ("int32", "float32"):
        yield _unary("aten._to_copy.default", *[None] * 6, dtype=dtype, out="float32")
    for op in ("aten.lift_fresh_copy.default", "aten.detach_copy.default"):
        yield _unary(op)
    yield _unary("aten.contiguous.default", None)
    yield _unary("aten.dropout.default", 0.5, False)


SCALARS: dict[str, list[Any]] = {
    "aten.clamp.default": [0.5, 1.5],
    "aten.hardtanh.default": [-1.0, 1.0],
    "aten.gelu.default": ["tanh"],
    "aten.elu.default": [1.0, 1.0, 1.0],
    "aten.softplus.default": [1.0, 20.0],
    "aten.threshold.default": [0.5, 0.25],
    "aten.nan_to_num.default": [None, None, None],
    "aten.logit.default": [0.1],
    "aten.round.decimals": [1],
    "mode": [3, "trunc"],
    "Scalar": [3],
    "celu": [1.0],
    "clamp_m": [0.5],
    "addc": [0.5],
}


def elementwise_chains() -> Iterator[Sample]:
    name, inputs = "et_webgpu.elementwise_chain.default", [_rows(7, 3, 13), _rows(7, 3, 13), Input((1, 1))]
    gate = [["aten.sigmoid.default", [0], []], ["aten.mul.Tensor", [0, 3], []], ["aten.sub.Tensor", [4, 1], [0.5]]]
    bounded = [["aten.clamp.default", [5], [-0.5, None]], ["aten.minimum.default", [6, 2], []]]
    yield Sample(name, [inputs, [*gate, *bounded]], Out((7, 13)))
    many = [_rows(7, 3, 13, low=0.1) for _ in range(7)]
    sums = [["aten.add.Tensor", [0, 1], [1]], *(["aten.div.Tensor", [5 + i, i], []] for i in range(2, 7))]
    yield Sample(name, [many, sums], Out((7, 13)))
    for dtype in ("float16", "bfloat16"):
        half = [_rows(7, 3, 13, dtype=dtype), _rows(7, 3, 13, dtype=dtype), Input((1, 1), dtype)]
        yield Sample(name, [half, [*gate, *bounded]], Out((7, 13), dtype))
    yield from _all_in_chains(name)


def _all_in_chains(name: str) -> Iterator[Sample]:
    """Operators that may be a step, several of them in a chain; those of tables are alike."""
    steps: list[Any] = []
    tables = {*BINARY, *WITH_ALPHA, *WITH_SCALAR, *WITH_TWO_SCALARS}
    inputs = [_rows(7, 3, 13, low=0.1, high=0.9), _rows(7, 3, 13, low=0.5, high=0.9)]
    for op in sorted(set(names()) - tables):
        more = _scalars(op)
        found = link(find(op), more)
        if found is None or "acosh" in op or "isfinite" in op:
            continue
        steps.append([op, [0, 1, 0][: len(found.operands)], more])
        if len(steps) == 12:
            yield Sample(name, [inputs, _summed(steps)], Out((7, 13)))
            steps = []
    yield Sample(name, [inputs, _summed(steps)], Out((7, 13)))


def _scalars(op: str) -> list[Any]:
    exact: list[Any] | None = SCALARS.get(op)
    if exact is not None:
        return exact
    if op.endswith("Tensor_mode"):
        return ["trunc"]
    return next((found for part, found in SCALARS.items() if part in op and not part.startswith("aten")), [])


def _summed(steps: list[Any]) -> list[Any]:
    """The steps of two inputs, and what adds their results."""
    count = len(steps)
    sums = [["aten.add.Tensor", [2 if i == 1 else count + i, 2 + i], [1]] for i in range(1, count)]
    return [*steps, *sums]


def fills() -> Iterator[Sample]:
    size, plain = [Position(full=7, live=3), 13], [None, None, None, None]
    x = _rows(7, 3, 13)
    for dtype in DTYPES:
        value = 200 if dtype == "uint8" else True if dtype == "bool" else -7 if "int" in dtype else -2.5
        yield Sample("aten.full.default", [size, value, *plain], Out((7, 13), dtype))
        yield Sample("aten.full_like.default", [x, value, *plain, None], Out((7, 13), dtype))
    for name in ("zeros", "ones"):
        yield Sample(f"aten.{name}.default", [size, *plain], Out((7, 13)))
        yield Sample(f"aten.{name}_like.default", [x, *plain, None], Out((7, 13)))
    yield Sample("aten.scalar_tensor.default", [Position(full=7, live=3), *plain], Out(()))
    yield Sample("aten.scalar_tensor.default", [-math.inf, *plain], Out(()))
    yield Sample("aten.fill.Scalar", [x, 2.5], Out((7, 13)))
    yield Sample("aten.fill.Tensor", [x, Const(np.array(2.5, np.float32))], Out((7, 13)))
    yield Sample("aten.empty.memory_format", [size, *plain, None], Out((7, 13), "int16"))
    yield Sample("dim_order_ops._empty_dim_order.default", [size, *plain, [0, 1]], Out((7, 13), "int16"))


def sequences() -> Iterator[Sample]:
    plain = [None, None, None, None]
    end, count = Position(full=67, live=5), Position(full=13, live=4)
    yield Sample("aten.arange.start_step", [2, end, 3, *plain], Out((22,), "int32"))
    yield Sample("aten.arange.start_step", [0.5, end, 0.25, *plain], Out((266,)))
    for dtype in DTYPES:
        if dtype != "bool":
            yield Sample("aten.arange.start", [-3 if dtype != "uint8" else 3, end, *plain], Out((70,), dtype))
    yield Sample("aten.arange.default", [end, *plain], Out((67,), "int32"))
    yield Sample("aten.linspace.default", [-1.5, 2.0, count, *plain], Out((13,)))
    yield Sample("aten.linspace.default", [0, 24, count, *plain], Out((13,), "int32"))
    yield Sample("aten.eye.default", [count, *plain], Out((13, 13)))
    yield Sample("aten.eye.m", [count, 7, *plain], Out((13, 7), "bool"))


FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    unary,
    binary,
    ternary,
    casts,
    elementwise_chains,
    fills,
    sequences,
)

"""Calls of memory-bound operators on tensors of a given size: their arguments, and the bytes that they must move."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from executorch_webgpu.ops.values import ELEMENT_TYPES
from tests.ops.harness import Const, In, Out

Dims = tuple[int, ...]
_EPS = 1e-5


@dataclass(frozen=True)
class Input(In):
    """An input of random elements between two bounds."""

    low: float = -2
    high: float = 2

    def array(self, rng: np.random.Generator) -> np.ndarray:
        layout = ELEMENT_TYPES[self.dtype].numpy
        if self.dtype in ("float32", "float16"):
            spread = rng.random(tuple(self.max_dims), np.float32) * np.float32(self.high - self.low)
            return (spread + np.float32(self.low)).astype(layout)
        return rng.integers(int(self.low), int(self.high), tuple(self.max_dims), endpoint=True).astype(layout)


@dataclass(frozen=True)
class Case:
    """One call. ``bound``: whether nothing but memory should limit it; sorting is shown without a bound."""

    family: str
    name: str
    op: str
    args: list[Any]
    out: Out | list[Out]
    bound: bool = True
    tolerance: float = 1e-4  # over the largest element

    @property
    def inputs(self) -> list[Input]:
        flat = [b for a in self.args for b in (a if isinstance(a, list) else [a])]
        return [a for a in flat if isinstance(a, Input)]

    @property
    def outs(self) -> list[Out]:
        return self.out if isinstance(self.out, list) else [self.out]

    @property
    def nbytes(self) -> int:
        """What is read and written once."""
        constants = [a for a in self.args if isinstance(a, Const)]
        tensors = [(t.max_dims, t.dtype) for t in self.inputs] + [(t.max_dims, t.dtype) for t in self.outs]
        moved = sum(math.prod(dims) * ELEMENT_TYPES[dtype].itemsize for dims, dtype in tensors)
        return moved + sum(c.array.nbytes for c in constants)


@dataclass(frozen=True)
class Shapes:
    """Shapes of 2^``bits`` elements: a square matrix, many short rows, one row, images [N, C, H, W]."""

    bits: int

    @property
    def side(self) -> int:
        return 1 << self.bits // 2

    @property
    def matrix(self) -> Dims:
        return (self.side, (1 << self.bits) // self.side)

    @property
    def row(self) -> Dims:
        return (1, 1 << self.bits)

    @property
    def images(self) -> Dims:
        channels = min(64, 1 << self.bits - 14)
        return ((1 << self.bits - 14) // channels, channels, 128, 128)

    def short(self, length: int) -> Dims:
        return ((1 << self.bits) // length, length)

    def middle(self) -> Dims:
        return (16, self.side // 4, (1 << self.bits) // (4 * self.side))


def cases(bits: int) -> Iterator[Case]:
    """All cases with tensors of 2^``bits`` elements of 4 bytes."""
    shapes = Shapes(bits)
    yield from _elementwise(shapes)
    yield from _moves(shapes)
    yield from _lookups(shapes)
    yield from _softmax(shapes)
    yield from _norms(shapes)
    yield from _reductions(shapes)
    yield from _scans(shapes)
    yield from _windows(shapes)
    yield from _sorts(shapes)


def _elementwise(s: Shapes) -> Iterator[Case]:
    x, out = Input(s.matrix), Out(s.matrix)
    rows, columns = s.matrix
    yield Case("elementwise", "sigmoid", "aten.sigmoid.default", [x], out)
    yield Case("elementwise", "add", "aten.add.Tensor", [x, x, 1], out)
    half = Input((rows, 2 * columns), "float16")
    yield Case("elementwise", "mul float16", "aten.mul.Tensor", [half, half], Out(half.max_dims, "float16"), True, 2e-3)
    yield Case("elementwise", "where", "aten.where.self", [Input(s.matrix, "bool", 0, 1), x, x], out)
    yield Case("broadcast", "add a row", "aten.add.Tensor", [x, Input((columns,)), 1], out)
    yield Case("broadcast", "mul by a column", "aten.mul.Tensor", [x, Input((rows, 1))], out)
    yield Case(
        "broadcast",
        "mul by channels",
        "aten.mul.Tensor",
        [Input(s.images), Input((1, s.images[1], 1, 1))],
        Out(s.images),
    )
    yield Case("broadcast", "expand", "aten.expand_copy.default", [Input((1, columns)), list(s.matrix), False], out)


def _moves(s: Shapes) -> Iterator[Case]:
    rows, columns = s.matrix
    x, half, out = Input(s.matrix), Input((rows // 2, columns)), Out(s.matrix)
    n, c, h, w = s.images
    yield Case("permute", "transpose", "aten.permute_copy.default", [x, [1, 0]], Out((columns, rows)))
    yield Case(
        "permute", "to channels last", "aten.permute_copy.default", [Input(s.images), [0, 2, 3, 1]], Out((n, h, w, c))
    )
    narrow = Input((rows, 2 * columns), "float16")
    yield Case(
        "permute",
        "transpose float16",
        "aten.permute_copy.default",
        [narrow, [1, 0]],
        Out((2 * columns, rows), "float16"),
    )
    yield Case("cat", "rows", "aten.cat.default", [[half, half], 0], out)
    yield Case(
        "cat", "columns", "aten.cat.default", [[Input((rows, columns // 2)), Input((rows, columns // 2))], 1], out
    )
    for first in (0, 3):
        part = [x, 1, first, first + columns // 2, 1]
        yield _of_part(
            Case("slice", f"half of each row from {first}", "aten.slice_copy.Tensor", part, Out((rows, columns // 2)))
        )
    yield _of_part(
        Case("slice", "every second column", "aten.slice_copy.Tensor", [x, 1, 0, columns, 2], Out((rows, columns // 2)))
    )
    inner = Input((n, c, h - 2, w - 2))
    yield Case("pad", "constant", "aten.constant_pad_nd.default", [inner, [1, 1, 1, 1], 0.5], Out(s.images))
    yield Case("pad", "reflection", "aten.reflection_pad2d.default", [inner, [1, 1, 1, 1]], Out(s.images))


def _of_part(case: Case) -> Case:
    """A case that reads no more than it writes, as far as its bytes are counted."""
    return _PartCase(case.family, case.name, case.op, case.args, case.out)


class _PartCase(Case):
    @property
    def nbytes(self) -> int:
        return 2 * sum(4 * math.prod(out.max_dims) for out in self.outs)


def _lookups(s: Shapes) -> Iterator[Case]:
    rows, columns = s.matrix
    x, out = Input(s.matrix), Out(s.matrix)
    index = Input(s.matrix, "int32", 0, columns - 1)
    some = Input((rows,), "int32", 0, rows - 1)
    yield Case("gather", "along rows", "aten.gather.default", [x, 1, index, False], out)
    yield Case("gather", "rows by index_select", "aten.index_select.default", [x, 0, some], out)
    yield Case("gather", "rows by index", "aten.index.Tensor", [x, [some]], out)
    yield Case("gather", "rows by embedding", "aten.embedding.default", [_table(s), some, -1, False, False], out)


def _table(s: Shapes) -> Const:
    return Const(np.random.default_rng(1).random(s.matrix, np.float32))


def _softmax(s: Shapes) -> Iterator[Case]:
    short, middle = s.short(64), s.middle()
    shapes = (
        ("rows", s.matrix, 1),
        ("short rows", short, 1),
        ("columns", s.matrix, 0),
        ("middle", middle, 1),
        ("one row", s.row, 1),
    )
    for name, dims, dim in shapes:
        yield Case("softmax", name, "aten._softmax.default", [Input(dims), dim, False], Out(dims))
    odd = (s.matrix[0], s.matrix[1] - 1)
    yield Case("softmax", "rows, odd length", "aten._softmax.default", [Input(odd), 1, False], Out(odd))
    yield Case("softmax", "log, rows", "aten._log_softmax.default", [Input(s.matrix), 1, False], Out(s.matrix))
    half = (s.matrix[0], 2 * s.matrix[1])
    args = [Input(half, "float16"), 1, False]
    yield Case("softmax", "rows, float16", "aten._softmax.default", args, Out(half, "float16"), True, 2e-3)


def _norms(s: Shapes) -> Iterator[Case]:
    rows, columns = s.matrix
    x, out, statistics = Input(s.matrix), Out(s.matrix), Out((rows, 1))
    n, c, _, _ = s.images
    weights, channels = Input((columns,)), Input((c,), low=0.5)
    layer: list[Any] = [x, [columns], weights, weights, _EPS]
    yield Case("norms", "rms_norm", "et_vk.rms_norm.default", [x, weights, _EPS], out)
    yield Case("norms", "layer_norm", "aten.native_layer_norm.default", layer, [out, statistics, statistics])
    short = s.short(64)
    few = Input((64,))
    args = [Input(short), [64], few, few, _EPS]
    one = Out((short[0], 1))
    yield Case("norms", "layer_norm, short rows", "aten.native_layer_norm.default", args, [Out(short), one, one])
    group: list[Any] = [Input(s.images), channels, channels, n, c, 128 * 128, 4, _EPS]
    yield Case(
        "norms", "group_norm", "aten.native_group_norm.default", group, [Out(s.images), Out((n, 4)), Out((n, 4))]
    )
    batch: list[Any] = [Input(s.images), channels, channels, channels, channels, 0.1, _EPS]
    no_statistics = [Out((0,)), Out((0,))]
    name = "aten._native_batch_norm_legit_no_training.default"
    yield Case("norms", "batch_norm", name, batch, [Out(s.images), *no_statistics])


def _reductions(s: Shapes) -> Iterator[Case]:
    x, (rows, columns) = Input(s.matrix), s.matrix
    middle, short, channels = s.middle(), s.short(16), s.images
    places: list[tuple[str, Input, list[int], Dims]] = [
        ("rows", x, [1], (rows,)),
        ("columns", x, [0], (columns,)),
        ("all", x, [], ()),
        ("middle", Input(middle), [1], (middle[0], middle[2])),
        ("short rows", Input(short), [1], short[:1]),
        ("few columns", Input(short), [0], (16,)),
        ("all but channels", Input(channels), [0, 2, 3], (channels[1],)),
    ]
    for name, given, dims, kept in places:
        yield Case("reductions", f"sum, {name}", "aten.sum.dim_IntList", [given, dims, False, None], Out(kept))
        if len(dims) < 2:
            yield Case("reductions", f"amax, {name}", "aten.amax.default", [given, dims, False], Out(kept))
    for name, given, dims, kept in (*places[:3], places[-1]):
        yield Case("reductions", f"var, {name}", "aten.var.correction", [given, dims or None, 1, False], Out(kept))
    for name, given, dims, kept in places[:2]:
        both = [Out(kept), Out(kept, "int32")]
        yield Case("reductions", f"max with indices, {name}", "aten.max.dim", [given, dims[0], False], both)
        yield Case("reductions", f"logsumexp, {name}", "aten.logsumexp.default", [given, dims, False], Out(kept))
    yield Case("reductions", "argmax, all", "aten.argmax.default", [x, None, False], Out((), "int32"))
    half = Input((rows, 2 * columns), "float16")
    yield Case(
        "reductions",
        "mean, rows, float16",
        "aten.mean.dim",
        [half, [1], False, None],
        Out((rows,), "float16"),
        True,
        2e-3,
    )
    yield Case(
        "reductions",
        "any, rows of bools",
        "aten.any.dim",
        [Input(s.matrix, "bool", 0, 1), 1, False],
        Out((rows,), "bool"),
    )
    small = Input((rows, 4 * columns), "int8", -99, 99)
    yield Case(
        "reductions", "sum, rows of int8", "aten.sum.dim_IntList", [small, [1], False, None], Out((rows,), "int32")
    )
    norm = [x, 2.0, [1], False, None]
    yield Case("reductions", "2-norm, rows", "aten.linalg_vector_norm.default", norm, Out((rows,)))


def _scans(s: Shapes) -> Iterator[Case]:
    for name, dims, dim in (
        ("rows", s.matrix, 1),
        ("columns", s.matrix, 0),
        ("one row", s.row, 1),
        ("short rows", s.short(64), 1),
    ):
        yield Case("cumsum", name, "aten.cumsum.default", [Input(dims, low=-1, high=1), dim, None], Out(dims))
    both = [Out(s.matrix), Out(s.matrix, "int32")]
    yield Case("cumsum", "cummax, rows", "aten.cummax.default", [Input(s.matrix), 1], both)


def _windows(s: Shapes) -> Iterator[Case]:
    x, (n, c, h, w) = Input(s.images), s.images
    half = (n, c, h // 2, w // 2)
    two, none = [2, 2], [0, 0]
    both = [Out(half), Out(half, "int32")]
    yield Case(
        "pooling", "max, 2 x 2", "aten.max_pool2d_with_indices.default", [x, two, two, none, [1, 1], False], both
    )
    yield Case(
        "pooling", "average, 2 x 2", "aten.avg_pool2d.default", [x, two, two, none, False, True, None], Out(half)
    )
    same: list[Any] = [x, [3, 3], [1, 1], [1, 1], False, True, None]
    yield Case("pooling", "average, 3 x 3, stride 1", "aten.avg_pool2d.default", same, Out(s.images))
    yield Case(
        "pooling", "adaptive average to 1 x 1", "aten._adaptive_avg_pool2d.default", [x, [1, 1]], Out((n, c, 1, 1))
    )
    small, factors = Input(half), [2.0, 2.0]
    yield Case("upsample", "nearest, 2 x", "aten.upsample_nearest2d.vec", [small, None, factors], Out(s.images))
    yield Case(
        "upsample", "bilinear, 2 x", "aten.upsample_bilinear2d.vec", [small, None, False, factors], Out(s.images)
    )


def _sorts(s: Shapes) -> Iterator[Case]:
    x, row = Input(s.matrix), Input((1, 1 << s.bits - 2))
    rows, columns = s.matrix
    for name, given in (("rows", x), ("one row of a quarter", row)):
        outs = [Out(given.max_dims), Out(given.max_dims, "int32")]
        yield Case("sort", name, "aten.sort.default", [given, 1, False], outs, bound=False)
    for k in (1, 8, 1000) if columns > 1000 else (1, 8):
        outs = [Out((rows, k)), Out((rows, k), "int32")]
        yield Case("sort", f"the first {k} of rows", "aten.topk.default", [x, k, 1, True, True], outs, bound=False)
    yield Case(
        "sort", "median of rows", "aten.median.dim", [x, 1, False], [Out((rows,)), Out((rows,), "int32")], bound=False
    )


def named(found: Sequence[Case], words: Sequence[str]) -> list[Case]:
    """Those whose family or name holds one of the words; all without words."""
    return [c for c in found if not words or any(w in f"{c.family} {c.name} {c.op}" for w in words)]

"""Samples of operators that move elements: by strides, into each other, and by indices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .harness import Const, Mutable, Out
from .samples import DTYPES, Dims, Input, Position, Sample, numbers

PACKED = ("float32", "float16", "uint8")  # elements of a word, of half and of a quarter of one


def _moves(x: Input, op: str, *args: Any, out: Dims | list[Dims]) -> Sample:
    outs = [Out(o, x.dtype) for o in out] if isinstance(out, list) else Out(out, x.dtype)
    return Sample(op, [x, *args], outs)


def parts() -> Iterator[Sample]:
    for dtype in PACKED:
        x = Input((5, 7), dtype, live=(4, 7))
        for start in (2, -5, Position(full=2, live=-5)):
            yield _moves(x, "aten.narrow_copy.default", 1, start, 3, out=(5, 3))
        for op in ("aten.split_copy.Tensor", "aten.split.Tensor"):
            yield _moves(x, op, 3, 1, out=[(5, 3), (5, 3), (5, 1)])
        for op in ("aten.unbind_copy.int", "aten.unbind.int"):
            yield _moves(Input((5, 2, 3), dtype, live=(4, 2, 3)), op, -2, out=[(5, 3)] * 2)
        for op in ("aten.diagonal_copy.default", "aten.diagonal.default"):
            yield _moves(Input((5, 3, 4), dtype, live=(2, 3, 4)), op, 1, 1, 2, out=(5, 3))
            yield _moves(Input((4, 3, 3), dtype, live=(2, 3, 3)), op, -1, 2, 1, out=(4, 2))
        for op in ("aten.as_strided_copy.default", "aten.as_strided.default"):
            yield _moves(x, op, [Position(full=3, live=2), 3], [7, 2], 1, out=(3, 3))


def order() -> Iterator[Sample]:
    for dtype in PACKED:
        x = Input((5, 3, 7), dtype, live=(4, 3, 7))
        yield _moves(x, "aten.roll.default", [2, -1], [0, 2], out=(5, 3, 7))
        yield _moves(x, "aten.roll.default", [-9], [], out=(5, 3, 7))
        for k in (1, 2, -1):
            yield _moves(x, "aten.rot90.default", k, [0, 2], out=(5, 3, 7) if k == 2 else (7, 3, 5))
        yield _moves(Input((3, 2, 4, 6), dtype, live=(1, 2, 4, 6)), "aten.pixel_unshuffle.default", 2, out=(3, 8, 2, 3))
        for op in ("aten.channel_shuffle.default", "aten.native_channel_shuffle.default"):
            yield _moves(Input((3, 6, 5), dtype, live=(2, 6, 5)), op, 3, out=(3, 6, 5))
        for op, diagonal in (("tril", 1), ("triu", Position(full=1, live=-1))):
            yield _moves(x, f"aten.{op}.default", diagonal, out=(5, 3, 7))


def transposes() -> Iterator[Sample]:
    for route in ("tiled", "plain"):
        x = Input((131, 127), live=(129, 127))
        yield replace(_moves(x, "aten.t_copy.default", out=(127, 131)), options={"routes": {"transpose": route}})
        x = Input((2, 37, 19, 13), live=(2, 35, 19, 13))
        turned = _moves(x, "aten.permute_copy.default", [0, 3, 2, 1], out=(2, 13, 19, 37))
        yield replace(turned, options={"routes": {"transpose": route}})


def repetition() -> Iterator[Sample]:
    for dtype in PACKED:
        x = Input((5, 7), dtype, live=(3, 7))
        yield _moves(x, "aten.repeat_interleave.self_int", 3, 1, None, out=(5, 21))
        row = Const(numbers(np.random.default_rng(3), (5, 7), dtype, -2, 2))
        yield Sample("aten.repeat_interleave.self_int", [row, 2, None, None], Out((70,), dtype))
        yield Sample("aten.copy.default", [x, Input((7,), dtype), False], Out((5, 7), dtype))


def joining() -> Iterator[Sample]:
    for dtype in (*PACKED, "bool"):
        x, y = Input((5, 7), dtype, live=(3, 7)), Input((5, 3), dtype, live=(3, 3))
        yield Sample("aten.cat.default", [[x, y], 1], Out((5, 10), dtype))
        if dtype in PACKED:
            many = [Const(numbers(np.random.default_rng(9), (1, 7), dtype, -2, 2))] * 9
            yield Sample("aten.cat.default", [[x, *many], 0], Out((14, 7), dtype))
        yield Sample("aten.stack.default", [[x, x, x], 1], Out((5, 3, 7), dtype))
        yield Sample("aten.stack.default", [[x, Input((5, 7), dtype, live=(3, 7))], -1], Out((5, 7, 2), dtype))
        part = Input((5, 3), dtype, live=(3, 3))
        yield Sample("aten.slice_scatter.default", [x, part, 1, 1, None, 2], Out((5, 7), dtype))
        moving = [x, Input((2, 7), dtype), 0, Position(full=3, live=1), Position(full=5, live=3), 1]
        yield Sample("aten.slice_scatter.default", moving, Out((5, 7), dtype))
        yield Sample("aten.select_scatter.default", [x, Input((5,), dtype, live=(3,)), 1, -2], Out((5, 7), dtype))
        cube = Input((5, 3, 4), dtype, live=(2, 3, 4))
        diagonal = [cube, Input((5, 2), dtype, live=(2, 2)), -1, 1, 2]
        yield Sample("aten.diagonal_scatter.default", diagonal, Out((5, 3, 4), dtype))
        strided = [x, Input((2, 3), dtype), [2, 3], [7, 2], 1]
        yield Sample("aten.as_strided_scatter.default", strided, Out((5, 7), dtype))


def _indices(*dims: int, size: int, live: Dims | None = None, wraps: bool = False) -> Input:
    """Indices into a dimension of ``size`` elements."""
    return Input(dims, "int32", live=live, low=-size if wraps else 0, high=size - 1)


def lookup() -> Iterator[Sample]:
    for inner, dtype in ((8, "float32"), (3, "float32"), (3, "float16"), (3, "uint8")):
        x = Input((7, 5, inner), dtype, live=(4, 5, inner))
        yield _moves(x, "aten.gather.default", 0, _indices(3, 5, 2, size=4), False, out=(3, 5, 2))
        along = _indices(7, 5, 6, size=inner, live=(4, 5, 6))
        yield _moves(x, "aten.gather.default", -1, along, False, out=(7, 5, 6))
        yield _moves(x, "aten.index_select.default", 1, _indices(9, size=5, live=(2,)), out=(7, 9, inner))
        for op in ("aten.index.Tensor", "aten._unsafe_index.Tensor"):
            i, j = _indices(6, size=4, live=(2,), wraps=True), _indices(2, 1, size=3, wraps=True)
            yield _moves(x, op, [i], out=(6, 5, inner))
            yield _moves(x, op, [i, None, j], out=(2, 6, 5))
            yield _moves(x, op, [None, _indices(2, 4, size=5, live=(2, 1)), j], out=(7, 2, 4))
            yield _moves(x, op, [None, None], out=(7, 5, inner))
        yield _moves(x, "aten.take.default", _indices(4, 3, size=60, live=(2, 3), wraps=True), out=(4, 3))
        spread = [_indices(1, 5, 2, size=inner, live=(1, 5, 2), wraps=True), 2]
        yield _moves(x, "aten.take_along_dim.default", *spread, out=(7, 5, 2))
        yield _moves(x, "aten.take_along_dim.default", _indices(9, size=60, live=(2,)), None, out=(9,))


WALK, OWNER, SORTED = ({"routes": {"scatter": route}} for route in ("walk", "owner", "sorted"))


def puts() -> Iterator[Sample]:
    for dtype in DTYPES:
        x, out = Input((7, 5, 4), dtype, live=(6, 5, 4)), Out((7, 5, 4), dtype)
        i, plain = _indices(9, size=6, live=(2,), wraps=True), _indices(9, size=6, live=(2,))
        slices = Input((9, 5, 4), dtype, live=(2, 5, 4))
        for route in (WALK, OWNER, SORTED):
            yield Sample("aten.index_put.default", [x, [i], slices, False], out, route)
        yield Sample("aten.index_copy.default", [x, 0, plain, slices], out)
        if dtype in PACKED:
            few = Input((3, 1, 5), dtype)
            spread = [x, [i, None, _indices(3, 1, size=4, wraps=True)], few, False]
            pair = [x, [i, _indices(2, 1, size=5)], Input((9, 1), dtype, live=(2, 1)), False]
            yield Sample("aten._unsafe_index_put.default", spread, out, WALK)
            yield Sample("aten.index_put.default", pair, out, OWNER)
            yield Sample("aten.index_fill.int_Scalar", [x, 1, _indices(3, size=5, wraps=True), 1.5], out)
            yield Sample("aten.index_fill.int_Tensor", [x, -1, _indices(3, size=4), Input((), dtype)], out, OWNER)
            elements = [_indices(4, 3, size=120, live=(2, 3), wraps=True), Input((4, 3), dtype, live=(2, 3))]
            yield Sample("aten.put.default", [x, *elements, False], out, OWNER)
            yield Sample("aten.put.default", [x, *elements, True], out, SORTED)
        yield Sample("aten.index_put.default", [x, [i], Input((1, 4), dtype), True], out, WALK)
        yield Sample("aten.index_add.default", [x, 0, plain, slices, 2], out, SORTED)
    for name, own in itertools.product(("prod", "mean", "amax", "amin"), (True, False)):
        reduced = [Input((7, 5, 4), live=(6, 5, 4)), 0, plain, Input((9, 5, 4), live=(2, 5, 4)), name, own]
        yield Sample("aten.index_reduce.default", reduced, Out((7, 5, 4)), SORTED)


def scatters() -> Iterator[Sample]:
    for dtype in DTYPES:
        x, out = Input((7, 5, 4), dtype, live=(6, 5, 4)), Out((7, 5, 4), dtype)
        along = [0, _indices(8, 4, 3, size=6, live=(2, 4, 3)), Input((9, 5, 4), dtype, live=(9, 4, 4))]
        last = [-1, _indices(7, 5, 6, size=4, live=(6, 5, 6)), Input((7, 5, 6), dtype, live=(6, 5, 6))]
        for given, route in ((along, WALK), (along, OWNER), (last, WALK), (last, OWNER), (along, SORTED)):
            yield Sample("aten.scatter.src", [x, *given], out, route)
        yield Sample("aten.scatter.value", [x, *along[:2], 1.5], out, OWNER)
        for given, route in ((along, WALK), (along, SORTED), (last, SORTED)):
            yield Sample("aten.scatter_add.default", [x, *given], out, route)
        if dtype in (*PACKED, "int32"):
            yield Sample("aten.scatter.reduce", [x, *along, "multiply"], out)
            yield Sample("aten.scatter.reduce", [x, *last, "add"], out)
            yield Sample("aten.scatter.value_reduce", [x, *last[:2], 2.0, "add"], out)
            for name, own in itertools.product(("sum", "prod", "mean", "amax", "amin"), (True, False)):
                yield Sample("aten.scatter_reduce.two", [x, *along, name, own], out)


def masks() -> Iterator[Sample]:
    for dtype in DTYPES:
        x, mask = Input((7, 5), dtype, live=(4, 5)), Input((7, 1), "bool", live=(4, 1))
        yield Sample("aten.masked_fill.Scalar", [x, mask, -1.0 if dtype != "uint8" else 3], Out((7, 5), dtype))
        yield Sample("aten.masked_fill.Tensor", [x, mask, Input((), dtype)], Out((7, 5), dtype))
        rows_of = [None, Input((5,), "bool")]
        yield Sample("aten.index_put.default", [x, rows_of, Input((1,), dtype), False], Out((7, 5), dtype))
        row = [x, [Input((7,), "bool", live=(4,))], Input((5,), dtype), False]
        yield Sample("aten.index_put.default", row, Out((7, 5), dtype))

        for given in (mask, Input((7, 5), "bool", live=(4, 5))):
            yield Sample("aten.masked_scatter.default", [x, given, Input((35,), dtype)], Out((7, 5), dtype))


def search() -> Iterator[Sample]:
    ordered = np.array([-1.5, -0.5, -0.5, 0, 1, 2])
    for dtype, right in itertools.product(("float32", "float16", "int32", "uint8", "int8"), (False, True)):
        layout, out = np.dtype(dtype), Out((7, 5), "int32")
        row = Const(np.abs(ordered).astype(layout) if dtype == "uint8" else ordered.astype(layout))
        row = Const(np.sort(row.array))
        x = Input((7, 5), dtype, live=(4, 5))
        yield Sample("aten.bucketize.Tensor", [x, row, False, right], out)
        yield Sample("aten.bucketize.Scalar", [1, row, False, right], Out((), "int32"))
        yield Sample("aten.searchsorted.Tensor", [row, x, True, right, None, None], out)
        yield Sample("aten.searchsorted.Scalar", [row, -0.5, True, right, None, None], Out((), "int32"))
    rows_of = Const(np.stack([ordered + i for i in range(5)]).astype(np.float32))
    x, sorter = Input((5, 9), live=(5, 4)), Const(np.tile(np.arange(6, dtype=np.int32), (5, 1)))
    for side, given in (("left", None), ("right", sorter)):
        yield Sample("aten.searchsorted.Tensor", [rows_of, x, False, False, side, given], Out((5, 9), "int32"))


def in_place() -> Iterator[Sample]:
    for inner, dtype in ((8, "float32"), (3, "int32"), (4, "float16"), (3, "float16"), (8, "uint8")):
        cache = numbers(np.random.default_rng(5), (2, 3, 11, inner), dtype, -2, 2)
        out, position = Out(cache.shape, dtype), _indices(5, size=11, live=(1,), wraps=True)
        states = Input((2, 3, 5, inner), dtype, live=(2, 3, 1, inner))
        prompt = Input((1, 3, 70, inner), dtype, live=(1, 3, 67, inner))
        for many, new in ((position, states), (_indices(70, size=11, live=(67,)), prompt)):
            yield Sample("aten.index_put_.default", [Mutable(cache), [None, None, many], new, False], out)
        pairs = Input((3, 5, 3, inner), dtype, live=(3, 1, 3, inner))
        given = [Mutable(cache), [_indices(3, 1, size=2), None, position], pairs, False]
        yield Sample("aten.index_put_.default", given, out)
    masked = [Mutable(cache), [None, Input((3,), "bool")], Input((), dtype), False]
    yield Sample("aten.index_put_.default", masked, Out(cache.shape, dtype))
    added = [Mutable(cache.astype(np.float32)), [None, None, position], Input((1, inner)), True]
    yield Sample("aten.index_put_.default", added, Out(cache.shape))


def bags() -> Iterator[Sample]:
    for dtype, (mode, weighted), last in itertools.product(
        ("float32", "float16"), ((0, False), (0, True), (1, False), (2, False)), (False, True)
    ):
        table = Const(numbers(np.random.default_rng(7), (11, 5), dtype, -2, 2))
        weights = Input((9,), dtype, live=(8,)) if weighted else None
        offsets = Const(np.array([0, 2, 2, 5, *([7] if last else [])], np.int32))
        indices = _indices(9, size=11, live=(8,))
        for name, padding in (("", 3), ("_forward_only", -1)):
            in_bags = 0 if (mode, padding) == (0, -1) else 9
            outs = [Out((4, 5), dtype), Out((in_bags,), "int32"), Out((5 if last and name else 4,), "int32")]
            outs.append(Out((4, 5) if mode == 2 else (4,), "int32"))
            args = [table, indices, offsets, False, mode, False, weights, last, padding]
            yield Sample(f"aten._embedding_bag{name}.default", args, outs)
    odd = Const(numbers(np.random.default_rng(8), (11, 3), "float16", -2, 2))
    args = [odd, _indices(1, 5, size=11, live=(1, 2)), -1, False, False]
    yield Sample("aten.embedding.default", args, Out((1, 5, 3), "float16"))


FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    parts,
    order,
    transposes,
    repetition,
    joining,
    lookup,
    puts,
    scatters,
    masks,
    search,
    in_place,
    bags,
)

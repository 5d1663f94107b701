"""Operators that read and write by indices, held against torch: shapes, duplicates, NaN, indices out of range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder

from .harness import Const, In, Mutable, OpProgram, Out

RNG = np.random.default_rng(11)


def floats(*dims: int) -> np.ndarray:
    return RNG.standard_normal(dims).astype(np.float32)


def indices(size: int, *dims: int, low: int = 0) -> np.ndarray:
    return RNG.integers(low, size, dims).astype(np.int32)


def as_torch(arrays: list[np.ndarray | None]) -> list[torch.Tensor | None]:
    return [None if a is None else torch.from_numpy(a.astype(np.int64)) for a in arrays]


# Dims of a tensor, and of the index tensor of each dimension: None for all of it, () for a single index.
LISTS: list[tuple[tuple[int, ...], list[tuple[int, ...] | None]]] = [
    ((7, 5, 3), [(4,)]),
    ((7, 5, 3), [()]),
    ((7, 5, 3), [None, None, ()]),
    ((7, 5, 3), [None, (2, 3)]),
    ((7, 5, 3), [(4,), (4,)]),
    ((7, 5, 3), [(4, 1), None, (1, 2)]),  # apart: the dims of the indices come first
    ((7, 5, 3, 4), [None, (3, 1), (2,)]),
    ((7, 5, 3), [(3, 1, 1), (2, 1), (4,)]),
    ((3, 2, 3, 2, 2, 2, 2, 2), [None, (3,), None, None, (2, 1), None, None, (1, 3)]),
    ((3, 2, 3, 2, 2, 3, 2, 2), [(5,), (5,), (1,), (5,), (5,), (5,), (5,), (5,)]),  # more than one dispatch binds
    ((13,), [(17,)]),
    ((5,), [(4, 3)]),  # values broadcast
    ((7, 0, 3), [(4,)]),
    ((7, 5, 3), [(0,)]),
]


@contextmanager
def indexed(
    device: Device, op: str, x: Any, given: list[np.ndarray | None], more: list[Any], out: Out
) -> Iterator[Any]:
    listed = [None if a is None else In(a.shape, "int32") for a in given]
    with OpProgram(device, op, [x, listed, *more], out) as program:
        yield program


@pytest.mark.parametrize(("dims", "lists"), LISTS)
def test_index_and_index_put_as_torch(
    device: Device, dims: tuple[int, ...], lists: list[tuple[int, ...] | None]
) -> None:
    x = floats(*dims)
    given = [None if s is None else indices(n, *s, low=-n) for n, s in zip(dims, lists, strict=False)]
    wanted = torch.from_numpy(x)[tuple(slice(None) if i is None else i for i in as_torch(given))]
    run = [a for a in given if a is not None]
    with indexed(device, "aten.index.Tensor", In(dims), given, [], Out(wanted.shape)) as program:
        np.testing.assert_array_equal(program.check([x, *run]), wanted.numpy())
    values = floats(*wanted.shape[-1:])
    for accumulate in (False, True):
        put = torch.ops.aten.index_put(torch.from_numpy(x), as_torch(given), torch.from_numpy(values), accumulate)
        more = [In(values.shape), accumulate]
        with indexed(device, "aten.index_put.default", In(dims), given, more, Out(dims)) as program:
            got = program.check([x, *run, values])
        if accumulate:
            np.testing.assert_allclose(got, put.numpy(), rtol=1e-5, atol=1e-5)


SCATTER: dict[str, Any] = {
    "aten.scatter.src": lambda x, dim, i, v: torch.scatter(x, dim, i, v),
    "aten.scatter_add.default": torch.scatter_add,
    **{
        f"aten.scatter_reduce.two {name}": lambda x, dim, i, v, name=name: x.scatter_reduce(dim, i, v, name)
        for name in ("prod", "mean", "amax", "amin")
    },
}


@pytest.mark.parametrize("name", SCATTER)
@pytest.mark.parametrize("dims", [(), (7,), (131, 3)])
def test_scatter_as_torch(device: Device, name: str, dims: tuple[int, ...]) -> None:
    x, size = floats(*dims), dims[0] if dims else 1
    many = (257, *dims[1:]) if dims else ()
    index, values = indices(size, *many), floats(*many)
    op, _, reduce = name.partition(" ")
    args = [In(dims), 0, In(many, "int32"), In(many), *([reduce, True] if reduce else [])]
    wanted = SCATTER[name](torch.from_numpy(x), 0, torch.from_numpy(index.astype(np.int64)), torch.from_numpy(values))
    with OpProgram(device, op, args, Out(dims)) as program:
        got = program.check([x, index, values])
    np.testing.assert_allclose(got, wanted.numpy(), rtol=2e-4, atol=1e-5)


def test_sums_repeat_bit_for_bit_and_by_every_route(device: Device) -> None:
    x, index, values = floats(37, 5), indices(37, 2039, 5), floats(2039, 5)
    found = []
    for route in ("walk", "sorted", "sorted"):
        args = [In(x.shape), 0, In(index.shape, "int32"), In(values.shape)]
        with OpProgram(device, "aten.scatter_add.default", args, Out(x.shape), routes={"scatter": route}) as program:
            found += [program.check([x, index, values]) for _ in range(2)]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].view(np.uint32), other.view(np.uint32))
    wanted = x.copy()  # one after the other, each sum rounded, which is how torch adds them
    np.add.at(wanted, (index, np.arange(5)[None]), values)
    np.testing.assert_array_equal(found[0], wanted)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int8"])
@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin", "sum"])
def test_many_values_of_few_places(device: Device, dtype: str, reduce: str) -> None:
    """More than a software adapter lets one invocation take; places that share a chunk of values, and that do not."""
    count = 40_009
    index = np.where(np.arange(count) % 3 == 0, 1, np.where(np.arange(count) < 30_000, 4, 0)).astype(np.int32)
    index[17] = 3
    given = RNG.integers(-3, 4, (count, 3))
    values = np.where(given == 0, 1, np.sign(given)).astype(dtype) if reduce == "prod" else given.astype(dtype)
    x = RNG.integers(1, 4, (6, 3)).astype(dtype)
    for op in (
        ("aten.index_reduce.default", "aten.scatter_reduce.two") if reduce != "sum" else ("aten.index_add.default",)
    ):
        spread = np.repeat(index[:, None], 3, axis=1) if "scatter" in op else index
        more = [1] if reduce == "sum" else [reduce, False]
        args = [In(x.shape, dtype), 0, In(spread.shape, "int32"), In(values.shape, dtype), *more]
        with OpProgram(device, op, args, Out(x.shape, dtype)) as program:
            for n in (count, 1, 2049, count):
                program.check([x, spread[:n], values[:n]], absolute=2e-2 if dtype == "float16" else 1e-4)


@pytest.mark.parametrize(("dtype", "rows"), [("float32", 5003), ("uint8", 1009)])
def test_the_last_of_many_values_stays(device: Device, dtype: str, rows: int) -> None:
    x = RNG.integers(0, 100, (rows, 3)).astype(dtype)
    index, values = indices(rows, 7919), RNG.integers(0, 100, (7919, 3)).astype(dtype)
    wanted = x.copy()
    for i, row in zip(index, values, strict=True):
        wanted[i] = row
    args = [In(x.shape, dtype), [In(index.shape, "int32")], In(values.shape, dtype), False]
    with OpProgram(device, "aten.index_put.default", args, Out(x.shape, dtype)) as program:
        for count in (7919, 1, 211, 7919):
            program.check([x, index[:count], values[:count]])
        np.testing.assert_array_equal(program.run([x, index, values]), wanted)


def test_nan_and_infinity_are_moved_and_reduced(device: Device) -> None:
    x = np.array([np.nan, 1, -np.inf, np.inf, 2, np.nan], np.float32)
    index, values = np.array([0, 1, 2, 3, 4, 4], np.int32), np.array([5, np.nan, 3, -np.inf, np.inf, 7], np.float32)
    for reduce in ("sum", "prod", "mean", "amax", "amin"):
        wanted = torch.from_numpy(x).scatter_reduce(
            0, torch.from_numpy(index.astype(np.int64)), torch.from_numpy(values), reduce
        )
        with OpProgram(
            device, "aten.scatter_reduce.two", [In((6,)), 0, In((6,), "int32"), In((6,)), reduce, True], Out((6,))
        ) as program:
            np.testing.assert_array_equal(program.check([x, index, values]), wanted.numpy())
    marked = np.array([0x7FC12345, 0xFFC00001, 0x80000000, 1], np.uint32).view(np.float32)
    with OpProgram(device, "aten.index_select.default", [In((4,)), 0, In((4,), "int32")], Out((4,))) as program:
        got = program.run([marked, np.arange(4, dtype=np.int32)[::-1]])
    np.testing.assert_array_equal(got.view(np.uint32), marked.view(np.uint32)[::-1])


def test_searches_put_nan_last(device: Device) -> None:
    row = np.array([-np.inf, -1, 0, 0, 2, np.inf], np.float32)
    values = np.array([np.nan, -np.inf, np.inf, 0, -0.0, 1.5, 3], np.float32)
    for right in (False, True):
        with OpProgram(
            device, "aten.bucketize.Tensor", [In((7,)), Const(row), False, right], Out((7,), "int32")
        ) as program:
            wanted = torch.bucketize(torch.from_numpy(values), torch.from_numpy(row), right=right)
            np.testing.assert_array_equal(program.check([values]), wanted.numpy())


# -- indices out of range --------------------------------------------------------------------------------------------

OUT_OF_RANGE: list[tuple[str, list[Any], int]] = [
    ("aten.gather.default", [In((5, 3)), 0, In((4, 3), "int32"), False], 5),
    ("aten.gather.default", [In((5, 3)), 0, In((4, 3), "int32"), False], -1),
    ("aten.index_select.default", [In((5, 3)), 0, In((4,), "int32")], -1),
    ("aten.index.Tensor", [In((5, 3)), [In((4,), "int32")]], -6),
    ("aten.take.default", [In((5, 3)), In((4,), "int32")], 15),
    ("aten.index_put.default", [In((5, 3)), [In((4,), "int32")], In((3,)), False], 5),
    ("aten.index_add.default", [In((5, 3)), 0, In((4,), "int32"), In((4, 3)), 1], -1),
    ("aten.scatter.value", [In((5, 3)), 0, In((4, 3), "int32"), 1.0], 5),
    ("aten.scatter_add.default", [In((5, 3)), 0, In((4, 3), "int32"), In((4, 3))], -2),
]


@pytest.mark.parametrize(("op", "args", "bad"), OUT_OF_RANGE, ids=lambda v: v if isinstance(v, str) else "")
def test_an_index_that_the_host_sees_is_refused(device: Device, op: str, args: list[Any], bad: int) -> None:
    def dims(arg: Any) -> list[Any]:
        return (
            [d for item in arg for d in dims(item)] if isinstance(arg, list) else [arg] if isinstance(arg, In) else []
        )

    given = [np.zeros(a.max_dims, np.int32) if a.dtype == "int32" else floats(*a.max_dims) for a in dims(args)]
    with OpProgram(device, op, args, Out(_result_dims(op, given))) as program:
        for _ in range(2):
            wrong = [
                np.where(np.arange(a.size).reshape(a.shape) == 2, bad, a) if a.dtype == np.int32 else a for a in given
            ]
            with pytest.raises(InvalidInputError, match=f"index {bad} is out of range"):
                program.run(wrong)
            program.check(given)


def _result_dims(op: str, given: list[np.ndarray]) -> tuple[int, ...]:
    if "gather" in op or "take" in op:
        return given[1].shape
    return (4, 3) if op in ("aten.index_select.default", "aten.index.Tensor") else given[0].shape


def run_graph(device: Device, build: GraphBuilder, inputs: list[np.ndarray]) -> list[Any]:
    graph = build_graph(build.build())
    constants = ConstantPool(device, lambda view: None)
    executor = GraphExecutor(graph, constants, Planning(device.features, device.limits))
    try:
        return list(executor.execute(inputs))
    finally:
        executor.close()


def test_an_index_that_only_the_device_knows_is_clamped(device: Device) -> None:
    build = GraphBuilder()
    x, index = build.input((5,)), build.input((4,), "int32")
    far = build.call("aten.mul.Scalar", index, 100, build.tensor((4,), "int32"))
    build.output(
        build.call("aten.index_select.default", x, 0, far, build.tensor((4,))),
        build.call("aten.scatter.value", x, 0, far, 9.0, build.tensor((5,))),
    )
    values = np.arange(5, dtype=np.float32)
    taken, put = run_graph(device, build, [values, np.array([-1, 0, 1, 2], np.int32)])
    np.testing.assert_array_equal(taken, [0, 0, 4, 4])
    np.testing.assert_array_equal(put, [9, 1, 2, 3, 9])


# -- in place ---------------------------------------------------------------------------------------------------------


def test_a_cache_is_written_at_positions_in_a_tensor(device: Device) -> None:
    """As static caches of transformers are: prompts of several lengths, then tokens one by one."""
    cache = np.zeros((1, 2, 131, 8), np.float32)
    args = [Mutable(cache), [None, None, In((127,), "int32")], In((1, 2, 127, 8)), False]
    with OpProgram(device, "aten.index_put_.default", args, Out(cache.shape)) as program:
        position = 0
        for count in (89, 1, 1, 3, 1, 7):
            program.check([np.arange(position, position + count, dtype=np.int32), floats(1, 2, count, 8)])
            position += count
            np.testing.assert_array_equal(program.mutable(), program._reference_state[0])
        assert np.count_nonzero(program.mutable()[0, 0].any(axis=-1)) == position


def test_what_is_written_in_place_may_be_its_own_result(device: Device) -> None:
    build = GraphBuilder()
    x, index, values = build.input((7, 4)), build.input((3,), "int32"), build.input((3, 4))
    own = build.call("aten.neg.default", x, build.tensor((7, 4)))
    build.call("aten.index_put_.default", own, [index], values, False, own)
    build.output(build.call("aten.add.Tensor", own, own, 1, build.tensor((7, 4))))
    given = [floats(7, 4), np.array([5, 0, 5], np.int32), floats(3, 4)]
    wanted = -given[0]
    wanted[given[1]] = given[2]
    (got,) = run_graph(device, build, given)
    np.testing.assert_array_equal(got, wanted + wanted)


# -- masks ------------------------------------------------------------------------------------------------------------


def test_masked_scatter_over_many_chunks(device: Device) -> None:
    x, mask, source = floats(211, 97), (RNG.random((211, 97)) < 0.3).astype(np.uint32), floats(211 * 97)
    args = [In(x.shape), In(mask.shape, "bool"), In(source.shape)]
    with OpProgram(device, "aten.masked_scatter.default", args, Out(x.shape)) as program:
        for rows in (211, 5, 1, 211):
            program.check([x[:rows], mask[:rows], source])


def test_a_mask_that_selects_is_for_the_host(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="only the host can know"):
        OpProgram(device, "aten.index.Tensor", [In((5, 3)), [In((5,), "bool")]], Out((5, 3)))


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize(("unit", "lanes", "quads"), [("vec4<u32>", 1, False), *(("u32", n, True) for n in (1, 2, 4))])
def test_gathering_compiles(engine: str, unit: str, lanes: int, quads: bool) -> None:
    for count in (1, 4):
        template = {"unit": unit, "lanes": lanes, "quads": quads, "count": count}
        compile_check(engine, "indexing/gather", template)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_gathering_along_rows_of_any_length(device: Device, dtype: str) -> None:
    """Rows that end within 16 bytes and at them, and a result that does."""
    rng = np.random.default_rng(0)
    args = [In((5, 64), dtype), 1, In((5, 48), "int32"), False]
    for turns in (False, True):  # an invocation makes 16 bytes several times
        tunings = {"indexing/gather": 0 if turns else 1024}
        with OpProgram(device, "aten.gather.default", args, Out((5, 48), dtype), tunings=tunings) as program:
            for rows, columns in ((5, 48), (3, 1), (1, 17), (5, 31), (5, 48)):
                x = rng.integers(0, 100, (rows, 64)).astype(dtype)
                program.check([x, rng.integers(0, 64, (rows, columns)).astype(np.int32)])

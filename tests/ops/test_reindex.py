"""Operators that move elements: views, slices, permutations, joins and repetition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.reindex.strided import coalesce

from .harness import Const, In, OpProgram, Out, Sym

DTYPES = ["float32", "int32", "bool", "float16", "int8", "uint8"]
FEW = settings(max_examples=12, deadline=None)


def array(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(np.uint32)
    return rng.integers(0, 100, shape).astype(dtype)


def check_once(
    device: Device, op: str, x: np.ndarray, args: list[Any], out: tuple[int, ...], dtype: str = "float32"
) -> None:
    with OpProgram(device, op, [In(x.shape, dtype), *args], Out(out, dtype)) as program:
        program.check([x])


# -- same order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("op", "args", "out"),
    [
        ("aten.view_copy.default", [[35, 3]], (35, 3)),
        ("aten.view_copy.default", [[-1]], (105,)),
        ("aten.view_copy.default", [[1, 7, -1, 5]], (1, 7, 3, 5)),
        ("aten.clone.default", [None], (3, 1, 5, 7)),
        ("dim_order_ops._clone_dim_order.default", [False, [0, 1, 2, 3]], (3, 1, 5, 7)),
        ("aten.alias_copy.default", [], (3, 1, 5, 7)),
        ("aten.squeeze_copy.dim", [1], (3, 5, 7)),
        ("aten.squeeze_copy.dim", [0], (3, 1, 5, 7)),
        ("aten.squeeze_copy.dims", [[1, -1]], (3, 5, 7)),
        ("aten.squeeze_copy.default", [], (3, 5, 7)),
        ("aten.unsqueeze_copy.default", [0], (1, 3, 1, 5, 7)),
        ("aten.unsqueeze_copy.default", [-1], (3, 1, 5, 7, 1)),
        ("aten.unsqueeze_copy.default", [-2], (3, 1, 5, 1, 7)),
    ],
)
def test_same_order(device: Device, op: str, args: list[Any], out: tuple[int, ...], dtype: str) -> None:
    check_once(device, op, array((3, 1, 5, 7), dtype), args, out, dtype)


def test_view_follows_a_live_size(device: Device) -> None:
    args = [In((1, 13, 6)), [1, Sym(), 2, 3]]
    with OpProgram(device, "aten.view_copy.default", args, Out((1, 13, 2, 3))) as program:
        for rows in (13, 1, 1, 7, 13):
            program.check([array((1, rows, 6)), rows])
        with pytest.raises(InvalidInputError, match="cannot be seen as"):
            program.run([array((1, 5, 6)), 4])


def test_prepack_gives_the_constant(device: Device) -> None:
    with OpProgram(device, "et_vk.prepack.default", [Const(array((5, 7)))], Out((5, 7))) as program:
        program.check([])


@pytest.mark.parametrize(
    ("op", "args", "out"),
    [
        ("aten.view_copy.default", [[4, 4]], (4, 4)),
        ("aten.view_copy.default", [[-1, -1]], (3, 5)),
        ("aten.view_copy.default", [[4, -1]], (4, 4)),
        ("aten.squeeze_copy.dim", [2], (3, 5)),
        ("aten.unsqueeze_copy.default", [3], (3, 5, 1)),
    ],
)
def test_impossible_dims_are_refused_at_load(device: Device, op: str, args: list[Any], out: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedProgramError):
        OpProgram(device, op, [In((3, 5)), *args], Out(out))


# -- parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("dim", "start", "end", "step"),
    [
        (0, 1, 4, 1),
        (1, None, None, 1),
        (1, -4, None, 1),
        (1, 2, -2, 2),
        (2, 3, 2**31 - 1, 3),
        (2, 0, 100, 1),
        (-1, -100, 8, 1),
        (1, 1, None, 2),
    ],
)
def test_slice(device: Device, dim: int, start: int | None, end: int | None, step: int, dtype: str) -> None:
    x = array((5, 7, 12), dtype)
    index: list[slice] = [slice(None)] * 3
    index[dim] = slice(start, end, step)
    check_once(device, "aten.slice_copy.Tensor", x, [dim, start, end, step], x[tuple(index)].shape, dtype)


@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_runs_that_begin_anywhere(device: Device, dtype: str, start: int) -> None:
    x = array((5, 41), dtype)
    check_once(device, "aten.slice_copy.Tensor", x, [1, start, start + 32, 1], (5, 32), dtype)


def test_rows_that_end_within_quads(device: Device) -> None:
    for dtype, step in (("float32", 2), ("float16", 1), ("int8", 3)):
        x = array((7, 2, 41), dtype)
        index = slice(1, 40, step)
        check_once(device, "aten.slice_copy.Tensor", x, [2, 1, 40, step], x[:, :, index].shape, dtype)


def test_slice_with_a_live_start(device: Device) -> None:
    with OpProgram(device, "aten.slice_copy.Tensor", [In((17, 6)), 0, Sym(), None, 1], Out((17, 6))) as program:
        x = array((17, 6))
        for start in (0, 3, -4, 17, 100, -100, 16, 0):
            program.check([x, start])
        for rows, start in ((5, 2), (5, -1), (1, 0), (17, 11)):
            program.check([x[:rows], start])


def test_slice_along_an_inner_dimension_with_live_bounds(device: Device) -> None:
    args = [In((3, 11, 5)), 1, Sym(), Sym(), 2]
    with OpProgram(device, "aten.slice_copy.Tensor", args, Out((3, 6, 5))) as program:
        x = array((3, 11, 5))
        for start, end in ((0, 11), (1, 11), (2, 3), (4, 2), (-5, -1), (10, 11)):
            program.check([x, start, end])


def test_a_window_that_moves_is_not_planned_again(device: Device) -> None:
    # As in a decode step: input_pos moves, the length of what is taken does not.
    table = array((64, 8))
    args = [Const(table), 0, Sym(), Sym(), 1]
    with OpProgram(device, "aten.slice_copy.Tensor", args, Out((64, 8))) as program:
        program.check([3, 4])
        plan = program.executor.plans.plans[-1]
        for position in (4, 5, 40, 63):
            program.check([position, position + 1])
        assert program.executor.plans.plans[-1] is plan
        program.check([0, 64])
        assert program.executor.plans.plans[-1] is not plan


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("dim", "index"), [(0, 0), (0, -1), (1, 3), (1, -7), (2, 11), (-1, -5)])
def test_select(device: Device, dim: int, index: int, dtype: str) -> None:
    x = array((5, 7, 12), dtype)
    check_once(device, "aten.select_copy.int", x, [dim, index], np.take(x, index, axis=dim).shape, dtype)


def test_select_counts_from_the_live_end(device: Device) -> None:
    with OpProgram(device, "aten.select_copy.int", [In((1, 17, 12)), 1, -1], Out((1, 12))) as program:
        for rows in (17, 1, 5, 4, 17):
            program.check([array((1, rows, 12), seed=rows)])


def test_select_at_a_live_index(device: Device) -> None:
    with OpProgram(device, "aten.select_copy.int", [In((3, 11, 5)), 1, Sym()], Out((3, 5))) as program:
        x = array((3, 11, 5))
        for index in (0, 10, -1, -11, 4):
            program.check([x, index])
        with pytest.raises(InvalidInputError, match="must be between -4 and 3"):
            program.run([x[:, :4], 4])
        program.check([x[:, :5], 4])


def test_select_out_of_range_is_refused_at_load(device: Device) -> None:
    with pytest.raises(InvalidProgramError, match="must be between -3 and 2"):
        OpProgram(device, "aten.select_copy.int", [In((3, 5)), 0, 3], Out((5,)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_split_with_sizes(device: Device, dtype: str) -> None:
    outs = [Out((3, 4, 5), dtype), Out((3, 1, 5), dtype), Out((3, 6, 5), dtype)]
    args = [In((3, 11, 5), dtype), [4, 1, 6], -2]
    with OpProgram(device, "aten.split_with_sizes_copy.default", args, outs) as program:
        program.check([array((3, 11, 5), dtype)])


def test_split_that_leaves_something_is_refused_at_load(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="do not make up"):
        OpProgram(device, "aten.split_with_sizes_copy.default", [In((5, 4)), [3, 1], 0], [Out((3, 4)), Out((1, 4))])


def test_unfold(device: Device) -> None:
    check_once(device, "aten.unfold_copy.default", array((3, 11, 5)), [1, 4, 3], (3, 3, 5, 4))
    check_once(device, "aten.unfold_copy.default", array((13,)), [-1, 5, 2], (5, 5))


# -- order ---------------------------------------------------------------------------------------------------


@FEW
@given(data=st.data())
def test_permute(device: Device, data: st.DataObject) -> None:
    dims = data.draw(st.lists(st.sampled_from([1, 2, 3, 5, 7, 8]), min_size=1, max_size=5))
    order = data.draw(st.permutations(range(len(dims))))
    dtype = data.draw(st.sampled_from(DTYPES))
    x = array(tuple(dims), dtype)
    check_once(device, "aten.permute_copy.default", x, [list(order)], tuple(dims[a] for a in order), dtype)


def test_permute_of_eight_dimensions(device: Device) -> None:
    x = array((2, 3, 2, 3, 2, 3, 2, 3))
    check_once(device, "aten.permute_copy.default", x, [[7, 5, 3, 1, 6, 4, 2, 0]], (3, 3, 3, 3, 2, 2, 2, 2))


def test_permute_follows_live_dims(device: Device) -> None:
    args = [In((1, 13, 3, 8)), [0, 2, 1, 3]]
    with OpProgram(device, "aten.permute_copy.default", args, Out((1, 3, 13, 8))) as program:
        for rows in (13, 1, 5, 5, 13):
            program.check([array((1, rows, 3, 8))])


@pytest.mark.parametrize(
    ("dtype", "dims", "order"),
    [
        ("float16", (130, 134), [1, 0]),
        ("float16", (134, 131), [1, 0]),  # rows of x begin within words
        ("int8", (2, 68, 131), [0, 2, 1]),
        ("uint8", (132, 5, 66), [1, 2, 0]),
        ("float32", (3, 131, 67), [2, 0, 1]),
    ],
)
def test_transposes_by_tiles(device: Device, dtype: str, dims: tuple[int, ...], order: list[int]) -> None:
    x = array(dims, dtype)
    out = tuple(dims[a] for a in order)
    with OpProgram(
        device, "aten.permute_copy.default", [In(dims, dtype), order], Out(out, dtype), routes={"transpose": "tiled"}
    ) as program:
        program.check([x])


def test_transposes_by_tiles_follow_live_sizes(device: Device) -> None:
    args = [In((138, 140), "float16"), [1, 0]]
    out, routes = Out((140, 138), "float16"), {"transpose": "tiled"}
    with OpProgram(device, "aten.permute_copy.default", args, out, routes=routes) as program:
        for dims in ((136, 140), (137, 139), (1, 4), (134, 131), (136, 140)):
            program.check([array(dims, "float16")])


def test_transposes(device: Device) -> None:
    check_once(device, "aten.transpose_copy.int", array((3, 5, 7)), [0, -1], (7, 5, 3))
    check_once(device, "aten.t_copy.default", array((3, 5)), [], (5, 3))
    check_once(device, "aten.t_copy.default", array((5,)), [], (5,))


@pytest.mark.parametrize("dims", [[0], [-1], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("dtype", DTYPES)
def test_flip(device: Device, dims: list[int], dtype: str) -> None:
    check_once(device, "aten.flip.default", array((5, 7, 11), dtype), [dims], (5, 7, 11), dtype)


def test_pixel_shuffle(device: Device) -> None:
    check_once(device, "aten.pixel_shuffle.default", array((2, 12, 3, 5)), [2], (2, 3, 6, 10))
    check_once(device, "aten.pixel_shuffle.default", array((9, 2, 2), "int8"), [3], (1, 6, 6), "int8")


def test_not_a_permutation_is_refused_at_load(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="not an order"):
        OpProgram(device, "aten.permute_copy.default", [In((3, 5)), [0, 0]], Out((3, 3)))


# -- repetition and joining ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "size", "out"),
    [
        ((1, 5), [3, 5], (3, 5)),
        ((3, 1, 5), [-1, 4, -1], (3, 4, 5)),
        ((5,), [2, 3, 5], (2, 3, 5)),
        ((1,), [17], (17,)),
        ((3, 5), [3, 5], (3, 5)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_expand(device: Device, dims: tuple[int, ...], size: list[int], out: tuple[int, ...], dtype: str) -> None:
    check_once(device, "aten.expand_copy.default", array(dims, dtype), [size, False], out, dtype)


@pytest.mark.parametrize(
    ("dims", "repeats", "out"),
    [
        ((3,), [2], (6,)),
        ((3, 5), [1, 3, 2], (1, 9, 10)),
        ((3, 5, 7), [2, 1, 2], (6, 5, 14)),
        ((2, 3, 2, 3), [2, 3, 2, 3], (4, 9, 4, 9)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_repeat(device: Device, dims: tuple[int, ...], repeats: list[int], out: tuple[int, ...], dtype: str) -> None:
    check_once(device, "aten.repeat.default", array(dims, dtype), [repeats], out, dtype)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cat(device: Device, dim: int) -> None:
    dims = [[3, 5, 7], [3, 5, 7], [3, 5, 7], [3, 5, 7]]
    for size, d in zip((1, 4, 2, 11), dims, strict=True):
        d[dim] = size
    out = [3, 5, 7]
    out[dim] = 18
    with OpProgram(device, "aten.cat.default", [[In(tuple(d)) for d in dims], dim], Out(tuple(out))) as program:
        program.check([array(tuple(d), seed=i) for i, d in enumerate(dims)])


def test_cat_follows_live_dims(device: Device) -> None:
    args = [[In((2, 9, 4)), In((2, 6, 4))], 1]
    with OpProgram(device, "aten.cat.default", args, Out((2, 15, 4))) as program:
        for a, b in ((9, 6), (1, 6), (9, 1), (1, 1), (9, 6)):
            program.check([array((2, a, 4), seed=1), array((2, b, 4), seed=2)])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_cat_of_packed_elements_that_fill_words(device: Device, dtype: str) -> None:
    args = [[In((3, 5, 4), dtype), In((3, 2, 4), dtype)], 1]
    with OpProgram(device, "aten.cat.default", args, Out((3, 7, 4), dtype)) as program:
        program.check([array((3, 5, 4), dtype), array((3, 2, 4), dtype, seed=1)])


def test_cat_of_packed_elements_that_share_words(device: Device) -> None:
    args = [[In((3, 3), "int8"), In((3, 2), "int8")], 1]
    with OpProgram(device, "aten.cat.default", args, Out((3, 5), "int8")) as program:
        for rows in (3, 1, 2):
            program.check([array((rows, 3), "int8"), array((rows, 2), "int8", seed=1)])


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_a_part_at_the_start_leaves_the_rest_of_its_last_word(device: Device, dtype: str) -> None:
    for place, op, more in (
        (0, "aten.select_scatter.default", [0]),
        (slice(0, 1), "aten.slice_scatter.default", [0, 1, 1]),
    ):
        x, part = array((3, 5), dtype), array((3, 5), dtype, seed=1)[place]
        with OpProgram(device, op, [In((3, 5), dtype), In(part.shape, dtype), 0, *more], Out((3, 5), dtype)) as program:
            program.check([x, part])


def test_cat_of_different_shapes_is_refused_at_load(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="differ in more than"):
        OpProgram(device, "aten.cat.default", [[In((3, 5)), In((4, 5))], 1], Out((4, 10)))


def test_grids_past_the_limit_of_one_dimension(device: Device) -> None:
    n = 64 * device.limits.max_workgroups + 65  # words, so that vec4s do not fit
    with OpProgram(device, "aten.expand_copy.default", [In((1,), "int8"), [n * 4], False], Out((n * 4,), "int8")) as p:
        p.check([np.array([7], np.int8)])


# -- how views are folded ------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 7), max_size=6).flatmap(lambda d: st.tuples(st.just(d), st.permutations(range(len(d))))))
def test_coalescing_keeps_the_order_of_addresses(case: tuple[list[int], list[int]]) -> None:
    dims, order = case
    storage = np.arange(int(np.prod(dims, dtype=int))).reshape(dims).transpose(order)
    strides = tuple(s // storage.itemsize for s in storage.strides)
    folded, (folded_strides,) = coalesce(storage.shape, strides)
    view = np.lib.stride_tricks.as_strided(
        np.ascontiguousarray(storage.base), folded, [s * storage.itemsize for s in folded_strides]
    )
    np.testing.assert_array_equal(view.reshape(-1), storage.reshape(-1))
    assert 1 not in folded


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("unit", "lanes"), [("vec4<u32>", (1, 1)), *(("u32", lanes) for lanes in ((1, 1), (2, 2), (4, 1), (1, 2)))]
)
def test_every_variant_compiles_on_dawn(unit: str, lanes: tuple[int, int], live: bool) -> None:
    template = {"unit": unit, "x_lanes": lanes[0], "out_lanes": lanes[1], "live": live}
    compile_check("dawn", "reindex/strided_copy", template)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_quads_compile_on_dawn(lanes: int, runs: bool, live: bool) -> None:
    compile_check("dawn", "reindex/strided_quads", {"lanes": lanes, "runs": runs, "live": live})


@pytest.mark.parametrize(("lanes", "aligned"), [(1, True), (2, True), (2, False), (4, True), (4, False)])
def test_tiles_compile_on_dawn(lanes: int, aligned: bool) -> None:
    compile_check("dawn", "reindex/tiled_transpose", {"lanes": lanes, "aligned": aligned})

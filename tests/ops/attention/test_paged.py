"""Attention over pages: many sequences in one call, each as it is alone, and nothing read that is not its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.attention.flash_decode import plan as flash_decode
from executorch_webgpu.ops.attention.flash_decode.plan import choose_variant
from executorch_webgpu.ops.attention.flash_decode_subgroups import plan as subgroups

from .paging import DTYPES, Paged

# Several splits even in short contexts; few registers, so that a software adapter has it compiled soon.
SMALL = subgroups.Tuning(subgroups=2, unroll=2, registers=16, single_chunk=64)
PLAIN = replace(flash_decode.TUNING, workgroup_size=64, single_chunk=64, workgroups=64)
TUNINGS = {"attention/flash_decode_subgroups": SMALL, "attention/flash_decode": PLAIN}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "head_dim"), [((4, 4), 16), ((6, 2), 64), ((8, 1), 20), ((3, 3), 128), ((10, 2), 256)]
)
def test_sequences_are_as_they_are_alone(device: Device, dtype: str, heads: tuple[int, int], head_dim: int) -> None:
    paged = Paged(device, heads=(heads[0], heads[1]), head_dim=head_dim, dtype=dtype)
    for rows in ([(0, 5), (3, 17)], [(0, 1), (3, 1), (1, 1)], [(1, 16), (5, 8)], [(s, 1) for s in (5, 0, 1, 3)]):
        paged.check(rows)
    paged.close()


@pytest.mark.parametrize("page_rows", [1, 2, 16, 64])
def test_every_edge_of_pages(device: Device, page_rows: int) -> None:
    paged = Paged(device, page_rows=page_rows, pages=140, width=64, sequences=2)
    paged.check([(0, page_rows % 24 or 1)])
    for _ in range(page_rows + 2 if page_rows < 20 else 3):
        paged.check([(0, 1), (1, 1)])
    paged.close()


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_random_arrivals(device: Device, data: st.DataObject) -> None:
    heads = data.draw(st.sampled_from([(1, 1), (4, 2), (6, 3), (8, 1)]))
    dtype = data.draw(st.sampled_from(DTYPES))
    paged = Paged(device, heads=heads, head_dim=32, dtype=dtype, seed=data.draw(st.integers(0, 1000)))
    lengths = [0] * 6
    for _ in range(data.draw(st.integers(2, 5))):
        chosen = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
        rows = [(s, data.draw(st.integers(1, 4))) for s in chosen]
        rows = [(s, n) for s, n in rows if lengths[s] + n <= 96]
        for s, n in rows:
            lengths[s] += n
        paged.check(rows)
    paged.close()


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_contexts_are_split(device: Device, dtype: str) -> None:
    """Chunks of 64 columns, and room for the sums of one token at a time."""
    short = replace(flash_decode.TUNING, max_chunk=64, min_chunk=64, single_chunk=64)
    scratch = 4 * 4 * 16 * 5  # bytes of the sums of two tokens, of up to 128 rows
    paged = Paged(
        device,
        dtype=dtype,
        tunings={"attention/flash_decode": short},
        features=replace(device.features, subgroups=False),
        scratch_bytes=scratch,
        width=16,
        pages=60,
    )
    for _ in range(6):
        paged.check([(0, 20)])
        paged.check([(2, 2), (0, 1)])
    assert len(paged.executor.plans.plans[0].dispatches) > 5
    paged.close()


ROUTES = ("flash_decode_subgroups", "flash_decode")
any_route = pytest.mark.parametrize("route", ROUTES)


@any_route
@pytest.mark.parametrize(
    ("heads", "head_dim", "rope", "page_rows", "dtype", "in_one"),
    [
        ((8, 2), 64, "pairs", 16, "float16", False),  # more queries of a KV head than a workgroup of subgroups has
        ((7, 1), 20, "halves", 4, "int8", False),
        ((3, 3), 128, "pairs", 32, "float16", True),
        ((4, 2), 16, "halves", 8, "float32", True),
        ((4, 2), 16, "pairs", 64, "int8", True),
        ((2, 2), 24, "halves", 1, "int8", True),
        ((10, 2), 12, "", 1, "float32", False),
        ((1, 1), 256, "halves", 16, "float16", True),
    ],
)
def test_both_routes(
    device: Device,
    fixed: Features,
    route: str,
    heads: tuple[int, int],
    head_dim: int,
    rope: str,
    page_rows: int,
    dtype: str,
    in_one: bool,
) -> None:
    """Tokens of sequences of their own, and several of one; the first kind in one dispatch, if subgroups can do it."""
    paged = Paged(
        device,
        heads=heads,
        head_dim=head_dim,
        dtype=dtype,
        page_rows=page_rows,
        pages=120 // page_rows + 80,
        width=-(-80 // page_rows),
        rope=rope,
        tunings=TUNINGS,
        features=fixed,
        routes={"paged_sdpa": route},
    )
    for rows in ([(0, 21), (3, 2)], [(0, 1), (3, 1), (1, 1)], [(0, 22), (1, 2)], [(0, 22), (5, 1)], [(3, 1), (0, 1)]):
        paged.check(rows)
    first = "rotate_and_store" if rope else "cache_update"
    # Larger subgroups than the CPU driver's hold more queries, so more of these cases are done in one dispatch.
    in_one = (in_one or (fixed.subgroup_size > 8 and paged.kernels[0] == route)) and route == "flash_decode_subgroups"
    assert paged.kernels == ([] if in_one else [first]) + [route] + ["merge_splits"] * (len(paged.kernels) > 2 - in_one)
    paged.close()


@any_route
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_around_every_boundary_of_splits(device: Device, fixed: Features, route: str, dtype: str) -> None:
    """Contexts just below, at and above the ends of pages and splits, of which some tokens have more than others."""
    paged = Paged(
        device,
        heads=(2, 1),
        head_dim=20,
        dtype=dtype,
        pages=50,
        width=14,
        most=64,
        rope="pairs",
        tunings=TUNINGS,
        features=fixed,
        routes={"paged_sdpa": route},
    )
    for rows in ([(0, 61), (1, 2)], *[[(0, 1), (1, 1), (2, 1)]] * 4, [(0, 60)], *[[(1, 1), (0, 1)]] * 3, [(0, 62)]):
        paged.check(rows)
    for _ in range(4):
        paged.check([(0, 1), (3, 1)])
    paged.close()


@any_route
def test_64_sequences_to_the_end_of_their_tables(device: Device, fixed: Features, route: str) -> None:
    """Contexts just below, at and above the ends of pages; then some of them up to the last row that a table has."""
    paged = Paged(
        device,
        heads=(3, 1),
        head_dim=8,
        rope="pairs",
        page_rows=4,
        pages=192,
        width=3,
        sequences=64,
        most=160,
        tunings=TUNINGS,
        features=fixed,
        routes={"paged_sdpa": route},
    )
    lengths = {s: (0, 1, 3, 4, 5, 7, 8, 9)[s % 8] for s in range(64)}
    for first in (0, 32):
        paged.check([(s, lengths[s]) for s in range(first, first + 32)])
    paged.check([(s, 1) for s in range(64)])
    paged.check([(s, 11 - lengths[s]) for s in (3, 6, 7, 15)])
    paged.close()


def test_a_longer_context_is_no_reason_to_plan_anew(device: Device) -> None:
    paged = Paged(device, rope="pairs", heads=(1, 1), head_dim=4, pages=100, width=30, sequences=3)
    paged.check([(0, 3), (1, 1), (2, 1)])
    paged.check([(0, 1), (1, 1), (2, 1)])
    plan = paged.executor.plans.plans[0]
    for _ in range(40):
        paged.step([(2, 1), (0, 1), (1, 1)])
    assert paged.executor.plans.plans[0] is plan
    paged.close()


@pytest.mark.parametrize(("dtype", "most"), [("float32", 8), ("float16", 8), ("float16", 9), ("int8", 10)])
def test_few_storage_buffers(device: Device, dtype: str, most: int) -> None:
    paged = Paged(device, dtype=dtype, rope="halves", max_storage_buffers=most)
    paged.check([(0, 5), (3, 2)])
    paged.check([(0, 1), (3, 1)])
    paged.close()


def test_grids_are_of_as_many_tokens_as_fit(device: Device) -> None:
    paged = Paged(device, max_workgroups=9)
    paged.check([(0, 13), (1, 7)])
    assert len(paged.executor.plans.plans[0].dispatches) > 2
    paged.close()


def test_steps_repeat_bit_for_bit(device: Device) -> None:
    first, second = Paged(device, seed=4), Paged(device, seed=4)
    for rows in ([(0, 7), (1, 3)], [(0, 1), (1, 1), (2, 9)]):
        np.testing.assert_array_equal(first.step(rows)[0], second.step(rows)[0])
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("place", "page", "message"),
    [
        ((128, 0), 0, "up to 128 rows"),
        ((-1, 0), 0, "places go from"),
        ((0, 6), 0, "6 sequences"),
        ((0, 0), 40, "40 pages, 0 to 39, not 40"),
        ((0, 0), -1, "40 pages, 0 to 39, not -1"),
    ],
)
def test_places_that_are_not_there(device: Device, place: tuple[int, int], page: int, message: str) -> None:
    paged = Paged(device)
    q = np.zeros((1, 1, 4, 16), np.float32)
    k = np.zeros((1, 1, 2, 16), np.float32)
    tables = np.zeros((6, 8), np.int32)
    tables[0, 0] = page
    with pytest.raises(InvalidInputError, match=message):
        paged.executor.execute([q, k, k, np.array([place], np.int32), tables])
    paged.close()


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_compile(engine: str, dtype: str) -> None:
    itemsize = {"float32": 4, "float16": 2, "int8": 1}[dtype]
    for group, head_dim in ((1, 64), (4, 128), (8, 20), (7, 256)):
        variant = choose_variant(flash_decode.TUNING, group, head_dim, itemsize, 256, 32 << 10)
        assert variant is not None
        compile_check(engine, "attention/flash_decode", variant.template(dtype, paged=True), variant.overrides)
    compile_check(engine, "attention/merge_splits", {"paged": True, "listed": False})
    compile_check(engine, "attention/cache_update", {"count": 2, "width": 4, "cache": dtype, "paged": True})

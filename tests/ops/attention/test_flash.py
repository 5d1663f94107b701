"""The streaming attention kernel: every tile, geometry and edge, masks, and et_vk.sdpa."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, KernelError, UnsupportedProgramError
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import render
from executorch_webgpu.ops.attention.flash import plan as flash
from executorch_webgpu.ops.attention.flash.plan import CPU_TILES, TILES, Tile
from tests.ops.harness import Const, In, Mutable, OpProgram, Out, Sym, assert_close

from .test_kv_cache_dtype import Attention as ReducedAttention
from .test_kv_cache_dtype import check as check_reduced
from .test_sdpa import Attention

Array = np.ndarray


def _name(tile: Tile | None) -> str:
    return f"{tile.rows}x{4 * tile.quads}-{tile.lanes}x{tile.teams}-{tile.depth}" if tile else "default"


# Tiles that fit the adapter of the tests: of GPUs, of software adapters, and of shapes that no device gets by default.
SMALL, MEDIUM, CPU = TILES[-1], TILES[1], CPU_TILES[0]
UNSTAGED = Tile(rows=4, quads=1, lanes=8, teams=4, depth=4, stage_values=False)
WIDE = Tile(rows=4, quads=2, lanes=4, teams=8, depth=2)
EVERY = pytest.mark.parametrize("tile", [SMALL, MEDIUM, CPU, UNSTAGED, WIDE], ids=_name)
SOME = pytest.mark.parametrize("tile", [SMALL, CPU, WIDE], ids=_name)


def tuned(tile: Tile | None) -> dict[str, Any]:
    """Options by which every call has this tile, whatever the device."""
    return {"tunings": {"attention/flash": tile} if tile else {}}


def attention(device: Device, tile: Tile | None, *geometry: Any, **more: Any) -> Attention:
    """A program of heads, head size, capacity and longest step whose every step is planned with ``tile``."""
    return Attention(device, *geometry, route="flash", **tuned(tile), **more)


# -- meaning ----------------------------------------------------------------------------------------------------------


@EVERY
@settings(max_examples=4, deadline=None)
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 8),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    spare=st.integers(0, 3),
    quarter=st.sampled_from([1, 3, 4, 5]),
)
def test_any_geometry(
    device: Device, tile: Tile, kv_heads: int, group: int, lengths: list[int], spare: int, quarter: int
) -> None:
    capacity = sum(lengths) + spare
    heads = (kv_heads * group, kv_heads)
    with attention(device, tile, heads, 4 * quarter, capacity, max(lengths)) as program:
        program.replay(tuple(lengths))


@pytest.mark.parametrize("tile", [SMALL, None], ids=_name)
@pytest.mark.parametrize("head_dim", [64, 80, 256])
def test_head_sizes(device: Device, tile: Tile | None, head_dim: int) -> None:
    with attention(device, tile, (4, 2), head_dim, 100, 67) as program:
        program.replay((67, 1, 32))


@SOME
def test_context_at_the_edges_of_tiles(device: Device, tile: Tile) -> None:
    """Contexts and row counts just below, at and above every boundary; the caches hold NaN behind each context."""
    rows, columns = tile.teams * tile.rows, tile.lanes * 4 * tile.quads
    with attention(device, tile, (2, 1), 8, 2 * columns + 2, rows // 2 + 1) as program:
        for length in (rows // 2 - 1, rows // 2, rows // 2 + 1):
            program.step(length, 0)
        start = rows // 2 + 1
        for context in range(start + 1, 2 * columns + 2):
            if (context + 1) % columns > 2:  # between two boundaries a row is only written
                rows_only = program.rows(1)
                program.program.run([*rows_only, context - 1])
                program.program.reference([*rows_only, context - 1])
            else:
                program.step(1, context - 1)


@SOME
@pytest.mark.parametrize("offset", [0.0, 177.0, -177.0])
def test_large_logits(device: Device, tile: Tile, offset: float) -> None:
    """Logits spread over 100, and all of them far from 0, over more tiles than one."""
    with attention(device, tile, (4, 2), 16, 148, 140, magnitude=4.0, scale=2.0) as program:
        for length, input_pos in ((140, 0), (3, 140), (1, 143)):
            q, k, v = program.rows(length)
            q[..., 0], k[..., 0] = 8.0, offset / 16.0
            program.program.check([q, k, v, input_pos])


@SOME
def test_maxima_that_grow_from_tile_to_tile(device: Device, tile: Tile) -> None:
    """Every later key outweighs all before it, so what was summed is scaled down again and again; then the reverse."""
    for slope in (0.5, -0.5):
        with attention(device, tile, (2, 1), 4, 160, 160, scale=1.0) as program:
            q, k, v = program.rows(160)
            q[...], k[...] = 1.0, slope * np.arange(160, dtype=np.float32).reshape(1, -1, 1, 1)
            program.program.check([q, k, v, 0])


@SOME
def test_one_call_equals_chunks_equals_single_tokens(device: Device, tile: Tile) -> None:
    total = 75
    rows: list[Array] = []
    results = []
    for lengths in ((total,), (32, 32, 11), (1,) * total):
        with attention(device, tile, (4, 2), 12, total, total) as program:
            rows = rows or program.rows(total)
            steps, start = [], 0
            for length in lengths:
                steps.append(program.program.run([*(x[:, start : start + length] for x in rows), start]))
                start += length
            results.append(np.concatenate(steps, axis=1))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=2e-6)


@SOME
def test_rewinds_and_runs_that_repeat_bit_for_bit(device: Device, tile: Tile) -> None:
    with attention(device, tile, (9, 3), 20, 120, 70) as program:
        program.replay((70, 50))
        rows = program.rows(45)
        first = program.program.check([*rows, 30])  # over rows that a longer context left behind
        for _ in range(3):
            np.testing.assert_array_equal(program.program.run([*rows, 30]), first)


@pytest.mark.parametrize(("length", "heads"), [(512, (3, 1)), (2048, (1, 1))])
def test_long_prefill(device: Device, length: int, heads: tuple[int, int]) -> None:
    with attention(device, None, heads, 8, length + 1, length) as program:
        program.replay((length, 1))


def test_deep_prefill_over_a_full_cache(device: Device) -> None:
    rng = np.random.default_rng(4)
    q, k, v = (rng.standard_normal((1, 33, h, 8), dtype=np.float32) for h in (4, 2, 2))
    caches = [Mutable(rng.standard_normal((1, 4096, 2, 8), dtype=np.float32)) for _ in range(2)]
    args = [In(q.shape), In(k.shape), In(v.shape), *caches, Sym(), 1, None, 0.0, True, None]
    with OpProgram(device, "sdpa_with_kv_cache.default", args, Out(q.shape)) as program:
        program.check([q, k, v, 4063])
        with pytest.raises(InvalidInputError, match="the cache has 4096 rows"):
            program.run([q, k, v, 4064])


@pytest.mark.parametrize("dtype", ["f16", "int8"])
@pytest.mark.parametrize("tile", [SMALL, CPU], ids=_name)
def test_reduced_caches(device: Device, tile: Tile, dtype: str) -> None:
    """Against the reference over the same rounded caches."""
    for heads, head_dim in (((6, 2), 20), ((4, 1), 64)):
        with ReducedAttention(device, dtype, heads, head_dim, 90, 67, route="flash", **tuned(tile)) as program:
            check_reduced(program, dtype, (67, 1, 22))


# -- what a plan is ---------------------------------------------------------------------------------------------------


def test_no_scores_are_stored(device: Device) -> None:
    """One dispatch writes the caches and one attends, without scratch memory, however long the context is."""
    with attention(device, None, (4, 2), 8, 600, 300) as program:
        for input_pos in (0, 300):
            program.step(300, input_pos)
            assert [d.kernel for d in program.plan.dispatches] == ["attention/cache_update", "attention/flash"]
            assert not any(hasattr(b, "index") for d in program.plan.dispatches for b in d.bindings.values())


def test_heads_that_are_too_large(device: Device) -> None:
    with pytest.raises(KernelError, match="'flash' of sdpa_with_kv_cache cannot run"):
        Attention(device, (2, 1), 260, 16, 9, "flash")
    with Attention(device, (2, 1), 516, 16, 9) as program:
        program.step(9, 0)
        assert program.route == "large_heads"


@pytest.mark.parametrize("vectors", [1, 5, 16, 32, 33, 64])
def test_tiles_by_device(vectors: int) -> None:
    """A device gets the largest tile that it holds, and Tile.nbytes is what the kernel declares."""
    by_limit = [
        flash.choose_tile(Features.none(), replace(Limits.floor(), max_workgroup_bytes=kib << 10), vectors)
        for kib in (48, 32, 16)
    ]
    assert by_limit == list(TILES)
    assert flash.choose_tile(replace(Features.none(), cpu=True), Limits.floor(), vectors) in CPU_TILES
    for tile in (*TILES, *CPU_TILES, UNSTAGED, WIDE):
        source = render("attention/flash", _template(tile, vectors), "wgpu", Features.none())
        assert source.workgroup_bytes({}) == tile.nbytes(vectors)


@pytest.mark.parametrize("sizes", [(6, 1, 8, 8, 8), (4, 1, 8, 1, 16), (4, 1, 8, 16, 2), (4, 1, 16, 8, 2)])
def test_tiles_that_cannot_be_divided(sizes: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(KernelError, match="evenly"):
        Tile(*sizes)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("cache", ["float32", "float16", "int8"])
def test_tiles_compile(engine: str, cache: str) -> None:
    for tile in (*TILES, *CPU_TILES, UNSTAGED, WIDE):
        for vectors, causal, mask in ((16, True, False), (20, False, True)):
            compile_check(engine, "attention/flash", _template(tile, vectors, cache=cache, causal=causal, mask=mask))
        for mask in (True, False):
            compile_check(engine, "attention/flash", _template(tile, 8, causal=False, mask=mask, batched=True))


def _template(tile: Tile, vectors: int, **changes: Any) -> dict[str, Any]:
    flags = {"causal": True, "mask": False, "pairs": False, "paged": False, "batched": False}
    return {**tile.variant(vectors), "cache": "float32", **flags, **changes}


# -- masks ------------------------------------------------------------------------------------------------------------


def masked(
    device: Device, mask: tuple[int, ...], causal: bool, capacity: int = 60, length: int = 20, **options: Any
) -> OpProgram:
    """sdpa_with_kv_cache of 6 and 2 heads of size 8 with a mask of these dims."""
    query, key = (1, length, 6, 8), (1, length, 2, 8)
    caches = [Mutable(np.full((1, capacity, 2, 8), np.nan, np.float32)) for _ in "kv"]
    args = [In(query), In(key), In(key), *caches, Sym(), 1, In(mask), 0.0, causal, None]
    return OpProgram(device, "sdpa_with_kv_cache.default", args, Out(query), **options)


def _inputs(rng: np.random.Generator, length: int, mask: tuple[int, ...], position: int) -> list[Any]:
    dims = [(1, length, 6, 8), (1, length, 2, 8), (1, length, 2, 8), mask]
    q, k, v, m = (rng.standard_normal(d, dtype=np.float32) for d in dims)
    m[rng.random(m.shape) < 0.3] = -np.inf
    m[..., 0] = 0  # no row is masked out
    return [q, k, v, position, m]


@SOME
@pytest.mark.parametrize("causal", [True, False])
def test_mask_over_the_context(device: Device, tile: Tile, causal: bool) -> None:
    """[S, context], live in both; each step's mask is as long as its context."""
    rng = np.random.default_rng(1)
    with masked(device, (20, 60), causal, **tuned(tile)) as program:
        position = 0
        for length in (20, 1, 7, 20, 12):
            program.check(_inputs(rng, length, (length, position + length), position))
            position += length


@pytest.mark.parametrize("mask", [(1, 6, 20, 60), (6, 1, 60), (1, 1, 20, 60), (6, 20, 1), (60,), (1, 1)])
def test_mask_is_broadcast(device: Device, mask: tuple[int, ...]) -> None:
    """It may also be as long as the cache; what lies behind the context is not used."""
    rng = np.random.default_rng(2)
    with masked(device, mask, False, **tuned(SMALL)) as program:
        for length, position in ((20, 0), (20, 20), (20, 40)):
            program.check(_inputs(rng, length, mask, position))


def test_not_causal_without_a_mask(device: Device) -> None:
    with Attention(device, (4, 2), 8, 90, 70) as causal:
        args = [*causal.args[:9], False, None]
        with OpProgram(device, "sdpa_with_kv_cache.default", args, Out((1, 70, 4, 8))) as program:
            for length, position in ((70, 0), (1, 70), (19, 71)):
                program.check([*causal.rows(length), position])


def test_mask_that_is_too_short(device: Device) -> None:
    rng = np.random.default_rng(3)
    with masked(device, (20, 60), True, **tuned(SMALL)) as program:
        program.check(_inputs(rng, 20, (20, 20), 0))
        with pytest.raises(InvalidInputError, match=r"fewer columns than the context, 20 \+ 20"):
            program.run(_inputs(rng, 20, (20, 39), 20))
        with pytest.raises(InvalidInputError, match=r"cannot be broadcast to \[1, 6, 20, 40\]"):
            program.run(_inputs(rng, 20, (19, 40), 20))
        program.check(_inputs(rng, 20, (20, 40), 20))


@pytest.mark.parametrize("mask", [In((20, 60), "bool"), In((2, 20, 60)), In((1, 1, 1, 20, 60))])
def test_masks_refused_at_load(device: Device, mask: In) -> None:
    query, key = (1, 20, 6, 8), (1, 20, 2, 8)
    caches = [Mutable(np.zeros((1, 60, 2, 8), np.float32)) for _ in "kv"]
    args = [In(query), In(key), In(key), *caches, Sym(), 1, mask, 0.0, True, None]
    with pytest.raises(UnsupportedProgramError, match="mask"):
        OpProgram(device, "sdpa_with_kv_cache.default", args, Out(query))


# -- et_vk.sdpa -------------------------------------------------------------------------------------------------------


def dense(
    device: Device, q: tuple[int, ...], k: tuple[int, ...], mask: Any = None, scale: Any = None, **options: Any
) -> OpProgram:
    return OpProgram(device, "et_vk.sdpa.default", [In(q), In(k), In(k), mask, scale], Out(q), **options)


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    tokens=st.integers(1, 70),
    columns=st.integers(1, 90),
    quarter=st.sampled_from([1, 4, 5]),
    mask=st.sampled_from(["none", "full", "shared", "columns"]),
    one_kv_head=st.booleans(),
)
def test_dense(
    device: Device, batch: int, heads: int, tokens: int, columns: int, quarter: int, mask: str, one_kv_head: bool
) -> None:
    rng = np.random.default_rng(5)
    shapes = {
        "full": (batch, heads, tokens, columns),
        "shared": (batch, 1, tokens, columns),
        "columns": (1, columns),
    }
    q, k = (batch, heads, tokens, 4 * quarter), (batch, 1 if one_kv_head else heads, columns, 4 * quarter)
    inputs = [rng.standard_normal(d, dtype=np.float32) for d in (q, k, k)]
    if mask != "none":
        inputs.append(rng.standard_normal(shapes[mask], dtype=np.float32))
    with dense(device, q, k, In(shapes[mask]) if mask != "none" else None, **tuned(SMALL)) as program:
        program.check(inputs)


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    tokens=st.integers(1, 70),
    columns=st.integers(1, 90),
    quarter=st.sampled_from([1, 4, 5]),
    mask=st.sampled_from(["none", "full", "batches", "columns"]),
)
def test_tokens_first(
    device: Device, batch: int, kv_heads: int, group: int, tokens: int, columns: int, quarter: int, mask: str
) -> None:
    """Batches, tokens and heads in the order in which projections give them; queries may share keys."""
    rng, heads = np.random.default_rng(5), kv_heads * group
    shapes = {
        "full": (batch, heads, tokens, columns),
        "batches": (batch, 1, 1, columns),
        "columns": (columns,),
    }
    q, k = (batch, tokens, heads, 4 * quarter), (batch, columns, kv_heads, 4 * quarter)
    inputs = [rng.standard_normal(d, dtype=np.float32) for d in (q, k, k)]
    if mask != "none":
        inputs.append(rng.standard_normal(shapes[mask], dtype=np.float32))
    args = [In(q), In(k), In(k), In(shapes[mask]) if mask != "none" else None, None]
    with OpProgram(device, "et_webgpu.sdpa_tokens_first.default", args, Out(q), **tuned(SMALL)) as program:
        program.check(inputs)


@pytest.mark.parametrize(
    ("k", "match"),
    [
        ((2, 9, 3, 8), "divide its heads"),
        ((1, 9, 4, 8), "the batch"),
        ((2, 9, 4, 4), "head size"),
        ((9, 4, 8), "heads, D"),
    ],
)
def test_tokens_first_refuses(device: Device, k: tuple[int, ...], match: str) -> None:
    q = (2, 9, 4, 8)
    with pytest.raises(UnsupportedProgramError, match=match):
        OpProgram(device, "et_webgpu.sdpa_tokens_first.default", [In(q), In(k), In(k), None, None], Out(q))


def test_dense_live_sizes(device: Device) -> None:
    rng = np.random.default_rng(6)
    with dense(device, (2, 3, 40, 16), (2, 3, 70, 16), In((2, 1, 40, 70)), 0.3) as program:
        for tokens, columns in ((40, 70), (3, 70), (40, 1), (17, 33), (40, 70)):
            dims = [(2, 3, tokens, 16), (2, 3, columns, 16), (2, 3, columns, 16), (2, 1, tokens, columns)]
            program.check([rng.standard_normal(d, dtype=np.float32) for d in dims])


@pytest.mark.parametrize("rank", [2, 3])
def test_dense_without_batch(device: Device, rank: int) -> None:
    rng = np.random.default_rng(7)
    q, k = (3, 9, 8)[-rank:], (3, 13, 8)[-rank:]
    with dense(device, q, k) as program:
        program.check([rng.standard_normal(d, dtype=np.float32) for d in (q, k, k)])


@SOME
def test_masked_out_rows(device: Device, tile: Tile) -> None:
    """-inf in every column gives NaN, a finite number however low in every column gives the mean: as in PyTorch."""
    rng = np.random.default_rng(8)
    q, k, v = (rng.standard_normal((1, 2, 70, 8), dtype=np.float32) for _ in range(3))
    mask = np.zeros((70, 70), np.float32)
    mask[:, :66] = -np.inf  # whole tiles without a column to see come first
    mask[3] = -np.inf
    mask[5] = np.finfo(np.float32).min
    with dense(device, q.shape, k.shape, Const(mask), **tuned(tile)) as program:
        out = program.check([q, k, v])
        assert np.isnan(out[0, :, 3]).all() and np.isfinite(np.delete(out, 3, axis=2)).all()
        assert_close(out[0, :, 5], v[0].astype(np.float64).mean(axis=1))


@pytest.mark.parametrize(
    ("q", "k", "message"),
    [
        ((1, 2, 8, 6), (1, 2, 8, 6), "head size 6"),
        ((1, 2, 8, 260), (1, 2, 8, 260), "head size 260"),
        ((1, 4, 8, 8), (1, 2, 8, 8), "heads"),
        ((2, 2, 8, 8), (1, 2, 8, 8), "batch"),
        ((2, 8, 8), (1, 2, 8, 8), r"\[B, H, S, D\]"),
        ((1, 1, 2, 8, 8), (1, 1, 2, 8, 8), r"\[B, H, S, D\]"),
    ],
)
def test_dense_refused_at_load(device: Device, q: tuple[int, ...], k: tuple[int, ...], message: str) -> None:
    with pytest.raises(UnsupportedProgramError, match=message):
        dense(device, q, k)

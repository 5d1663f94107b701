"""Chunks of prompts over pages: consecutive rows of a sequence share keys, beside rows that are by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES
from executorch_webgpu.ops.attention.flash.plan import TILES
from executorch_webgpu.ops.attention.flash_matrix.plan import choose_tile
from executorch_webgpu.ops.attention.spans.plan import Cut, counts
from tests.ops.matrix_emulation import TENSOR_CORES, emulate

from .paging import DTYPES, Paged, Rows
from .test_flash_matrix import SMALL_TILES

FLOOR = {"attention/flash": TILES[-1]}  # the tile of the smallest device


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.integers(0, 40)), max_size=12), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_runs_are_cut_into_spans(runs: list[tuple[int, int, int]], rows: int) -> None:
    """Against row after row in Python; runs that happen to go on are one."""
    places = [(start + i, sequence) for sequence, length, start in runs for i in range(length)]
    found: list[list[tuple[int, int]]] = []
    for place in places:
        if found and found[-1][-1] == (place[0] - 1, place[1]):
            found[-1].append(place)
        else:
            found.append([place])
    single, spans = counts(np.array(places, np.int32).reshape(-1, 2), Cut(rows, 9))
    assert single.tolist() == [len(run) < 9 for run in found for _ in run]
    assert spans == sum(-(-len(run) // rows) for run in found if len(run) >= 9)


def check(paged: Paged, *steps: Rows) -> None:
    for rows in steps:
        paged.check(rows)
    paged.close()


@pytest.mark.parametrize(
    ("heads", "head_dim", "rope", "dtype"),
    [
        ((4, 2), 16, "pairs", "float32"),
        ((4, 2), 16, "halves", "float16"),
        ((7, 1), 20, "halves", "int8"),
        ((3, 3), 128, "", "float32"),
        ((5, 1), 12, "pairs", "float16"),
        ((2, 1), 256, "halves", "int8"),
    ],
)
def test_chunks_beside_single_rows(
    device: Device, heads: tuple[int, int], head_dim: int, rope: str, dtype: str
) -> None:
    """Chunks as long as a span, one more and one less, after nothing and after pages that are not full."""
    paged = Paged(
        device,
        heads=heads,
        head_dim=head_dim,
        dtype=dtype,
        rope=rope,
        page_rows=8,
        pages=60,
        width=10,
        most=48,
        tunings=FLOOR,
        features=replace(device.features, subgroups=False, subgroup_matrix=False),
        shuffled=False,
    )
    paged.check([(0, 31), (1, 3), (3, 9)])
    assert paged.kernels[1:] == ["spans", "flash", "flash_decode"]
    check(paged, [(0, 1), (1, 33), (3, 1)], [(4, 32), (0, 2)], [(4, 9), (5, 8)], [(s, 1) for s in (5, 0, 1, 3)])


def test_a_mix_is_planned_once(device: Device) -> None:
    """Other sequences and contexts, a little more or less of each kind: the plan stays."""
    paged = Paged(device, most=40, pages=100, width=20, rope="pairs", shuffled=False)
    paged.check([(0, 14), (1, 23), (2, 1), (3, 1), (4, 1)])
    paged.check([(5, 14), (1, 23), (2, 1), (3, 1), (4, 1)])
    plan = paged.executor.plans.plans[0]
    for rows in ([(0, 38), (2, 1), (3, 1)], [(5, 15), (1, 21), (2, 2), (3, 2)], [(5, 36), (4, 4)]):
        paged.check(rows)
        assert paged.executor.plans.plans[0] is plan
    paged.close()


def test_devices_whose_kernels_of_rows_have_too_many_buffers(device: Device) -> None:
    """int8 pools on the smallest device: every row is in a span."""
    paged = Paged(device, dtype="int8", rope="pairs", max_storage_buffers=8, shuffled=False)
    paged.check([(0, 5), (3, 12)])
    flash = "flash_matrix" if device.features.subgroup_matrix else "flash"
    assert paged.kernels == ["rotate_and_store"] * 2 + ["cache_update", "spans", flash]
    check(paged, [(0, 1), (3, 1)], [(1, 1)])


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_random_chunks(device: Device, data: st.DataObject) -> None:
    paged = Paged(
        device,
        heads=data.draw(st.sampled_from([(1, 1), (4, 2), (6, 2), (8, 1)])),
        head_dim=data.draw(st.sampled_from([8, 36])),
        dtype=data.draw(st.sampled_from(DTYPES)),
        page_rows=data.draw(st.sampled_from([1, 4, 16])),
        pages=400,
        width=128,
        most=64,
        sequences=4,
        seed=data.draw(st.integers(0, 1000)),
        tunings=FLOOR if data.draw(st.booleans()) else {},
        shuffled=False,
    )
    lengths = [0] * 4
    for _ in range(data.draw(st.integers(1, 3))):
        chosen = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
        rows = [(s, data.draw(st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17]))) for s in chosen]
        rows = [(s, n) for s, n in rows if lengths[s] + n <= 60]
        for s, n in rows:
            lengths[s] += n
        if rows:
            paged.check(rows)
    paged.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heads", "head_dim", "tile", "route"),
    [
        ((4, 2), 16, "whole heads", "flash_matrix"),
        ((3, 1), 24, "halves of heads", "flash_matrix"),
        ((4, 2), 16, "halves of heads", "flash_matrix_f16"),
    ],
)
def test_tensor_cores_emulated(
    device: Device, monkeypatch: pytest.MonkeyPatch, heads: tuple[int, int], head_dim: int, tile: str, route: str
) -> None:
    if device.features.subgroup_matrix:
        pytest.skip("test_tensor_cores runs on this device's own")
    emulate(monkeypatch, device)
    routes = {"paged_sdpa": "flash_decode", "paged_sdpa_spans": route}
    paged = Paged(
        device,
        dtype="float16",
        rope="pairs",
        features=TENSOR_CORES,
        heads=heads,
        head_dim=head_dim,
        most=48,
        pages=60,
        width=10,
        page_rows=8,
        tunings={"attention/flash_matrix": SMALL_TILES[tile]},
        routes=routes,
        shuffled=False,
    )
    paged.check([(0, 17), (1, 2), (2, 16)])
    assert paged.kernels[1:] == ["spans", "flash_matrix", "flash_decode"]
    check(paged, [(1, 15), (0, 33)], [(0, 1), (2, 40)])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
def test_tensor_cores(device: Device, head_dim: int, dtype: str) -> None:
    """On a device that has some; elsewhere the kernel is compiled."""
    if not device.features.subgroup_matrix:
        template = choose_tile(head_dim).template | {"cache": dtype, "head_dim": head_dim, "paged": True, "exact": True}
        compile_check("dawn", "attention/flash_matrix", {**template, "width": 8, "out_parts": 0, "out_pairs": 0})
        return
    paged = Paged(
        device,
        heads=(8, 2),
        head_dim=head_dim,
        dtype=dtype,
        rope="pairs",
        most=600,
        pages=200,
        width=60,
        shuffled=False,
    )
    paged.check([(0, 300), (1, 1), (2, 60)])
    assert "flash_matrix" in paged.kernels
    check(paged, [(0, 200), (1, 1), (2, 1)], [(0, 1), (1, 350), (2, 17)])


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("dtype", KV_CACHE_DTYPES.values())
def test_kernels_compile(engine: str, dtype: str) -> None:
    compile_check(engine, "attention/spans", {}, {"words": 257})
    for tile in (*TILES, replace(TILES[0], depth=4)):
        flags = {"causal": True, "mask": False, "pairs": False, "paged": True, "batched": False}
        compile_check(engine, "attention/flash", {**tile.variant(16), "cache": dtype, **flags})

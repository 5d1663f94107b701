"""Rotary embedding, cache write and attention become one call, with caches that stay caches. And what blocks it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Graph, build_graph, make_call
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor, plan_graph
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES, store_kv_caches
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.graph.state import cache_writes
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.values import Tensor
from tests.graph.test_batching import batch_of, llama
from tests.graph_builder import GraphBuilder, Ref
from tests.ops.harness import assert_close
from tests.test_wgsl import DEVICES

from .graphs import check, is_unchanged, names, normal

PAIRS, HALVES = "et_vk.apply_rotary_emb.default", "et_vk.apply_rotary_emb_hf.default"
ATTENTION, FUSED = "sdpa_with_kv_cache.default", "et_webgpu.rope_sdpa_with_kv_cache.default"
SLICE = "aten.slice_copy.Tensor"
MOST, CAPACITY, HEADS, HEAD_DIM = 7, 24, (6, 2), 8
LENGTHS = (7, 1, 1, 3, 1)


class Attention(GraphBuilder):
    """q, k, v [1, S, heads, D] and a position, rope, and attention over caches of zeros; parts may be exchanged."""

    def __init__(self, halves: bool = False, sliced: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.q, self.k, self.v = (self.input((1, MOST, HEADS[i], HEAD_DIM)) for i in (0, 1, 1))
        self.position = self.live()
        self.halves, self.sliced, self.dropout = halves, sliced, dropout
        angles = np.random.default_rng(0).uniform(-3, 3, (CAPACITY, HEAD_DIM if halves else HEAD_DIM // 2))
        self.tables = [f(angles).astype(np.float32) for f in (np.cos, np.sin)]
        self.caches = [self.constant(np.zeros((1, CAPACITY, HEADS[1], HEAD_DIM), np.float32)) for _ in "kv"]

    def heads(self, which: int) -> Ref:
        return self.tensor((1, MOST, HEADS[which], HEAD_DIM))

    def rope(self) -> list[Ref]:
        """The rotated q and k."""
        tables: list[Any] = self.tables
        if self.sliced:
            tables = [self.rows(table, self.position) for table in self.tables]
        start = [self.position] if self.halves else []
        return self.call(
            HALVES if self.halves else PAIRS, self.q, self.k, *tables, *start, [self.heads(0), self.heads(1)]
        )

    def rows(self, table: np.ndarray, start: Ref, count: Ref | None = None) -> Ref:
        """This step's rows of a table."""
        end = self.call("add", start, count or self.size_of(self.q, 1), self.symint())
        whole = self.call("et_vk.prepack.default", self.constant(table), self.tensor(table.shape))
        return self.call(SLICE, whole, 0, start, end, 1, self.tensor((MOST, table.shape[1])))

    def attend(self, q: Ref, k: Ref, v: Ref | None = None, mask: Ref | None = None) -> Ref:
        args = (q, k, v or self.v, *self.caches, self.position, 1, mask, self.dropout, True, None)
        return self.call(ATTENTION, *args, self.heads(0))


def steps(*lengths: int, position: int = 0) -> Iterator[list[np.ndarray]]:
    for length in lengths:
        rows = [normal(1, length, HEADS[i], HEAD_DIM) for i in (0, 1, 1)]
        yield [*rows, np.array([position], np.int32)]
        position += length


@pytest.mark.parametrize("halves", [False, True])
def test_one_call(device: Device, halves: bool) -> None:
    build = Attention(halves)
    build.output(build.attend(*build.rope()))
    graph = check(device, build, ["rope_cache"], steps(*LENGTHS))
    assert names(graph)[FUSED] == 1 and not {PAIRS, HALVES, ATTENTION} & set(names(graph))


def test_rows_of_a_table_are_taken_from_the_table(device: Device) -> None:
    build = Attention(sliced=True)
    build.output(build.attend(*build.rope()))
    graph = check(device, build, ["rope_cache"], steps(*LENGTHS))
    assert names(graph)[FUSED] == 1 and not {SLICE, "add"} & set(names(graph))


def test_a_table_whose_rows_something_else_reads(device: Device) -> None:
    build = Attention(sliced=True)
    q, k = build.rope()
    cos = build.chain[-1].args[2]
    build.output(build.attend(q, k), Ref(cos))
    graph = check(device, build, ["rope_cache"], steps(*LENGTHS))
    assert names(graph)[FUSED] == names(graph)[SLICE] == 1


@pytest.mark.parametrize("other", ["position", "count"])
def test_rows_that_may_be_others_stay_rows(device: Device, other: str) -> None:
    build = Attention()
    where = (build.live(), None) if other == "position" else (build.position, build.size_of(build.input((MOST,)), 0))
    cos, sin = (build.rows(table, *where) for table in build.tables)
    turned = build.call(PAIRS, build.q, build.k, cos, sin, [build.heads(0), build.heads(1)])
    build.output(build.attend(*turned))
    given = [
        [*step, np.array([7], np.int32) if other == "position" else step[0][0, :, 0, 0]] for step in steps(*LENGTHS)
    ]
    graph = check(device, build, ["rope_cache"], given)
    assert names(graph)[FUSED] == 1 and names(graph)[SLICE] == 2


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("how", ["output", "reader"])
def test_who_else_wants_the_rotated_blocks_it(device: Device, which: int, how: str) -> None:
    build = Attention(halves=True)
    turned = build.rope()
    out = build.attend(*turned)
    inside = turned[which]
    build.output(out, inside if how == "output" else build.call("aten.neg.default", inside, build.heads(which)))
    assert is_unchanged(build, "rope_cache")
    check(device, build, ["rope_cache"], steps(3, 1))


def test_keys_of_another_origin_block_it() -> None:
    build = Attention(halves=True)
    q, k = build.rope()
    build.output(build.attend(q, build.k), build.call("aten.neg.default", k, build.heads(1)))
    assert is_unchanged(build, "rope_cache")


def test_keys_that_are_values_too_block_it(device: Device) -> None:
    build = Attention(halves=True)
    q, k = build.rope()
    build.output(build.attend(q, k, v=k))
    assert is_unchanged(build, "rope_cache")
    check(device, build, ["rope_cache"], steps(3, 1))


def test_dropout_blocks_it() -> None:
    build = Attention(dropout=0.5)
    build.output(build.attend(*build.rope()))
    assert is_unchanged(build, "rope_cache")


def test_rope_of_memory_that_is_written_blocks_it() -> None:
    """Its rows are read before the write, and the call would read them after it."""
    build = Attention(halves=True)
    rows = build.constant(normal(1, MOST, HEADS[1], HEAD_DIM))
    build.k = rows
    q, k = build.rope()
    build.call("update_cache.default", build.input((1, 1, HEADS[1], HEAD_DIM)), rows, 0, build.tensor((1,)))
    build.output(build.attend(q, k))
    assert is_unchanged(build, "rope_cache")


def test_a_mask_goes_along(device: Device) -> None:
    build = Attention(halves=True)
    mask = build.input((MOST, CAPACITY))
    build.output(build.attend(*build.rope(), mask=mask))
    given = [[*step, normal(step[0].shape[1], CAPACITY)] for step in steps(*LENGTHS)]
    assert names(check(device, build, ["rope_cache"], given))[FUSED] == 1


# -- caches stay caches -----------------------------------------------------------------------------------------------


def stored(build: GraphBuilder, dtype: str) -> Graph:
    graph = build_graph(build.build())
    return graph if dtype == "f32" else store_kv_caches(graph, KV_CACHE_DTYPES[dtype])


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize(("dtype", "absolute"), [("f32", 1e-4), ("f16", 2e-3), ("int8", 4e-2)])
def test_caches_of_all_dtypes(device: Device, dtype: str, absolute: float, sliced: bool) -> None:
    build = Attention(halves=not sliced, sliced=sliced)
    build.output(build.attend(*build.rope()))
    fused = [fuse_graph(stored(build, dtype), ["rope_cache"])[0] for _ in range(2)]
    unfused, on_host = ReferenceExecutor(stored(build, dtype)), ReferenceExecutor(fused[0])
    executor = GraphExecutor(
        fused[1], ConstantPool(device, lambda view: None), Planning(device.features, device.limits)
    )
    try:
        for given in steps(*LENGTHS):
            (wanted,) = unfused.execute(given)
            np.testing.assert_allclose(on_host.execute(given)[0], wanted, rtol=1e-9, atol=1e-12)
            assert_close(executor.execute(given)[0], wanted, absolute)
        assert executor.keeps_only_caches and executor.cache_ends == {sum(LENGTHS)}
    finally:
        executor.close()


def test_writes_are_found_and_rows_counted() -> None:
    build = Attention(halves=True)
    build.output(build.attend(*build.rope()))
    before = cache_writes(build_graph(build.build()))
    after = cache_writes(fuse_graph(build_graph(build.build()), ["rope_cache"])[0])
    assert [w.cache.id for w in before] == [w.cache.id for w in after] == [ref.id for ref in build.caches]
    assert {w.rows.max_dims[1] for w in after} == {MOST}


# -- over pages -----------------------------------------------------------------------------------------------------

PAGED, PAGED_FUSED, GATHER = (
    "et_webgpu.paged_sdpa.default",
    "et_webgpu.rope_paged_sdpa.default",
    "aten.index_select.default",
)


def kernels(graph: Graph, device: str, inputs: list[Any]) -> list[str]:
    """What a step dispatches on a kind of device."""
    plans = plan_graph(graph, Planning(*DEVICES[device]))
    for value, given in zip(graph.inputs, inputs, strict=True):
        assert isinstance(value, Tensor)
        array = np.array(given, np.int32)
        plans.set_dims(value, array.shape)
        plans.set_host(value, array)
    plans.update()
    return [dispatch.kernel for plan in plans.plans for dispatch in plan.dispatches]


@pytest.mark.parametrize("interleaved", [True, False], ids=["pairs", "halves"])
def test_a_row_of_a_batch_takes_the_dispatches_of_a_token(tmp_path: Path, interleaved: bool) -> None:
    graph = llama(tmp_path, interleaved=interleaved)
    one, many = (fuse_graph(g, tuple(FUSIONS))[0] for g in (graph, batch_of(graph).graph))
    found = names(many)
    assert found[PAGED_FUSED] == 2 and PAGED not in found and found[GATHER] == 1  # of the rows that are wanted
    token, row = kernels(one, "rich", [[[1]], [3]]), kernels(many, "rich", [[[1]], [(3, 0)], np.zeros((6, 8)), [0]])
    assert len(token) == len(row)
    assert token.count("attention/flash_decode_subgroups") == row.count("attention/flash_decode_subgroups") == 2


def test_other_angles_stay_calls_of_their_own(tmp_path: Path) -> None:
    """Rows of a table that are gathered by the sequence, not by the position."""
    batch = batch_of(llama(tmp_path)).graph
    calls = [
        make_call(c.name, (c.args[0], 1, 1, c.args[3])) if c.name == "aten.select_copy.int" else c for c in batch.calls
    ]
    changed = replace(batch, calls=tuple(replace(call, index=i) for i, call in enumerate(calls)))
    found = names(fuse_graph(changed, ["rope_cache"])[0])
    assert found[PAGED] == 2 and PAGED_FUSED not in found and found[GATHER] == 3

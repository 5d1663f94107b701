"""A program of one sequence as one of many: each has the logits that it has alone, whoever else is in the batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.batching import Batch, BatchSizes, batched
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.values import Tensor
from tests.graph_builder import GraphBuilder
from tests.ops.harness import assert_close

Array = np.ndarray
VOCAB = SHAPES["tiny"].vocab
SIZES = BatchSizes(rows=24, wanted=10, sequences=6, context_len=32, page_rows=4, pages=40)


def llama(folder: Path, *, interleaved: bool = True, full_logits: bool = False) -> Graph:
    config = replace(SHAPES["tiny"], rope_interleaved=interleaved)
    options = LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=9, max_context_len=32, full_logits=full_logits)
    write_llama(folder / "model.pte", config, options)
    file = read_program((folder / "model.pte").read_bytes())
    (plan,) = (plan for plan in file.methods if plan.name == "forward")
    return build_graph(read_vkgraph(file.delegate_data(plan.delegates[0]), file.named_data))


def batch_of(graph: Graph, sizes: BatchSizes = SIZES) -> Batch:
    tokens, input_pos = graph.inputs
    assert isinstance(tokens, Tensor) and isinstance(input_pos, Tensor)
    return batched(graph, tokens, input_pos, sizes)


@dataclass
class Pages:
    """Who has which pages; rows of a step with their places."""

    sizes: BatchSizes
    random: np.random.Generator
    lengths: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = list(self.random.permutation(self.sizes.pages))
        self.tables = np.zeros((self.sizes.sequences, self.sizes.table_width), np.int32)

    def add(self, sequence: int, count: int) -> list[tuple[int, int]]:
        start = self.lengths.get(sequence, 0)
        for position in range(start, start + count):
            if position % self.sizes.page_rows == 0:
                self.tables[sequence, position // self.sizes.page_rows] = self.free.pop()
        self.lengths[sequence] = start + count
        return [(position, sequence) for position in range(start, start + count)]


def run_both(device: Device, graph: Graph, sizes: BatchSizes, full_logits: bool, seed: int, most: int = 9) -> None:
    """Random chunks of random texts, in one batch, and each text alone, on the device and in float64."""
    random = np.random.default_rng(seed)
    batch = batch_of(graph, sizes)
    fused, _ = fuse_graph(batch.graph, tuple(FUSIONS))
    planning, pool = Planning(device.features, device.limits), ConstantPool(device, lambda view: None)
    many = GraphExecutor(fused, pool, planning)
    reference = ReferenceExecutor(batch.graph)
    texts = {s: random.integers(0, VOCAB, 30) for s in range(sizes.sequences)}
    alone = {s: GraphExecutor(graph, pool, planning) for s in texts}
    pages = Pages(sizes, random)
    for _ in range(6):
        chosen = random.permutation(sizes.sequences)[: random.integers(1, sizes.sequences + 1)]
        tokens: list[int] = []
        places: list[tuple[int, int]] = []
        wanted: list[int] = []
        expected: list[Array] = []
        for sequence in chosen:
            start = pages.lengths.get(sequence, 0)
            count = min(int(random.integers(1, 5)), 30 - start)
            if count == 0:
                continue
            given = texts[sequence][start : start + count]
            for first in range(0, count, most):
                chunk = given[None, first : first + most].astype(np.int32)
                (logits,) = alone[sequence].execute([chunk, np.array([start + first], np.int32)])
            rows = range(count) if full_logits and random.random() < 0.5 else [count - 1]
            for row in list(rows)[-(sizes.wanted - len(wanted)) :] if len(wanted) < sizes.wanted else []:
                wanted.append(len(tokens) + row)
                expected.append(logits[0, row] if full_logits else logits[0])
            tokens += given.tolist()
            places += pages.add(int(sequence), count)
        arrays = [np.array([tokens]), np.array(places), pages.tables, np.array(wanted)]
        inputs = [np.ascontiguousarray(a, np.int32) for a in arrays]
        (got,), (exact,) = many.execute(inputs), reference.execute(inputs)
        assert_close(got.reshape(len(wanted), -1), np.stack(expected), 1e-3, 1e-3)
        assert_close(got, exact, 1e-3, 1e-3)
    for executor in (many, *alone.values()):
        executor.close()


@pytest.mark.parametrize("full_logits", [False, True], ids=["last", "full"])
@pytest.mark.parametrize("interleaved", [True, False], ids=["pairs", "halves"])
def test_sequences_of_a_batch_are_as_they_are_alone(
    device: Device, tmp_path: Path, interleaved: bool, full_logits: bool
) -> None:
    graph = llama(tmp_path, interleaved=interleaved, full_logits=full_logits)
    run_both(device, graph, SIZES, full_logits, seed=2 * interleaved + full_logits)


def exported(capacity: int = 32, start: int | None = None) -> Graph:
    """Attention as the exporter leaves it without a partitioner: caches are written, turned, turned back, and read.

    The last row is reshaped, with one size that follows from the others.

    ``start``: where attention is told that it begins, by default at the position.
    """
    random = np.random.default_rng(0)
    build = GraphBuilder()
    tokens, input_pos = build.input((1, 9), "int32"), build.input((1,), "int32")
    length, position = build.size_of(tokens, 1), build.symint()
    build.call("et_vk.select_as_symint.default", input_pos, 0, 0, position)
    weight = random.standard_normal((VOCAB, 8), np.float32)
    x = build.call("aten.embedding.default", weight, tokens, -1, False, False, build.tensor((1, 9, 8)))
    heads = build.call("aten.view_copy.default", x, [1, length, 2, 4], build.tensor((1, 9, 2, 4)))
    caches = [build.constant(np.zeros((1, capacity, 2, 4), np.float32)) for _ in range(2)]
    for cache in caches:
        build.call("llama.update_cache.default", heads, cache, position, build.tensor((1,)))
    for i, cache in enumerate(caches):
        turned = build.tensor((1, 2, capacity, 4))
        build.call("aten.permute_copy.default", cache, [0, 2, 1, 3], turned)
        caches[i] = build.tensor((1, capacity, 2, 4))
        build.call("aten.permute_copy.default", turned, [0, 2, 1, 3], caches[i])
    begin = position if start is None else start
    attended = build.tensor((1, 9, 2, 4))
    build.call("llama.custom_sdpa.default", heads, *caches, begin, None, 0.0, True, None, attended)
    rows = build.call("aten.view_copy.default", attended, [1, length, 8], build.tensor((1, 9, 8)))
    last = build.call("aten.select_copy.int", rows, 1, -1, build.tensor((1, 8)))
    halves = build.call("aten.view_copy.default", last, [1, -1, 4], build.tensor((1, 2, 4)))
    build.output(build.call("aten.view_copy.default", halves, [1, 8], build.tensor((1, 8))))
    return build_graph(build.build())


def test_caches_in_another_order_and_back(device: Device) -> None:
    run_both(device, exported(), SIZES, False, seed=5)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (exported(start=0), "llama.custom_sdpa.default"),
        (exported(16), "context is 32 tokens, but .* has 16 rows"),
    ],
)
def test_attention_that_no_batch_can_take(graph: Graph, message: str) -> None:
    with pytest.raises(UnsupportedProgramError, match=message):
        batch_of(graph)


def test_logits_are_of_wanted_rows_only(tmp_path: Path) -> None:
    """Selection moves before the head, so that rows of prompts cost no logits."""
    batch = batch_of(llama(tmp_path, full_logits=True))
    fused, _ = fuse_graph(batch.graph, tuple(FUSIONS))
    widths = [call.args[-1] for call in fused.calls if VOCAB in getattr(call.args[-1], "max_dims", ())]
    assert widths and all(out.max_dims[-2] == SIZES.wanted for out in widths)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_pools_are_of_their_dtype(tmp_path: Path, dtype: str) -> None:
    batch = batch_of(llama(tmp_path), replace(SIZES, dtype=dtype))
    assert {pool.dtype for pool in batch.pools} == {dtype}
    assert {pool.max_dims[:2] for pool in batch.pools} == {(SIZES.pages, SIZES.page_rows)}
    assert len(batch.pools) == 2 * SHAPES["tiny"].layers


def refused(build: GraphBuilder) -> str:
    with pytest.raises(UnsupportedProgramError) as error:
        batch_of(build_graph(build.build()))
    return str(error.value)


def test_what_mixes_rows_is_refused_by_name() -> None:
    build = GraphBuilder()
    tokens, _ = build.input((1, 8), "int32"), build.input((1,), "int32")
    weight = np.ones((16, 8), np.float32)
    x = build.call("aten.embedding.default", weight, tokens, -1, False, False, build.tensor((1, 8, 8)))
    build.output(build.call("aten.cumsum.default", x, 1, None, build.tensor((1, 8, 8))))
    assert "aten.cumsum.default) does not compute each token's row for itself" in refused(build)


def test_what_computes_with_the_position_is_refused() -> None:
    build = GraphBuilder()
    tokens, input_pos = build.input((1, 8), "int32"), build.input((1,), "int32")
    weight = np.ones((16, 8), np.float32)
    x = build.call("aten.embedding.default", weight, tokens, -1, False, False, build.tensor((1, 8, 8)))
    position = build.symint()
    build.call("et_vk.select_as_symint.default", input_pos, 0, 0, position)
    build.output(build.call("aten.select_copy.int", x, 2, position, build.tensor((1, 8))))
    assert "aten.select_copy.int" in refused(build)


@pytest.mark.parametrize("changes", [False, True])
def test_what_reads_the_position_or_counts_steps_is_refused(changes: bool) -> None:
    build = GraphBuilder()
    tokens, input_pos = build.input((1, 8), "int32"), build.input((1,), "int32")
    weight = np.ones((16, 8), np.float32)
    x = build.call("aten.embedding.default", weight, tokens, -1, False, False, build.tensor((1, 8, 8)))
    if changes:
        table = build.constant(np.zeros((4, 8), np.float32))
        index = np.zeros(1, np.int32)
        build.call("aten.index_put_.default", table, [index], np.ones((1, 8), np.float32), True, build.tensor((4, 8)))
    else:
        table = build.call("aten.index_select.default", weight, 0, input_pos, build.tensor((1, 8)))
    row = build.call("aten.select_copy.int", table, 0, 0, build.tensor((8,)))
    build.output(build.call("aten.add.Tensor", x, row, 1, build.tensor((1, 8, 8))))
    assert ("aten.index_put_.default" if changes else "aten.select_copy.int) makes of the position") in refused(build)


def one_token(start: int | None = None) -> Graph:
    """A program of exactly one token: attention is written out, positions are learned, and nothing has a live size."""
    random = np.random.default_rng(0)
    build = GraphBuilder()
    tokens, input_pos = build.input((1, 1), "int32"), build.input((1,), "int32")
    weight = random.standard_normal((VOCAB, 8), np.float32)
    x = build.call("aten.embedding.default", weight, tokens, -1, False, False, build.tensor((1, 1, 8)))
    places = random.standard_normal((32, 8), np.float32)
    place = build.call("aten.index_select.default", places, 0, input_pos, build.tensor((1, 8)))
    x = build.call("aten.add.Tensor", x, place, 1, build.tensor((1, 1, 8)))
    heads = build.call("aten.view_copy.default", x, [1, 1, 2, 4], build.tensor((1, 1, 2, 4)))
    heads = build.call("aten.permute_copy.default", heads, [0, 2, 1, 3], build.tensor((1, 2, 1, 4)))
    caches = [build.constant(np.zeros((1, 2, 32, 4), np.float32)) for _ in range(2)]
    index = input_pos if start is None else np.array([start], np.int32)
    for cache in caches:
        build.call("aten.index_put_.default", cache, [None, None, index], heads, False, cache)
    mask = np.where(np.tri(32, dtype=np.bool_), 0, -np.inf).astype(np.float32)
    band = build.call("aten.index_select.default", mask, 0, input_pos, build.tensor((1, 32)))
    keys = build.call("aten.view_copy.default", caches[0], [2, 32, 4], build.tensor((2, 32, 4)))
    keys = build.call("aten.permute_copy.default", keys, [0, 2, 1], build.tensor((2, 4, 32)))
    q = build.call("aten.view_copy.default", heads, [2, 1, 4], build.tensor((2, 1, 4)))
    scores = build.call("aten.bmm.default", q, keys, build.tensor((2, 1, 32)))
    scores = build.call("aten.mul.Scalar", scores, 0.7, build.tensor((2, 1, 32)))
    scores = build.call("aten.add.Tensor", scores, band, 1, build.tensor((2, 1, 32)))
    weights = build.call("aten._softmax.default", scores, -1, False, build.tensor((2, 1, 32)))
    values = build.call("aten.view_copy.default", caches[1], [2, 32, 4], build.tensor((2, 32, 4)))
    attended = build.call("aten.bmm.default", weights, values, build.tensor((2, 1, 4)))
    attended = build.call("aten.permute_copy.default", attended, [1, 0, 2], build.tensor((1, 2, 4)))
    rows = build.call("aten.view_copy.default", attended, [1, 1, 8], build.tensor((1, 1, 8)))
    rows = build.call("aten.squeeze_copy.dim", rows, 1, build.tensor((1, 8)))
    head = random.standard_normal((8, VOCAB), np.float32)
    build.output(build.call("aten.mm.default", rows, head, build.tensor((1, VOCAB))))
    return build_graph(build.build())


def test_a_program_of_one_token_takes_several_of_a_sequence(device: Device) -> None:
    run_both(device, one_token(), SIZES, False, seed=7, most=1)


def test_a_program_that_writes_elsewhere_is_refused() -> None:
    with pytest.raises(UnsupportedProgramError, match=r"index_put_.default\) changes memory in another way"):
        batch_of(one_token(start=3))

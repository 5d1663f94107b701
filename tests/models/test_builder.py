"""Graphs from the builder: what they compute, and which of their tensors share memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu import InvalidInputError, Runtime
from executorch_webgpu.format.pte import open_program, save_program
from executorch_webgpu.format.vkgraph import DataType, ValueList, VkGraph, VkTensor, read_vkgraph
from executorch_webgpu.models.builder import GraphBuilder
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions, build_llama
from executorch_webgpu.models.program import assemble
from executorch_webgpu.models.weights import Weight, array_constant, zeros

WEIGHT = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)


def save(b: GraphBuilder, path: Path) -> Path:
    save_program(path, *assemble(b, [], {"answer": 42, "flag": True}))
    return path


def residual() -> GraphBuilder:
    """A row of ``table`` for each index, added to its projection; the same weights are used twice."""
    b = GraphBuilder()
    indices = b.input((1, 7), DataType.INT32, dynamic=True)
    table = array_constant("table", WEIGHT)
    x = b.embedding(indices, table)
    y = b.silu(b.linear(x, table))
    b.output(b.view(y, [b.size(indices, 1), 5]))
    return b


def test_a_small_graph_runs_at_every_length(tmp_path: Path) -> None:
    with Runtime.get().load_program(save(residual(), tmp_path / "m.pte")) as program:
        assert program.load_method("answer").execute([]) == [42]
        with program.load_method("forward") as forward:
            for indices in ([4, 0, 2], [1], [0, 1, 2, 3, 4, 0, 1]):
                (out,) = forward.execute([np.array([indices], np.int64)])
                y = WEIGHT[indices].astype(np.float64) @ WEIGHT.T
                np.testing.assert_allclose(out, y / (1 + np.exp(-y)), rtol=1e-4, atol=1e-5)


def test_a_constant_is_stored_once_and_states_are_their_own(tmp_path: Path) -> None:
    b = residual()
    assert [*b.constants] == ["table"]
    one, two = b.state((1, 4, 2, 8)), b.state((1, 4, 2, 8))
    assert one.id != two.id
    assert [*b.constants] == ["table", "zeros.1x4x2x8"]


def test_a_large_constant_comes_in_pieces() -> None:
    constant = zeros("z", (3, 700_001))
    pieces = [np.asarray(piece) for piece in constant.pieces()]
    assert len(pieces) > 2
    assert sum(piece.nbytes for piece in pieces) == constant.nbytes


def llama_graph() -> VkGraph:
    config = LlamaConfig(8, 3, 2, 1, 4, 12, 11, 64, 1e-5, 1e4)

    def zero_weight(name: str, dims: tuple[int, ...]) -> Weight:
        return Weight(name, dims, lambda start, stop: np.zeros((stop - start, dims[-1]), np.float32))

    weights = {name: zero_weight(name, dims) for name, dims in config.weight_dims().items()}
    return build_llama(config, weights, LlamaOptions("f32", max_seq_len=9, max_context_len=16)).graph()


def test_tensors_that_share_memory_are_never_needed_at_once() -> None:
    graph = llama_graph()
    owner: dict[int, int] = {}  # memory -> the tensor whose contents it holds
    written = set(graph.input_ids)
    for i in graph.input_ids:
        owner[memory(graph, i)] = i
    for call in graph.chain:
        ids = [t for arg in call.args for t in tensors(graph, arg)]
        for i in ids:
            if i in written:
                assert owner[memory(graph, i)] == i, f"%{i} was overwritten before {call.name}"
        for i in ids:
            if i not in written and memory(graph, i) >= 0:
                assert owner.get(memory(graph, i)) not in ids, f"{call.name} writes over its input"
                owner[memory(graph, i)] = i
                written.add(i)
    for i in graph.output_ids:
        assert owner[memory(graph, i)] == i
    intermediates = [v for v in graph.values if isinstance(v, VkTensor) and v.constant_id < 0]
    assert len({v.mem_obj_id for v in intermediates}) < len(intermediates) / 4


def tensors(graph: VkGraph, arg: int) -> list[int]:
    value = graph.values[arg]
    if isinstance(value, ValueList):
        return [t for item in value.items for t in tensors(graph, item)]
    return [arg] if isinstance(value, VkTensor) else []


def memory(graph: VkGraph, i: int) -> int:
    value = graph.values[i]
    assert isinstance(value, VkTensor)
    return value.mem_obj_id


def test_caches_share_no_memory() -> None:
    graph = llama_graph()
    caches = [v for v in graph.values if isinstance(v, VkTensor) and v.dims == (1, 16, 1, 4) and v.constant_id >= 0]
    others = [v for v in graph.values if isinstance(v, VkTensor) and v not in caches]
    assert len(caches) == 6
    assert len({v.mem_obj_id for v in caches}) == 6
    assert not {v.mem_obj_id for v in caches} & {v.mem_obj_id for v in others}


def test_the_file_holds_the_graph(tmp_path: Path) -> None:
    b = residual()
    file, program = open_program(save(b, tmp_path / "m.pte"))
    graph = read_vkgraph(program.delegate_data(program.methods[0].delegates[0]), program.named_data)
    built = b.graph()
    assert (graph.chain, graph.values, graph.input_ids, graph.output_ids) == (
        *(built.chain, built.values),
        *(built.input_ids, built.output_ids),
    )
    assert bytes(graph.constant_data(0)) == WEIGHT.tobytes()
    del graph, program
    file.close()


def test_two_constants_of_one_name_are_a_mistake() -> None:
    b = GraphBuilder()
    b.constant(zeros("w", (2,)))
    b.add(b.input((2,)), b.constant(zeros("w", (2,))))
    assert len(b.constants) == 1
    other = GraphBuilder()
    other.state((2, 3))
    with pytest.raises(InvalidInputError, match=r"'zeros\.2x3'"):
        other.constant(zeros("zeros.2x3", (6,)))

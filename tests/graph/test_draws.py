"""Graphs that take tokens which the device has drawn: whatever reads the tokens reads those."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.gpu.buffers import create
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.draws import RowSampler, with_fed_tokens
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.sampling.draws import Draw
from executorch_webgpu.ops.values import Tensor
from tests.graph_builder import GraphBuilder
from tests.ops.test_sampling import normal

TABLE = normal(1, 20, 4)


def looked_up(viewed: bool) -> Graph:
    """Rows of a table of 20 tokens, by the tokens or by a view of them; and the tokens themselves, as numbers."""
    build = GraphBuilder()
    tokens = build.input((1, 6), "int32")
    length = build.size_of(tokens, 1)
    indices = build.call("aten.view_copy.default", tokens, [length], build.tensor((6,), "int32")) if viewed else tokens
    dims = (6, 4) if viewed else (1, 6, 4)
    build.output(build.call("aten.embedding.default", TABLE, indices, -1, False, False, build.tensor(dims)))
    build.output(build.call("aten.mul.Scalar", tokens, 1, build.tensor((1, 6), "int32")))
    return build_graph(build.build())


@pytest.mark.parametrize("viewed", [False, True])
def test_all_readers_of_tokens_get_those_that_were_drawn(device: Device, viewed: bool) -> None:
    """A table may have fewer rows than the head has tokens."""
    graph = looked_up(viewed)
    (tokens,) = graph.inputs
    assert isinstance(tokens, Tensor)
    fed = with_fed_tokens(graph, tokens, rows=3, vocab=23)
    executor = GraphExecutor(fed, ConstantPool(device, lambda view: None), Planning(device.features, device.limits))
    drawn = np.array([7, 22, -1], np.int32)
    for given, wanted in (([3, -1, -2, -3], [3, 7, 19, 0]), ([19], [19]), ([-3, -3], [0, 0])):
        rows, same = executor.execute([np.array([given], np.int32), drawn])
        np.testing.assert_array_equal(rows.reshape(-1, 4), TABLE[wanted])
        assert same.tolist() == [wanted]
    for bad, named in (([20], "token 20 is not in the vocabulary of 20"), ([-4], "drawn token 3 of 3")):
        with pytest.raises(InvalidInputError, match=named):
            executor.execute([np.array([bad], np.int32), drawn])
    executor.close()


def test_a_sampler_gives_its_memory_back(device: Device) -> None:
    logits = Tensor(0, "float32", (5, 67))
    before = device.memory.live_bytes, device.memory.live_buffers
    buffer = create(device, logits.max_nbytes, "logits")
    sampler = RowSampler(device, logits, buffer, 5)
    with device.lock:
        sampler.begin_step([Draw(0)] * 5).submit()
    assert sampler.tokens.numpy().tolist() == [0] * 5, "all logits are equal"
    sampler.close()
    sampler.close()
    buffer.destroy()
    device.flush()
    assert (device.memory.live_bytes, device.memory.live_buffers) == before

"""Graphs that no exporter would write: if a program runs, it runs fused, and answers the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.models import write_llama
from executorch_webgpu.errors import Error
from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.graph.memory import plan_memory
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions
from executorch_webgpu.ops.plan import Planning

PLANNING = Planning(Features.none(), Limits.floor())
STEPS = ((3, 0), (1, 3), (2, 4))  # tokens, position


@pytest.fixture(scope="module", params=[True, False], ids=["pairs", "halves"])
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> vk.VkGraph:
    """One layer, with logits of all positions."""
    config = LlamaConfig(32, 1, 2, 1, 16, 32, 40, 16, 1e-5, 1e4, rope_interleaved=request.param, qkv_bias=True)
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, config, LlamaOptions("f32", max_seq_len=5, max_context_len=12, full_logits=True))
    file = read_program(path.read_bytes())
    (plan,) = (plan for plan in file.methods if plan.name == "forward")
    return vk.read_vkgraph(file.delegate_data(plan.delegates[0]), file.named_data)


@st.composite
def damages(draw: st.DrawFn, source: vk.VkGraph) -> vk.VkGraph:
    """The graph with an argument exchanged, a call twice or gone, another output, or another tensor type or size."""
    values, chain, outputs = list(source.values), list(source.chain), list(source.output_ids)
    tensors = [i for i, v in enumerate(values) if isinstance(v, vk.VkTensor)]
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(chain) - 1))
        call = chain[place]
        match draw(st.sampled_from(["argument", "argument", "gone", "swap", "output", "output", "dims", "dtype"])):
            case "argument":
                args = list(call.args)
                args[draw(st.integers(0, len(args) - 1))] = draw(st.integers(0, len(values) - 1))
                chain[place] = replace(call, args=tuple(args))
            case "gone":
                del chain[place]
            case "swap":
                other = draw(st.integers(0, len(chain) - 1))
                chain[place], chain[other] = chain[other], chain[place]
            case "output":
                outputs.append(draw(st.sampled_from(tensors)))
            case "dims":
                i = draw(st.sampled_from(tensors))
                tensor: Any = values[i]
                sizes = [draw(st.sampled_from([n, n, 1, 2 * n])) for n in tensor.dims]
                values[i] = replace(tensor, dims=tuple(sizes)) if tensor.constant_id < 0 else tensor
            case _:
                i = draw(st.sampled_from(tensors))
                tensor = values[i]
                values[i] = replace(tensor, datatype=draw(st.sampled_from([vk.DataType.FLOAT16, vk.DataType.INT32])))
    return replace(source, values=tuple(values), chain=tuple(chain), output_ids=tuple(outputs))


def loaded(source: vk.VkGraph, passes: tuple[str, ...]) -> Graph | None:
    """The graph, fused and planned; None where the program is refused."""
    try:
        graph, _ = fuse_graph(build_graph(source), passes)
        plan_memory(graph, plan_graph(graph, PLANNING).plans)
    except Error:
        return None
    return fuse_graph(build_graph(source), passes)[0]


def answers(graph: Graph) -> list[Any]:
    executor = ReferenceExecutor(graph)
    found = []
    for tokens, position in STEPS:
        given = [np.arange(tokens, dtype=np.int32)[None] + position, np.array([position], np.int32)]
        found += executor.execute(given)
    return found


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_passes_keep_what_a_program_means(llama: vk.VkGraph, data: st.DataObject) -> None:
    source = data.draw(damages(llama))
    plain = loaded(source, ())
    fused = loaded(source, tuple(FUSIONS))
    if plain is None:
        return
    assert fused is not None, "a program that can be loaded cannot be loaded fused"
    try:
        expected = answers(plain)
    except (ValueError, IndexError, TypeError):  # sizes that only a step shows to be wrong
        return
    for got, wanted in zip(answers(fused), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def test_the_undamaged_program_is_fused(llama: vk.VkGraph) -> None:
    plain, fused = loaded(llama, ()), loaded(llama, tuple(FUSIONS))
    assert plain is not None and fused is not None
    assert len(fused.calls) < len(plain.calls) * 0.6
    for got, wanted in zip(answers(fused), answers(plain), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)

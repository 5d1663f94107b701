"""Rows of a language model are independent of each other but where they must not be: what makes a batch of one program.

From the tokens on, the trait ``rows`` of each call says along which axis its results are cut.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.graph.build import Graph, OpCall, build_graph
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.graph.fusion.dataflow import sizes_of
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.values import SymInt, Tensor

SLICE, SELECT = "aten.slice_copy.Tensor", "aten.select_copy.int"


def llama(folder: Path, interleaved: bool, full_logits: bool) -> Graph:
    config = replace(SHAPES["tiny"], rope_interleaved=interleaved)
    options = LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=9, max_context_len=32, full_logits=full_logits)
    write_llama(folder / "model.pte", config, options)
    file = read_program((folder / "model.pte").read_bytes())
    (plan,) = (plan for plan in file.methods if plan.name == "forward")
    return build_graph(read_vkgraph(file.delegate_data(plan.delegates[0]), file.named_data))


def dependent_calls(graph: Graph) -> tuple[list[OpCall], dict[int, int]]:
    """Calls whose rows are not independent, once tokens [1, S] are cut along S, and the axes of all tensors.

    What a batch would put in their place gives rows as well: angles for each token, attention for each, and of
    selected rows those that are wanted.
    """
    tokens, sizes = graph.inputs[0], sizes_of(graph)
    assert isinstance(tokens, Tensor)
    axes, counts, found = {tokens.id: 1}, set[int](), list[OpCall]()
    live: set[int] = set()  # numbers that depend on how many rows there are
    for call in graph.calls:
        rows = call.op.row_axes(call.args, axes, counts)
        if rows is None or any(value.id in live for value in call.reads):
            out = call.args[-1]
            if isinstance(out, SymInt) and sizes.value(out) == sizes.of(tokens)[1]:
                counts.add(out.id)
                continue
            found.append(call)
            rows = (0 if call.name == SLICE else None if call.name == SELECT else 1,) * len(call.writes)
        for value, axis in zip(call.writes, rows, strict=True):
            if isinstance(value, SymInt):
                live |= {value.id} if call in found else set()
            elif axis is not None:
                axes[value.id] = axis
    return found, axes


@pytest.mark.parametrize("full_logits", [False, True])
@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "pairs"])
def test_only_positions_attention_and_the_last_row_are_in_the_way(
    tmp_path: Path, interleaved: bool, full_logits: bool
) -> None:
    graph = llama(tmp_path, interleaved, full_logits)
    found, axes = dependent_calls(graph)
    last = set() if full_logits else {SELECT}
    positions = {"add", SLICE} if interleaved else {"et_vk.apply_rotary_emb_hf.default"}
    assert {call.name for call in found} == positions | last | {"sdpa_with_kv_cache.default"}
    (logits,) = graph.outputs
    assert axes.get(logits.id) == (1 if full_logits else None)


def test_the_fused_form(tmp_path: Path) -> None:
    graph, _ = fuse_graph(llama(tmp_path, True, True), tuple(FUSIONS))
    found, axes = dependent_calls(graph)
    assert {call.name for call in found} == {"et_webgpu.rope_sdpa_with_kv_cache.default"}
    assert axes[graph.outputs[0].id] == 1

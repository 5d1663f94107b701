"""SmolLM2 converted, against the stock export of the same file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.format.pte import open_program
from executorch_webgpu.format.vkgraph import VkGraph, VkTensor, read_vkgraph
from tests.conftest import SmolLM2
from tests.test_llama import turns

# In a process of its own, to see how much memory it takes: the most that was resident, in KiB. (What getrusage says
# includes the parent's memory before the exec.)
CONVERT = """
import pathlib, re, sys
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
convert(sys.argv[1], sys.argv[2], LlamaOptions(head="q4gsw", max_seq_len=512, max_context_len=1024))
print(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""
MOST_MEMORY = 400 * 1024  # half of what the weights take in float32


@pytest.fixture(scope="module")
def converted(smollm2: SmolLM2, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The program, and the memory that its conversion took."""
    path = tmp_path_factory.mktemp("smollm2") / "model.pte"
    command = [sys.executable, "-c", CONVERT, str(smollm2.gguf), str(path)]
    memory = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return path, int(memory)


def test_the_same_logits_as_the_stock_export(smollm2: SmolLM2, converted: tuple[Path, int]) -> None:
    random = np.random.default_rng(5)
    parts = [random.integers(100, 40000, count).tolist() for count in (19, 1, 5, 1)]
    logits = []
    for path in (smollm2.program, converted[0]):
        with Runtime.get().load_program(path) as program, program.load_method("forward") as forward:
            logits.append(turns(forward, parts))
    for stock, ours in zip(*logits, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-3)


def test_the_same_constants_as_the_stock_export(smollm2: SmolLM2, converted: tuple[Path, int]) -> None:
    """Every weight of the first layer, the embedding and the last norm, byte for byte."""
    files = [open_program(path) for path in (smollm2.program, converted[0])]
    stock, ours = (
        read_vkgraph(program.delegate_data(program.methods[0].delegates[0]), program.named_data) for _, program in files
    )
    compared = 0
    for stock_call, call in zip(*(weighted_calls(graph) for graph in (stock, ours)), strict=True):
        assert stock_call[0] == call[0]
        assert [dims for dims, _ in stock_call[1]] == [dims for dims, _ in call[1]]
        if compared < 10 or call[0] != "et_vk.linear_q4gsw.default":
            for (_, theirs), (_, mine) in zip(stock_call[1], call[1], strict=True):
                assert theirs == mine
            compared += 1
    assert compared >= 10
    del stock, ours
    for file, _ in files:
        file.close()


def weighted_calls(graph: VkGraph) -> list[tuple[str, list[tuple[tuple[int, ...], memoryview]]]]:
    """(operator, [(dims, bytes) of each constant]) of the calls that have weights."""
    found = []
    for call in graph.chain:
        if call.name not in ("aten.embedding.default", "et_vk.rms_norm.default", "et_vk.linear_q4gsw.default"):
            continue
        tensors = [value for value in (graph.values[arg] for arg in call.args) if isinstance(value, VkTensor)]
        constants = [t for t in tensors if t.constant_id >= 0]
        found.append((call.name, [(t.dims, graph.constant_data(t.constant_id)) for t in constants]))
    return found


def test_the_same_methods_and_operators_as_the_stock_export(smollm2: SmolLM2, converted: tuple[Path, int]) -> None:
    programs = [Runtime.get().load_program(path) for path in (smollm2.program, converted[0])]
    assert programs[0].method_names | {"get_bos_id", "get_eos_ids"} == programs[1].method_names
    for name in programs[0].method_names - {"forward"}:
        assert programs[0].load_method(name).execute([]) == programs[1].load_method(name).execute([])
    stock, ours = (next(m for m in p.inspect().methods if m.name == "forward") for p in programs)
    assert list(map(str, stock.inputs)) == list(map(str, ours.inputs))
    assert list(map(str, stock.outputs)) == list(map(str, ours.outputs))
    counts = [{o.name: o.count for o in report.operators} for report in (stock, ours)]
    # Ours has neither clones nor views that change nothing, and reads input_pos once.
    for name in ("aten.clone.default", "aten.view_copy.default", "et_vk.select_as_symint.default"):
        assert counts[1].pop(name, 0) < counts[0].pop(name)
    assert counts[0] == counts[1]


def test_conversion_takes_little_memory(converted: tuple[Path, int]) -> None:
    assert converted[1] < MOST_MEMORY

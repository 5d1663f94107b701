"""Casts that the graph adds: in delegates in float16, and where tensors of several dtypes are joined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from executorch_webgpu import Runtime
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.graph.build import Graph, build_graph, make_call
from executorch_webgpu.graph.casts import with_casts
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.ops.values import Tensor
from executorch_webgpu.runtime.method_file import MethodFile
from tests.graph_builder import GraphBuilder


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)
        self.table = nn.Embedding(11, 16)

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))
        y = y * self.table(i)
        return torch.softmax(y, -1), (y * 30000.0).amax(-1)


@pytest.fixture(scope="module")
def exported() -> tuple[Block, bytes]:
    torch.manual_seed(0)
    module = Block().eval()
    example = (torch.randn(3, 16), torch.tensor([1, 5, 10]))
    lowered = to_edge_transform_and_lower(
        torch.export.export(module, example), partitioner=[VulkanPartitioner({"force_fp16": True})]
    )
    return module, lowered.to_executorch().buffer


def test_a_float16_delegate_agrees_with_torch_within_float16(exported: tuple[Block, bytes]) -> None:
    module, data = exported
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method, torch.no_grad():
        for _ in range(3):
            inputs = (torch.randn(3, 16), torch.randint(0, 11, (3,)))
            got, wanted = method.execute(inputs), module(*inputs)
            torch.testing.assert_close(got[0], wanted[0], rtol=1e-2, atol=2e-3)
            narrow = wanted[1].half().float()  # what float16 cannot hold is infinite, as in torch
            torch.testing.assert_close(got[1], narrow, rtol=1e-2, atol=60.0)


def test_weights_are_widened_once_and_results_stay_float16(exported: tuple[Block, bytes]) -> None:
    file = read_program(exported[1])
    graphs = MethodFile(file, file.methods[0]).graphs()
    casts = [
        call for graph in graphs for call in graph.calls if call.name == "dim_order_ops._to_dim_order_copy.default"
    ]
    assert casts and not any(call.args[0].constant is not None for call in casts)
    for graph in graphs:
        read = {t.id for call in graph.calls for t in call.inputs}
        for call in graph.calls:
            wide = [t for t in call.outputs if t.dtype == "float32" and call not in casts]
            assert all(t.id in read for t in wide)


def test_tensors_of_several_dtypes_are_joined_in_that_of_the_output() -> None:
    """Exporters check the dtypes of ``cat`` only where they are asked to."""
    floats, integers = Tensor(0, "float32", (2,)), Tensor(1, "int32", (3,))
    out = Tensor(2, "float32", (8,))
    call = make_call("aten.cat.default", ([integers, floats, integers], 0, out))
    graph = with_casts(Graph((call,), (floats, integers), (out,), (), {}))
    assert [c.name for c in graph.calls] == ["dim_order_ops._to_dim_order_copy.default", "aten.cat.default"]
    got = ReferenceExecutor(graph).execute([np.array([0.5, 1.5], np.float32), np.array([7, -8, 9], np.int32)])[0]
    assert got.tolist() == [7, -8, 9, 0.5, 1.5, 7, -8, 9]


class SharedNumber(nn.Module):
    """One number as a float and as a dim: the exporter keeps it once, as the first of the two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.leaky_relu(x, 1.0).amax(1) + torch.softmax(x, 1).sum(1)


def test_a_dim_that_the_exporter_keeps_as_a_float() -> None:
    x = torch.randn(3, 4)
    lowered = to_edge_transform_and_lower(torch.export.export(SharedNumber(), (x,)), partitioner=[VulkanPartitioner()])
    with Runtime.get().load_program(lowered.to_executorch().buffer) as program:
        torch.testing.assert_close(program.load_method("forward").execute([x])[0], SharedNumber()(x))


@pytest.mark.parametrize("value", [-3, 300, 5])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16"])
def test_integers_without_dims_wrap_beside_narrow_ones(dtype: str, value: int) -> None:
    narrow = torch.tensor([0, 1, 100, 127], dtype=getattr(torch, dtype))
    for name, function in (("aten.maximum.default", torch.maximum), ("aten.ge.Tensor", torch.ge)):
        wanted = function(narrow, torch.tensor(value))
        build = GraphBuilder()
        x, y = build.input((4,), dtype), build.input((), "int32")
        build.output(build.call(name, x, y, build.tensor((4,), "bool" if wanted.dtype == torch.bool else dtype)))
        executor = ReferenceExecutor(with_casts(build_graph(build.build())))
        (got,) = executor.execute([narrow.numpy(), np.array(value, np.int32)])
        np.testing.assert_array_equal(got, wanted.numpy(), f"{name} of {dtype} and {value}")

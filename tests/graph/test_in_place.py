"""Buffers that functional operators replace are changed where they lie, unless their old contents are still read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from executorch_webgpu import Runtime
from executorch_webgpu.graph.build import COPY, Constant, Graph, make_call
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.in_place import change_in_place
from executorch_webgpu.ops.values import Tensor

CAPACITY = 11


class Cache(nn.Module):
    """Rows along a dimension that is not the first, as static caches of transformers have them."""

    keys: torch.Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("keys", torch.zeros(1, 2, CAPACITY, 4))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        if self.how == "index_copy":
            self.keys.index_copy_(2, position, x)
        elif self.how == "index_put":
            self.keys[:, :, torch.arange(x.shape[2]) + position[0]] = x
        elif self.how == "slice":
            self.keys[:, :, 3 : 3 + x.shape[2]] = x
        elif self.how == "twice":
            self.keys.index_copy_(2, position, x)
            self.keys.index_copy_(2, position + 1, x * 2)
        elif self.how == "old value":
            new = self.keys.index_copy(2, position, x)
            both = self.keys - 3 * new
            self.keys.copy_(new)
            return both.sum(2)
        return self.keys.reshape(2, CAPACITY, 4).sum(0) + self.keys.transpose(1, 2).sum()


def _whole_copies(executor: GraphExecutor) -> int:
    """Calls that move all of the cache to another place."""
    moves = ("clone", "index_put.", "index_copy", "slice_scatter.", "view_copy")
    return sum(
        len(plan.dispatches) > 0
        and any(move in call.name for move in moves)
        and math.prod(call.outputs[0].max_dims) == 2 * CAPACITY * 4
        for call, plan in zip(executor.graph.calls, executor.plans.plans, strict=True)
    )


@pytest.mark.parametrize("how", ["index_copy", "index_put", "slice", "twice", "old value"])
def test_a_cache_is_not_copied(how: str) -> None:
    torch.manual_seed(0)
    module = Cache(how).eval()
    steps = [(torch.randn(1, 2, 1, 4), torch.tensor([p])) for p in (0, 1, 7, CAPACITY - 2)]
    exported = torch.export.export(module, steps[0])
    data = bytes(to_edge_transform_and_lower(exported).to_executorch().buffer)
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
        for step in steps:
            torch.testing.assert_close(method.execute(step)[0], module(*step), rtol=1e-5, atol=1e-5)
        (executor,) = method._executors
        assert isinstance(executor, GraphExecutor)
        assert (_whole_copies(executor) > 0) == (how == "old value")


def test_two_buffers_become_one_result() -> None:
    """The first one is changed where it lies, and the second one copied from it."""
    first, second = (Tensor(id, "float32", (4, 3), id) for id in (0, 1))
    index, values, result = Tensor(2, "int32", (1,)), Tensor(3, "float32", (1, 3)), Tensor(4, "float32", (4, 3))
    put = make_call("aten.index_put.default", (first, [index], values, False, result))
    copies = [replace(make_call(COPY, (result, None, t), i), mutated=(t,)) for i, t in enumerate((first, second), 1)]
    constants = {t.id: Constant.zeros(t) for t in (first, second)}
    changed = change_in_place(Graph((put, *copies), (index, values), (), (), constants), lambda call: True)
    assert [call.name for call in changed.calls] == ["aten.index_put_.default", COPY]
    assert changed.calls[1].args == (first, None, second)

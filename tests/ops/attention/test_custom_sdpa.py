"""``update_cache`` and ``custom_sdpa`` as programs without delegates have them: an attention layer with a KV cache."""

from __future__ import annotations

import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge, to_edge_transform_and_lower
from executorch.exir.dialects._ops import ops
from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401, registers torch.ops.llama
from torch import nn
from torch.nn import functional

from executorch_webgpu import InvalidInputError, Runtime
from executorch_webgpu.runtime.decode import host_reason

CAPACITY, HEADS, KV_HEADS, HEAD_DIM = 11, 4, 2, 8


class Attention(nn.Module):
    k_cache: torch.Tensor
    v_cache: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("k_cache", "v_cache"):
            self.register_buffer(name, torch.zeros(1, CAPACITY, KV_HEADS, HEAD_DIM))
        self.qkv = nn.Linear(12, (HEADS + 2 * KV_HEADS) * HEAD_DIM)

    def forward(self, x: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        start = input_pos[0].item()
        torch._check_is_size(start)
        torch._check(start < CAPACITY)
        heads = [n * HEAD_DIM for n in (HEADS, KV_HEADS, KV_HEADS)]
        q, k, v = (t.view(1, x.shape[1], -1, HEAD_DIM) for t in torch.split(self.qkv(x), heads, -1))
        torch.ops.llama.update_cache(k, self.k_cache, start)
        torch.ops.llama.update_cache(v, self.v_cache, start)
        return torch.ops.llama.custom_sdpa(q, self.k_cache, self.v_cache, start, None, 0.0, True)


def test_a_layer_with_a_cache_runs_whole_on_the_device() -> None:
    torch.manual_seed(0)
    module = Attention().eval()
    exported = torch.export.export(module, (torch.randn(1, 1, 12), torch.tensor([0])), strict=True)
    data = bytes(to_edge(exported).to_executorch().buffer)
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
        assert {o.where for o in program.inspect().methods[0].operators} == {"device"}
        with torch.no_grad():
            for position in range(CAPACITY):
                x = torch.randn(1, 1, 12)
                got = method.execute([x, torch.tensor([position])])[0]
                torch.testing.assert_close(got, module(x, torch.tensor([position])), rtol=1e-4, atol=1e-5)
        assert method.state.length == CAPACITY and method.state.can_rewind
        with pytest.raises(InvalidInputError, match="11 rows"):
            method.execute([x, torch.tensor([CAPACITY])])


class TinyLanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.attention, self.norm = nn.Embedding(29, 12), Attention(), nn.LayerNorm(12)
        self.joined, self.head = nn.Linear(HEADS * HEAD_DIM, 12), nn.Linear(12, 29)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        heads = self.attention(self.norm(x), input_pos).reshape(1, x.shape[1], -1)
        logits: torch.Tensor = self.head(functional.silu(x + self.joined(heads)))
        return logits


@pytest.mark.parametrize("how", ["undelegated", "fully", "partly"])
def test_a_language_model_keeps_its_steps_in_flight_however_it_is_delegated(how: str) -> None:
    torch.manual_seed(0)
    module = TinyLanguageModel().eval()
    blocked = [ops.edge.aten.sigmoid.default, ops.edge.aten.native_layer_norm.default]
    partitioner = [VulkanPartitioner(operator_blocklist=blocked if how == "partly" else None)]
    exported = torch.export.export(module, (torch.tensor([[3]]), torch.tensor([0])), strict=True)
    lowered = to_edge_transform_and_lower(exported, partitioner=None if how == "undelegated" else partitioner)
    data = bytes(lowered.to_executorch().buffer)
    token = torch.tensor([[3]])
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
        assert host_reason(method, method.state) is None
        with torch.no_grad():
            for position in range(6):
                wanted = module(token, torch.tensor([position]))
                got = method.execute([token, torch.tensor([position])])[0]
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
                token = wanted[:, -1].argmax(-1)[None]

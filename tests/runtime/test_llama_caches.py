"""Caches of ExecuTorch's own language models without a partitioner: quantized, rings, and both."""

from __future__ import annotations

import pytest
import torch
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.model_args import ModelArgs
from executorch.examples.models.llama.source_transformation import custom_kv_cache as caches
from executorch.examples.models.llama.source_transformation.sdpa import replace_sdpa_with_custom_op
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from torch import nn
from torch.export import Dim

from executorch_webgpu import Runtime


class Model(nn.Module):
    """One layer, with the caches that a stock export would give it."""

    def __init__(self, ring: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        args = ModelArgs(
            dim=16,
            n_layers=1,
            n_heads=2,
            n_kv_heads=1,
            vocab_size=31,
            hidden_dim=24,
            max_seq_len=16,
            max_context_len=16,
            use_kv_cache=True,
            enable_dynamic_shape=True,
        )
        model = construct_transformer(args).eval()
        model = caches.replace_kv_cache_with_quantized_kv_cache(caches.replace_kv_cache_with_custom_kv_cache(model))
        if ring:
            model = caches.replace_kv_cache_with_ring_kv_cache(model, [8])
        self.model = replace_sdpa_with_custom_op(model, use_attention_mask=ring)
        for parameter in self.parameters():
            parameter.requires_grad_(False).copy_(torch.randn_like(parameter) * 0.3)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(tokens, {"input_pos": input_pos})
        return logits


STEPS = (([3, 9, 4], 0), ([7], 3), ([1], 4), ([5, 6], 5), ([2], 7), ([8], 8), ([9, 2, 4], 9), ([1], 12))


@pytest.mark.parametrize("ring", [False, True])
def test_quantized_caches_run_on_the_device(ring: bool) -> None:
    model = Model(ring).eval()
    steps = [(torch.tensor([tokens]), torch.tensor([position])) for tokens, position in STEPS]
    dynamic = ({1: Dim("tokens", min=1, max=7)}, {0: 1})
    exported = torch.export.export(model, steps[0], dynamic_shapes=dynamic)
    config = ExecutorchBackendConfig(passes=[InitializedMutableBufferPass([""])])
    data = bytes(to_edge_transform_and_lower(exported).to_executorch(config).buffer)
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
        where = {o.name: o.where for o in program.inspect().methods[0].operators}
        on_host = {name for name, place in where.items() if place != "device"}
        assert not [name for name in on_host if "llama" in name or "quantize" in name or "qparams" in name], where
        results = []
        for step in steps:
            results.append(method.execute(step)[0])
            torch.testing.assert_close(results[-1], model(*step), rtol=1e-3, atol=1e-3)
        assert method.state.can_rewind == (not ring)
        if not ring:  # rows of one byte in the zero points, which begin with ones
            assert method.state.length == 13
            method.state.rewind(5)
            for step, wanted in zip(steps[3:], results[3:], strict=True):
                torch.testing.assert_close(method.execute(step)[0], wanted)

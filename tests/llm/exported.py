"""Language models as the stock exporters leave them, small: ``python -m tests.llm.exported`` writes their programs.

An export takes 10 to 20 seconds, so the files are kept, with the greedy texts of torch for some prompts.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "engine"
CONTEXT, MOST, VOCAB = 32, 9, 31
PROMPTS = ([3, 9, 4, 11, 5, 2, 8, 30, 1, 7, 7, 12, 0], [5], [21, 22, 23, 24], [3, 9, 4, 11, 5, 2, 8, 30, 6])
NEW = 8


@dataclass(frozen=True)
class Export:
    """``tokens``: "live", or "one" for exactly one. ``of_each``: it takes the position of each token."""

    make: Callable[[], Any]
    tokens: str = "live"
    of_each: bool = False
    delegated: bool = False


def executorch_llama(dtype: str = "float32", quantized: bool = False, ring: bool = False, **args: Any) -> Any:
    """ExecuTorch's example, with the attention and caches that it has before any source transformation, or others."""
    import torch
    from executorch.examples.models.llama.llama_transformer import construct_transformer
    from executorch.examples.models.llama.model_args import ModelArgs
    from executorch.examples.models.llama.source_transformation import custom_kv_cache as caches
    from executorch.examples.models.llama.source_transformation.sdpa import replace_sdpa_with_custom_op

    sizes = {"dim": 16, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 24, "vocab_size": VOCAB}
    lengths = {"max_seq_len": CONTEXT, "max_context_len": CONTEXT, "use_kv_cache": True, "enable_dynamic_shape": True}
    model = construct_transformer(ModelArgs(**sizes | lengths | args)).eval()
    if quantized:
        model = caches.replace_kv_cache_with_custom_kv_cache(model)
        model = caches.replace_kv_cache_with_quantized_kv_cache(model)
    if ring:
        model = caches.replace_kv_cache_with_ring_kv_cache(model, [8])
    if quantized or ring:
        model = replace_sdpa_with_custom_op(model, use_attention_mask=ring)

    class Forward(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
            return self.model(tokens, {"input_pos": input_pos})

    return _randomized(Forward()).to(getattr(torch, dtype))


def transformers_cached(name: str, dtype: str = "float32", **config: Any) -> Any:
    """The wrapper of transformers for export, whose caches are buffers."""
    import torch

    from tests.zoo.language import Cached, small_model

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 24, "num_key_value_heads": 2}
    return Cached(small_model(name, sizes | config).to(getattr(torch, dtype)), CONTEXT).eval()


def gpt(write: str, mask: str, heads_first: bool, last: str, fused: bool = False, of_each: bool = False) -> Any:
    """A decoder with learned positions, as people write one: caches, masks and the last row in the ways that there are.

    ``write``: "put", "copy" or "slice"; ``mask``: "table" or "compare"; ``last``: "select", "slice", "index", "flat"
    (the logits [S, vocab] of all rows) or "all".
    """
    import torch
    from torch import nn
    from torch.nn import functional as F  # noqa: N812, its usual name

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(VOCAB, 16), nn.Embedding(CONTEXT, 16)
            self.qkv, self.proj, self.up, self.down = (nn.Linear(16, n) for n in (48, 16, 16, 16))
            self.ln1, self.ln2, self.lnf = (nn.LayerNorm(16) for _ in range(3))
            shape = (1, 2, CONTEXT, 8) if heads_first else (1, CONTEXT, 2, 8)
            self.register_buffer("k", torch.zeros(shape))
            self.register_buffer("v", torch.zeros(shape))
            self.register_buffer("mask", torch.ones(CONTEXT, CONTEXT).tril().bool(), persistent=False)

        def store(self, cache: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, start: Any) -> None:
            dim = 2 if heads_first else 1
            if write == "slice":
                cache.narrow(dim, start, rows.shape[dim]).copy_(rows)
            elif write == "copy":
                cache.index_copy_(dim, positions, rows)
            else:
                cache[(slice(None),) * dim + (positions,)] = rows

        def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
            count, start = tokens.shape[1], None
            positions = input_pos
            if write == "slice":
                start = input_pos[0].item()
                torch._check(start >= 0)
                torch._check(start + count <= CONTEXT)
                positions = torch.arange(count) + start
            elif not of_each:
                positions = input_pos + torch.arange(count)
            x = self.wte(tokens) + self.wpe(positions)
            q, k, v = (t.view(1, count, 2, 8) for t in self.qkv(self.ln1(x)).split(16, -1))
            if heads_first:
                q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            self.store(self.k, k, positions, start)
            self.store(self.v, v, positions, start)
            keys, values = self.k, self.v
            if not heads_first:
                q, keys, values = (t.transpose(1, 2) for t in (q, keys, values))
            seen = self.mask[positions] if mask == "table" else torch.arange(CONTEXT)[None] <= positions[:, None]
            if fused:
                y = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen)
            else:
                scores = (q @ keys.transpose(-2, -1)) / 8**0.5
                y = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ values
            x = x + self.proj(y.transpose(1, 2).reshape(1, count, 16))
            x = self.lnf(x + self.down(F.gelu(self.up(self.ln2(x)))))
            x = {"select": lambda: x[:, -1], "slice": lambda: x[:, -1:], "index": lambda: x[:, [-1]]}.get(
                last, lambda: x
            )()
            logits: torch.Tensor = x @ self.wte.weight.t()
            return logits[0] if last == "flat" else logits

    return _randomized(Decoder())


def _randomized(model: Any) -> Any:
    import torch

    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        scale = 0.1 if "norm" in name or ".ln" in name or name.startswith("ln") else 0.5
        offset = 1.0 if scale == 0.1 and name.endswith("weight") else 0.0
        parameter.requires_grad_(False).copy_(torch.randn_like(parameter) * scale + offset)
    return model.eval()


WINDOW: dict[str, Any] = {
    "sliding_window": 5,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
EXPORTS = {
    "llama": Export(lambda: executorch_llama(n_layers=2)),
    "llama_one": Export(lambda: executorch_llama(enable_dynamic_shape=False), "one", delegated=True),
    "llama_full_half": Export(lambda: executorch_llama("float16", generate_full_logits=True)),
    "llama_quantized": Export(lambda: executorch_llama(quantized=True)),
    "llama_ring": Export(lambda: executorch_llama(ring=True)),
    "qwen3": Export(lambda: transformers_cached("Qwen3", head_dim=8), of_each=True),
    "hf_llama_one": Export(lambda: transformers_cached("Llama", "bfloat16"), "one"),
    "gemma3": Export(
        lambda: transformers_cached("Gemma3Text", head_dim=8, query_pre_attn_scalar=8, **WINDOW), of_each=True
    ),
    "gpt_put": Export(lambda: gpt("put", "table", True, "select"), delegated=True),
    "gpt_copy": Export(lambda: gpt("copy", "table", True, "slice", fused=True)),
    "gpt_slice": Export(lambda: gpt("slice", "compare", False, "index")),
    "gpt_slice_one": Export(lambda: gpt("slice", "table", True, "select"), "one"),
    "gpt_of_each": Export(lambda: gpt("put", "compare", False, "flat", of_each=True), of_each=True, delegated=True),
}


def write(name: str) -> list[list[int]]:
    """Export a model to its file. Returns the greedy text of torch after each of the prompts."""
    import torch
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
    from torch.export import Dim

    export = EXPORTS[name]
    count = 1 if export.tokens == "one" else 4
    inputs = torch.arange(count)[None], torch.arange(count if export.of_each else 1)
    length = Dim("length", min=1, max=MOST)
    shapes = ({1: length}, {0: length} if export.of_each else None) if export.tokens == "live" else None
    with torch.no_grad():
        strict = "transformers" in str(export.make.__code__.co_names)
        program = torch.export.export(export.make(), inputs, dynamic_shapes=shapes, strict=strict)
        manager = to_edge_transform_and_lower(
            program,
            partitioner=[VulkanPartitioner({})] if export.delegated else None,
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods={"get_max_context_len": CONTEXT, "use_kv_cache": 1},
        )
        passes = [InitializedMutableBufferPass(sorted(program.graph_signature.buffers))]
        made = manager.to_executorch(ExecutorchBackendConfig(passes=passes))
        (FOLDER / f"{name}.pte").write_bytes(bytes(made.buffer))
        return [_greedy(export, prompt) for prompt in PROMPTS]


def _greedy(export: Export, prompt: list[int]) -> list[int]:
    """By a model of its own, one token at a time."""
    import torch

    model, text = export.make(), list(prompt)
    for position in range(len(prompt) + NEW - 1):
        logits = model(torch.tensor([[text[position]]]), torch.tensor([position])).reshape(-1, VOCAB)[-1]
        if position + 1 == len(text):
            text.append(int(logits.argmax()))
    return text[len(prompt) :]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    path = FOLDER / "texts.json"
    texts = json.loads(path.read_text()) if path.exists() else {}
    for name in sys.argv[1:] or EXPORTS:
        texts[name] = write(name)
        print(name, (FOLDER / f"{name}.pte").stat().st_size, texts[name][0], flush=True)
        path.write_text(json.dumps(texts, indent=1, sort_keys=True) + "\n")

"""Language models of transformers: architectures that differ, without a cache, and with one of a fixed size."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from .model import FirstOutput, Prepared, noise, randomized, tokens, zoo

VOCABULARY = 97
THIN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2}
# One of the forms of a mixture of experts that transformers has: the one that the exporter takes.
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "batched_mm"}
SLIDING = {"sliding_window": 5, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}


def small_model(name: str, config: dict[str, Any]) -> nn.Module:
    """A thin model: ``name`` is that of its classes, as in NAMEConfig and NAMEForCausalLM."""
    import transformers

    made = getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")
    return randomized(made(getattr(transformers, f"{name}Config")(**THIN | config)))


def _logits(model: nn.Module, lengths: tuple[int, ...] = (13, 3, 7)) -> Prepared:
    """Logits of every position, without a cache; for texts that change their length if there are several lengths."""
    calls = [(tokens(1, n, below=VOCABULARY, seed=n + i),) for i, n in enumerate(lengths)]
    varies = len(set(lengths)) > 1
    dynamic = (({1: Dim("length", min=2, max=lengths[0])},),) if varies else None
    return Prepared(FirstOutput(model, use_cache=False).eval(), calls, dynamic)


@zoo("llama")
def llama(full: bool) -> Prepared:
    return _logits(small_model("Llama", GROUPED))


@zoo("qwen3")
def qwen3(full: bool) -> Prepared:
    """Norms of queries and keys."""
    return _logits(small_model("Qwen3", {**GROUPED, "head_dim": 8}))


@zoo("phi")
def phi(full: bool) -> Prepared:
    """Half of each head is rotated, heads before tokens: the partitioner makes apply_rotary_emb_hf of it."""
    return _logits(small_model("Phi", {"partial_rotary_factor": 0.5}))


@zoo("phi3")
def phi3(full: bool) -> Prepared:
    """One matrix for queries, keys and values, and one for gate and up."""
    return _logits(small_model("Phi3", GROUPED))


@zoo("mixtral")
def mixtral(full: bool) -> Prepared:
    """Two of four experts for a token."""
    return _logits(small_model("Mixtral", {**GROUPED, **EXPERTS}))


@zoo("gpt_oss")
def gpt_oss(full: bool) -> Prepared:
    """Attention sinks, windows in every second layer, experts with biases and a bounded activation."""
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    return _logits(small_model("GptOss", {**GROUPED, **EXPERTS, **SLIDING, "head_dim": 8, "rope_parameters": rope}))


@zoo("gemma2")
def gemma2(full: bool) -> Prepared:
    """Bounded scores and logits, norms before and after."""
    return _logits(small_model("Gemma2", {**GROUPED, **SLIDING, "head_dim": 8, "query_pre_attn_scalar": 8}))


@zoo("falcon")
def falcon(full: bool) -> Prepared:
    """A bias that grows with the distance (ALiBi), and one head of keys for all."""
    return _logits(small_model("Falcon", {"alibi": True, "new_decoder_architecture": False}))


@zoo("opt")
def opt(full: bool) -> Prepared:
    """Embeddings narrower than the layers, and positions counted from a mask."""
    return _logits(small_model("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 16}))


@zoo("lfm2")
def lfm2(full: bool) -> Prepared:
    """Short gated convolutions over the text beside attention."""
    return _logits(small_model("Lfm2", {**GROUPED, "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}))


@zoo("mamba")
def mamba(full: bool) -> Prepared:
    """A selective scan; its loop over the text is unrolled."""
    return _logits(small_model("Mamba", {"state_size": 4}), (12, 12))


@zoo("mamba2")
def mamba2(full: bool) -> Prepared:
    """The scan by chunks, as products of matrices."""
    sizes = {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4}
    return _logits(small_model("Mamba2", sizes), (12, 12))


@zoo("recurrent_gemma")
def recurrent_gemma(full: bool) -> Prepared:
    """A gated linear recurrence beside attention in a window."""
    sizes = {"num_hidden_layers": 3, "head_dim": 8, "attention_window_size": 8, "lru_width": 32}
    return _logits(small_model("RecurrentGemma", {**sizes, "num_key_value_heads": 1}), (12, 12))


class Cached(nn.Module):
    """transformers' own wrapper for export: the caches are buffers, which each call writes at its positions."""

    def __init__(self, model: nn.Module, length: int) -> None:
        from transformers import GenerationConfig
        from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

        super().__init__()
        model.generation_config = GenerationConfig(use_cache=True, cache_implementation="static")
        self.model = TorchExportableModuleWithStaticCache(model, batch_size=1, max_cache_len=length)

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, cache_position=positions)


# The partitioner loses the buffer that counts what a cache holds.
UNDELEGATED = ("portable",)


def _cached(model: nn.Module) -> Prepared:
    """A text by a prompt and tokens one by one, and another one from the start."""
    steps = ((0, 11), (11, 1), (12, 1), (13, 3), (0, 4), (4, 1))
    calls = [(tokens(1, n, below=VOCABULARY, seed=p + n), torch.arange(p, p + n)) for p, n in steps]
    length = Dim("length", min=1, max=11)
    return Prepared(Cached(model, 24).eval(), calls, ({1: length}, {0: length}), strict=True)


@zoo("llama_cached", UNDELEGATED)
def llama_cached(full: bool) -> Prepared:
    return _cached(small_model("Llama", GROUPED))


@zoo("gemma3_cached", UNDELEGATED)
def gemma3_cached(full: bool) -> Prepared:
    return _cached(small_model("Gemma3Text", {**GROUPED, **SLIDING, "head_dim": 8, "query_pre_attn_scalar": 8}))


@zoo("whisper_cached", UNDELEGATED)
def whisper_cached(full: bool) -> Prepared:
    """A decoder over an encoder's states, one token a call."""
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
    from transformers.integrations.executorch import Seq2SeqLMDecoderExportableModuleWithStaticCache

    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes |= {"d_model": 32, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_target_positions": 24}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(vocab_size=VOCABULARY, **sizes, **special)
    model = randomized(WhisperForConditionalGeneration(config))
    model.lm_head = model.proj_out
    model.generation_config = GenerationConfig(
        use_cache=True, cache_implementation="static", cache_config={"batch_size": 1, "max_cache_len": 16}
    )
    decoder = Seq2SeqLMDecoderExportableModuleWithStaticCache(model, max_static_cache_length=16, batch_size=1)
    states = noise(1, 30, 32, seed=3)
    calls = [(tokens(1, 1, below=VOCABULARY, seed=i), states, torch.tensor([i])) for i in range(4)]
    return Prepared(decoder.eval(), calls, strict=True)

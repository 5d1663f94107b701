"""The configuration of a model out of a GGUF file's metadata, with llama.cpp's defaults and old names of keys.

Every key of the architecture is either taken, or known to change nothing, or refused by name: a key that is passed over
may be one that changes what the model computes. Source: what llama.cpp's loader reads for these architectures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidProgramError, UnsupportedProgramError
from .llama import LlamaConfig, check_heads
from .numbers import check_eps, check_rope_base
from .weights import Weight

INTERLEAVED_ROPE = {"llama": True, "qwen2": False, "qwen3": False}
GGUF_ENCODERS = ("bert",)  # see gguf_encoder.py
ROPE_DIVISORS = "rope_freqs.weight"
_EMBEDDING = "token_embd.weight"
_EPS = "attention.layer_norm_rms_epsilon"
_TAKEN = frozenset(
    (
        *("embedding_length", "block_count", "feed_forward_length", "context_length", "vocab_size", _EPS),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
        *("attention.sliding_window", "rope.dimension_count", "rope.freq_base"),
        *("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear"),
    )
)
# What says something about the model's past or its use, or belongs to a feature that another key turns on.
_WITHOUT_EFFECT = frozenset(
    (
        *("tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length"),
        *("attention.layer_norm_epsilon", "attention.sliding_window_pattern", "pooling_type"),
        *("expert_weights_norm", "expert_gating_func", "embedding_length_out"),
        *("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier"),
    )
)
# Scales, clamps and counts, with the values by which they do nothing.
_NEUTRAL: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale", "attention.output_scale"), (0, 1)),
    **dict.fromkeys(("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"), (1,)),
    **dict.fromkeys(("attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias"), (0,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "router_logit_softcapping"), (0,)),
    **dict.fromkeys(("expert_count", "expert_used_count", "expert_shared_count", "expert_feed_forward_length"), (0,)),
    **dict.fromkeys(("expert_shared_feed_forward_length", "expert_group_count", "expert_group_used_count"), (0,)),
    **dict.fromkeys(("leading_dense_block_count", "nextn_predict_layers", "attention.shared_kv_layers"), (0,)),
    **dict.fromkeys(("attention.temperature_scale", "attention.temperature_length"), (0,)),
    **dict.fromkeys(("rope.scaling.alpha", "expert_weights_scale"), (0, 1)),
    "rope.scaling.yarn_ext_factor": (0, -1),
    **dict.fromkeys(("rescale_every_n_layers", "use_parallel_residual", "swin_norm"), (0,)),
    "attention.causal": (1,),
}


def read_config(metadata: Mapping[str, Any], weights: Mapping[str, Weight]) -> LlamaConfig:
    """The configuration, without the rope's divisors, whose number only checked weights bound; see ``rope_divisors``.

    InvalidProgramError if a key is missing or has a value that cannot be; UnsupportedProgramError, which names it, for
    an architecture or a key that is not here.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in INTERLEAVED_ROPE:
        raise UnsupportedProgramError(
            f"The architecture {architecture!r} is not converted here: use a model of "
            f"{', '.join((*INTERLEAVED_ROPE, *GGUF_ENCODERS))}."
        )
    keys = Keys(metadata, architecture)
    keys.check_others(_TAKEN | _WITHOUT_EFFECT, _NEUTRAL)
    dim, heads = keys.count("embedding_length"), keys.layer_count("attention.head_count")
    head_dim = keys.count("attention.key_length", max(1, dim // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.count(key, head_dim) != head_dim:
            raise UnsupportedProgramError(
                f"{keys.said(key)}, and heads have {head_dim} elements: heads of which a part is rotated, or with "
                "other sizes for values, are not here."
            )
    kv_heads = keys.layer_count("attention.head_count_kv", heads)
    check_heads(heads, kv_heads, head_dim, "The GGUF file")
    context_len, window = keys.count("context_length"), keys.size("attention.sliding_window", 0)
    config = LlamaConfig(
        dim=dim,
        layers=keys.count("block_count"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=keys.layer_count("feed_forward_length"),
        vocab=_vocab(weights),
        # As long as the text fits into the window of sliding attention, that is full attention.
        context_len=min(context_len, window or context_len),
        # Stored as float32; the shortest decimal that means the same is what was written in the first place.
        norm_eps=float(str(np.float32(check_eps(keys.number(_EPS), keys.name(_EPS))))),
        rope_base=check_rope_base(keys.number("rope.freq_base", 10000.0), keys.name("rope.freq_base")),
        rope_interleaved=INTERLEAVED_ROPE[architecture],
        qkv_bias="blk.0.attn_q.bias" in weights,
        qk_norm=architecture == "qwen3",
        tied_head="output.weight" not in weights,
    )
    if "tokenizer.ggml.tokens" not in metadata and keys.count("vocab_size", config.vocab) != config.vocab:
        raise InvalidProgramError(
            f"{keys.said('vocab_size')}, and '{_EMBEDDING}' has {config.vocab} rows: convert the model to GGUF again."
        )
    rope_scale(metadata)  # refused before any weight is looked at
    return config


def rope_scale(metadata: Mapping[str, Any]) -> float:
    """What all frequencies of the rope are divided by.

    Without a type the scaling is linear; a factor of 0 means none. Only where the factor's key is not there at all does
    its old name count.
    """
    keys = Keys(metadata, metadata["general.architecture"])
    kind = keys.value("rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise UnsupportedProgramError(f"The rope scaling {kind!r} is not here: use a model without it.")
    key = "rope.scaling.factor" if keys.has("rope.scaling.factor") else "rope.scale_linear"
    factor = keys.number(key, 0.0)
    if factor < 0 or 0 < factor < float(np.finfo(np.float32).tiny):
        raise InvalidProgramError(f"{keys.said(key)}, and a rope's factor is a positive number, or 0 for none.")
    return factor if factor and kind == "linear" else 1.0


def rope_divisors(metadata: Mapping[str, Any], divisors: Weight | None, config: LlamaConfig) -> LlamaConfig:
    """The configuration with what divides the frequency of each pair of a head's elements.

    ``divisors``: the tensor ``rope_freqs.weight``, where there is one.
    """
    half = config.head_dim // 2
    found = np.full(half, rope_scale(metadata), np.float32)
    if divisors is not None:
        if not config.rope_interleaved:
            raise UnsupportedProgramError(
                f"The tensor '{ROPE_DIVISORS}' has no place in the architecture {metadata['general.architecture']!r}."
            )
        if divisors.dims != (half,):
            raise InvalidProgramError(
                f"The tensor '{ROPE_DIVISORS}' is {list(divisors.dims)}, not [{half}]: convert the model to GGUF again."
            )
        values = divisors.rows(0, 1)[0]
        if not np.all(values > 0):
            raise InvalidProgramError(
                f"The tensor '{ROPE_DIVISORS}' has {values.min()} at {int(values.argmin())}, and must be positive: "
                "convert the model to GGUF again."
            )
        found = found * values
    return dataclasses.replace(config, rope_divisors=tuple(found.tolist()) if np.any(found != 1) else ())


def _vocab(weights: Mapping[str, Weight]) -> int:
    embedding = weights.get(_EMBEDDING)
    if embedding is None or len(embedding.dims) != 2:
        raise InvalidProgramError(
            f"The GGUF file has no matrix '{_EMBEDDING}': use a file of the model itself, with all its tensors."
        )
    return embedding.dims[0]


class Keys:
    """The keys of an architecture, checked as they are read."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self._metadata, self._prefix = metadata, f"{architecture}."

    def name(self, key: str) -> str:
        return f"'{self._prefix}{key}'"

    def said(self, key: str) -> str:
        """The beginning of a sentence about a value."""
        shown = repr(self.value(key))
        return f"{self.name(key)} is {shown if len(shown) < 80 else shown[:80] + '…'}"

    def has(self, key: str) -> bool:
        return self._prefix + key in self._metadata

    def value(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(self._prefix + key, default)

    def stated(self, key: str, default: Any) -> Any:
        value = self.value(key, default)
        if value is None:
            raise InvalidProgramError(
                f"The GGUF file has no {self.name(key)}: convert the model to GGUF again, or use another file."
            )
        return value

    def size(self, key: str, default: int | None = None) -> int:
        value = self.stated(key, default)
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise InvalidProgramError(f"{self.said(key)}, not a count: convert the model to GGUF again.")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        if (value := self.size(key, default)) == 0:
            raise InvalidProgramError(f"{self.said(key)}, and must be more than that: convert the model to GGUF again.")
        return value

    def layer_count(self, key: str, default: int | None = None) -> int:
        """A count, or an array that has the same one for each layer."""
        value = self.value(key)
        if not isinstance(value, list):
            return self.count(key, default)
        if not value or any(type(item) is not int or item < 1 for item in value):
            raise InvalidProgramError(f"{self.said(key)}, not a count for each layer: convert the model to GGUF again.")
        if len(set(value)) > 1:
            raise UnsupportedProgramError(f"{self.said(key)}, not one number for all layers, which is not here.")
        if len(value) != (layers := self.count("block_count")):
            raise InvalidProgramError(
                f"{self.said(key)}, and there are {layers} layers: convert the model to GGUF again."
            )
        return int(value[0])

    def number(self, key: str, default: float | None = None) -> float:
        value = self.stated(key, default)
        if type(value) not in (int, float) or not np.isfinite(np.float64(value)):
            raise InvalidProgramError(f"{self.said(key)}, not a number: convert the model to GGUF again.")
        return float(value)

    def check_others(self, known: Collection[str], neutral: Mapping[str, Sequence[float]]) -> None:
        """Every key of the architecture is known, or ``neutral`` has its value, by which it does nothing."""
        refused: list[str] = []
        for full in self._metadata:
            key = full.removeprefix(self._prefix)
            if key == full or key in known:
                continue
            nothing = neutral.get(key, ())
            values = self.value(key)
            many = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
            if not nothing or not all(isinstance(item, int | float) and item in nothing for item in many):
                refused.append(self.said(key))
        if refused:
            raise UnsupportedProgramError(
                f"{' and '.join(refused)}, which may change what the model computes and is not here: use a model "
                "without it."
            )

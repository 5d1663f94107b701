"""Random small language models, each as a ``config.json`` in one of the ways in which it can be written.

Every choice comes from one seed, so that a number says which model it was.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}


@dataclass(frozen=True)
class TinyConfig:
    """``fields``: what config.json says. ``refused``: what the message names if the model is none of ours."""

    fields: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None

    @property
    def model_type(self) -> str:
        return str(self.fields["model_type"])


def draw_config(rng: random.Random, *, wide: bool = False) -> TinyConfig:
    """A model of one or two layers. ``wide``: rows are whole blocks of 256."""
    model_type = rng.choice(MODEL_TYPES)
    fields: dict[str, Any] = {"model_type": model_type, "architectures": ["SomethingForCausalLM"]}
    head_dim = _draw_sizes(rng, fields, wide=wide)
    refused = None if head_dim % 4 == 0 else "not a multiple of 4"
    if rng.random() < 0.7:
        fields["rms_norm_eps"] = rng.choice([1e-6, 1e-5, 1e-3, 0.01])
    if rng.random() < 0.6:
        fields["tie_word_embeddings"] = rng.random() < 0.5
    if rng.random() < 0.3:
        fields["hidden_act"] = rng.choice(["silu", "swish"])
    if rng.random() < 0.3:
        fields |= {"torch_dtype": "bfloat16", "use_cache": False, "attention_dropout": 0.1, "initializer_range": 0.1}
    _draw_window(rng, fields)
    return TinyConfig(fields, _draw_rope(rng, fields) or refused)


def _draw_sizes(rng: random.Random, fields: dict[str, Any], *, wide: bool) -> int:
    """The sizes, some left out where the class has what they are; gives the size of a head."""
    model_type = fields["model_type"]
    absent = rng.random() < 0.15 and not wide
    heads, hidden = rng.choice([1, 2, 3, 4, 6, 8]), rng.choice([256] if wide else [32, 48, 64, 96])
    if absent and model_type != "llama":  # the number of keys' heads that the class has
        heads = 8 if model_type == "mistral" else 32
    divided = hidden % heads == 0 and (hidden // heads) % 2 == 0
    stated = model_type == "qwen3" or not divided or rng.random() < 0.5
    head_dim = rng.choice([4, 8, 12, 16, 20, 32, 6] if not wide else [32, 64]) if stated else hidden // heads
    while wide and heads * head_dim % 256:
        heads, head_dim = rng.choice([4, 8]), rng.choice([32, 64])
        stated = stated or heads * head_dim != hidden
    if model_type == "llama" and hidden % heads:  # which its class does not take
        hidden = heads * 16
    if model_type == "qwen3" and rng.random() < 0.1:
        stated, head_dim, heads = False, 128, min(heads, 2) if not wide else 2
        absent = False
    fields |= {
        "hidden_size": hidden,
        "intermediate_size": 256 if wide else rng.choice([32, 48, 80, 112]),
        "num_hidden_layers": rng.choice([1, 2]),
        "num_attention_heads": heads,
        "vocab_size": rng.choice([31, 64, 99]),
    }
    if stated:
        fields["head_dim"] = head_dim
    elif model_type in ("llama", "mistral") and rng.random() < 0.3:
        fields["head_dim"] = None
    if not absent:
        fields["num_key_value_heads"] = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
        if model_type != "mistral" and rng.random() < 0.15:
            fields["num_key_value_heads"] = None
    if rng.random() < 0.8:
        fields["max_position_embeddings"] = rng.choice([16, 40, 64, 128])
    return head_dim


def _draw_window(rng: random.Random, fields: dict[str, Any]) -> None:
    """Sliding attention, or what looks like it."""
    model_type = fields["model_type"]
    if model_type == "mistral":
        if rng.random() < 0.7:
            fields["sliding_window"] = rng.choice([None, 12, 20, 4096])
        return
    if rng.random() < 0.5:
        fields["sliding_window"] = rng.choice([None, 12, 20, 4096])
    if model_type.startswith("qwen") and rng.random() < 0.5:
        fields["use_sliding_window"] = rng.random() < 0.5
        if rng.random() < 0.5:
            fields["max_window_layers"] = rng.choice([0, 1, 2])
        window = fields.get("sliding_window", 4096)
        kinds = ["full_attention"]
        if fields["use_sliding_window"] and window is not None:
            kinds.append("sliding_attention")
        if rng.random() < 0.3:
            fields["layer_types"] = [rng.choice(kinds) for _ in range(fields["num_hidden_layers"])]


def _draw_rope(rng: random.Random, fields: dict[str, Any]) -> str | None:
    """The rope in one of its spellings; gives the name of what is not here."""
    kind = rng.choice(["default", "default", "linear", "llama3", "yarn", "dynamic"])
    if kind in ("yarn", "dynamic") and rng.random() < 0.7:
        kind = "default"
    scaling: dict[str, Any] = {
        "default": {},
        "linear": {"factor": rng.choice([2.0, 4.0, 3])},
        "llama3": dict(LLAMA3),
        "yarn": dict(YARN),
        "dynamic": {"factor": 2.0},
    }[kind]
    theta = rng.choice([None, 500.0, 1e4, 1000000, 50.0])
    spelling = rng.choice(["scaling", "old scaling", "parameters", "both"])
    if kind == "llama3" and rng.random() < 0.3:
        scaling.pop("original_max_position_embeddings")
        if rng.random() < 0.5:
            fields["original_max_position_embeddings"] = 24
    if kind == "default" and spelling != "parameters" and rng.random() < 0.7:
        if theta is not None:
            fields["rope_theta"] = theta
        if rng.random() < 0.3:
            fields["rope_scaling"] = None
        return None
    inside = spelling == "parameters" or rng.random() < 0.3
    key = "type" if spelling == "old scaling" else "rope_type"
    scaling = {key: kind, **scaling}
    if theta is not None and inside:
        scaling["rope_theta"] = theta
    if theta is not None and (not inside or rng.random() < 0.2):
        fields["rope_theta"] = theta if not inside else 77.0
    fields["rope_parameters" if spelling == "parameters" else "rope_scaling"] = scaling
    if spelling == "both":  # the other one does not count
        fields["rope_parameters"] = {"rope_type": "default", "rope_theta": 123.0}
    return kind if kind in ("yarn", "dynamic") else None

"""The configuration of a model out of ``config.json``, as the ``transformers`` library takes it.

What a file leaves out is what the library's class for the model type has; what a class does not know, it ignores. Old
spellings of the rope's scaling count as the library has them. Source: transformers 5, its configuration classes and
``modeling_rope_utils``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import InvalidProgramError, UnsupportedProgramError
from .llama import LlamaConfig, check_heads
from .numbers import check_eps, check_rope_base
from .weights import Weight

_BEYOND = 2**63  # no number of a configuration is as large
_SHARED = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
_QWEN = {
    **_SHARED,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
}
# What each class has for a key that is not there; None: derived from others.
DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": {
            **_SHARED,
            "intermediate_size": 11008,
            "num_key_value_heads": None,
            "max_position_embeddings": 2048,
            "attention_bias": False,
            "mlp_bias": False,
            "head_dim": None,
        },
        "mistral": {
            **_SHARED,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
            "head_dim": None,
        },
        "qwen2": {**_QWEN, "head_dim": None},
        "qwen3": {**_QWEN, "head_dim": 128, "attention_bias": False},
    }
)
MODEL_TYPES = tuple(DEFAULTS)
ENCODER_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert")  # see huggingface_encoder.py
_ROPE_KEYS = ("rope_parameters", "rope_scaling")


@dataclass(frozen=True)
class Fields:
    """The fields of a ``config.json``, checked as they are read, with the defaults of its class."""

    stated: Mapping[str, Any]
    model_type: str

    @property
    def assumed(self) -> dict[str, Any]:
        """Sizes that the file does not state, with what they are then."""
        sizes = {key: value for key, value in DEFAULTS[self.model_type].items() if type(value) is int}
        return {key: value for key, value in sizes.items() if key not in self.stated}

    def knows(self, key: str) -> bool:
        """The class has such a field; others it ignores."""
        return key in DEFAULTS[self.model_type]

    def value(self, key: str) -> Any:
        return self.stated.get(key, DEFAULTS[self.model_type].get(key))

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer; ``default`` is for null."""
        value = self.value(key)
        return positive_int(default if value is None else value, key)

    def flag(self, key: str) -> bool:
        value = self.value(key)
        value = DEFAULTS[self.model_type][key] if value is None else value
        if not isinstance(value, bool):
            raise InvalidProgramError(f"config.json has {value!r} as '{key}', which is not true or false: correct it.")
        return value


def read_fields(stated: Mapping[str, Any]) -> Fields:
    """The fields; UnsupportedProgramError, which names it, for a model type or a feature that is not here."""
    model_type = stated.get("model_type")
    if not isinstance(model_type, str) or model_type not in DEFAULTS:
        raise UnsupportedProgramError(
            f"The model type {model_type!r} is not converted here: use a model of "
            f"{', '.join(MODEL_TYPES + ENCODER_TYPES)}."
        )
    fields = Fields(stated, model_type)
    for key in ("quantization_config", "quantization"):
        if quantization := stated.get(key):
            method = quantization.get("quant_method") if isinstance(quantization, dict) else None
            raise UnsupportedProgramError(
                f"The weights are quantized ({method or key}), which is not read here: use the model in F32, F16 or "
                "BF16."
            )
    for key in ("per_layer_config", "transformers_weights"):
        if stated.get(key):
            raise UnsupportedProgramError(f"config.json has '{key}', which is not here: use a model without it.")
    if fields.value("hidden_act") not in ("silu", "swish"):
        raise UnsupportedProgramError(f"The activation {fields.value('hidden_act')!r} is not here, only 'silu'.")
    if fields.knows("mlp_bias") and fields.flag("mlp_bias"):
        raise UnsupportedProgramError("Feed-forward layers with a bias ('mlp_bias') are not here.")
    rope = _rope(fields)
    if rope.get("partial_rotary_factor", stated.get("partial_rotary_factor")) not in (None, 1):
        raise UnsupportedProgramError("Heads of which a part is rotated ('partial_rotary_factor') are not here.")
    _rope_type(rope)
    return fields


def read_config(
    fields: Fields,
    embedding: Weight,
    *,
    own_head: bool,
    head_norm: tuple[int, ...] = (),
    keys: tuple[int, ...] = (),
) -> LlamaConfig:
    """The configuration, without the rope's divisors, whose number only checked weights bound; see ``rope_divisors``.

    ``own_head``: the head is not the embedding. ``head_norm``, ``keys``: dims of a layer's norm of heads and of its
    projection to keys, where they are there.
    """
    dim, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    # A file may leave a size out that is not its class's own but what follows from the others; the weights tell.
    whole = max(1, dim // heads)
    follows = "head_dim" not in fields.stated and head_norm == (whole,)
    head_dim = whole if follows else fields.count("head_dim", whole)
    follows = "num_key_value_heads" not in fields.stated and keys[:1] == (heads * head_dim,)
    kv_heads = heads if follows else fields.count("num_key_value_heads", heads)
    check_heads(heads, kv_heads, head_dim, "config.json")
    rope = _rope(fields)
    eps = fields.value("rms_norm_eps")
    stated = (rope.get("rope_theta"), fields.stated.get("rope_theta"))
    base = next((theta for theta in stated if theta is not None), 10000.0)
    return LlamaConfig(
        dim=dim,
        layers=fields.count("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=fields.count("intermediate_size"),
        vocab=embedding.dims[0],
        context_len=_context_len(fields),
        norm_eps=check_eps(_number(eps, "rms_norm_eps"), "'rms_norm_eps' in config.json"),
        rope_base=check_rope_base(_number(base, "rope_theta"), "'rope_theta' in config.json"),
        rope_interleaved=False,
        # Mistral's class knows no bias.
        qkv_bias=fields.model_type == "qwen2" or (fields.knows("attention_bias") and fields.flag("attention_bias")),
        qk_norm=fields.model_type == "qwen3",
        tied_head=not own_head,
    )


def rope_divisors(fields: Fields, config: LlamaConfig) -> tuple[float, ...]:
    """What divides the frequency of each pair of a head's elements; none where nothing does."""
    rope = _rope(fields)
    kind = _rope_type(rope)
    if kind == "default":
        return ()
    if kind == "linear":
        return (_number(rope.get("factor"), "factor"),) * (config.head_dim // 2)
    factor, low, high = (_number(rope.get(key), key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    if low >= high:
        raise InvalidProgramError(f"config.json has rope factors from {low} to {high}: correct it.")
    # Beside the scaling it counts more than within.
    key = "original_max_position_embeddings"
    trained = positive_int(
        fields.stated.get(key, rope.get(key, fields.value("max_position_embeddings"))), "max_position_embeddings"
    )
    # Pairs that turn at least `high` times in the trained context stay; those that turn at most `low` times are
    # slowed down by the factor; in between the frequencies blend.
    half = config.head_dim // 2
    turns = trained / (2 * math.pi) * np.power(config.rope_base, -np.arange(half) / half)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    divisors: list[float] = (1 / (kept + (1 - kept) / factor)).tolist()
    return tuple(divisors)


def _context_len(fields: Fields) -> int:
    """As long as the text fits into the window of sliding attention, that is full attention."""
    most = fields.count("max_position_embeddings")
    return min(most, fields.count("sliding_window")) if _slides(fields) else most


def _slides(fields: Fields) -> bool:
    """Some layer has a window."""
    window = fields.value("sliding_window")
    if fields.model_type == "mistral":
        return window is not None
    if not fields.knows("use_sliding_window"):
        return False
    used = fields.flag("use_sliding_window") and window is not None
    types = fields.stated.get("layer_types")
    if types is None:  # then the layers from 'max_window_layers' on do
        return used
    if not isinstance(types, list) or not all(kind in ("full_attention", "sliding_attention") for kind in types):
        raise UnsupportedProgramError(f"config.json has {types!r} as 'layer_types', of which some are not here.")
    if "sliding_attention" in types and not used:
        raise InvalidProgramError("config.json has layers of 'sliding_attention' and no window for them: correct it.")
    return used and "sliding_attention" in types


def _rope(fields: Fields) -> dict[str, Any]:
    """What newer versions of transformers write as ``rope_parameters``, unless ``rope_scaling`` of older ones is there.

    The one that counts does so alone: nothing of the other is added.
    """
    for key in _ROPE_KEYS:
        value = fields.stated.get(key)
        if not isinstance(value, dict | None):
            raise InvalidProgramError(f"config.json has {value!r} as '{key}': correct it.")
    rope: dict[str, Any] = fields.stated.get("rope_scaling") or fields.stated.get("rope_parameters") or {}
    if any(isinstance(value, dict) for value in rope.values()):
        raise UnsupportedProgramError("Layers with ropes of their own ('rope_parameters') are not here.")
    return rope


def _rope_type(rope: Mapping[str, Any]) -> str:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise UnsupportedProgramError(f"The rope scaling {kind!r} is not here: use a model without it.")
    return str(kind)


def positive_int(value: Any, key: str) -> int:
    if type(value) is not int or not 0 < value < _BEYOND:
        raise _no(value, key, "positive integer")
    return value


def _number(value: Any, key: str) -> float:
    if type(value) not in (int, float) or not 0 < value < _BEYOND:
        raise _no(value, key, "positive number")
    return float(value)


def _no(value: Any, key: str, what: str) -> InvalidProgramError:
    if value is None:
        return InvalidProgramError(f"config.json has no '{key}', and needs a {what} there: correct it.")
    return InvalidProgramError(f"config.json has {value!r} as '{key}', which is no {what}: correct it.")

"""Models in folders as Hugging Face publishes them: ``config.json`` and one or more safetensors files.

Model types: ``llama`` (SmolLM2 is one), ``mistral``, ``qwen2``, ``qwen3``. Their rope's pairs are halves of a head.
What a configuration leaves out is what the ``transformers`` library takes for it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format.mapped_file import MappedFile
from ..format.safetensors import SafetensorsTensor, json_object, read_safetensors_header
from .llama import LlamaConfig, SourceModel, check_weights
from .weights import Floats, Weight

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# llama.cpp's names -> Hugging Face's.
_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BEYOND = 2**63  # no number of a configuration is as large
_IGNORED = ".rotary_emb.inv_freq"  # what the configuration says already, kept by old versions of transformers


@contextmanager
def open_huggingface(folder: str | PathLike[str]) -> Iterator[SourceModel]:
    """Opens a model, and closes its files at the end of the ``with`` block.

    InvalidProgramError if a file is missing or contradicts itself or another; UnsupportedProgramError, which names it,
    for a model type, a feature or a tensor that is not here.
    """
    folder = Path(folder)
    fields = _read_json(folder / "config.json")
    _check_features(fields)
    with ExitStack() as files:
        tensors: dict[str, Weight] = {}
        for path in _shards(folder):
            file = files.enter_context(MappedFile(path))
            for name, tensor in read_safetensors_header(file.data, path).items():
                if name in tensors:
                    raise InvalidProgramError(f"{path} has the tensor {name!r} once more: download the folder again.")
                if not name.endswith(_IGNORED):
                    tensors[name] = _weight(file, name, tensor)
        config = _config(fields, tensors)
        if config.tied_head:
            tensors.pop(_NAMES["output.weight"], None)
        check_weights(config, {name: weight.dims for name, weight in tensors.items()}, "folder", _source_name)
        # Only now is the size of a head known to be one that tensors have.
        config = dataclasses.replace(config, rope_divisors=_rope_divisors(fields, config))
        names = config.weight_dims()
        yield SourceModel(config, {name: dataclasses.replace(tensors[_source_name(name)], name=name) for name in names})


def _shards(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise InvalidProgramError(f"{folder} has no '{single.name}' and no '{index.name}': download its weights.")
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InvalidProgramError(f"{index} does not say which file has which tensor: download it again.")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise InvalidProgramError(f"{folder} has no file {name!r}, which its index names: download it.")
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json_object(path.read_bytes())
    except OSError as error:
        raise InvalidProgramError(
            f"Cannot read {path} ({error.strerror}): name a folder that holds a model as Hugging Face publishes them."
        ) from error
    except ValueError as error:
        raise InvalidProgramError(f"{path} is not readable ({error}): download it again.") from error


def _weight(file: MappedFile, name: str, tensor: SafetensorsTensor) -> Weight:
    """The tensor as a Weight, which converts the rows that are asked for and then lets their pages go."""
    if tensor.dtype not in DTYPES:
        raise UnsupportedProgramError(
            f"The tensor {name!r} is of type {tensor.dtype}, which is not read here: use a model whose weights are "
            f"{', '.join(DTYPES)}."
        )

    def read(first: int, last: int) -> Floats:
        dtype, columns = DTYPES[tensor.dtype], tensor.dims[-1]
        row_bytes = columns * dtype.itemsize
        view = file.data[tensor.start + first * row_bytes : tensor.start + last * row_bytes]
        rows = np.frombuffer(view, dtype).reshape(last - first, columns)
        if tensor.dtype == "BF16":  # the upper half of a float32
            floats: Floats = (rows.astype(np.uint32) << 16).view(np.float32)
        else:
            floats = rows.astype(np.float32)
        file.release(view)
        return floats

    return Weight(name, tensor.dims, read)


def _source_name(name: str) -> str:
    """What Hugging Face calls a weight of ours."""
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    return f"model.layers.{block[1]}.{_BLOCK_NAMES[block[2]]}.{block[3]}" if block else _NAMES[name]


def _check_features(fields: Mapping[str, Any]) -> None:
    """What would change the model, and is not here, is not asked for."""
    if fields.get("model_type") not in MODEL_TYPES:
        raise UnsupportedProgramError(
            f"The model type {fields.get('model_type')!r} is not converted here: use a model of "
            f"{', '.join(MODEL_TYPES)}."
        )
    for key in ("quantization_config", "quantization"):
        if quantization := fields.get(key):
            method = quantization.get("quant_method") if isinstance(quantization, dict) else None
            raise UnsupportedProgramError(
                f"The weights are quantized ({method or key}), which is not read here: use the model in "
                f"{', '.join(DTYPES)}."
            )
    if fields.get("hidden_act", "silu") != "silu":
        raise UnsupportedProgramError(f"The activation {fields['hidden_act']!r} is not here, only 'silu'.")
    if _flag(fields, "mlp_bias", False):
        raise UnsupportedProgramError("Feed-forward layers with a bias ('mlp_bias') are not here.")
    rope = _rope(fields)
    if rope.get("partial_rotary_factor", fields.get("partial_rotary_factor")) not in (None, 1):
        raise UnsupportedProgramError("Heads of which a part is rotated ('partial_rotary_factor') are not here.")


def _config(fields: Mapping[str, Any], tensors: Mapping[str, Weight]) -> LlamaConfig:
    """The configuration, without the rope's divisors."""
    model_type = fields["model_type"]
    dim, heads = _count(fields, "hidden_size"), _count(fields, "num_attention_heads")
    head_dim, kv_heads = _count(fields, "head_dim", dim // heads), _count(fields, "num_key_value_heads", heads)
    if head_dim % 2 or heads % kv_heads:
        raise InvalidProgramError(
            f"config.json has {heads} heads of {head_dim} elements for {kv_heads} of keys: download it again."
        )
    embedding, head = (tensors.get(_NAMES[name]) for name in ("token_embd.weight", "output.weight"))
    if embedding is None or len(embedding.dims) != 2 or 0 in embedding.dims:
        raise InvalidProgramError(f"The folder has no matrix '{_NAMES['token_embd.weight']}': download it again.")
    return LlamaConfig(
        dim=dim,
        layers=_count(fields, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=_count(fields, "intermediate_size"),
        vocab=embedding.dims[0],
        context_len=_context_len(fields),
        norm_eps=_number(fields, "rms_norm_eps"),
        rope_base=_number(_rope(fields), "rope_theta", _number(fields, "rope_theta", 10000.0)),
        rope_interleaved=False,
        qkv_bias=model_type == "qwen2" or _flag(fields, "attention_bias", False),
        qk_norm=model_type == "qwen3",
        tied_head=_flag(fields, "tie_word_embeddings", False) and (head is None or _equal(head, embedding)),
    )


def _context_len(fields: Mapping[str, Any]) -> int:
    """As long as the text fits into the window of sliding attention, that is full attention."""
    most, mistral = _count(fields, "max_position_embeddings"), fields["model_type"] == "mistral"
    slides = mistral or (fields["model_type"] != "llama" and _flag(fields, "use_sliding_window", False))
    if not slides or fields.get("sliding_window", 4096) is None:
        return most
    return min(most, _count(fields, "sliding_window", 4096))


def _equal(a: Weight, b: Weight) -> bool:
    """A head that is stored although it is tied can be another one, and then it counts."""
    return a.dims == b.dims and all(map(np.array_equal, a.pieces(), b.pieces()))


def _rope(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What older versions of transformers write as ``rope_scaling``, newer ones as ``rope_parameters``."""
    rope: dict[str, Any] = {}
    for key in ("rope_parameters", "rope_scaling"):
        value = fields.get(key)
        if not isinstance(value, dict | None):
            raise InvalidProgramError(f"config.json has {value!r} as '{key}': download it again.")
        rope |= value or {}
    if any(isinstance(value, dict) for value in rope.values()):
        raise UnsupportedProgramError("Layers with ropes of their own ('rope_parameters') are not here.")
    return rope


def _rope_divisors(fields: Mapping[str, Any], config: LlamaConfig) -> tuple[float, ...]:
    rope = _rope(fields)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return ()
    if kind == "linear":
        return (_number(rope, "factor"),) * (config.head_dim // 2)
    if kind != "llama3":
        raise UnsupportedProgramError(f"The rope scaling {kind!r} is not here: use a model without it.")
    factor, low, high = (_number(rope, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    if low >= high:
        raise InvalidProgramError(f"config.json has rope factors from {low} to {high}: download it again.")
    trained = _count(rope, "original_max_position_embeddings", _count(fields, "max_position_embeddings"))
    # Pairs that turn at least `high` times in the trained context stay; those that turn at most `low` times are
    # slowed down by the factor; in between the frequencies blend.
    half = config.head_dim // 2
    turns = trained / (2 * math.pi) * np.power(config.rope_base, -np.arange(half) / half)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    divisors: list[float] = (1 / (kept + (1 - kept) / factor)).tolist()
    return tuple(divisors)


def _value(fields: Mapping[str, Any], key: str, default: Any) -> Any:
    value = fields.get(key)
    if value is None and default is None:
        raise InvalidProgramError(f"config.json has no '{key}': download it again.")
    return default if value is None else value


def _count(fields: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = _value(fields, key, default)
    if type(value) is not int or not 0 < value < _BEYOND:
        raise InvalidProgramError(f"config.json has {value!r} as '{key}', which is no positive integer.")
    return value


def _number(fields: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = _value(fields, key, default)
    if type(value) not in (int, float) or not 0 < value < _BEYOND:
        raise InvalidProgramError(f"config.json has {value!r} as '{key}', which is no positive number.")
    return float(value)


def _flag(fields: Mapping[str, Any], key: str, default: bool) -> bool:
    value = _value(fields, key, default)
    if not isinstance(value, bool):
        raise InvalidProgramError(f"config.json has {value!r} as '{key}', which is not true or false.")
    return value

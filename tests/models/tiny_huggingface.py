"""Small models with random weights in folders as Hugging Face publishes them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}


@dataclass(frozen=True)
class Stored:
    """A tensor as a file has it."""

    dtype: str
    dims: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class TinyHuggingFace:
    """A model to write. ``fields`` go into config.json, over ``SIZES``; without ``dtypes``, weights are F32."""

    model_type: str = "llama"
    fields: Mapping[str, Any] = field(default_factory=dict)
    dtypes: Sequence[str] = ("F32",)
    shards: int = 1

    def config(self) -> dict[str, Any]:
        merged = {"model_type": self.model_type, "hidden_act": "silu", **SIZES, **self.fields}
        return {key: value for key, value in merged.items() if value is not ...}

    def dims(self) -> dict[str, tuple[int, ...]]:
        c = self.config()
        dim, heads, ffn = c["hidden_size"], c["num_attention_heads"], c["intermediate_size"]
        head_dim = c.get("head_dim") or dim // heads
        query, key_value = heads * head_dim, c.get("num_key_value_heads", heads) * head_dim
        dims: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (c["vocab_size"], dim),
            "model.norm.weight": (dim,),
        }
        if not c.get("tie_word_embeddings"):
            dims["lm_head.weight"] = (c["vocab_size"], dim)
        for i in range(c["num_hidden_layers"]):
            block: dict[str, tuple[int, ...]] = {
                "input_layernorm.weight": (dim,),
                "self_attn.q_proj.weight": (query, dim),
                "self_attn.k_proj.weight": (key_value, dim),
                "self_attn.v_proj.weight": (key_value, dim),
                "self_attn.o_proj.weight": (dim, query),
                "post_attention_layernorm.weight": (dim,),
                "mlp.gate_proj.weight": (ffn, dim),
                "mlp.up_proj.weight": (ffn, dim),
                "mlp.down_proj.weight": (dim, ffn),
            }
            if self.model_type == "qwen2":
                block |= {f"self_attn.{n}_proj.bias": (query if n == "q" else key_value,) for n in "qkv"}
            if self.model_type == "qwen3":
                block |= {f"self_attn.{n}_norm.weight": (head_dim,) for n in "qk"}
            dims |= {f"model.layers.{i}.{name}": size for name, size in block.items()}
        return dims

    def tensors(self) -> dict[str, Stored]:
        random, tensors = np.random.default_rng(7), {}
        for number, (name, dims) in enumerate(self.dims().items()):
            centre, spread = (0, dims[-1] ** -0.5) if len(dims) == 2 else (0, 0.5) if "bias" in name else (1, 0.1)
            values = (centre + spread * random.standard_normal(dims)).astype(np.float32)
            tensors[name] = stored(values, self.dtypes[number % len(self.dtypes)])
        return tensors

    def write(
        self, folder: Path, extra: Mapping[str, Stored] | None = None, without: Sequence[str] = ()
    ) -> dict[str, Stored]:
        """Makes the folder, and gives its tensors."""
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config()))
        tensors = {name: tensor for name, tensor in self.tensors().items() if name not in without} | dict(extra or {})
        if self.shards == 1:
            write_safetensors(folder / "model.safetensors", tensors)
            return tensors
        places: dict[str, Any] = {}
        for shard in range(self.shards):
            name = f"model-{shard + 1:05}-of-{self.shards:05}.safetensors"
            part = dict(list(tensors.items())[shard :: self.shards])
            write_safetensors(folder / name, part)
            places |= dict.fromkeys(part, name)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        return tensors


def stored(values: np.ndarray, dtype: str = "F32") -> Stored:
    """float32 values in F32, F16 or, cut off, BF16."""
    if dtype == "BF16":
        return Stored(dtype, values.shape, (values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return Stored(dtype, values.shape, values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes())


def write_safetensors(path: Path, tensors: Mapping[str, Stored]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.dims, "data_offsets": [start, end]}
    path.write_bytes(with_header(json.dumps(header).encode(), b"".join(tensor.data for tensor in tensors.values())))


def with_header(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file with this header, whatever it says."""
    return struct.pack("<Q", len(header)) + header + data

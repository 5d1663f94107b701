"""Small GGUF models with random weights, and what they compute, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np

QuantType = gguf.GGMLQuantizationType
# By K-quant: bytes of a block of 256, and where its float16 factors are, with values that keep weights near 1/16.
K_QUANTS = {
    QuantType.Q4_K: (144, {0: 4e-4, 2: 3e-3}),
    QuantType.Q5_K: (176, {0: 2e-4, 2: 3.1e-3}),
    QuantType.Q6_K: (210, {208: 6e-5}),
}
TYPES = (
    *(QuantType.F32, QuantType.F16, QuantType.BF16, QuantType.Q8_0),
    *(QuantType.Q4_0, QuantType.Q4_1, QuantType.Q5_0, QuantType.Q5_1, *K_QUANTS),
)


@dataclass(frozen=True)
class TinyGguf:
    """A model to write. The sizes are such that every matrix can be of every type when head_dim is 64."""

    architecture: str = "llama"
    head_dim: int = 64
    qkv_bias: bool = False
    qk_norm: bool = False
    tied_head: bool = False
    rope_divisors: bool = False
    rope_scale: float | None = None
    dim: int = 256
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 256
    vocab: int = 99
    context_len: int = 64
    sliding_window: int | None = None
    eps: float = 1e-5
    rope_base: float = 500.0
    # (key, value, type of the value) that are added, or take another's place; without a type, the key goes.
    edits: tuple[tuple[str, Any, gguf.GGUFValueType | None], ...] = ()
    big_endian: bool = False
    parts: int = 1

    def matrices(self) -> dict[str, tuple[int, int]]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        dims = {"token_embd.weight": (self.vocab, self.dim)}
        if not self.tied_head:
            dims["output.weight"] = (self.vocab, self.dim)
        for i in range(self.layers):
            dims |= {
                f"blk.{i}.attn_q.weight": (q, self.dim),
                f"blk.{i}.attn_k.weight": (kv, self.dim),
                f"blk.{i}.attn_v.weight": (kv, self.dim),
                f"blk.{i}.attn_output.weight": (self.dim, q),
                f"blk.{i}.ffn_gate.weight": (self.ffn, self.dim),
                f"blk.{i}.ffn_up.weight": (self.ffn, self.dim),
                f"blk.{i}.ffn_down.weight": (self.dim, self.ffn),
            }
        return dims

    def vectors(self) -> dict[str, int]:
        dims = {"output_norm.weight": self.dim}
        for i in range(self.layers):
            dims |= {f"blk.{i}.attn_norm.weight": self.dim, f"blk.{i}.ffn_norm.weight": self.dim}
            if self.qkv_bias:
                dims[f"blk.{i}.attn_q.bias"] = self.heads * self.head_dim
                dims |= {f"blk.{i}.attn_{n}.bias": self.kv_heads * self.head_dim for n in "kv"}
            if self.qk_norm:
                dims |= {f"blk.{i}.attn_{n}_norm.weight": self.head_dim for n in "qk"}
        if self.rope_divisors:
            dims["rope_freqs.weight"] = self.head_dim // 2
        return dims

    def write(
        self,
        path: Path,
        extra: Sequence[str] = (),
        without: Sequence[str] = (),
        values: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> dict[str, np.ndarray]:
        """Writes the file, and gives its weights as float64. ``extra`` tensors have no meaning.

        ``values``: of vectors, instead of random ones.
        """
        random = np.random.default_rng(7)
        order = gguf.GGUFEndian.BIG if self.big_endian else gguf.GGUFEndian.LITTLE
        most = -(-(len(self.matrices()) + len(self.vectors())) // self.parts) if self.parts > 1 else 0
        writer = gguf.GGUFWriter(path, self.architecture, endianess=order, split_max_tensors=most)
        self._add_metadata(writer)
        for key, value, value_type in self.edits:
            full = key if "." in key and key.split(".")[0] in ("general", "tokenizer") else f"{self.architecture}.{key}"
            writer.kv_data[0].pop(full, None)
            if value_type is not None:
                writer.add_key_value(full, value, value_type)
        weights = {}
        for number, (name, dims) in enumerate(self.matrices().items()):
            kind = TYPES[number % len(TYPES)]
            if dims[1] % gguf.GGML_QUANT_SIZES[kind][0]:
                kind = QuantType.Q8_0
            data = random_matrix(random, dims, kind)
            weights[name] = gguf.dequantize(data, kind).astype(np.float64).reshape(dims)
            if name not in without:
                writer.add_tensor(name, data, raw_dtype=kind)
        for name, size in (self.vectors() | dict.fromkeys(extra, 4)).items():
            data = values.get(name, random.uniform(0.8, 1.2, size)).astype(np.float32)
            weights[name] = data.astype(np.float64)
            writer.add_tensor(name, data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return weights

    def _add_metadata(self, writer: gguf.GGUFWriter) -> None:
        writer.add_context_length(self.context_len)
        writer.add_embedding_length(self.dim)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.ffn)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_layer_norm_rms_eps(self.eps)
        writer.add_rope_freq_base(self.rope_base)
        if self.sliding_window is not None:
            writer.add_sliding_window(self.sliding_window)
        if self.rope_scale is not None:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(self.rope_scale)

    def logits(self, weights: dict[str, np.ndarray], tokens: Sequence[int]) -> np.ndarray:
        """[vocab] after the last token, of a whole text at once: no cache."""
        x = weights["token_embd.weight"][list(tokens)]
        for i in range(self.layers):
            w = {name.removeprefix(f"blk.{i}."): array for name, array in weights.items() if f"blk.{i}." in name}
            x = x + self._attention(self._norm(x, w["attn_norm.weight"]), w, weights)
            h = self._norm(x, w["ffn_norm.weight"])
            gate = h @ w["ffn_gate.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up.weight"].T)) @ w["ffn_down.weight"].T
        head = weights["token_embd.weight" if self.tied_head else "output.weight"]
        return self._norm(x[-1], weights["output_norm.weight"]) @ head.T

    def _attention(self, x: np.ndarray, w: dict[str, np.ndarray], weights: dict[str, np.ndarray]) -> np.ndarray:
        def heads(name: str) -> np.ndarray:  # [heads, S, head_dim]
            y = x @ w[f"attn_{name}.weight"].T + w.get(f"attn_{name}.bias", 0)
            return y.reshape(len(x), -1, self.head_dim).swapaxes(0, 1)

        q, k, v = heads("q"), heads("k"), heads("v")
        if self.qk_norm:
            q, k = self._norm(q, w["attn_q_norm.weight"]), self._norm(k, w["attn_k_norm.weight"])
        q, k = self._rotate(q, weights), self._rotate(k, weights)
        group = self.heads // self.kv_heads
        scores = q @ np.repeat(k, group, axis=0).swapaxes(1, 2) / np.sqrt(self.head_dim)
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out = p / p.sum(axis=-1, keepdims=True) @ np.repeat(v, group, axis=0)
        return out.swapaxes(0, 1).reshape(len(x), -1) @ w["attn_output.weight"].T

    def _rotate(self, x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
        half = self.head_dim // 2
        frequencies = self.rope_base ** (-np.arange(half) / half) / weights.get("rope_freqs.weight", 1)
        angles = np.outer(np.arange(x.shape[1]), frequencies / (self.rope_scale or 1))
        turn = np.exp(1j * angles)
        if self.architecture == "llama":  # pairs are neighbours
            turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
            return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
        turned = (x[..., :half] + 1j * x[..., half:]) * turn
        return np.concatenate([turned.real, turned.imag], axis=-1)

    def _norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.eps) * weight


def random_matrix(random: np.random.Generator, dims: tuple[int, int], kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """A matrix in the form in which the file has it."""
    if kind in K_QUANTS:  # the library can only read these: blocks of random bits
        size, factors = K_QUANTS[kind]
        blocks = random.integers(0, 256, (dims[0], dims[1] // 256, size), np.uint8)
        for at, value in factors.items():
            blocks[..., at : at + 2] = np.array([value], np.float16).view(np.uint8)
        return blocks.reshape(dims[0], -1)
    return gguf.quantize((random.standard_normal(dims) / np.sqrt(dims[1])).astype(np.float32), kind)

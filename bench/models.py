"""Programs in the shape of real language models, with random 4-bit weights: speed at real sizes, no download.

The operator calls are those of the stock ExecuTorch export of a llama with a KV cache (``-kv
--use_sdpa_with_kv_cache -qmode 4w``), in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.graph_builder import GraphBuilder, Ref
from tests.programs import write_delegated


@dataclass(frozen=True)
class LlamaShape:
    """Sizes of a llama; the context is the KV cache's length."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    max_seq_len: int = 512
    max_context_len: int = 2048
    group: int = 32


SHAPES = {
    "tiny": LlamaShape(2, 64, 4, 2, 16, 96, 512, 32, 64),
    "smollm2-135m": LlamaShape(30, 576, 9, 3, 64, 1536, 49152),
    "llama-3.2-1b": LlamaShape(16, 2048, 32, 8, 64, 8192, 128256),
}


def write_llama(shape: LlamaShape, seed: int = 0) -> bytes:
    """A ``.pte`` whose ``forward(tokens int64 [1, S], input_pos int64 [1])`` gives the last position's logits."""
    return write_delegated(
        _Llama(shape, seed).build(),
        ["int64", "int64", "float32"],
        dynamic=[0],
        constants={
            "get_max_seq_len": shape.max_seq_len,
            "get_max_context_len": shape.max_context_len,
            "get_vocab_size": shape.vocab,
            "get_n_layers": shape.layers,
            "use_kv_cache": True,
        },
    )


class _Llama:
    def __init__(self, shape: LlamaShape, seed: int) -> None:
        self.shape = shape
        self.random = np.random.default_rng(seed)
        self.graph = GraphBuilder()
        # One array for every pair of equal caches would be shared on the device; a mutated constant never is.
        self.empty_cache = np.zeros((1, shape.max_context_len, shape.kv_heads, shape.head_dim), np.float32)

    def build(self) -> GraphBuilder:
        g, s = self.graph, self.shape
        most = s.max_seq_len - 1
        tokens, position = g.input((1, most), "int32"), g.input((1,), "int32")
        self.length = g.call("sym_size.int", tokens, 1, g.symint())
        self.position = g.call("et_vk.select_as_symint.default", position, 0, 0, g.symint())
        end = g.call("add", self.position, self.length, g.symint())
        x = g.call(
            "aten.embedding.default",
            self._normal(s.vocab, s.dim),
            tokens,
            -1,
            False,
            False,
            g.tensor((1, most, s.dim)),
        )
        tables = []
        angles = np.outer(np.arange(s.max_context_len), 1e5 ** (-np.arange(0, s.head_dim, 2) / s.head_dim))
        for table in (np.cos(angles), np.sin(angles)):
            out = g.tensor((most, s.head_dim // 2))
            tables.append(g.call("aten.slice_copy.Tensor", table.astype(np.float32), 0, self.position, end, 1, out))
        for _ in range(s.layers):
            x = self._block(x, tables)
        last = g.call("aten.select_copy.int", x, 1, -1, g.tensor((1, s.dim)))
        g.output(self._linear(self._norm(last, (1, s.dim)), s.vocab, (1, s.vocab)))
        return g

    def _block(self, x: Ref, tables: list[Ref]) -> Ref:
        g, s = self.graph, self.shape
        most = s.max_seq_len - 1
        hidden = (1, most, s.dim)
        heads, kv_heads = (1, most, s.heads, s.head_dim), (1, most, s.kv_heads, s.head_dim)
        normed = self._norm(x, hidden)
        query = self._heads(self._linear(normed, s.heads * s.head_dim), s.heads)
        key = self._heads(self._linear(normed, s.kv_heads * s.head_dim), s.kv_heads)
        value = self._heads(self._linear(normed, s.kv_heads * s.head_dim), s.kv_heads)
        query, key = g.call(
            "et_vk.apply_rotary_emb.default", query, key, *tables, [g.tensor(heads), g.tensor(kv_heads)]
        )
        caches = [g.constant(self.empty_cache) for _ in "kv"]
        out = g.call(
            "sdpa_with_kv_cache.default",
            *(query, key, value, *caches, self.position, 1, None, 0, True, None),
            g.tensor(heads),
        )
        merged = g.call(
            "aten.view_copy.default",
            out,
            [1, self.length, s.heads * s.head_dim],
            g.tensor((1, most, s.heads * s.head_dim)),
        )
        x = g.call("aten.add.Tensor", x, self._linear(merged, s.dim), 1, g.tensor(hidden))
        normed = self._norm(x, hidden)
        wide = (1, most, s.ffn)
        gate = self._linear(normed, s.ffn)
        gate = g.call("aten.mul.Tensor", gate, g.call("aten.sigmoid.default", gate, g.tensor(wide)), g.tensor(wide))
        up = g.call("aten.mul.Tensor", gate, self._linear(normed, s.ffn), g.tensor(wide))
        return g.call("aten.add.Tensor", x, self._linear(up, s.dim), 1, g.tensor(hidden))

    def _heads(self, x: Ref, count: int) -> Ref:
        s = self.shape
        out = self.graph.tensor((1, s.max_seq_len - 1, count, s.head_dim))
        return self.graph.call("aten.view_copy.default", x, [1, self.length, count, s.head_dim], out)

    def _norm(self, x: Ref, dims: tuple[int, ...]) -> Ref:
        weight = np.ones(self.shape.dim, np.float32)
        return self.graph.call("et_vk.rms_norm.default", x, weight, 1e-5, self.graph.tensor(dims))

    def _linear(self, x: Ref, features: int, dims: tuple[int, ...] | None = None) -> Ref:
        """x times a random 4-bit weight, scaled so that activations keep their size."""
        g, group = self.graph, self.shape.group
        inputs = g.values[x.id].dims[-1]
        packed = self.random.integers(0, 256, (features, inputs // 2), np.uint8)
        scale = 1 / (4.6 * np.sqrt(inputs))  # 4.6: the standard deviation of a uniform 4-bit weight
        scales = self.random.uniform(0.8 * scale, 1.2 * scale, (inputs // group, features)).astype(np.float32)
        dims = dims or (1, self.shape.max_seq_len - 1, features)
        return g.call("et_vk.linear_q4gsw.default", x, packed, scales, group, None, g.tensor(dims))

    def _normal(self, *dims: int) -> np.ndarray:
        return self.random.standard_normal(dims, np.float32)

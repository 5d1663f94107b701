"""The Llama family as a graph: Llama, Mistral, SmolLM2, Qwen2.5, Qwen3.

Weights go by llama.cpp's names: ``token_embd.weight``, ``blk.0.attn_q.weight`` …, ``output_norm.weight`` and, unless
the head is the embedding's, ``output.weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError, InvalidProgramError, UnsupportedProgramError
from ..format.vkgraph import DataType
from .builder import GraphBuilder, Scalar, TensorRef
from .matrix import EmbeddingFormat, Matrix, WeightFormat, matrix
from .numbers import check_frequencies
from .weights import Constant, Floats, Weight, array_constant, float_constant


@dataclass(frozen=True)
class LlamaConfig:
    """What the weights do not say.

    ``rope_divisors``: one number for each pair of a head's elements, which divides its frequency (Llama 3's scaled
    rope); none: no scaling. ``rope_interleaved``: pairs are neighbours (2i, 2i+1), else (i, i + head_dim / 2).
    ``qkv_bias`` and ``qk_norm``: those weights are there. ``tied_head``: the head is the embedding.
    """

    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context_len: int  # that the model was trained for
    norm_eps: float
    rope_base: float
    rope_divisors: tuple[float, ...] = ()
    rope_interleaved: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    tied_head: bool = False

    def weight_dims(self) -> dict[str, tuple[int, ...]]:
        """Every weight of the model with its dims."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        dims: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocab, self.dim),
            "output_norm.weight": (self.dim,),
        }
        if not self.tied_head:
            dims["output.weight"] = (self.vocab, self.dim)
        for layer in range(self.layers):
            block: dict[str, tuple[int, ...]] = {
                "attn_norm.weight": (self.dim,),
                "attn_q.weight": (query, self.dim),
                "attn_k.weight": (key_value, self.dim),
                "attn_v.weight": (key_value, self.dim),
                "attn_output.weight": (self.dim, query),
                "ffn_norm.weight": (self.dim,),
                "ffn_gate.weight": (self.ffn, self.dim),
                "ffn_up.weight": (self.ffn, self.dim),
                "ffn_down.weight": (self.dim, self.ffn),
            }
            if self.qkv_bias:
                block |= {"attn_q.bias": (query,), "attn_k.bias": (key_value,), "attn_v.bias": (key_value,)}
            if self.qk_norm:
                block |= {"attn_q_norm.weight": (self.head_dim,), "attn_k_norm.weight": (self.head_dim,)}
            dims |= {f"blk.{layer}.{name}": size for name, size in block.items()}
        return dims


def check_heads(heads: int, kv_heads: int, head_dim: int, source: str) -> None:
    """Keys serve whole groups of heads, and a head is made of pairs. ``source`` begins the message.

    InvalidProgramError if not.
    """
    if head_dim % 2 or heads % kv_heads:
        raise InvalidProgramError(
            f"{source} has {heads} heads of {head_dim} elements for {kv_heads} of keys: heads must be whole groups, "
            "and their elements pairs."
        )


@dataclass(frozen=True)
class SourceModel:
    """A model that can be built; its weights can be read while its files are open."""

    config: LlamaConfig
    weights: Mapping[str, Weight]


def check_weights(
    config: LlamaConfig, found: Mapping[str, tuple[int, ...]], source: str, spelled: Callable[[str], str] = str
) -> None:
    """Every weight that the model needs is there with its dims, and no other.

    ``found``: dims by the source's own names, which ``spelled`` makes of ours. ``source`` is for messages: what kind
    of thing has them. InvalidProgramError if a weight is missing or of another size, UnsupportedProgramError if one has
    no place.
    """
    if config.layers > len(found):
        raise InvalidProgramError(
            f"The {source} has no tensors for its {config.layers} layers: use one with all weights of the model."
        )
    needed = {spelled(name): dims for name, dims in config.weight_dims().items()}
    for name in found:
        if name not in needed:
            raise UnsupportedProgramError(f"The tensor {name!r} has no place in the architectures that are here.")
    for name in needed:
        if name not in found:
            raise InvalidProgramError(f"The {source} has no tensor '{name}': use one with all weights of the model.")
    for name, dims in needed.items():
        if found[name] != dims:
            raise InvalidProgramError(
                f"The tensor '{name}' is {list(found[name])}, not {list(dims)} as the configuration says: they are not "
                f"of one model, so get the {source} again from where it was whole."
            )


DEFAULT_SEQ_LEN, DEFAULT_CONTEXT_LEN = 512, 2048


@dataclass(frozen=True)
class LlamaOptions:
    """How a model becomes a program; for the formats see ``models.matrix``.

    ``weights``: of the linear layers. ``head``: of the last one; by default the same, but q8csw beside q4gsw.
    ``embedding``: by default native beside native weights, else f32. ``group``: weights that share a scale.
    ``max_seq_len`` - 1 tokens go into one call, as stock exports have it; by default 512. ``max_context_len`` rows
    make the KV cache; by default 2048, or as many as the model was trained for.
    ``full_logits``: of every position, not of the last one.
    """

    weights: WeightFormat = "q4gsw"
    head: WeightFormat | None = None
    embedding: EmbeddingFormat | None = None
    group: int = 32
    max_seq_len: int | None = None
    max_context_len: int | None = None
    full_logits: bool = False

    def lengths(self, config: LlamaConfig) -> tuple[int, int]:
        """(max_seq_len, max_context_len) of a program of this model.

        InvalidInputError if the context is longer than the model was trained for, or shorter than a call.
        """
        context = self.max_context_len or min(DEFAULT_CONTEXT_LEN, config.context_len)
        if context > config.context_len:
            raise InvalidInputError(
                f"the model was trained for {config.context_len} tokens: choose a context length up to that, "
                f"not {context}"
            )
        length = self.max_seq_len or min(DEFAULT_SEQ_LEN, context)
        if not 2 <= length <= context:
            raise InvalidInputError(
                f"the sequence length {length} must be at least 2 and at most the context length {context}"
            )
        return length, context


@dataclass(frozen=True)
class _Step:
    """What all layers of a step share: its number of tokens, where they begin, and the rope tables."""

    length: Scalar
    input_pos: Scalar
    cos: TensorRef
    sin: TensorRef


def build_llama(
    config: LlamaConfig, weights: Mapping[str, Weight], options: LlamaOptions, layers: range | None = None
) -> GraphBuilder:
    """``forward(tokens [1, S < max_seq_len], input_pos [1]) -> logits [1, vocab]`` of the last position.

    With ``full_logits`` it gives [1, S, vocab]. ``layers``: only these, by default all. Where they do not begin with
    the first one, the graph takes what the layer before them gives, float32 [1, S, dim], instead of tokens; where they
    do not end with the last one, it gives that of theirs.
    InvalidInputError if the lengths do not fit the model, or the group does not fit its rows;
    UnsupportedProgramError for heads that attention does not take.
    """
    if config.head_dim % 4:
        raise UnsupportedProgramError(f"The model's heads of {config.head_dim} elements are not a multiple of 4.")
    return _Llama(config, weights, options).build(range(config.layers) if layers is None else layers)


class _Llama:
    def __init__(self, config: LlamaConfig, weights: Mapping[str, Weight], options: LlamaOptions) -> None:
        self.config, self.weights, self.options = config, weights, options
        self.max_seq_len, self.context_len = options.lengths(config)
        self.b = GraphBuilder()
        # Four bits cost the head of a small model more than all of its body.
        body = options.weights
        self.head_format = options.head or ("q8csw" if body == "q4gsw" else body)
        self.embedding_format = options.embedding or ("native" if body == "native" else "f32")

    def build(self, layers: range) -> GraphBuilder:
        b, most = self.b, self.max_seq_len - 1
        begins, ends = layers.start == 0, layers.stop == self.config.layers
        given = (
            b.input((1, most), DataType.INT32, dynamic=True)
            if begins
            else b.input((1, most, self.config.dim), dynamic=True)
        )
        position = b.input((1,), DataType.INT32)
        step = self.begin(b.size(given, 1), b.scalar(position, self.context_len - 1))
        x = b.embedding(given, self.matrix("token_embd.weight", self.embedding_format)) if begins else given
        for layer in layers:
            x = b.add(x, self.attention(self.norm(x, f"blk.{layer}.attn_norm"), f"blk.{layer}", step))
            x = b.add(x, self.feed_forward(self.norm(x, f"blk.{layer}.ffn_norm"), f"blk.{layer}"))
        if not ends:
            b.output(x)
            return b
        last = x if self.options.full_logits else b.select(x, 1, -1)
        b.output(self.head(self.norm(last, "output_norm")))
        return b

    def attention(self, x: TensorRef, block: str, step: _Step) -> TensorRef:
        b, c = self.b, self.config
        q = self.split(self.linear(x, f"{block}.attn_q"), c.heads, step)
        k = self.split(self.linear(x, f"{block}.attn_k"), c.kv_heads, step)
        v = self.split(self.linear(x, f"{block}.attn_v"), c.kv_heads, step)
        if c.qk_norm:
            q, k = self.norm(q, f"{block}.attn_q_norm"), self.norm(k, f"{block}.attn_k_norm")
        q, k = self.rotate(q, k, step)
        cache = (1, self.context_len, c.kv_heads, c.head_dim)
        out = b.sdpa_with_kv_cache(q, k, v, b.state(cache), b.state(cache), step.input_pos)
        return self.linear(b.view(out, [1, step.length, c.heads * c.head_dim]), f"{block}.attn_output")

    def feed_forward(self, x: TensorRef, block: str) -> TensorRef:
        gate, up = self.b.silu(self.linear(x, f"{block}.ffn_gate")), self.linear(x, f"{block}.ffn_up")
        return self.linear(self.b.mul(gate, up), f"{block}.ffn_down")

    def head(self, x: TensorRef) -> TensorRef:
        name = "token_embd.weight" if self.config.tied_head else "output.weight"
        return self.b.linear(x, self.matrix(name, self.head_format))

    def begin(self, length: Scalar, input_pos: Scalar) -> _Step:
        """The step's rope tables: rows of this step for neighbours, all rows for halves."""
        b, most, rows = self.b, self.max_seq_len - 1, self.context_len
        cos, sin = (
            b.prepack(array_constant(name, table))
            for name, table in zip(("rope.cos", "rope.sin"), rope_tables(self.config, rows), strict=True)
        )
        if self.config.rope_interleaved:
            end = b.sum(input_pos, length, bound=rows)
            cos, sin = b.rows(cos, input_pos, end, most), b.rows(sin, input_pos, end, most)
        return _Step(length, input_pos, cos, sin)

    def rotate(self, q: TensorRef, k: TensorRef, step: _Step) -> tuple[TensorRef, TensorRef]:
        if self.config.rope_interleaved:
            return self.b.apply_rotary_emb(q, k, step.cos, step.sin)
        return self.b.apply_rotary_emb_hf(q, k, step.cos, step.sin, step.input_pos)

    def split(self, x: TensorRef, heads: int, step: _Step) -> TensorRef:
        return self.b.view(x, [1, step.length, heads, self.config.head_dim])

    def norm(self, x: TensorRef, name: str) -> TensorRef:
        return self.b.rms_norm(x, self.tensor(f"{name}.weight"), self.config.norm_eps)

    def linear(self, x: TensorRef, name: str) -> TensorRef:
        bias = self.tensor(f"{name}.bias") if f"{name}.bias" in self.weights else None
        return self.b.linear(x, self.matrix(f"{name}.weight", self.options.weights), bias)

    def matrix(self, name: str, format: WeightFormat) -> Matrix:
        return matrix(self.weights[name], format, self.options.group)

    def tensor(self, name: str) -> Constant:
        return float_constant(self.weights[name])


def rope_tables(config: LlamaConfig, rows: int) -> tuple[Floats, Floats]:
    """cos and sin of every position: [rows, head_dim / 2] for neighbours, [rows, head_dim] for halves.

    In float32 throughout, as models are trained and stock exports compute them. UnsupportedProgramError for frequencies
    that float32 cannot count up.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    divisors: Floats = np.array(config.rope_divisors or (1.0,), np.float32)
    with np.errstate(all="ignore"):  # what is not finite is refused
        frequencies = 1 / np.power(np.float32(config.rope_base), exponents) / divisors
    check_frequencies(frequencies)
    angles = np.arange(rows, dtype=np.float32)[:, None] * frequencies
    if not config.rope_interleaved:
        angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles), np.sin(angles)

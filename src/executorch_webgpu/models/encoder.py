"""Encoders of the BERT family as a graph: BERT, RoBERTa, XLM-RoBERTa, DistilBERT, MPNet.

Weights go by llama.cpp's names: ``token_embd.weight``, ``position_embd.weight``, ``blk.0.attn_q.weight`` … Every layer
adds its input to what attention or the feed-forward part gives, and normalizes the sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError, UnsupportedProgramError
from ..format.vkgraph import DataType
from .builder import GraphBuilder, Size, TensorRef
from .llama import LlamaOptions
from .matrix import EmbeddingFormat, Matrix, WeightFormat, matrix
from .sentence_pooling import pool
from .sentence_transformers import POOLINGS, Pooling, SentenceSettings
from .weights import Constant, Floats, Weight, array_constant, float_constant

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
BIAS_BUCKETS, BIAS_DISTANCE = 32, 128  # of relative positions, as MPNet's code has them
DEFAULT_SEQ_LEN = 512
_MOST_TEXTS = 64
_BINDING_BYTES = 1 << 27  # of one buffer that every WebGPU device can bind
_HEAD_MULTIPLE, _LARGEST_HEAD = 4, 256  # what attention takes


@dataclass(frozen=True)
class EncoderConfig:
    """What the weights do not say.

    ``positions``: rows of the table of positions. ``counts_from``: None where a text's first token has position 0; else
    tokens that are not ``pad_token`` are counted from this on. ``token_types``: there is a table of them, of which a
    text has the first. ``relative_bias``: attention's scores get a bias by distance and head.
    """

    dim: int
    layers: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    norm_eps: float
    activation: Activation = "gelu"
    counts_from: int | None = None
    pad_token: int = 0
    token_types: int = 0
    relative_bias: int = 0

    @property
    def most_tokens(self) -> int:
        """Of a text, before positions run out."""
        return self.positions - (0 if self.counts_from is None else self.counts_from)

    def weight_dims(self) -> dict[str, tuple[int, ...]]:
        """Every weight of the model with its dims."""
        dims: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocab, self.dim),
            "position_embd.weight": (self.positions, self.dim),
        }
        if self.token_types:
            dims["token_types.weight"] = (self.token_types, self.dim)
        if self.relative_bias:
            dims["relative_bias.weight"] = (self.relative_bias, self.heads)
        dims |= dict.fromkeys(("token_embd_norm.weight", "token_embd_norm.bias"), (self.dim,))
        layers = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (self.dim, self.dim))
        layers |= {"ffn_up": (self.ffn, self.dim), "ffn_down": (self.dim, self.ffn)}
        for layer in range(self.layers):
            for name, size in layers.items():
                dims |= {f"blk.{layer}.{name}.weight": size, f"blk.{layer}.{name}.bias": size[:1]}
            for name in ("attn_output_norm", "layer_output_norm"):
                dims |= dict.fromkeys((f"blk.{layer}.{name}.weight", f"blk.{layer}.{name}.bias"), (self.dim,))
        return dims


@dataclass(frozen=True)
class SourceEncoder:
    """An encoder that can be built; its weights can be read while its files are open.

    ``dense``: weight [N, K] and bias [N] of each of the settings' layers behind the pooling.
    """

    config: EncoderConfig
    weights: Mapping[str, Weight]
    settings: SentenceSettings = field(default_factory=SentenceSettings)
    dense: tuple[tuple[Weight, Weight | None], ...] = ()


@dataclass(frozen=True)
class EncoderOptions:
    """How an encoder becomes a program; for the formats see ``models.matrix``.

    ``weights``: of the linear layers. ``embedding``: by default native beside native weights, else f32. ``group``:
    weights that share a scale. ``max_seq_len`` tokens make the longest text; by default what the model's files say, at
    most 512. ``max_batch`` texts go into one call; by default as many, up to 64, as let every buffer be bound anywhere.
    ``pooling``: how vectors of tokens become one; by default what the model's files say, else their mean.
    ``normalize``: whether that has length one; by default what the files say, else not.
    """

    weights: WeightFormat = "native"
    embedding: EmbeddingFormat | None = None
    group: int = 32
    max_seq_len: int | None = None
    max_batch: int | None = None
    pooling: Pooling | None = None
    normalize: bool | None = None

    @classmethod
    def of(cls, options: LlamaOptions) -> EncoderOptions:
        """The same of a language model's; InvalidInputError, which names them, for those that an encoder has not."""
        foreign = {"head": options.head, "max_context_len": options.max_context_len, "full_logits": options.full_logits}
        if given := [name for name, value in foreign.items() if value]:
            raise InvalidInputError(
                f"the model is an encoder, which has no {' and no '.join(given)}: leave that out, and name its longest "
                "text by max_seq_len"
            )
        return cls(options.weights, options.embedding, options.group, options.max_seq_len)

    def applied(self, settings: SentenceSettings) -> SentenceSettings:
        """The settings with what is chosen here."""
        if self.pooling is not None:
            if self.pooling not in POOLINGS:
                raise InvalidInputError(f"there is no pooling {self.pooling!r}; choose {', '.join(POOLINGS)}")
            if settings.dense and settings.poolings != (self.pooling,):
                raise InvalidInputError(
                    f"the model has layers behind its own pooling, {'+'.join(settings.poolings)}: leave pooling out"
                )
            settings = replace(settings, poolings=(self.pooling,))
        return settings if self.normalize is None else replace(settings, normalize=self.normalize)

    def lengths(self, config: EncoderConfig, settings: SentenceSettings) -> tuple[int, int]:
        """(texts, tokens of a text) that go into one call; InvalidInputError for more tokens than have a position."""
        most = config.most_tokens
        length = self.max_seq_len or min(settings.max_tokens or DEFAULT_SEQ_LEN, DEFAULT_SEQ_LEN, most)
        if not 1 <= length <= most:
            raise InvalidInputError(
                f"the model has positions for {most} tokens: choose a longest text up to that, not {length}"
            )
        if self.max_batch is not None:
            if self.max_batch < 1:
                raise InvalidInputError(f"a call takes one text at least: choose a batch of more than {self.max_batch}")
            return self.max_batch, length
        bias = config.heads * length if config.relative_bias else 0
        fitting = _BINDING_BYTES // (4 * length * max(config.ffn, 3 * config.dim, bias))
        return max(1, min(_MOST_TEXTS, 1 << max(0, fitting.bit_length() - 1))), length


def build_encoder(source: SourceEncoder, options: EncoderOptions) -> GraphBuilder:
    """``forward(tokens [B, S], attention_mask [B, S]) -> embedding [B, dim]``; the mask is 1 where there is text.

    InvalidInputError if the lengths do not fit the model, or the group does not fit its rows;
    UnsupportedProgramError for heads that attention does not take.
    """
    config = source.config
    head_dim = config.dim // config.heads
    if head_dim % _HEAD_MULTIPLE or head_dim > _LARGEST_HEAD:
        raise UnsupportedProgramError(
            f"The model's heads of {head_dim} elements are not a multiple of {_HEAD_MULTIPLE} up to {_LARGEST_HEAD}."
        )
    return _Encoder(source, options).build()


class _Encoder:
    def __init__(self, source: SourceEncoder, options: EncoderOptions) -> None:
        self.config, self.weights, self.options = source.config, source.weights, options
        self.dense = source.dense
        self.settings = options.applied(source.settings)
        self.most_texts, self.most_tokens = options.lengths(source.config, source.settings)
        self.b = GraphBuilder()
        self.embedding_format = options.embedding or ("native" if options.weights == "native" else "f32")

    def build(self) -> GraphBuilder:
        b, dims = self.b, (self.most_texts, self.most_tokens)
        tokens = b.input(dims, DataType.INT32, dynamic=True)
        mask = b.input(dims, DataType.INT32, dynamic=True)
        self.texts, self.length = b.size(tokens, 0), b.size(tokens, 1)
        is_text = b.call("aten.ne.Scalar", mask, 0, out=dims, dtype=DataType.BOOL)
        x = self.norm(self.embedded(tokens), "token_embd_norm")
        bias = self.score_bias(is_text)
        for layer in range(self.config.layers):
            block = f"blk.{layer}"
            x = self.norm(b.add(self.attention(x, block, bias), x), f"{block}.attn_output_norm")
            x = self.norm(b.add(self.feed_forward(x, block), x), f"{block}.layer_output_norm")
        weight = b.cast(is_text, DataType.FLOAT32)
        dense = [(self.matrix(w), None if bias is None else float_constant(bias)) for w, bias in self.dense]
        b.output(pool(b, x, weight, self.settings, dense), dynamic=True)
        return b

    # -- what goes into the first layer -----------------------------------------------------------------------------

    def embedded(self, tokens: TensorRef) -> TensorRef:
        """Vectors of tokens, with those of their positions and of the first token type."""
        b, c = self.b, self.config
        x = b.embedding(tokens, matrix(self.weights["token_embd.weight"], self.embedding_format, self.options.group))
        if c.counts_from is None:
            table = b.prepack(self.positions(self.most_tokens))
            return b.add(x, b.rows(table, 0, self.length, self.most_tokens))
        # Tokens that are no padding are counted; padding has the position before the first.
        counted = b.cast(
            b.call("aten.ne.Scalar", tokens, c.pad_token, out=tokens.dims, dtype=DataType.BOOL), DataType.INT32
        )
        counts = b.call("aten.cumsum.default", counted, 1, None, out=tokens.dims, dtype=DataType.INT32)
        own = b.call("aten.mul.Tensor", counts, counted, out=tokens.dims, dtype=DataType.INT32)
        places = b.call("aten.add.Scalar", own, c.counts_from - 1, 1, out=tokens.dims, dtype=DataType.INT32)
        return b.add(x, b.embedding(places, self.positions(c.counts_from + self.most_tokens)))

    def positions(self, count: int) -> Constant:
        """The first rows of the table of positions, plus the first token type."""
        rows: Floats = self.weights["position_embd.weight"].rows(0, count)
        if self.config.token_types:
            rows = rows + self.weights["token_types.weight"].rows(0, 1)
        return array_constant("positions", rows)

    def score_bias(self, is_text: TensorRef) -> TensorRef:
        """What is added to attention's scores, [B, 1, 1, S]: nothing for text, the least number for what fills up.

        With a bias by distance, [B, H, S, S].
        """
        b, c = self.b, self.config
        zero, least = (
            array_constant(name, np.array([value], np.float32))
            for name, value in (("zero", 0), ("least", np.finfo(np.float32).min))
        )
        dims = (self.most_texts, 1, 1, self.most_tokens)
        masks = b.call("aten.where.self", is_text, zero, least, out=is_text.dims)
        masks = b.view(masks, [self.texts, 1, 1, self.length])
        if not c.relative_bias:
            return masks
        table = relative_buckets(self.most_tokens)
        buckets = b.prepack(Constant("relative_buckets", DataType.INT32, table.shape, lambda: [table]))
        for axis in (0, 1):
            cut = buckets, axis, 0, self.length, 1
            buckets = b.call("aten.slice_copy.Tensor", *cut, out=buckets.dims, dtype=DataType.INT32)
        by_head = b.permute(b.embedding(buckets, self.tensor("relative_bias.weight")), [2, 0, 1])
        both = (dims[0], *by_head.dims)
        return b.call("aten.add.Tensor", by_head, masks, 1, out=both)

    # -- layers -----------------------------------------------------------------------------------------------------

    def attention(self, x: TensorRef, block: str, bias: TensorRef) -> TensorRef:
        b, c = self.b, self.config
        heads: list[Size] = [self.texts, self.length, c.heads, c.dim // c.heads]
        q, k, v = (b.view(self.linear(x, f"{block}.attn_{name}"), heads) for name in ("q", "k", "v"))
        out = b.call("et_webgpu.sdpa_tokens_first.default", q, k, v, bias, None, out=q.dims)
        return self.linear(b.view(out, [self.texts, self.length, c.dim]), f"{block}.attn_output")

    def feed_forward(self, x: TensorRef, block: str) -> TensorRef:
        return self.linear(self.activation(self.linear(x, f"{block}.ffn_up")), f"{block}.ffn_down")

    def activation(self, x: TensorRef) -> TensorRef:
        match self.config.activation:
            case "gelu":
                return self.b.gelu(x)
            case "gelu_tanh":
                return self.b.gelu(x, "tanh")
            case "silu":
                return self.b.silu(x)
        return self.b.call("aten.relu.default", x, out=x.dims)

    def norm(self, x: TensorRef, name: str) -> TensorRef:
        return self.b.layer_norm(x, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), self.config.norm_eps)

    def linear(self, x: TensorRef, name: str) -> TensorRef:
        return self.b.linear(x, self.matrix(self.weights[f"{name}.weight"]), self.tensor(f"{name}.bias"))

    def matrix(self, weight: Weight) -> Matrix:
        return matrix(weight, self.options.weights, self.options.group)

    def tensor(self, name: str) -> Constant:
        return float_constant(self.weights[name])


def relative_buckets(length: int) -> NDArray[np.int32]:
    """int32 [length, length]: the bucket of key k for query q, by their distance. Source: MPNet's own code."""
    places = np.arange(length)
    distance: NDArray[np.int64] = places[:, None] - places
    half = BIAS_BUCKETS // 2
    exact = half // 2  # distances with a bucket of their own; those of the others grow by powers
    away = np.abs(distance)
    with np.errstate(divide="ignore"):
        power = np.log(away.astype(np.float32) / np.float32(exact)) / np.float32(math.log(BIAS_DISTANCE / exact))
    far = np.where(
        away < exact, 0, exact + np.where(away < exact, 0, power * np.float32(half - exact)).astype(np.int64)
    )
    bucket = np.where(away < exact, away, np.minimum(far, half - 1)) + np.where(distance < 0, half, 0)
    return bucket.astype(np.int32)

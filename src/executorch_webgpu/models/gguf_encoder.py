"""Encoders in GGUF files, as llama.cpp's converter writes them: the architecture ``bert``.

BERT, and RoBERTa whose table of positions the converter has cut at its beginning. Vectors have length one unless the
options say otherwise: files do not state it, and llama.cpp's own tools do so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np

from ..errors import InvalidProgramError, UnsupportedProgramError
from .encoder import EncoderConfig, SourceEncoder
from .encoder_weights import check_tensors
from .gguf import opened_gguf
from .gguf_config import Keys
from .numbers import check_eps
from .sentence_transformers import Pooling, SentenceSettings
from .weights import Weight

_EPS = "attention.layer_norm_epsilon"
_KNOWN = frozenset(
    (
        *("embedding_length", "block_count", "feed_forward_length", "context_length", "vocab_size", _EPS),
        *("attention.head_count", "attention.head_count_kv", "pooling_type", "tensor_data_layout"),
    )
)
# Values by which other keys do nothing.
_NEUTRAL: dict[str, tuple[float, ...]] = {
    "attention.causal": (0,),
    **dict.fromkeys(("attention.max_alibi_bias", "attention.clamp_kqv", "expert_count"), (0,)),
}
# llama.cpp's numbers; 0 is none, and then the mean is taken.
_POOLINGS: dict[int, Pooling] = {0: "mean", 1: "mean", 2: "cls", 3: "last"}


@contextmanager
def open_gguf_encoder(path: str | PathLike[str]) -> Iterator[SourceEncoder]:
    """Open an encoder, and close it at the end of the ``with`` block.

    InvalidProgramError if the file contradicts itself or a part is missing; UnsupportedProgramError, which names them,
    for keys and tensors that are not here.
    """
    with opened_gguf(path) as (metadata, weights):
        config = _config(metadata, weights)
        check_tensors(config, {name: name for name in config.weight_dims()}, weights, "GGUF file")
        pooling = metadata.get("bert.pooling_type", 1)
        if pooling not in _POOLINGS:
            raise UnsupportedProgramError(
                f"'bert.pooling_type' is {pooling!r}, which is not here: use a model with one of {list(_POOLINGS)}."
            )
        yield SourceEncoder(config, weights, SentenceSettings((_POOLINGS[pooling],), normalize=True))


def _config(metadata: Mapping[str, Any], weights: Mapping[str, Weight]) -> EncoderConfig:
    keys = Keys(metadata, "bert")
    keys.check_others(_KNOWN, _NEUTRAL)
    dim, heads = keys.count("embedding_length"), keys.layer_count("attention.head_count")
    if dim % heads or keys.layer_count("attention.head_count_kv", heads) != heads:
        raise InvalidProgramError(
            f"{keys.said('attention.head_count')}, for vectors of {dim}: heads must divide them, each with its keys."
        )
    rows = {name: weights[name].dims[0] for name in ("token_embd.weight", "token_types.weight") if name in weights}
    return EncoderConfig(
        dim=dim,
        layers=keys.count("block_count"),
        heads=heads,
        ffn=keys.layer_count("feed_forward_length"),
        vocab=rows.get("token_embd.weight", 0),
        positions=keys.count("context_length"),
        # Stored as float32; the shortest decimal that means the same is what was written in the first place.
        norm_eps=float(str(np.float32(check_eps(keys.number(_EPS), keys.name(_EPS))))),
        token_types=rows.get("token_types.weight", 0),
    )

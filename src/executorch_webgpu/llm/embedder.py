"""Vectors of texts: an encoder's program over batches of any texts, whatever shapes it was exported for.

Texts are sorted by length, so that a batch has few tokens that only fill it up, and those are masked: what a text's
vector is depends on no other text. Results come in the order in which the texts were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..closing import Closing
from ..errors import InvalidInputError, UnsupportedProgramError
from ..models.sentence_transformers import POOLINGS, Pooling, SentenceSettings, read_settings
from ..runtime import LoadOptions, Program
from ..text.hf_tokenizer import affixes
from ..text.tokenizer import Tokenizer
from .embedding_batches import batches
from .encoder_signature import EncoderSignature
from .model import uninterrupted
from .pooling import Floats, pooled, unit_rows
from .program_tokenizer import own_tokenizer

Tokens = NDArray[np.int64]
_INT32 = 1 << 31  # what the device keeps of a token


class Embedder(Closing):
    """A loaded encoder, and what its files say about a text's vector. Threads may share it: one call runs at a time.

    ``program``: ``forward(tokens[, attention_mask[, token_type_ids]]) -> embedding``, see ``EncoderSignature``.
    ``tokenizer``: by default the program's own, if it has one. ``pooling``: how vectors of tokens become that of a
    text, where the program gives a last hidden state; by default what the files of sentence-transformers in the program
    say. ``normalize``: vectors have length one; by default what these files say. ``pad_token``: what fills up shorter
    texts; a program without a mask is only given such when this is named, since it must then tell them itself.
    ``options``, ``changes``: as ``Program.load_method`` takes them.
    Raises UnsupportedProgramError when ``forward`` is missing or no encoder, InvalidInputError for a pooling that is
    not here or does not fit the program.
    """

    def __init__(
        self,
        program: Program,
        tokenizer: Tokenizer | None = None,
        options: LoadOptions | None = None,
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        pad_token: int | None = None,
        **changes: Any,
    ) -> None:
        self.signature = EncoderSignature.of(program)
        named = program.named_data
        settings = read_settings(lambda name: bytes(named[name]) if name in named else None)
        self.tokenizer = tokenizer = own_tokenizer(program) if tokenizer is None else tokenizer
        self.poolings = _poolings(self.signature, settings, pooling)
        self.normalize = _normalizes(self.signature, settings, normalize)
        most = settings.max_tokens if settings is not None else None
        self.max_tokens = min(self.signature.max_tokens, most or self.signature.max_tokens)
        self._pads = self.signature.masked or pad_token is not None
        self._pad_token = _pad_token(tokenizer) if pad_token is None else pad_token
        self._tail = affixes(tokenizer.backend)[1] if tokenizer is not None else ()
        self._method = program.load_method("forward", options, **changes)
        self._lock = Lock()

    @property
    def dim(self) -> int:
        """Elements of a vector."""
        return self.signature.dim * max(1, len(self.poolings))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text with what the tokenizer puts around every text; special tokens in it stay text.

        Raises InvalidInputError when there is no tokenizer.
        """
        if self.tokenizer is None:
            raise InvalidInputError(
                "this encoder has no tokenizer: give it one, or make the program of a folder that has a tokenizer.json"
            )
        return self.tokenizer.encode(text)

    def embed(self, texts: Sequence[Sequence[int]], *, truncate: bool = False) -> Floats:
        """Vectors float32 [n, dim] of n texts, given as token ids with what belongs around them, as ``encode`` gives.

        ``truncate``: texts of more than ``max_tokens`` lose their last tokens, but keep the special ones at their end.
        Raises InvalidInputError when there are no texts, or one is empty, too long, or of other tokens than the model
        has; and for lengths that the program cannot take, where it has no mask.
        """
        if len(texts) == 0:
            raise InvalidInputError("there are no texts to embed; give one at least")
        rows = [self._checked(text, f"text {i}", truncate) for i, text in enumerate(texts)]
        result = np.empty((len(rows), self.dim), np.float32)
        with self._lock:
            for batch in batches([len(row) for row in rows], self.signature, pads=self._pads):
                result[list(batch.places)] = self._run([rows[place] for place in batch.places], batch.length)
        return result

    def embed_texts(self, texts: Sequence[str], *, truncate: bool = False) -> Floats:
        """``embed`` of texts in words."""
        return self.embed([self.encode(text) for text in texts], truncate=truncate)

    def close(self) -> None:
        """Free the GPU memory. Closing twice is allowed."""
        with self._lock:
            self._method.close()

    # -- what goes into a call --------------------------------------------------------------------------------------

    def _checked(self, text: Sequence[int], what: str, truncate: bool) -> Tokens:
        tokens = np.asarray(text)
        if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
            raise InvalidInputError(f"{what} is no list of token ids; encode it first")
        if tokens.size == 0:
            raise InvalidInputError(f"{what} has no tokens; give one at least")
        if tokens.size > self.max_tokens:
            if not truncate:
                raise InvalidInputError(
                    f"{what} has {tokens.size} tokens, but there is room for {self.max_tokens}: shorten it, or have it "
                    "truncated"
                )
            tokens = self._truncated(tokens)
        vocab_size = self.signature.vocab_size
        outside = (tokens < 0) | (tokens >= (_INT32 if vocab_size is None else vocab_size))
        if outside.any():
            size = "" if vocab_size is None else f" of {vocab_size}"
            raise InvalidInputError(
                f"{what} has token {int(tokens[outside][0])}, which is outside of the model's vocabulary{size}: use "
                "the model's own tokenizer"
            )
        return tokens.astype(np.int64)

    def _truncated(self, tokens: Tokens) -> Tokens:
        """The first ``max_tokens``, of which the last are what the tokenizer puts after every text, if it had them."""
        count = min(len(self._tail), self.max_tokens)
        tail = (
            tokens[len(tokens) - count :] if count and tuple(tokens[-len(self._tail) :]) == self._tail else tokens[:0]
        )
        return np.concatenate([tokens[: self.max_tokens - len(tail)], tail])

    def _run(self, texts: Sequence[Tokens], length: int) -> Floats:
        """Vectors [n, dim] of one batch, whose rows have ``length`` tokens."""
        its = self.signature
        rows = len(texts) if its.any_batch else its.max_batch
        # Rows that a program of a fixed batch has beyond the texts are the first text again.
        texts_of_rows = [*texts, *[texts[0]] * (rows - len(texts))]
        tokens = np.full((rows, length), self._pad_token, its.inputs[0])
        mask = np.zeros((rows, length), bool)
        for row, text in enumerate(texts_of_rows):
            tokens[row, : len(text)] = text
            mask[row, : len(text)] = True
        inputs: list[np.ndarray] = [tokens]
        if its.masked:
            inputs.append(mask.astype(its.inputs[1]))
        inputs += [np.zeros(tokens.shape, dtype) for dtype in its.inputs[2:]]
        with uninterrupted():
            result = np.asarray(self._method.execute(inputs)[0], np.float32)
        if its.pooled:
            vectors: Floats = result.reshape(rows, its.dim)[: len(texts)]
        else:
            hidden = result.reshape(rows, length, -1)
            vectors = pooled(hidden, [len(text) for text in texts], self.poolings)
        return unit_rows(vectors) if self.normalize else vectors


def _pad_token(tokenizer: Tokenizer | None) -> int:
    """The tokenizer's own padding, which a program with a mask never sees; 0 where there is none."""
    text = tokenizer.settings.special_tokens.get("pad_token") if tokenizer is not None else None
    token = tokenizer.backend.token_to_id(text) if tokenizer is not None and text is not None else None
    return token or 0


def _poolings(
    signature: EncoderSignature, settings: SentenceSettings | None, chosen: Pooling | None
) -> tuple[Pooling, ...]:
    """What is done with a last hidden state; nothing where the program has pooled already."""
    if chosen is not None and chosen not in POOLINGS:
        raise InvalidInputError(f"there is no pooling {chosen!r}; choose {', '.join(POOLINGS)}")
    if signature.pooled:
        if chosen is not None:
            raise InvalidInputError(
                f"the program gives one vector of each text already, so that it cannot be pooled by {chosen!r}: leave "
                "pooling out, or convert the model with this pooling"
            )
        return ()
    if chosen is not None:
        return (chosen,)
    if settings is None:
        raise InvalidInputError(
            "the program gives a vector of each token, and does not say how these become one of the text: name the "
            f"pooling, one of {', '.join(POOLINGS)}"
        )
    if settings.dense:
        raise UnsupportedProgramError(
            "the program gives a vector of each token, but its model has layers behind the pooling: convert the model "
            "again, which puts them into the program"
        )
    return settings.poolings


def _normalizes(signature: EncoderSignature, settings: SentenceSettings | None, chosen: bool | None) -> bool:
    stated = settings is not None and settings.normalize
    if chosen is False and stated and signature.pooled:
        raise InvalidInputError(
            "the program gives vectors of length one: convert the model without this, or leave normalize out"
        )
    return stated if chosen is None else chosen

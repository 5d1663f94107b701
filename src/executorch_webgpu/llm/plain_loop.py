"""Decoding one call at a time, for programs whose steps cannot follow one another on the GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np

from ..errors import ClosedError
from .model import LanguageModel
from .sample import SamplingParams, sample_text
from .text_changes import TextChanges

FinishReason = Literal["eos", "stop", "length", "context"]


class PlainLoop:
    """The tokens of one text, as a ``DecodeSession`` gives them: the host draws each from the logits of a step.

    Like that, it ends with a ClosedError when the model has been used for something else.
    """

    def __init__(self, model: LanguageModel, params: SamplingParams, end_tokens: Collection[int]) -> None:
        self.finish_reason: FinishReason | None = None
        self._model = model
        self._params = params
        self._end_tokens = frozenset(end_tokens)
        self._seed = params.some_seed
        self._logits = np.empty(0, np.float32)
        self._text: tuple[int, ...] = ()  # what the KV cache holds when the model is used for nothing else
        self._changes = TextChanges(params, (), model.vocab_size)
        self._new_tokens: list[int] = []
        self._prompt_end = 0

    def prefill(self, tokens: Sequence[int], start: int = 0) -> None:
        """Run ``tokens`` at positions ``start`` and on."""
        with self._model.use:
            self._logits = self._model.prefill(tokens, start)
            self._text = self._model.cached_tokens
        self._changes = TextChanges(self._params, self._text, self._model.vocab_size)
        self._prompt_end = start + len(tokens)
        self._new_tokens = []
        self.finish_reason = None

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.finish_reason is None:
            self.finish_reason = self._limit()
        if self.finish_reason is not None:
            raise StopIteration
        position = self._prompt_end + len(self._new_tokens)
        if self._new_tokens:
            self._step(position - 1)
        new = tuple(self._new_tokens) if self._params.allowed_tokens is not None else ()
        token = sample_text(self._logits, self._params, position, self._seed, self._changes, new)
        if token in self._end_tokens:
            self.finish_reason = "eos"
            raise StopIteration
        self._changes.add(token)
        self._new_tokens.append(token)
        return token

    def _step(self, position: int) -> None:
        with self._model.use:
            if self._model.cached_tokens != self._text:
                raise ClosedError(
                    "the model has been used for something else, so this text cannot go on; make a new_sequence() for "
                    "each text that goes on at the same time"
                )
            self._logits = self._model.step(self._new_tokens[-1], position)
            self._text = self._model.cached_tokens

    def _limit(self) -> FinishReason | None:
        given = len(self._new_tokens)
        if given == self._params.max_new_tokens:
            return "length"
        return "context" if given and self._prompt_end + given - 1 == self._model.context_len else None

    def close(self) -> None:
        """Nothing runs ahead."""

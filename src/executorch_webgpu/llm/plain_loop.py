"""Decoding one call at a time, for programs whose steps cannot follow one another on the GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np

from ..errors import ClosedError
from .grammar_matcher import GrammarMatcher
from .model import LanguageModel
from .sample import SamplingParams, allowed_mask, sample_text
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
        self._matcher: GrammarMatcher | None = None
        self._new_tokens: list[int] = []
        self._prompt_end = 0
        self._ran = 0  # new tokens that have run

    def prefill(self, tokens: Sequence[int], start: int = 0) -> None:
        """Run ``tokens`` at positions ``start`` and on."""
        with self._model.use:
            self._logits = self._model.prefill(tokens, start)
            self._text = self._model.cached_tokens
        self._changes = TextChanges(self._params, self._text, self._model.vocab_size)
        self._matcher = None if self._params.grammar is None else self._params.grammar.matcher(self._end_tokens)
        self._prompt_end = start + len(tokens)
        self._new_tokens = []
        self._ran = 0
        self.finish_reason = None

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.finish_reason is None:
            done = self._matcher is not None and self._matcher.done
            self.finish_reason = "eos" if done else self._limit()
        token = None if self.finish_reason is not None else self._next()
        if token is None or token in self._end_tokens:
            self.finish_reason = self.finish_reason or "eos"
            raise StopIteration
        if self._matcher is not None:
            self._matcher.take(token)
        self._changes.add(token)
        self._new_tokens.append(token)
        return token

    def _next(self) -> int | None:
        """The next token; None where the grammar ends the text."""
        matcher = self._matcher
        if matcher is not None and matcher.forced:
            return matcher.forced[0]
        allowed = None
        if matcher is not None:
            allowed = matcher.mask()
            if matcher.done:
                return None
        elif self._params.allowed_tokens is not None:
            allowed = allowed_mask(self._params, tuple(self._new_tokens), self._model.vocab_size)
        self._run()
        position = self._prompt_end + len(self._new_tokens)
        return sample_text(self._logits, self._params, position, self._seed, self._changes, allowed)

    def _run(self) -> None:
        """Bring the logits up to the last token."""
        if not (tokens := self._new_tokens[self._ran :]):
            return
        with self._model.use:
            if self._model.cached_tokens != self._text:
                raise ClosedError(
                    "the model has been used for something else, so this text cannot go on; make a new_sequence() for "
                    "each text that goes on at the same time"
                )
            self._logits = self._model.prefill(tokens, self._prompt_end + self._ran)
            self._text = self._model.cached_tokens
        self._ran = len(self._new_tokens)

    def _limit(self) -> FinishReason | None:
        given = len(self._new_tokens)
        if given == self._params.max_new_tokens:
            return "length"
        return "context" if given and self._prompt_end + given - 1 == self._model.context_len else None

    def close(self) -> None:
        """Nothing runs ahead."""

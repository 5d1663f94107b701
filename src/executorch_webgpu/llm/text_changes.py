"""What the parameters of a text do to logits, kept up to date as its tokens come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InvalidInputError
from ..ops.sampling.draws import LogitChanges

if TYPE_CHECKING:
    from .sample import SamplingParams


MOST_PENALTY = 1e30  # kernels take a larger one for this


class TextChanges:
    """Changes of logits for the next token of a text: penalties for tokens that it has, and biases.

    ``prompt`` counts for the repetition penalty only. A token costs the same to ``add`` however long the text is.
    Raises InvalidInputError for a bias of a token that is not in the vocabulary of ``vocab``.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int], vocab: int) -> None:
        bias = params.logit_bias
        if bad := [token for token in bias if not 0 <= token < vocab]:
            raise InvalidInputError(f"logit_bias names token {bad[0]}, but the vocabulary has {vocab}, from 0 on")
        self._penalty = min(params.repetition_penalty, MOST_PENALTY)
        self._presence, self._frequency = params.presence_penalty, params.frequency_penalty
        occurred = set(prompt) if self._penalty != 1 else set()
        known = np.array([*occurred, *(bias.keys() - occurred)], np.int32)
        self._size = known.size
        self._places = {int(token): place for place, token in enumerate(known)}
        self._tokens = known
        self._bias = [bias.get(int(token), 0.0) for token in known]
        self._counts = [0] * known.size  # among the new tokens
        self._penalties = np.where(np.arange(known.size) < len(occurred), self._penalty, 1).astype(np.float32)
        self._shifts = np.array(self._bias, np.float32)

    def add(self, token: int) -> None:
        """A new token of the text."""
        if self._penalty == 1 and not self._presence and not self._frequency:
            return
        place = self._places.get(token)
        if place is None:
            place = self._places[token] = self._size
            self._grow()
            self._tokens[place] = token
            self._bias.append(0.0)
            self._counts.append(0)
        self._counts[place] += 1
        self._penalties[place] = self._penalty
        self._shifts[place] = self._bias[place] - self._presence - self._frequency * self._counts[place]

    def _grow(self) -> None:
        if self._size == self._tokens.size:
            room = self._size + max(16, self._size)
            self._tokens = np.resize(self._tokens, room)
            self._penalties = np.resize(self._penalties, room)
            self._shifts = np.resize(self._shifts, room)
        self._size += 1

    def changes(self) -> LogitChanges | None:
        """What is done to logits before the next token is drawn, if anything; it holds until the next ``add``."""
        if not self._size:
            return None
        n = self._size
        return LogitChanges(self._tokens[:n], self._penalties[:n], self._shifts[:n])

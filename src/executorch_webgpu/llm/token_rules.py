"""Rules about which tokens may come, as ``SamplingParams.allowed_tokens`` asks for, that can be sent to a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..ops.shapes import ceil_div


@dataclass(frozen=True)
class TokenRules:
    """``allowed``: the only tokens that may come; None for all. ``bad``: sequences of tokens that do not come: the last
    token of one does not where those before it have. ``ends`` do not come before ``min_tokens`` others have.

    Is called with the new tokens so far. Returns a bit for each token, uint32 [ceil(vocab_size / 32)], or None for all.
    """

    vocab_size: int
    allowed: tuple[int, ...] | None = None
    bad: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    ends: frozenset[int] = frozenset()

    def __call__(self, new_tokens: Sequence[int]) -> NDArray[np.uint32] | None:
        banned = {last for *before, last in self.bad if _ends_with(new_tokens, before)}
        if len(new_tokens) < self.min_tokens:
            banned |= self.ends
        if self.allowed is None and not banned:
            return None
        mask = self._may_come.copy()
        for token in banned:
            mask[token // 32] &= ~np.uint32(1 << token % 32)
        return mask

    @cached_property
    def _may_come(self) -> NDArray[np.uint32]:
        """What may come where nothing is banned."""
        bits = np.zeros(32 * ceil_div(self.vocab_size, 32), np.uint8)
        bits[: self.vocab_size] = self.allowed is None
        bits[list(self.allowed or ())] = 1
        return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)


def _ends_with(tokens: Sequence[int], end: Sequence[int]) -> bool:
    return not end or list(tokens[-len(end) :]) == list(end)

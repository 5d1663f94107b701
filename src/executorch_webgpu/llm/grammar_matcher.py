"""Where texts stand in their grammars: which tokens may come next, and which must."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import Error, InvalidInputError
from ..ops.shapes import ceil_div
from .grammar_errors import reason_of

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher

_MANY = 4  # texts, and processors, from which on threads make masks sooner than one does
Mask = NDArray[np.uint32]


class GrammarMatcher:
    """One text in its grammar. For one thread at a time.

    ``forced``: tokens that must come next, in order: the only way on, as the tokenizer writes it. ``done``: the text is
    whole, and nothing may follow. ``ends``: tokens that may end the text where the grammar lets it end; ``not_ends``:
    all but those that are none where it does not. Both are masks. ``inner``: llguidance's own.
    Raises InvalidInputError for a grammar that becomes too complex, here and in each call.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, ends: Collection[int], special: Collection[int]) -> None:
        self.forced: list[int] = []
        self.done = False
        self.inner, self.vocab_size = matcher, vocab_size
        valid = [token for token in ends if 0 <= token < vocab_size]
        self.ends = _bits(valid, vocab_size)
        # A special token stays allowed where the grammar names it.
        ordinary = [token for token in valid if token not in special]
        self._ends, self._ordinary = frozenset(valid), frozenset(ordinary)
        self.not_ends = ~_bits(ordinary, vocab_size) if ordinary else None
        self._look_ahead()

    def take(self, token: int) -> None:
        """The text goes on with a token, which ``forced`` or a mask allows."""
        if self.forced:
            if token != self.forced.pop(0):
                raise Error("a token was drawn that the grammar does not allow; report this with the grammar")
        else:
            self.inner.consume_token(token)
            self._check()
        self._look_ahead()

    def allows(self, token: int) -> bool:
        """Whether a mask would have the token, which takes microseconds to find out. None has BROKEN."""
        if self.forced or token < 0:
            return self.forced[:1] == [token]
        if token in self._ends and self.inner.is_accepting():
            return True
        allowed = token not in self._ordinary and self.inner.validate_tokens([token]) == 1
        self._check()
        return allowed

    def mask(self) -> Mask:
        """The tokens that may come next, uint32 [ceil(V / 32)], token t being bit t % 32 of word t // 32; without any,
        the text is ``done``."""
        (mask,) = MaskRows().of([self])
        self.settle(mask)
        return mask

    def settle(self, mask: Mask) -> None:
        """What ``MaskRows`` filled in becomes what it means."""
        self._check()
        self.done = not mask.any()

    def _look_ahead(self) -> None:
        if self.forced:
            return
        self.forced = self.inner.compute_ff_tokens()
        if self.forced:
            self.inner.consume_tokens(self.forced)
            self._check()
            return
        self._check()
        self.done = self.inner.is_stopped()

    def _check(self) -> None:
        if self.inner.is_error():
            raise InvalidInputError(f"a text cannot go on in its grammar: {reason_of(self.inner.get_error())}")


class MaskRows:
    """Where the masks of many texts lie, of one vocabulary. What it gives is there until the next call."""

    def __init__(self) -> None:
        self._rows: Mask = np.zeros((0, 0), np.uint32)

    def of(self, matchers: Sequence[GrammarMatcher]) -> list[Mask]:
        """Masks of texts that are not done, of many in threads; ``GrammarMatcher.settle`` says what each means."""
        if not matchers:
            return []
        # One bit more says whether the text may end here.
        word, bit = divmod(matchers[0].vocab_size, 32)
        if self._rows.shape[0] < len(matchers) or self._rows.shape[1] != word + 1:
            self._rows = np.zeros((len(matchers), word + 1), np.uint32)
        rows = self._rows[: len(matchers)]
        self._fill(rows, matchers)
        may_end = rows[:, word] >> np.uint32(bit) & np.uint32(1)
        rows[:, word] &= np.uint32((1 << bit) - 1)
        found = list(rows[:, : ceil_div(matchers[0].vocab_size, 32)])
        for mask, end, matcher in zip(found, may_end.tolist(), matchers, strict=True):
            if end:
                mask |= matcher.ends
            elif matcher.not_ends is not None and not matcher.forced:
                mask &= matcher.not_ends
        return found

    def _fill(self, rows: Mask, matchers: Sequence[GrammarMatcher]) -> None:
        free = [(matcher.inner, i) for i, matcher in enumerate(matchers) if not matcher.forced]
        if len(free) >= _MANY and (executor := _executor()) is not None:
            executor.unsafe_compute_mask_ptr(free, rows.ctypes.data, rows.shape[1] * rows.itemsize, len(rows))
        else:
            for inner, i in free:
                inner.unsafe_compute_mask_ptr(rows[i].ctypes.data, rows[i].nbytes)
        for row, matcher in zip(rows, matchers, strict=True):
            if matcher.forced:
                row[:] = 0
                row[matcher.forced[0] // 32] = 1 << matcher.forced[0] % 32


@cache
def _executor() -> LLExecutor | None:
    """Threads on most of the processors, for all texts of this process; None where there are too few processors."""
    from llguidance import LLExecutor

    return LLExecutor() if (os.cpu_count() or 1) >= _MANY else None


def _bits(tokens: Collection[int], vocab_size: int) -> Mask:
    found = np.zeros(ceil_div(vocab_size, 32), np.uint32)
    for token in tokens:
        found[token // 32] |= np.uint32(1 << token % 32)
    return found

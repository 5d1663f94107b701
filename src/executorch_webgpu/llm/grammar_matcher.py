"""Where texts stand in their grammars: which tokens may come next, and which must."""

from __future__ import annotations

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

Mask = NDArray[np.uint32]


class GrammarMatcher:
    """One text in its grammar. For one thread at a time.

    ``forced``: tokens that must come next, in order: the only way on, as the tokenizer writes it. ``done``: the text is
    whole, and nothing may follow. ``ends``: tokens that may end the text where the grammar lets it end, and only there.
    Raises InvalidInputError for a grammar that becomes too complex, here and in each call.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, ends: Collection[int], special: Collection[int]) -> None:
        self.forced: list[int] = []
        self.done = False
        self._matcher, self._vocab_size = matcher, vocab_size
        valid = [token for token in ends if 0 <= token < vocab_size]
        self._ends = _bits(valid, vocab_size)
        # A special token stays allowed where the grammar names it.
        self._other = ~_bits([token for token in valid if token not in special], vocab_size)
        self._look_ahead()

    def take(self, token: int) -> None:
        """The text goes on with a token, which ``forced`` or a mask allows."""
        if self.forced:
            if token != self.forced.pop(0):
                raise Error("a token was drawn that the grammar does not allow; report this with the grammar")
        else:
            self._matcher.consume_token(token)
            self._check()
        self._look_ahead()

    def mask(self) -> Mask:
        """The tokens that may come next, uint32 [ceil(V / 32)], token t being bit t % 32 of word t // 32; without any,
        the text is ``done``."""
        (mask,) = masks([self])
        self.settle(mask)
        return mask

    def settle(self, mask: Mask) -> None:
        """What ``masks`` filled in becomes what it means."""
        self._check()
        self.done = not mask.any()

    def _fill(self, row: Mask) -> None:
        """A mask with one bit more, which says whether the text may end here."""
        if self.forced:
            row[:] = 0
            token = self.forced[0]
            row[token // 32] = 1 << token % 32
        else:
            self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)

    def _with_ends(self, row: Mask) -> Mask:
        word, bit = divmod(self._vocab_size, 32)
        may_end = int(row[word]) >> bit & 1
        row[word] &= np.uint32((1 << bit) - 1)
        mask = row[: self._ends.size]
        if may_end:
            mask |= self._ends
        elif not self.forced:
            mask &= self._other
        return mask

    def _look_ahead(self) -> None:
        if self.forced:
            return
        self.forced = self._matcher.compute_ff_tokens()
        if self.forced:
            self._matcher.consume_tokens(self.forced)
            self._check()
            return
        self._check()
        self.done = self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InvalidInputError(
                f"the text cannot keep to its grammar any more: {reason_of(self._matcher.get_error())}"
            )


def masks(matchers: Sequence[GrammarMatcher]) -> list[Mask]:
    """Masks of texts that are not done, in threads; ``GrammarMatcher.settle`` says whether each is one."""
    if not matchers:
        return []
    rows = np.zeros((len(matchers), ceil_div(matchers[0]._vocab_size + 1, 32)), np.uint32)
    free = [i for i, matcher in enumerate(matchers) if not matcher.forced]
    if len(free) > 1:
        work = [(matchers[i]._matcher, i) for i in free]
        _executor().unsafe_compute_mask_ptr(work, rows.ctypes.data, rows[0].nbytes, len(rows))
    for i, matcher in enumerate(matchers):
        if matcher.forced or len(free) == 1:
            matcher._fill(rows[i])
    return [matcher._with_ends(row) for matcher, row in zip(matchers, rows, strict=True)]


@cache
def _executor() -> LLExecutor:
    """Threads, as many as most of the processors, for all texts of this process."""
    from llguidance import LLExecutor

    return LLExecutor()


def _bits(tokens: Collection[int], vocab_size: int) -> Mask:
    found = np.zeros(ceil_div(vocab_size, 32), np.uint32)
    for token in tokens:
        found[token // 32] |= np.uint32(1 << token % 32)
    return found

"""Guesses of what comes next in a text, which one step of the program then verifies.

A token is a function of the logits before it, the text's parameters, its seed and its position. So a guess is verified
by drawing at its row as if it were not there: while the drawn tokens are the guessed ones, the rows after them are the
text's, and what is drawn there counts, too. The text is token for token what it is without guesses, at any temperature.
That is rejection sampling whose noise is shared: a guess that is drawn with the same noise from similar probabilities
is mostly right.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from .request import Request

MOST_DRAFTS = 7  # in a step: with the row before them they are 8, for which weights are read once
_LONGEST, _SHORTEST = 5, 3  # tokens of the end of a text that are looked up in it
_PATIENCE, _MOST_PATIENCE = 16, 512  # tokens


class Drafter(Protocol):
    """Guesses for the texts of one engine, in its thread."""

    def expects(self, request: Request) -> bool:
        """Whether there may be a guess of what follows the tokens that are known so far."""

    def draft(self, requests: Sequence[Request]) -> None:
        """Set the drafts of texts, all of whose tokens are known: each up to ``request.trust.most`` tokens."""

    def forget(self, request: Request) -> None:
        """A text has ended."""

    def close(self) -> None:
        """Free what it holds. Closing twice is allowed."""


class Trust:
    """How many tokens it pays to guess of one text, by how guesses have fared: none for a while after bad ones."""

    def __init__(self) -> None:
        self._most = MOST_DRAFTS
        self._pause = 0  # tokens that come before the next guess
        self._patience = _PATIENCE

    @property
    def most(self) -> int:
        """Tokens to guess now."""
        return 0 if self._pause > 0 else self._most

    def judge(self, guessed: int, right: int) -> None:
        """Of so many guessed tokens, the first ``right`` were the text's own; after them came one more."""
        if not guessed:
            self._pause -= 1
            return
        if right:
            self._most = min(MOST_DRAFTS, 2 * self._most) if right == guessed else max(2, right + 1)
            self._patience = _PATIENCE
        else:  # a wrong guess costs about as much as it could have gained
            self._pause, self._most = self._patience, 2
            self._patience = min(_MOST_PATIENCE, 2 * self._patience)


def accepted(drafts: Sequence[int], drawn: Sequence[int], ends: Collection[int]) -> list[int]:
    """Of the tokens drawn at the row before ``drafts`` and at each of these, those that are the text's own."""
    count = 0
    while count < len(drafts) and drawn[count] == drafts[count] and drawn[count] not in ends:
        count += 1
    return list(drawn[: count + 1])


class PromptLookup:
    """Guesses that a text goes on as it did where its last tokens occurred before. Reads no weights."""

    def __init__(self) -> None:
        self._indices: WeakKeyDictionary[Request, NgramIndex] = WeakKeyDictionary()

    def expects(self, request: Request) -> bool:
        return bool(self._index(request).following(request.text.tokens, 1))

    def draft(self, requests: Sequence[Request]) -> None:
        for request in requests:
            most = 0 if request.trust is None else request.trust.most
            request.text.drafts = self._index(request).following(request.text.tokens, most)

    def forget(self, request: Request) -> None:
        self._indices.pop(request, None)

    def close(self) -> None:
        self._indices.clear()

    def _index(self, request: Request) -> NgramIndex:
        return self._indices.setdefault(request, NgramIndex())


class NgramIndex:
    """Where runs of tokens occurred in a text that only grows."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}  # of what follows the last time that they did before the end
        self._length = _SHORTEST  # of the text, as far as what follows its runs is in there

    def following(self, tokens: Sequence[int], most: int) -> list[int]:
        """``most`` tokens that may follow, as they did after the longest end that occurred before; none if none did."""
        for place in range(self._length, len(tokens)):
            for n in range(_SHORTEST, min(_LONGEST, place) + 1):
                self._places[tuple(tokens[place - n : place])] = place
        self._length = max(self._length, len(tokens))
        for n in range(min(_LONGEST, len(tokens)), _SHORTEST - 1, -1):
            begin = self._places.get(tuple(tokens[len(tokens) - n :]))
            if begin is not None:
                period = len(tokens) - begin  # what runs into the end goes on with itself
                return [tokens[begin + i % period] for i in range(most)]
        return []

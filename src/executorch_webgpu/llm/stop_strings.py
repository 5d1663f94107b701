"""Strings that end a text, found in pieces of it."""

from __future__ import annotations

from collections.abc import Sequence

from ..text.tokenizer import Tokenizer


class StopStrings:
    """Gives a text on up to a stop string, holding back what may be the beginning of one.

    The string that is complete first counts, and of those that end together the longest, so that it does not matter
    how the text was cut into pieces. ``found``: whether there was one; the text ends before it, or with it where it is
    ``included``.
    """

    def __init__(self, strings: Sequence[str], included: bool = False) -> None:
        self.found = False
        self._strings, self._included = strings, included
        self._held = ""  # the end of the text, which begins a stop string

    def push(self, piece: str) -> str:
        """What is certain to belong to the text, now that ``piece`` has come; nothing after a stop string."""
        if self.found:
            return ""
        text = self._held + piece
        ends = [(at + len(string), at) for string in self._strings if (at := text.find(string)) >= 0]
        if ends:
            self.found, self._held = True, ""
            end, at = min(ends)
            return text[: end if self._included else at]
        held = max((_begun(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What is held back, which is text after all when nothing more comes."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, string: str) -> int:
    """How many characters at the end of ``text`` begin ``string``; fewer than all of it."""
    longest = min(len(text), len(string) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(string[:n])), 0)


def unspoken_tokens(tokenizer: Tokenizer, strings: Sequence[str]) -> set[int]:
    """Special tokens whose text is one of the strings: in what is decoded it does not appear."""
    ids = {tokenizer.backend.token_to_id(string) for string in strings}
    return {id for id in ids if id is not None and not tokenizer.decode([id])}

"""Text that comes in pieces, for parsers that are generators: they yield where they need more of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Result = TypeVar("Result")
# A parser: it yields while it waits for text, and returns a result.
Parsing = Generator[None, None, Result]
WHITE_SPACE = " \t\r\n"
# No name of a tool is longer; what is may be no call.
MAX_NAME = 256
MAX_READ = 4096


class MismatchError(Exception):
    """The text is not what the parser takes."""


class EndOfTextError(MismatchError):
    """The text ends before the parser's end."""


class Source:
    """The text so far and how much of it was read: up to ``at``. What stands before ``committed`` was used for good.
    ``held``: what was read may have to be read again."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.committed = 0
        self.held = False
        self.ended = False

    def forget(self, before: int) -> None:
        """Drop what stands before an index; those after it count from there."""
        self.text, self.at, self.committed = self.text[before:], self.at - before, self.committed - before

    def release(self) -> None:
        """Drop what is committed, now and then, unless it is held: long texts would be copied with each piece."""
        if self.committed > MAX_READ and not self.held:
            self.forget(self.committed)

    def peek(self) -> Parsing[str]:
        """The next character; empty at the end of all text."""
        while self.at >= len(self.text):
            if self.ended:
                return ""
            yield
        return self.text[self.at]

    def need(self) -> Parsing[str]:
        """The next character, which there must be."""
        character = yield from self.peek()
        if not character:
            raise EndOfTextError
        return character

    def space(self) -> Parsing[str]:
        """Read white space, if there is any. Returns what follows, empty at the end."""
        while (character := (yield from self.peek())) and character in WHITE_SPACE:
            self.at += 1
        return character

    def next_is(self, *literals: str) -> Parsing[str | None]:
        """Read the first of the literals that comes next, and return it; None, with nothing read, if there is none.
        A text that ends within one has it not."""
        open_ = [literal for literal in literals if literal]
        while True:
            rest = len(self.text) - self.at
            for literal in open_:
                if self.text.startswith(literal, self.at):
                    self.at += len(literal)
                    return literal
                if rest < len(literal) and literal.startswith(self.text[self.at :]) and not self.ended:
                    break  # it may still come; those after it are not asked before that is known
            else:
                return None
            yield

    def expect(self, *literals: str) -> Parsing[str]:
        """Read one of the literals, which there must be."""
        found = yield from self.next_is(*literals)
        if found is None:
            rest = self.text[self.at :]
            cut = self.ended and any(literal.startswith(rest) for literal in literals)
            raise EndOfTextError if cut else MismatchError
        return found

    def closes(self, literal: str) -> Parsing[bool]:
        """Read a literal after white space, if it comes next; a text that ends within it raises EndOfTextError."""
        start = self.at
        yield from self.space()
        if (yield from self.next_is(literal)):
            return True
        if self.ended and literal.startswith(self.text[self.at :]):
            raise EndOfTextError
        self.at = start
        return False

    def until(
        self,
        ends: Sequence[str],
        *,
        limit: int | None = None,
        take: Callable[[str], None] | None = None,
    ) -> Parsing[tuple[str, str]]:
        """Read the text before the first of ``ends`` and that one. Returns both.

        ``take`` gets the text as it comes, and the first of the result is empty then.
        Raises MismatchError where more than ``limit`` characters stand before it.
        """
        taken = self.at
        while True:
            found = [(at, -len(end), end) for end in ends if (at := self.text.find(end, self.at)) >= 0]
            kept = beginning(self.text, self.at, ends)
            if found and min(found)[0] <= kept:
                at, _, end = min(found)
                if not any(other.startswith(self.text[at:]) and len(other) > len(end) for other in ends) or self.ended:
                    break
                kept = at
            if limit is not None and (len(self.text) if self.ended else kept) - taken > limit:
                raise MismatchError
            if self.ended:
                if take is not None:
                    text, self.at = self.text[self.at : kept], kept
                    take(text)
                raise EndOfTextError
            if take is not None and kept > self.at:
                text, self.at = self.text[self.at : kept], kept
                take(text)
                if not self.held:
                    self.committed = kept
                    self.release()
            yield
        if limit is not None and at - taken > limit:
            raise MismatchError
        text, self.at = self.text[self.at : at], at + len(end)
        if take is not None:
            take(text)
            return "", end
        return text, end


def beginning(text: str, start: int, ends: Sequence[str]) -> int:
    """Where the text from ``start`` may begin with one of ``ends``, of which more is to come; else its length."""
    first = len(text)
    for end in ends:
        at = text.find(end[0], max(start, len(text) - len(end) + 1), first)
        while at >= 0 and not end.startswith(text[at:]):
            at = text.find(end[0], at + 1, first)
        first = at if at >= 0 else first
    return first

"""Standard streams: text of others is written as far as the stream's encoding has it."""

from __future__ import annotations

import io
import sys
from typing import Any, TextIO

from ..errors import InvalidInputError


def replace_what_cannot_be_written() -> None:
    """Let both streams write a question mark for a character that their encoding lacks, instead of failing.

    A redirected stream has the encoding of its locale (cp1252, gbk, …) or of PYTHONIOENCODING; how the user wants such
    characters to be written, if that says it, stays.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def standard_input() -> TextIO:
    """Standard input. Raises InvalidInputError for a process that was started without one."""
    if sys.stdin is None:
        raise InvalidInputError("there is no standard input; connect one, or name a prompt")
    return sys.stdin


def write(text: str) -> None:
    """Part of what a command is asked for, to standard output, at once."""
    _write(sys.stdout, text)


def note(line: str) -> None:
    """A line about it, to standard error."""
    _write(sys.stderr, line + "\n")


def _write(stream: TextIO | Any, text: str) -> None:
    if stream is not None:  # which it is in a process that was started without one
        stream.write(text)
        stream.flush()

"""The tokenizer that goes with a program."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidInputError
from ..runtime import Program
from ..text.tokenizer import TOKENIZER, Tokenizer


def own_tokenizer(program: Program) -> Tokenizer | None:
    """The one that a program carries, if it does."""
    return Tokenizer.from_files(program.named_data) if TOKENIZER in program.named_data else None


def tokenizer_of(
    program: Program, file: str | Path | None = None, source: str | Path = "the program", how: str = "with --tokenizer"
) -> Tokenizer:
    """The tokenizer of a file, else the one that a program carries. Raises InvalidInputError if there is none.

    ``source``: what the error calls the program, and ``how`` a file can be named.
    """
    found = own_tokenizer(program) if file is None else Tokenizer.from_file(file)
    if found is None:
        raise InvalidInputError(f"{source} has no tokenizer inside: name one {how}")
    return found

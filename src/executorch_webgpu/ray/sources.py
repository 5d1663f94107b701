"""Programs that actors open: by the names that commands take, on the adapter of the GPU that Ray gave them."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidInputError
from ..models.library import find_program
from ..runtime import Program, Runtime
from ..text.tokenizer import TOKENIZER, Tokenizer
from .adapters import assigned_adapter


def name_everywhere(source: str | Path) -> str:
    """What processes in other folders find by the same name: the whole path of a file or folder that is here."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else str(source)


def open_source(source: str | Path, engine: str | None = None, adapter: int | str | None = None) -> Program:
    """The program that ``source`` names, converted if necessary; see ``find_program``. The caller closes it."""
    if adapter is None:
        engine, adapter = assigned_adapter(engine)
    return Runtime.get(engine, adapter).load_program(find_program(str(source)))


def tokenizer_of(program: Program, source: str | Path, tokenizer: str | Path | None = None) -> Tokenizer:
    """The tokenizer of a file, by default the program's own. Raises InvalidInputError when there is none."""
    if tokenizer is not None:
        return Tokenizer.from_file(tokenizer)
    if TOKENIZER not in program.named_data:
        raise InvalidInputError(f"{source} has no tokenizer inside: name one with tokenizer=")
    return Tokenizer.from_files(program.named_data)

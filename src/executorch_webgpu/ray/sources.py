"""Programs that actors open: by the names that commands take, on the adapter of the GPU that Ray gave them."""

from __future__ import annotations

from pathlib import Path

from ..models.library import find_program
from ..runtime import Program, Runtime
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

"""``.ptd`` files: data that a program names and keeps outside of the ``.pte``. An ``FT01`` FlatBuffer and segments.

The header follows the root offset and the identifier: ``FH01``, u32 length of the header (40), u64 offset and u64 size
of the FlatBuffer, u64 offset of the first segment, u64 size of all segments, little-endian. Source:
extension/flat_tensor/ of the executorch package.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..errors import InvalidProgramError
from .bounds import check_index, damaged, extent
from .flatbuffer import I32, U8, U32, Scalar, read_root
from .mapped_file import MappedFile
from .program_schema import DataSegment, ScalarType

_IDENTIFIER = b"FT01"
_HEADER_AT = 8
_HEADER = struct.Struct("<4sIQQQQ")
_HEADER_MAGIC = b"FH01"


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """What the bytes of a tensor are; ``dim_order`` names the outermost dimension first."""

    scalar_type: Annotated[ScalarType, Scalar("b")]
    sizes: tuple[I32, ...] = ()
    dim_order: tuple[U8, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedTensor:
    key: str
    segment_index: U32 = 0
    tensor_layout: TensorLayout | None = None


@dataclass(frozen=True, slots=True)
class FlatTensor:
    """The root table."""

    version: U32 = 0
    segments: tuple[DataSegment, ...] = ()
    named_data: tuple[NamedTensor, ...] = ()


def read_data(data: memoryview) -> dict[str, memoryview]:
    """The bytes that a ``.ptd`` file holds, by name, without copies; InvalidProgramError if it is none."""
    if len(data) < _HEADER_AT + _HEADER.size:
        raise damaged(f"a data file of {len(data)} bytes has no header")
    magic, length, start, size, base, segments_size = _HEADER.unpack_from(data, _HEADER_AT)
    if magic != _HEADER_MAGIC or length < _HEADER.size:
        raise damaged(f"the header of a data file should begin with {_HEADER_MAGIC!r}, not with {magic!r}")
    # Tables begin with the file: offsets in them count from there.
    table = read_root(FlatTensor, extent(data, 0, start + size, "the tables of a data file"), _IDENTIFIER)
    body = extent(data, base, segments_size, "the segments of a data file")
    found: dict[str, memoryview] = {}
    for entry in table.named_data:
        if entry.key in found:
            raise damaged(f"the named data '{entry.key}' is in a data file twice")
        check_index(entry.segment_index, len(table.segments), f"the segment of '{entry.key}'")
        segment = table.segments[entry.segment_index]
        found[entry.key] = extent(body, segment.offset, segment.size, f"'{entry.key}'")
    return found


class DataFiles(Mapping[str, memoryview]):
    """What several data files hold, by name; it owns their mappings, which ``close`` gives up.

    ``find`` says which files, when something is first looked for. InvalidProgramError when one of them cannot be read,
    or when two have different bytes by the name that is looked for.
    """

    def __init__(self, find: Callable[[], Iterable[Path]]) -> None:
        self._find = find
        self._opened: list[tuple[Path, MappedFile, Mapping[str, memoryview]]] | None = None

    @property
    def files(self) -> list[MappedFile]:
        """The mappings that are open."""
        return [file for _, file, _ in self._opened or ()]

    def open(self) -> None:
        """Map and read the files, unless that has been done."""
        if self._opened is not None:
            return
        opened: list[tuple[Path, MappedFile, Mapping[str, memoryview]]] = []
        with ExitStack() as closing:
            for path in self._find():
                file = closing.enter_context(MappedFile(path))
                try:
                    opened.append((path, file, read_data(file.data)))
                except InvalidProgramError as error:
                    raise InvalidProgramError(f"{path}: {error}") from error
            closing.pop_all()
        self._opened = opened

    def __getitem__(self, key: str) -> memoryview:
        self.open()
        found = [(path, entries[key]) for path, _, entries in self._opened or () if key in entries]
        if not found:
            raise KeyError(key)
        (first, view), *others = found
        for path, other in others:
            if other != view:
                raise InvalidProgramError(
                    f"{first} and {path} differ in '{key}': say with data_files which of them belongs to the program"
                )
        return view

    def __iter__(self) -> Iterator[str]:
        self.open()
        return iter({key: None for _, _, entries in self._opened or () for key in entries})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def close(self) -> None:
        """Give up the mappings. Closing twice is allowed."""
        for file in self.files:
            file.close()
        self._opened = []


def data_files_beside(program: Path) -> list[Path]:
    """The data files in a program's folder that are its own, as far as names tell.

    Parameters have the same names in many programs, so another program's data must not be taken: those files count
    whose names begin with this program's, or else those that begin with no program's.
    """
    files = [path for path in sorted(program.parent.glob("*.ptd")) if path.is_file() and _is_data_file(path)]
    stems = [path.stem for path in program.parent.glob("*.pte")]
    owners = {path: max((s for s in stems if path.stem.startswith(s)), key=len, default=None) for path in files}
    return [path for path in files if owners[path] == program.stem] or [path for path in files if owners[path] is None]


def _is_data_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] == _IDENTIFIER
    except OSError:
        return False

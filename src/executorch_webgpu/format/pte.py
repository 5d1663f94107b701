"""``.pte`` files: an ``ET12`` FlatBuffer, an extended header inside it, and the data segments after it.

The extended header follows the root offset and the identifier: ``eh00``, u32 length of the header (24, or 32
with the last field), u64 size of the FlatBuffer, u64 offset of the first segment, u64 size of all segments. A
file without it has no segments. Source: exir/_serialize/ of the executorch package.

Like ExecuTorch's own runtime, this reader takes ``ET12`` only: earlier schemas were not compatible.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from threading import get_ident
from types import MappingProxyType
from typing import Any, TypeVar, cast

from ..errors import InvalidProgramError, UnsupportedProgramError
from .bounds import check_index, damaged, extent
from .flatbuffer import read_root, write_root
from .mapped_file import MappedFile
from .program_checks import check_plan
from .program_schema import (
    BackendDelegate,
    DataLocation,
    DataSegment,
    ExecutionPlan,
    Program,
    SubsegmentOffsets,
    Tensor,
)

T = TypeVar("T")

_IDENTIFIER = b"ET12"
_HEADER_AT = 8
_HEADER = struct.Struct("<4sIQQQ")
_HEADER_MAGIC = b"eh00"
_SHORT_HEADER_SIZE = 24  # without the size of the segments
_SEGMENT_ALIGNMENT = 128


@dataclass(frozen=True)
class ProgramFile:
    """A program and its data: the tables, and views of the file, without copies.

    One made by ``read_program`` is checked: every index and every extent that it states is in range. ``external``:
    what separate data files hold for it, by name.
    """

    program: Program
    segments: tuple[memoryview, ...]
    named_data: Mapping[str, memoryview]
    external: Mapping[str, memoryview] = dataclasses.field(default_factory=dict)

    @property
    def data(self) -> Mapping[str, memoryview]:
        """Everything that has a name, in the file itself before what is in others."""
        return ChainMap(cast(Any, self.named_data), cast(Any, self.external))

    @property
    def methods(self) -> tuple[ExecutionPlan, ...]:
        return self.program.execution_plan

    def segment(self, index: int) -> memoryview:
        return self.segments[index]

    def delegate_data(self, delegate: BackendDelegate) -> memoryview:
        """The blob that the backend's exporter made."""
        index = delegate.processed.index
        if delegate.processed.location is DataLocation.INLINE:
            return self.program.backend_delegate_data[index].data
        return self.segments[index]

    def constant(self, tensor: Tensor) -> memoryview:
        """The ``tensor.nbytes`` bytes of a tensor for which ``is_constant`` is true.

        UnsupportedProgramError if they are in a separate file that is not there.
        """
        if tensor.is_external:
            name = tensor.extra_tensor_info.fully_qualified_name if tensor.extra_tensor_info else None
            if name is None or name not in self.data:
                raise UnsupportedProgramError(
                    f"the data of tensor '{name}' is in a separate .ptd file, which was not found: put it beside the "
                    "program, or name it in data_files"
                )
            return extent(self.data[name], 0, tensor.nbytes, f"the external tensor '{name}'")
        if self.program.constant_buffer:
            storage = _item(self.program.constant_buffer, tensor.data_buffer_idx, "constant buffer").storage
            return extent(storage, 0, tensor.nbytes, "a constant tensor")
        return self._subsegment(self.program.constant_segment, tensor, "constant")

    def first_value(self, tensor: Tensor) -> memoryview | None:
        """The ``tensor.nbytes`` bytes that planned memory begins with; None where the program states none.

        A buffer that a method only reads counts as a constant for the exporter, which may keep it elsewhere, or not at
        all, if another method writes it. UnsupportedProgramError if there is no separate file.
        """
        if tensor.allocation_info is not None and tensor.is_external:
            extra = tensor.extra_tensor_info
            absent = self.external and extra is not None and extra.fully_qualified_name not in self.data
            return None if absent else self.constant(tensor)
        return self.mutable_initial(tensor) if tensor.has_initial_state else None

    def mutable_initial(self, tensor: Tensor) -> memoryview:
        """The ``tensor.nbytes`` bytes that a tensor for which ``has_initial_state`` is true begins with."""
        index = tensor.extra_tensor_info.mutable_data_segments_idx if tensor.extra_tensor_info else 0
        offsets = _item(self.program.mutable_data_segments, index, "mutable data segment")
        return self._subsegment(offsets, tensor, "mutable")

    def _subsegment(self, table: SubsegmentOffsets | None, tensor: Tensor, what: str) -> memoryview:
        if table is None:
            raise damaged(f"a {what} tensor has no segment to be in")
        segment = _item(self.segments, table.segment_index, f"segment of {what} tensors")
        offset = _item(table.offsets, tensor.data_buffer_idx, f"{what} tensor's data")
        return extent(segment, offset, tensor.nbytes, f"a {what} tensor")


def is_program(path: Path) -> bool:
    """True when the file at ``path`` has the identifier of a program."""
    with path.open("rb") as file:
        return file.read(8)[4:6] == _IDENTIFIER[:2]


def open_program(path: str | PathLike[str]) -> tuple[MappedFile, ProgramFile]:
    """Map and read a ``.pte`` file; InvalidProgramError if there is no such file, or it is not a program.

    The caller closes the file, when the program's views are no longer in use.
    """
    file = MappedFile(path)
    try:
        return file, read_program(file.data)
    except BaseException:
        file.close()
        raise


def read_program(data: memoryview | bytes) -> ProgramFile:
    """Read and check a program, without copies of ``data``; InvalidProgramError if it is not one."""
    data = memoryview(data).cast("B")
    flatbuffer, segment_data = _split(data)
    program = read_root(Program, flatbuffer, _IDENTIFIER)
    segments = tuple(
        extent(segment_data, segment.offset, segment.size, f"segment {i}") for i, segment in enumerate(program.segments)
    )
    named_data: dict[str, memoryview] = {}
    for entry in program.named_data:
        if entry.key in named_data:
            raise damaged(f"the named data '{entry.key}' is there twice")
        named_data[entry.key] = _item(segments, entry.segment_index, "segment of named data")
    file = ProgramFile(program, segments, MappingProxyType(named_data))
    _check(file)
    return file


@dataclass(frozen=True)
class LazySegment:
    """A segment of ``size`` bytes, which ``pieces`` yields in order while the file is written."""

    size: int
    pieces: Callable[[], Iterable[bytes | memoryview]]


def write_program(program: Program, segments: Sequence[bytes | memoryview] = ()) -> bytes:
    """The file of ``program`` with the given ``segments``, to which its tables refer by index."""
    head, placed = _head(program, [len(segment) for segment in segments])
    body = bytearray()
    for place, segment in zip(placed, segments, strict=True):
        body += bytes(place.offset - len(body))
        body += segment
    return head + body


def save_program(
    path: str | PathLike[str],
    program: Program,
    segments: Sequence[bytes | memoryview | LazySegment],
    on_written: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the file that ``write_program`` gives, with no more than a piece of a segment in memory.

    The file appears under its name, or replaces what was there, when it is complete; whatever goes wrong before
    leaves the old state. ``on_written`` gets the number of bytes after each piece. InvalidProgramError if a
    segment is not as large as it said; OSError if the file cannot be written.
    """
    path = Path(path)
    head, placed = _head(program, [s.size if isinstance(s, LazySegment) else len(s) for s in segments])
    partial = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(head)
            for place, segment in zip(placed, segments, strict=True):
                file.write(bytes(len(head) + place.offset - file.tell()))
                for piece in segment.pieces() if isinstance(segment, LazySegment) else [segment]:
                    file.write(piece)
                    on_written(len(piece))
                if file.tell() != len(head) + place.offset + place.size:
                    written = file.tell() - len(head) - place.offset
                    raise InvalidProgramError(f"A segment of {place.size} bytes cannot be filled with {written}.")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _head(program: Program, sizes: Sequence[int]) -> tuple[bytes, list[DataSegment]]:
    """All of the file before the first segment, and where segments of these sizes go."""
    placed: list[DataSegment] = []
    end = 0
    for size in sizes:
        start = end + -end % _SEGMENT_ALIGNMENT
        placed.append(DataSegment(start, size))
        end = start + size
    flatbuffer = write_root(dataclasses.replace(program, segments=tuple(placed)), _IDENTIFIER)
    # The header goes in after the identifier. Its 32 bytes keep what follows aligned, but move the root.
    size = len(flatbuffer) + _HEADER.size
    base = size + -size % _SEGMENT_ALIGNMENT if sizes else 0
    root = int.from_bytes(flatbuffer[:4], "little") + _HEADER.size
    header = _HEADER.pack(_HEADER_MAGIC, _HEADER.size, size, base, end)
    head = root.to_bytes(4, "little") + _IDENTIFIER + header + flatbuffer[_HEADER_AT:]
    return head.ljust(base, b"\0"), placed


def _split(data: memoryview) -> tuple[memoryview, memoryview]:
    """(FlatBuffer, segments) of a file, by its extended header."""
    header = bytes(data[_HEADER_AT : _HEADER_AT + _HEADER.size])
    if header[:4] != _HEADER_MAGIC:
        return data, data[:0]
    _, length, size, base, segments_size = _HEADER.unpack(header.ljust(_HEADER.size, b"\0"))
    if length < _SHORT_HEADER_SIZE:
        raise damaged(f"the extended header has {length} bytes, less than {_SHORT_HEADER_SIZE}")
    if size < _HEADER_AT + length:
        raise damaged(f"the program's {size} bytes do not contain its own header")
    flatbuffer = extent(data, 0, size, "the program")
    if base == 0:
        return flatbuffer, data[:0]
    if base < size:
        raise damaged("the segments overlap the program")
    if length < _HEADER.size:
        return flatbuffer, extent(data, base, max(len(data) - base, 0), "the segments")
    return flatbuffer, extent(data, base, segments_size, "the segments")


def _check(file: ProgramFile) -> None:
    program = file.program
    if len({plan.name for plan in program.execution_plan}) < len(program.execution_plan):
        raise damaged("two methods of the program have the same name")
    for plan in program.execution_plan:
        check_plan(plan)
        for delegate in plan.delegates:
            inline = delegate.processed.location is DataLocation.INLINE
            count = len(program.backend_delegate_data) if inline else len(file.segments)
            check_index(delegate.processed.index, count, f"the data index of delegate '{delegate.id}'")
        for boxed in plan.values:
            tensor = boxed.value
            if not isinstance(tensor, Tensor):
                continue
            if tensor.is_constant and not tensor.is_external:
                file.constant(tensor)
            elif tensor.has_initial_state:
                file.mutable_initial(tensor)


def _item(items: Sequence[T], index: int, what: str) -> T:
    check_index(index, len(items), f"the index of a {what}")
    return items[index]

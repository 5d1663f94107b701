"""The types that a FlatBuffers field can have: how each is read, from bytes that may be hostile, and written.

Each offset and each length is checked, and the total that is followed is bounded by the size of the buffer,
so a hostile file in which many offsets share one target cannot expand.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from flatbuffers import number_types

from .bounds import damaged

_U8 = struct.Struct("<B")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_VTABLE_HEAD = struct.Struct("<HH")  # bytes of the vtable, bytes of the table

_FLAGS = {
    "?": number_types.BoolFlags,
    "b": number_types.Int8Flags,
    "B": number_types.Uint8Flags,
    "i": number_types.Int32Flags,
    "I": number_types.Uint32Flags,
    "q": number_types.Int64Flags,
    "Q": number_types.Uint64Flags,
    "d": number_types.Float64Flags,
}


class Kind(Protocol):
    """A type of field. Writing has two steps: ``stage`` what is outside the table, then ``put`` the slot."""

    @property
    def slots(self) -> int: ...
    def read(self, source: Source, row: Row, field: Field) -> Any: ...
    def stage(self, builder: Any, value: Any) -> Any: ...
    def put(self, builder: Any, slot: int, staged: Any) -> None: ...


@dataclass(frozen=True)
class Field:
    attribute: str
    where: str  # "Table.field", for messages
    slot: int
    kind: Kind


@dataclass(frozen=True)
class Layout:
    """A table: its dataclass, its fields in order, and how many slots they take."""

    cls: Any
    fields: tuple[Field, ...]
    slots: int


@dataclass(frozen=True, slots=True)
class Row:
    """One table in the buffer: where its fields lie."""

    position: int
    size: int
    offsets: tuple[int, ...]

    def at(self, slot: int, width: int, where: str) -> int:
        """Position of the ``width`` bytes in ``slot``, or 0 if the field is absent."""
        offset = self.offsets[slot] if slot < len(self.offsets) else 0
        if offset == 0:
            return 0
        if offset + width > self.size:
            raise damaged(f"{where} is outside its table")
        return self.position + offset


class Source:
    """A buffer to read from: every access is checked, and the sum of what is followed is bounded."""

    __slots__ = ("budget", "data", "size", "strings")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.size = len(data)
        # Writers may share a vector or a table between parents; twice the file is far above what they save.
        self.budget = 2 * len(data)
        self.strings: dict[int, str] = {}

    def spend(self, nbytes: int, where: str) -> None:
        self.budget -= nbytes
        if self.budget < 0:
            raise damaged(f"{where} makes the file expand to much more than its size")

    def unpack(self, codec: struct.Struct, position: int, where: str) -> int:
        if not 0 <= position <= self.size - codec.size:
            raise damaged(f"{where} points outside the file")
        number: int = codec.unpack_from(self.data, position)[0]
        return number

    def follow(self, position: int, where: str) -> int:
        """The target of the relative offset that is stored at ``position``."""
        return position + self.unpack(_U32, position, where)

    def vector(self, position: int, width: int, where: str) -> tuple[int, int]:
        """(position of the first element, number of elements) of the vector that ``position`` refers to."""
        start = self.follow(position, where)
        count = self.unpack(_U32, start, where)
        if count * width > self.size - start - 4:
            raise damaged(f"{where} has {count} elements, which do not fit in the file")
        return start + 4, count

    def table(self, layout: Layout, position: int) -> Any:
        name = layout.cls.__name__
        self.spend(4, name)
        vtable = position - self.unpack(_I32, position, name)
        if not 0 <= vtable <= self.size - 4:
            raise damaged(f"{name} points outside the file")
        vtable_size, table_size = _VTABLE_HEAD.unpack_from(self.data, vtable)
        if not (4 <= vtable_size <= self.size - vtable and 4 <= table_size <= self.size - position):
            raise damaged(f"{name} does not fit in the file")
        slots = min((vtable_size - 4) // 2, layout.slots)  # an older file may have fewer, a newer one more
        row = Row(position, table_size, struct.unpack_from(f"<{slots}H", self.data, vtable + 4))
        return layout.cls(*[field.kind.read(self, row, field) for field in layout.fields])


def write_table(builder: Any, layout: Layout, table: Any) -> int:
    """Add ``table`` to a ``flatbuffers.Builder``; returns its offset."""
    if not isinstance(table, layout.cls):
        raise TypeError(f"{type(table).__name__} is not a {layout.cls.__name__}")
    staged = [field.kind.stage(builder, getattr(table, field.attribute)) for field in layout.fields]
    builder.StartObject(layout.slots)
    for field, value in zip(layout.fields, staged, strict=True):
        field.kind.put(builder, field.slot, value)
    end: int = builder.EndObject()
    return end


class Number:
    """A number, or an enum over one."""

    slots = 1

    def __init__(self, code: str, absent: int, python_type: type) -> None:
        self.code = code
        self.codec = struct.Struct("<" + code)
        self.absent: Any = python_type(absent)
        self.members: dict[int, Any] = {}
        if issubclass(python_type, IntEnum):
            self.members = {member.value: member for member in python_type}

    def read(self, source: Source, row: Row, field: Field) -> Any:
        position = row.at(field.slot, self.codec.size, field.where)
        if not position:
            return self.absent
        value = self.codec.unpack_from(source.data, position)[0]
        if not self.members:
            return value
        if value not in self.members:
            raise damaged(f"{field.where} has the unknown value {value}")
        return self.members[value]

    def stage(self, builder: Any, value: Any) -> Any:
        return int(value) if self.members else value

    def put(self, builder: Any, slot: int, staged: Any) -> None:
        # A float is always written: a default of 0.0 would swallow the sign of -0.0.
        default = None if self.code == "d" else int(self.absent)
        builder.PrependSlot(_FLAGS[self.code], slot, staged, default)


class _Reference:
    """A slot that holds the offset of something that was staged before the table."""

    slots = 1

    def put(self, builder: Any, slot: int, staged: Any) -> None:
        if staged is not None:
            builder.PrependUOffsetTRelativeSlot(slot, staged, 0)


class String(_Reference):
    """UTF-8 text; a string that many fields share is decoded once."""

    def __init__(self, optional: bool) -> None:
        self.optional = optional

    def read(self, source: Source, row: Row, field: Field) -> str | None:
        position = row.at(field.slot, 4, field.where)
        if not position:
            _check_absent(self.optional, field)
            return None
        start, count = source.vector(position, 1, field.where)
        text = source.strings.get(start)
        if text is None:
            source.spend(count, field.where)
            try:
                text = str(source.data[start : start + count], "utf-8")
            except UnicodeDecodeError as error:
                raise damaged(f"{field.where} is not UTF-8 text") from error
            source.strings[start] = text
        return text

    def stage(self, builder: Any, value: str | None) -> int | None:
        return None if value is None else builder.CreateSharedString(value)


class Bytes(_Reference):
    """A vector of bytes, as a view of the buffer."""

    def __init__(self, align: int) -> None:
        self.align = align

    def read(self, source: Source, row: Row, field: Field) -> memoryview:
        position = row.at(field.slot, 4, field.where)
        if not position:
            return source.data[:0]
        start, count = source.vector(position, 1, field.where)
        return source.data[start : start + count]

    def stage(self, builder: Any, value: memoryview | bytes) -> int:
        return _write_vector(builder, bytes(value), 1, self.align)


class NumberVector(_Reference):
    def __init__(self, number: Number) -> None:
        self.number = number

    def read(self, source: Source, row: Row, field: Field) -> tuple[Any, ...]:
        position = row.at(field.slot, 4, field.where)
        if not position:
            return ()
        width = self.number.codec.size
        start, count = source.vector(position, width, field.where)
        source.spend(count * width, field.where)
        return struct.unpack_from(f"<{count}{self.number.code}", source.data, start)

    def stage(self, builder: Any, value: Sequence[Any]) -> int:
        width = self.number.codec.size
        return _write_vector(builder, struct.pack(f"<{len(value)}{self.number.code}", *value), width, width)


class TableVector(_Reference):
    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def read(self, source: Source, row: Row, field: Field) -> tuple[Any, ...]:
        position = row.at(field.slot, 4, field.where)
        if not position:
            return ()
        start, count = source.vector(position, 4, field.where)
        source.spend(4 * count, field.where)
        offsets = struct.unpack_from(f"<{count}I", source.data, start)
        return tuple([source.table(self.layout, start + 4 * i + offset) for i, offset in enumerate(offsets)])

    def stage(self, builder: Any, value: Sequence[Any]) -> int:
        offsets = [write_table(builder, self.layout, row) for row in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        end: int = builder.EndVector()
        return end


class SubTable(_Reference):
    def __init__(self, layout: Layout, optional: bool) -> None:
        self.layout = layout
        self.optional = optional

    def read(self, source: Source, row: Row, field: Field) -> Any:
        position = row.at(field.slot, 4, field.where)
        if not position:
            _check_absent(self.optional, field)
            return None
        return source.table(self.layout, source.follow(position, field.where))

    def stage(self, builder: Any, value: Any) -> int | None:
        return None if value is None else write_table(builder, self.layout, value)


class Union:
    """One of several tables: the member's number, counted from 1, and the offset of its table."""

    slots = 2

    def __init__(self, layouts: Sequence[Layout], optional: bool) -> None:
        self.layouts = layouts
        self.numbers = {layout.cls: i for i, layout in enumerate(layouts, start=1)}
        self.optional = optional

    def read(self, source: Source, row: Row, field: Field) -> Any:
        number_at = row.at(field.slot, 1, field.where)
        number = source.unpack(_U8, number_at, field.where) if number_at else 0
        if number == 0:
            _check_absent(self.optional, field)
            return None
        if number > len(self.layouts):
            raise damaged(f"{field.where} has the unknown type {number}")
        layout = self.layouts[number - 1]
        position = row.at(field.slot + 1, 4, field.where)
        if position:
            return source.table(layout, source.follow(position, field.where))
        if layout.fields:
            raise damaged(f"{field.where} has a type but no value")
        return layout.cls()  # a table without fields says all it has to say by its type

    def stage(self, builder: Any, value: Any) -> tuple[int, int | None]:
        if value is None:
            return 0, None
        if type(value) not in self.numbers:
            raise TypeError(f"{type(value).__name__} is not a member of the union")
        number = self.numbers[type(value)]
        return number, write_table(builder, self.layouts[number - 1], value)

    def put(self, builder: Any, slot: int, staged: tuple[int, int | None]) -> None:
        number, offset = staged
        builder.PrependUint8Slot(slot, number, 0)
        if offset is not None:
            builder.PrependUOffsetTRelativeSlot(slot + 1, offset, 0)


def _check_absent(optional: bool, field: Field) -> None:
    if not optional:
        raise damaged(f"{field.where} is missing")


def _write_vector(builder: Any, raw: bytes, width: int, align: int) -> int:
    builder.StartVector(width, len(raw) // width, align)
    builder.head -= len(raw)  # StartVector has made room for all elements
    builder.Bytes[builder.head : builder.head + len(raw)] = raw
    end: int = builder.EndVector()
    return end

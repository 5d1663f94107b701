"""FlatBuffers tables declared once, as frozen dataclasses, and both read and written from that declaration.

A table is a frozen dataclass; its fields, in schema order, are the table's slots. Annotations name the types:

    count: U32                          a number: BOOL, I8, U8, I32, U32, I64, U64, F64
    kind: Annotated[Kind, Scalar("b")]  an enum (IntEnum) over a number; ``absent`` is the schema's default
    name: str                           a string that must be there; ``str | None`` one that may be absent
    dims: tuple[I32, ...]               a vector of numbers
    data: Annotated[memoryview, Blob()] a ``[ubyte]`` vector, not copied; ``align`` is its force_align
    child: Child                        a table; ``Child | None`` one that may be absent
    rows: tuple[Row, ...]               a vector of tables; an absent vector reads as an empty one
    value: Int | Text | None            a union, members in schema order; it takes two slots

The default in the dataclass is for people who build tables. What an absent number means in the file is said
by ``Scalar.absent``, because the two may differ (an id of "none" is -1, but the schema's default is 0).

Source of the encoding: https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

import flatbuffers

from ..errors import InvalidProgramError
from . import wire_types as wire
from .bounds import damaged

T = TypeVar("T")


@dataclass(frozen=True)
class Scalar:
    """A number in the file: its ``struct`` code, and the value that an absent field stands for."""

    code: str
    absent: int = 0


@dataclass(frozen=True)
class Blob:
    """A ``[ubyte]`` vector that is handed out as a view; ``align`` is its alignment in bytes when written."""

    align: int = 1


BOOL = Annotated[bool, Scalar("?")]
I8 = Annotated[int, Scalar("b")]
U8 = Annotated[int, Scalar("B")]
I32 = Annotated[int, Scalar("i")]
U32 = Annotated[int, Scalar("I")]
I64 = Annotated[int, Scalar("q")]
U64 = Annotated[int, Scalar("Q")]
F64 = Annotated[float, Scalar("d")]


def read_root(cls: type[T], data: memoryview | bytes, file_identifier: bytes) -> T:
    """Read the root table ``cls`` and everything below it.

    Raises InvalidProgramError, and nothing else, for other bytes; the message names the field.
    """
    view = memoryview(data).cast("B")
    if len(view) < 8:
        raise damaged(f"{cls.__name__} needs more than {len(view)} bytes")
    identifier = bytes(view[4:8])
    if identifier != file_identifier:
        raise damaged(f"{cls.__name__} should begin with {file_identifier!r}, not with {identifier!r}")
    source = wire.Source(view)
    root: T = source.table(_layout(cast(Any, cls)), source.follow(0, cls.__name__))
    return root


def write_root(table: object, file_identifier: bytes) -> bytes:
    """The FlatBuffer with the root ``table``; InvalidProgramError if a value does not fit its field."""
    builder = flatbuffers.Builder(1024)
    try:
        layout = _layout(cast(Any, type(table)))
        builder.Finish(wire.write_table(builder, layout, table), file_identifier)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        name = type(table).__name__
        raise InvalidProgramError(f"{name} holds a value that its field cannot store: {error}.") from error
    return bytes(builder.Output())


@functools.cache
def _layout(cls: Any) -> wire.Layout:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields: list[wire.Field] = []
    slot = 0
    for field in dataclasses.fields(cls):
        kind = _kind(hints[field.name])
        fields.append(wire.Field(field.name, f"{cls.__name__}.{field.name}", slot, kind))
        slot += kind.slots
    return wire.Layout(cls, tuple(fields), slot)


def _kind(annotation: Any) -> wire.Kind:
    """What an annotation says, by the list in the module's docstring."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        python_type, marker = arguments
        return wire.Bytes(marker.align) if isinstance(marker, Blob) else _number(python_type, marker)
    if origin is tuple:
        element = arguments[0]
        if typing.get_origin(element) is Annotated:
            return wire.NumberVector(_number(*typing.get_args(element)))
        return wire.TableVector(_layout(element))
    optional = False
    if origin in (typing.Union, types.UnionType):
        optional = types.NoneType in arguments
        members = [member for member in arguments if member is not types.NoneType]
        if len(members) > 1:
            return wire.Union([_layout(member) for member in members], optional)
        annotation = members[0]
    return wire.String(optional) if annotation is str else wire.SubTable(_layout(annotation), optional)


def _number(python_type: type, scalar: Scalar) -> wire.Number:
    return wire.Number(scalar.code, scalar.absent, python_type)

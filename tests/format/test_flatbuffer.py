"""The declarative tables, both directions, and against the reader of the flatbuffers package."""

from __future__ import annotations

import dataclasses
import math
import struct
import types
import typing
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, cast

import pytest
from flatbuffers import number_types
from flatbuffers.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidProgramError
from executorch_webgpu.format.flatbuffer import I32, I64, U8, U32, Blob, Scalar, read_root, write_root
from executorch_webgpu.format.program_schema import Program
from executorch_webgpu.format.vkgraph import GraphTable

RANGES = {code: struct.calcsize("<" + code) * 8 for code in "bBiIqQ"}


def tables(cls: type) -> st.SearchStrategy[Any]:
    """Instances of a table class with all that its declaration allows."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return st.builds(cls, **{field.name: _values(hints[field.name]) for field in dataclasses.fields(cls)})


def _values(annotation: Any) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is types.NoneType:
        return st.none()
    if annotation is str:
        return st.text(max_size=5)
    if origin is Annotated:
        return _marked(*arguments)
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([_values(member) for member in arguments])
    return tables(annotation)


def _marked(python_type: type, marker: Scalar | Blob) -> st.SearchStrategy[Any]:
    if isinstance(marker, Blob):
        return st.binary(max_size=20).map(memoryview)
    if issubclass(python_type, IntEnum):
        return st.sampled_from(python_type)
    if marker.code == "?":
        return st.booleans()
    if marker.code == "d":
        return st.floats(allow_nan=False)
    bits = RANGES[marker.code]
    if marker.code.isupper():
        return st.integers(0, 2**bits - 1)
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tables(GraphTable))
def test_graphs_round_trip(table: GraphTable) -> None:
    assert read_root(GraphTable, write_root(table, b"VK00"), b"VK00") == table


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tables(Program))
def test_programs_round_trip(table: Program) -> None:
    assert read_root(Program, write_root(table, b"ET12"), b"ET12") == table


class Colour(IntEnum):
    RED = 0
    BLUE = 7


@dataclass(frozen=True)
class Leaf:
    number: I64 = 0


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Empty:
    """A table without fields."""


@dataclass(frozen=True)
class Root:
    name: str
    colour: Annotated[Colour, Scalar("b", absent=7)] = Colour.RED
    parent: I32 = -1
    small: tuple[U8, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    data: Annotated[memoryview, Blob(align=16)] = memoryview(b"")  # noqa: RUF009, it is immutable
    either: Leaf | Text | Empty | None = None
    size: U32 = 0


ROOT = Root("a name", Colour.BLUE, 0, (1, 2, 255), (Leaf(-5), Leaf(2**62)), memoryview(b"blob"), Text("x"), 2**32 - 1)


def test_the_flatbuffers_package_finds_what_we_wrote() -> None:
    data = write_root(ROOT, b"TEST")
    table = Table(data, struct.unpack_from("<I", data)[0])

    def at(slot: int) -> int:
        return table.Offset(4 + 2 * slot)

    assert data[4:8] == b"TEST"
    assert table.String(at(0) + table.Pos) == b"a name"
    assert at(1) == 0  # equal to the schema's default, hence absent
    assert at(2) == 0
    assert [table.Get(number_types.Uint8Flags, table.Vector(at(3)) + i) for i in range(3)] == [1, 2, 255]
    assert table.VectorLen(at(4)) == 2
    leaf = Table(data, table.Indirect(table.Vector(at(4)) + 4))
    assert leaf.Get(number_types.Int64Flags, leaf.Offset(4) + leaf.Pos) == 2**62
    assert table.Vector(at(5)) % 16 == 0
    assert table.Get(number_types.Uint8Flags, at(6) + table.Pos) == 2
    member = Table(data, table.Indirect(at(7) + table.Pos))
    assert member.String(member.Offset(4) + member.Pos) == b"x"
    assert table.Get(number_types.Uint32Flags, at(8) + table.Pos) == 2**32 - 1


def test_the_wire_default_is_not_the_python_default() -> None:
    # A table with an empty vtable but for the name: everything else is absent.
    name = struct.pack("<I4s", 1, b"n\0\0\0")
    vtable = struct.pack("<HHH2x", 6, 8, 4)
    data = struct.pack("<I4s", 16, b"TEST") + vtable + struct.pack("<iI", 8, 4) + name
    assert read_root(Root, data, b"TEST") == Root("n", Colour.BLUE, parent=0)


def test_byte_vectors_are_views() -> None:
    data = bytearray(write_root(ROOT, b"TEST"))
    view = read_root(Root, memoryview(data), b"TEST").data
    data[data.index(b"blob")] = ord("B")
    assert bytes(view) == b"Blob"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:7], "more than 7 bytes"),
        (lambda data: data[:4] + b"WRNG" + data[8:], "b'TEST', not with b'WRNG'"),
        (lambda data: struct.pack("<I", 2**32 - 1) + data[4:], "Root points outside"),
        (lambda data: data.replace(b"a name", b"\xff name"), "Root.name is not UTF-8"),
    ],
)
def test_damage_is_named(damage: Any, message: str) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        read_root(Root, damage(write_root(ROOT, b"TEST")), b"TEST")


def test_an_unknown_enum_value_names_its_field() -> None:
    @dataclass(frozen=True)
    class Wide:
        name: str
        colour: Annotated[int, Scalar("b")]

    with pytest.raises(InvalidProgramError, match=r"Root\.colour has the unknown value 3"):
        read_root(Root, write_root(Wide("n", 3), b"TEST"), b"TEST")


def test_a_missing_string_names_its_field() -> None:
    @dataclass(frozen=True)
    class Optional:
        name: str | None

    with pytest.raises(InvalidProgramError, match=r"Root\.name is missing"):
        read_root(Root, write_root(Optional(None), b"TEST"), b"TEST")


def test_a_member_without_fields_needs_no_table() -> None:
    @dataclass(frozen=True)
    class Tagged:
        either: Leaf | Text | Empty

    @dataclass(frozen=True)
    class Tag:
        number: U8

    assert read_root(Tagged, write_root(Tag(3), b"TEST"), b"TEST") == Tagged(Empty())
    with pytest.raises(InvalidProgramError, match="a type but no value"):
        read_root(Tagged, write_root(Tag(2), b"TEST"), b"TEST")
    with pytest.raises(InvalidProgramError, match="unknown type 4"):
        read_root(Tagged, write_root(Tag(4), b"TEST"), b"TEST")


@pytest.mark.parametrize("wrong", [Root("n", size=-1), Root("n", small=(256,)), Root("n", either=cast(Any, ROOT))])
def test_what_a_field_cannot_store_is_not_written(wrong: Root) -> None:
    with pytest.raises(InvalidProgramError, match="Root holds a value that its field cannot store"):
        write_root(wrong, b"TEST")


@dataclass(frozen=True)
class Level0:
    numbers: tuple[I64, ...]


@dataclass(frozen=True)
class Level1:
    below: tuple[Level0, ...]


@dataclass(frozen=True)
class Level2:
    below: tuple[Level1, ...]


def test_shared_offsets_do_not_expand() -> None:
    # Each level has 100 offsets to one table below it: 13 KB that stand for 8 million numbers.
    width = 100
    data = bytearray(struct.pack("<I4s", 16, b"TEST") + struct.pack("<HHH2x", 6, 8, 4))
    for _ in range(2):
        table = len(data)
        vector = struct.pack("<I", width)
        target = table + 8 + 4 + 4 * width
        offsets = b"".join(struct.pack("<I", target - (table + 12 + 4 * i)) for i in range(width))
        data += struct.pack("<iI", table - 8, 4) + vector + offsets
    data += struct.pack("<iI", len(data) - 8, 4) + struct.pack("<I", 1000) + bytes(8000)
    with pytest.raises(InvalidProgramError, match="expand"):
        read_root(Level2, bytes(data), b"TEST")


def test_a_negative_zero_keeps_its_sign() -> None:
    @dataclass(frozen=True)
    class Number:
        value: Annotated[float, Scalar("d")]

    assert math.copysign(1, read_root(Number, write_root(Number(-0.0), b"TEST"), b"TEST").value) == -1

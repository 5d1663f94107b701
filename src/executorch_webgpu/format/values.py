"""The plain values that programs and delegate graphs have in common, as tables."""

from __future__ import annotations

from dataclasses import dataclass

from .flatbuffer import BOOL, F64, I64


@dataclass(frozen=True, slots=True)
class Null:
    """No value: an optional argument that was not given."""


@dataclass(frozen=True, slots=True)
class Int:
    value: I64 = 0


@dataclass(frozen=True, slots=True)
class Bool:
    value: BOOL = False


@dataclass(frozen=True, slots=True)
class Double:
    value: F64 = 0.0


@dataclass(frozen=True, slots=True)
class String:
    value: str


@dataclass(frozen=True, slots=True)
class IntList:
    items: tuple[I64, ...] = ()


@dataclass(frozen=True, slots=True)
class DoubleList:
    items: tuple[F64, ...] = ()


@dataclass(frozen=True, slots=True)
class BoolList:
    items: tuple[BOOL, ...] = ()

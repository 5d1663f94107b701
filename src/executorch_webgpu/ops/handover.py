"""What a call may leave to the only one that reads it: rows that are float16 already, as its tensor cores take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .values import Repacked


@dataclass(frozen=True)
class SplitForm:
    """Rows [m, K] as float16 for tensor cores, [K / depth, m, parts, depth]: each element is the sum of ``parts``.

    ``pairs``: eights along K are in the order of the pairs of codes of so many bits, or as they come; 0.
    """

    parts: int
    depth: int
    pairs: int


@dataclass(frozen=True)
class SplitRows:
    """Elements in a ``SplitForm``, times one power of two: ``power`` is [its inverse, itself, 0, 0], float32."""

    form: SplitForm
    power: Repacked


class Reader(Protocol):
    """The only call that reads an output: a product that takes it as float32 or, where ``form`` says so, split."""

    def form(self, rows: int, width: int) -> SplitForm | None:
        """What it takes of so many rows of ``width`` elements."""

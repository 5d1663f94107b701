"""Read the key/value header of a GGUF file, without its tensors.

A tokenizer needs two lists of about 50,000 strings. ``gguf.GGUFReader`` makes several NumPy views for each
string, which takes seconds at every start; reading the header in order takes a tenth of one.

Layout (little-endian, version 2 and 3): ``GGUF``, u32 version, u64 tensors, u64 pairs, then the pairs, each
a string key, a u32 type and a value. A string is a u64 length and UTF-8 bytes; an array is a u32 element
type, a u64 count and the elements. Source: the GGUF specification of the ggml project.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError

MAGIC = b"GGUF"
# GGUF value type -> struct format of one element.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


def is_gguf(path: Path) -> bool:
    """True when the file starts with GGUF's magic bytes."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_gguf_metadata(path: Path) -> dict[str, Any]:
    """Every key of the header with its value: int, float, bool, str, or a list of one of these.

    Raises InvalidInputError when the header is truncated or malformed.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = _Header(data)
        try:
            return header.read()
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise InvalidInputError(
                f"{path} is not a readable GGUF file (byte {header.position}: {error}); download it again"
            ) from error


class _Header:
    """A position that moves over the bytes; reading past the end raises struct.error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = len(MAGIC)

    def read(self) -> dict[str, Any]:
        version, _tensors, pairs = self.numbers("I", 1) + self.numbers("Q", 2)
        if version not in (2, 3):
            raise ValueError(f"version {version}, not 2 or 3")
        # Each pair consumes bytes, so a forged count ends at the end of the file.
        return {self.string(): self.value(self.numbers("I", 1)[0]) for _ in range(pairs)}

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            (element,), (count,) = self.numbers("I", 1), self.numbers("Q", 1)
            if element == STRING:
                return [self.string() for _ in range(count)]
            return list(self.numbers(self.format(element), count))
        return self.numbers(self.format(kind), 1)[0]

    def format(self, kind: int) -> str:
        if kind not in NUMBERS:
            raise ValueError(f"unknown value type {kind}")
        return NUMBERS[kind]

    def string(self) -> str:
        (length,) = self.numbers("Q", 1)
        return self.take(length).decode("utf-8")

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        size = struct.calcsize("<" + code)
        return struct.unpack(f"<{count}{code}", self.take(count * size))

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise ValueError(f"{size} bytes are announced, {len(self.data) - self.position} are left")
        taken = self.data[self.position : end]
        self.position = end
        return taken

"""The header of a GGUF file: its keys with their values, and where its tensors are.

``gguf.GGUFReader`` makes several NumPy views for each string of the vocabulary, which takes seconds at every start;
reading the header in order takes a tenth of one.

Layout (little-endian, version 2 and 3): ``GGUF``, u32 version, u64 tensors, u64 pairs; then the pairs, each a string
key, a u32 type and a value; then for each tensor a string name, u32 number of dims, u64 dims (the fastest first), u32
type and u64 offset, which counts from the first multiple of the alignment after the header. A string is a u64 length
and UTF-8 bytes; an array is a u32 element type, a u64 count and the elements. Source: the GGUF specification of the
ggml project.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidProgramError
from .mapped_file import MappedFile

MAGIC = b"GGUF"
# GGUF value type -> struct format of one element.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's name, dims (the fastest last), ggml type number, and first byte in the file."""

    name: str
    dims: tuple[int, ...]
    type: int
    start: int


@dataclass(frozen=True)
class GgufHeader:
    """``metadata``: every key with its value: int, float, bool, str, or a list of one of these."""

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]


def is_gguf(path: Path) -> bool:
    """True when the file starts with GGUF's magic bytes."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_gguf_header(path: Path) -> GgufHeader:
    """The header of the file at ``path``; see ``read_gguf_header``. Also InvalidProgramError if there is no file."""
    with MappedFile(path) as file:
        return read_gguf_header(file.data, path)


def read_gguf_header(data: memoryview, path: Path) -> GgufHeader:
    """The header that the bytes of a file begin with. ``path`` is for messages.

    Raises InvalidProgramError when it is no GGUF header, or a truncated or malformed one.
    """
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise InvalidProgramError(f"{path} is not a GGUF file: name one, or convert the model to GGUF first")
    reader = _Reader(data)
    try:
        return reader.header()
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise InvalidProgramError(
            f"{path} is not a readable GGUF file (byte {reader.position}: {error}); download it again"
        ) from error


class _Reader:
    """A position that moves over the bytes; reading past the end raises ValueError."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = len(MAGIC)

    def header(self) -> GgufHeader:
        version = self.number("I")
        if version not in (2, 3):
            raise ValueError(f"version {version}, not 2 or 3")
        tensor_count, pairs = self.numbers("Q", 2)
        # Each pair and each tensor consumes bytes, so a forged count ends at the end of the file.
        metadata = {self.string(): self.value(self.number("I")) for _ in range(pairs)}
        found = [self.tensor() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"an alignment of {alignment}")
        base = self.position + -self.position % alignment
        return GgufHeader(metadata, tuple(GgufTensor(t.name, t.dims, t.type, base + t.start) for t in found))

    def tensor(self) -> GgufTensor:
        name, rank = self.string(), self.number("I")
        dims = self.numbers("Q", rank)
        return GgufTensor(name, dims[::-1], self.number("I"), self.number("Q"))

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, count = self.number("I"), self.number("Q")
            if element == STRING:
                return [self.string() for _ in range(count)]
            return list(self.numbers(self.format(element), count))
        return self.number(self.format(kind))

    def format(self, kind: int) -> str:
        if kind not in NUMBERS:
            raise ValueError(f"unknown value type {kind}")
        return NUMBERS[kind]

    def string(self) -> str:
        return bytes(self.take(self.number("Q"))).decode("utf-8")

    def number(self, code: str) -> Any:
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        size = struct.calcsize("<" + code)
        return struct.unpack(f"<{count}{code}", self.take(count * size))

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self.data):
            raise ValueError(f"{size} bytes are announced, {len(self.data) - self.position} are left")
        taken = self.data[self.position : end]
        self.position = end
        return taken

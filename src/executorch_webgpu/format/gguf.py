"""The header of a GGUF file: its keys with their values, and where its tensors are.

``gguf.GGUFReader`` makes several NumPy views for each string of the vocabulary, which takes seconds at every start;
reading the header in order takes a tenth of one.

Layout (version 2 and 3; little-endian, or all of it big-endian): ``GGUF``, u32 version, u64 tensors, u64 pairs; then
the pairs, each a string key, a u32 type and a value; then for each tensor a string name, u32 number of dims, u64 dims
(the fastest first), u32 type and u64 offset, which counts from the first multiple of the alignment after the header. A
string is a u64 length and UTF-8 bytes; an array is a u32 element type, a u64 count and the elements. Source: the GGUF
specification of the ggml project.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import InvalidProgramError
from .mapped_file import MappedFile, check_is_whole

MAGIC = b"GGUF"
# GGUF value type -> struct format of one element.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
MAX_DIMS = 4  # ggml's own limit
MAX_NESTING = 4  # arrays of arrays; no writer is known to make any
ByteOrder = Literal["little", "big"]
_STRUCT_ORDER: dict[ByteOrder, str] = {"little": "<", "big": ">"}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's name, dims (the fastest last), ggml type number, and first byte in the file."""

    name: str
    dims: tuple[int, ...]
    type: int
    start: int


@dataclass(frozen=True)
class GgufHeader:
    """``metadata``: every key with its value: int, float, bool, str, or a list of one of these.

    A string that is not UTF-8 has its stray bytes as Python's ``surrogateescape`` writes them, so that
    ``text.encode("utf-8", "surrogateescape")`` are the file's own bytes.
    """

    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    byte_order: ByteOrder = "little"


class _CutOffError(ValueError):
    """The file ends where more is announced."""


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

    Raises InvalidProgramError when it is no GGUF header, one of another version, or a truncated or malformed one.
    """
    check_is_whole(data, path)
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise InvalidProgramError(f"{path} is not a GGUF file: name one, or convert the model to GGUF first")
    reader = _Reader(data, path)
    try:
        return reader.header()
    except _CutOffError as error:
        raise InvalidProgramError(
            f"{path} is not a readable GGUF file, it is cut off (byte {reader.position}: {error}): download it again"
        ) from error
    except (struct.error, ValueError) as error:
        raise InvalidProgramError(
            f"{path} is not a readable GGUF file (byte {reader.position}: {error}): make it again with current tools, "
            "or use another copy"
        ) from error


class _Reader:
    """A position that moves over the bytes; reading past the end raises _CutOffError."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data, self.path = data, path
        self.position = len(MAGIC)
        self.byte_order: ByteOrder = "little"

    def header(self) -> GgufHeader:
        self.version()
        tensor_count, pairs = self.numbers("Q", 2)
        # Each pair and each tensor consumes bytes, so a forged count ends at the end of the file.
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self.name()
            if key in metadata:
                raise ValueError(f"the key {key!r} is there twice")
            metadata[key] = self.value(self.number("I"))
        found = [self.tensor() for _ in range(tensor_count)]
        if len({tensor.name for tensor in found}) != len(found):
            raise ValueError("two tensors have one name")
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT:
            raise ValueError(f"an alignment of {alignment!r}")
        base = self.position + -self.position % alignment
        tensors = tuple(GgufTensor(t.name, t.dims, t.type, base + t.start) for t in found)
        return GgufHeader(metadata, tensors, self.byte_order)

    def version(self) -> None:
        """Read the version, which also tells the byte order: as a number it is small."""
        raw = bytes(self.take(4))
        little, big = int.from_bytes(raw, "little"), int.from_bytes(raw, "big")
        self.byte_order = "little" if little <= big else "big"
        version = min(little, big)
        if version not in (2, 3):
            raise InvalidProgramError(
                f"{self.path} is GGUF of version {version}, and versions 2 and 3 are read here: convert the model to "
                "GGUF again with current tools"
            )

    def tensor(self) -> GgufTensor:
        name, rank = self.name(), self.number("I")
        if not 1 <= rank <= MAX_DIMS:
            raise ValueError(f"the tensor {name!r} has {rank} dimensions, not 1 to {MAX_DIMS}")
        dims = self.numbers("Q", rank)
        if not all(0 < dim < 1 << 63 for dim in dims):
            raise ValueError(f"the tensor {name!r} has the sizes {list(dims[::-1])}")
        return GgufTensor(name, dims[::-1], self.number("I"), self.number("Q"))

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, count = self.number("I"), self.number("Q")
            if element == STRING:
                return [self.string() for _ in range(count)]
            if element == ARRAY:
                if depth == MAX_NESTING:
                    raise ValueError("arrays are nested too deeply")
                return [self.value(ARRAY, depth + 1) for _ in range(count)]
            return list(self.numbers(self.format(element), count))
        return self.number(self.format(kind))

    def format(self, kind: int) -> str:
        if kind not in NUMBERS:
            raise ValueError(f"unknown value type {kind}")
        return NUMBERS[kind]

    def name(self) -> str:
        """A key or a tensor's name, by which others look for it."""
        raw = bytes(self.take(self.number("Q")))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"the name {raw[:80]!r} is not utf-8") from error

    def string(self) -> str:
        return bytes(self.take(self.number("Q"))).decode("utf-8", "surrogateescape")

    def number(self, code: str) -> Any:
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        order = _STRUCT_ORDER[self.byte_order]
        size = struct.calcsize(order + code)
        taken = self.take(count * size)
        return struct.unpack(f"{order}{count}{code}", taken)

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self.data):
            raise _CutOffError(f"{size} bytes are announced, {len(self.data) - self.position} are left")
        taken = self.data[self.position : end]
        self.position = end
        return taken

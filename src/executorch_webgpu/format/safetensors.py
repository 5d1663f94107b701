"""The header of a safetensors file: its tensors, and where their bytes are.

The ``safetensors`` library gives whole tensors: its NumPy side has no bfloat16, and no way to hand back the pages of
rows that were read. So the header is read here, and the bytes straight from the mapped file.

Layout: u64 (little-endian) length of the header; the header, UTF-8 JSON: name -> ``dtype``, ``shape`` (the fastest
last) and ``data_offsets`` [begin, end), which count from the header's end; then the tensors' bytes, little-endian and
without gaps. ``__metadata__`` is no tensor. Source: the format's description in the safetensors project.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from ..errors import InvalidProgramError
from .bounds import MAX_RANK
from .mapped_file import check_is_whole

# dtype -> bits of an element.
BITS = {
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8},
    **{"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16},
    **{"U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64},
}
MAX_HEADER_NBYTES = 100_000_000  # the library's own limit
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class SafetensorsTensor:
    """A tensor's dtype by the format's name, dims (the fastest last), first byte in the file, and size."""

    dtype: str
    dims: tuple[int, ...]
    start: int
    nbytes: int


def read_safetensors_header(data: memoryview, path: Path) -> dict[str, SafetensorsTensor]:
    """The tensors by name. ``data``: all bytes of the file; ``path`` is for messages.

    Raises InvalidProgramError when it is no safetensors file, or a truncated or malformed one.
    """
    check_is_whole(data, path)
    try:
        return _header(data)
    except _CutOffError as error:
        raise InvalidProgramError(
            f"{path} is not a readable safetensors file, it is cut off ({error}): download it again."
        ) from error
    except ValueError as error:
        raise InvalidProgramError(
            f"{path} is not a readable safetensors file ({error}): save it again, or use another copy."
        ) from error


class _CutOffError(ValueError):
    """The file ends where more is announced."""


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object that ``data`` is. ValueError if it is none or has a key twice, which readers take differently."""
    value = json_value(data)
    if not isinstance(value, dict):
        raise ValueError("its JSON is not an object")
    return value


def json_value(data: bytes) -> Any:
    """What ``data`` is in JSON. ValueError if it is not JSON, or an object in it has a key twice."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _header(data: memoryview) -> dict[str, SafetensorsTensor]:
    if len(data) < _LENGTH.size:
        raise _CutOffError(f"its {len(data)} bytes are no header")
    (length,) = _LENGTH.unpack_from(data)
    base = _LENGTH.size + length
    if length > MAX_HEADER_NBYTES:
        raise ValueError(f"a header of {length} bytes is announced")
    if base > len(data):
        raise _CutOffError(f"a header of {length} bytes is announced, in a file of {len(data)}")
    entries = json_object(bytes(data[_LENGTH.size : base]))
    if not isinstance(entries.pop("__metadata__", {}), dict):
        raise ValueError("its metadata is not an object")
    tensors = {name: _tensor(name, entry, base) for name, entry in entries.items()}
    end = base
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if tensor.start != end:
            raise ValueError(f"the tensor {name!r} begins at byte {tensor.start}, the one before it ends at {end}")
        end += tensor.nbytes
    if end != len(data):
        kind = _CutOffError if end > len(data) else ValueError
        raise kind(f"its tensors end at byte {end}, the file at {len(data)}")
    return tensors


def _tensor(name: str, entry: Any, base: int) -> SafetensorsTensor:
    if not isinstance(entry, dict):
        raise ValueError(f"the tensor {name!r} is not described by an object")
    dtype, dims, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"the tensor {name!r} has the unknown dtype {dtype!r}")
    if not _are_sizes(dims) or len(dims) > MAX_RANK or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"the tensor {name!r} has the shape {dims} and the offsets {offsets}")
    begin, end = offsets
    if math.prod(dims) * BITS[dtype] != (end - begin) * 8:
        raise ValueError(f"the tensor {name!r} is {dims} of {dtype}, which is not {end - begin} bytes")
    return SafetensorsTensor(dtype, tuple(dims), base + begin, end - begin)


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)

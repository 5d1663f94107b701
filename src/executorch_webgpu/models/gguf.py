"""Models in GGUF files: the configuration out of the metadata, the weights out of the mapped file.

Architectures: ``llama`` (Llama, Mistral, SmolLM2, …; converters to GGUF reorder its query and key rows, so that the
rope's pairs are neighbours), ``qwen2`` and ``qwen3`` (not reordered: pairs are halves). A model may be split into
several files, and its files may be big-endian.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format.gguf import GgufHeader, GgufTensor, read_gguf_header
from ..format.gguf_parts import check_parts, gguf_parts
from ..format.mapped_file import MappedFile
from .gguf_blocks import GROUP, Codes, code_bits, split_blocks
from .gguf_bytes import ALWAYS_SWAPPED, are_byteswapped, byteswapped
from .gguf_config import ROPE_DIVISORS, read_config, rope_divisors
from .llama import SourceModel, check_weights
from .weights import Blocks, Floats, Weight

_Type = gguf.GGMLQuantizationType
TYPES = {
    kind.value: kind
    for kind in (
        *(_Type.F32, _Type.F16, _Type.BF16, _Type.Q8_0, _Type.Q4_0, _Type.Q4_1, _Type.Q5_0, _Type.Q5_1),
        *(_Type.Q4_K, _Type.Q5_K, _Type.Q6_K),
    )
}
T = TypeVar("T")
_SAMPLED_ROWS = 8


@dataclass(frozen=True)
class _Stored:
    """A tensor where its file has it."""

    file: MappedFile
    path: Path
    tensor: GgufTensor

    @property
    def row_bytes(self) -> int:
        block, block_bytes = gguf.GGML_QUANT_SIZES[TYPES[self.tensor.type]]
        return self.tensor.dims[-1] // block * block_bytes

    def rows(self, first: int, last: int, use: Callable[[NDArray[np.uint8]], T]) -> T:
        """What ``use`` makes of the bytes [rows, row bytes] of some rows, whose pages then go."""
        start, row_bytes = self.tensor.start, self.row_bytes
        view = self.file.data[start + first * row_bytes : start + last * row_bytes]
        result = use(np.frombuffer(view, np.uint8).reshape(last - first, row_bytes))
        self.file.release(view)
        return result


@contextmanager
def open_gguf(path: str | PathLike[str]) -> Iterator[SourceModel]:
    """Open a model, and close it at the end of the ``with`` block.

    ``path``: a GGUF file, or any part of a split one. InvalidProgramError if the file is no GGUF or contradicts itself,
    or a part is missing; UnsupportedProgramError, which names it, for an architecture, a key, a feature or a tensor
    that is not here.
    """
    with opened_gguf(path) as (metadata, weights):
        divisors = weights.pop(ROPE_DIVISORS, None)
        config = read_config(metadata, weights)
        check_weights(config, {name: weight.dims for name, weight in weights.items()}, "GGUF file")
        yield SourceModel(rope_divisors(metadata, divisors, config), weights)


@contextmanager
def opened_gguf(path: str | PathLike[str]) -> Iterator[tuple[Mapping[str, Any], dict[str, Weight]]]:
    """(metadata, tensors by name) of a file and all its parts, which are open in the ``with`` block."""
    with ExitStack() as files:
        headers: dict[Path, GgufHeader] = {}
        stored: dict[str, _Stored] = {}
        for part in gguf_parts(Path(path)):
            file = files.enter_context(MappedFile(part))
            headers[part] = read_gguf_header(file.data, part)
            stored |= {tensor.name: _Stored(file, part, tensor) for tensor in headers[part].tensors}
        check_parts(headers)
        first = next(iter(headers.values()))
        for one in stored.values():
            _check(one)
        yield first.metadata, _weights(stored, headers)


def _check(stored: _Stored) -> None:
    """The type of a tensor is read here, and the file has all of it."""
    tensor = stored.tensor
    if tensor.type not in TYPES:
        raise UnsupportedProgramError(
            f"The tensor {tensor.name!r} is of type {_type_name(tensor.type)}, which is not read here: use a file of "
            f"one of {', '.join(kind.name for kind in TYPES.values())}."
        )
    kind, dims = TYPES[tensor.type], tensor.dims
    if dims[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        raise InvalidProgramError(
            f"The tensor {tensor.name!r} is {list(dims)} of {kind.name}, whose rows are not whole blocks: convert the "
            "model to GGUF again."
        )
    if tensor.start + math.prod(dims[:-1]) * stored.row_bytes > len(stored.file.data):
        raise InvalidProgramError(f"{stored.path} ends before its tensor {tensor.name!r} does: download it again.")


def _weights(stored: Mapping[str, _Stored], headers: Mapping[Path, GgufHeader]) -> dict[str, Weight]:
    _check_overlaps(stored)
    big = {path for path, header in headers.items() if header.byte_order == "big"}
    # Asked once for all: only many factors together tell.
    others_too = not big or are_byteswapped(
        (one.tensor.type, one.rows(0, min(_SAMPLED_ROWS, math.prod(one.tensor.dims[:-1])), np.copy))
        for one in stored.values()
        if one.path in big
    )
    return {
        name: _weight(one, big_endian=one.path in big and (others_too or one.tensor.type in ALWAYS_SWAPPED))
        for name, one in stored.items()
    }


def _check_overlaps(stored: Mapping[str, _Stored]) -> None:
    ends: dict[Path, tuple[int, str]] = {}
    for name, one in sorted(stored.items(), key=lambda item: item[1].tensor.start):
        end, before = ends.get(one.path, (0, ""))
        if one.tensor.start < end:
            raise InvalidProgramError(
                f"{one.path} has the tensor {name!r} in the place of {before!r}: convert the model to GGUF again."
            )
        ends[one.path] = one.tensor.start + math.prod(one.tensor.dims[:-1]) * one.row_bytes, name


def _weight(stored: _Stored, *, big_endian: bool) -> Weight:
    """The tensor as a Weight, which dequantizes the rows that are asked for and then lets their pages go.

    ``big_endian``: its numbers are big-endian.
    """
    tensor = stored.tensor
    kind = TYPES[tensor.type]

    def little(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return byteswapped(rows, tensor.type) if big_endian else rows

    def read(first: int, last: int) -> Floats:
        return stored.rows(first, last, lambda rows: gguf.dequantize(little(rows), kind).astype(np.float32, copy=True))

    def codes(first: int, last: int) -> Codes:
        return stored.rows(first, last, lambda rows: split_blocks(little(rows).copy(), tensor.type))

    bits = code_bits(tensor.type)
    return Weight(tensor.name, tensor.dims, read, Blocks(bits, GROUP, codes) if bits else None)


def _type_name(number: int) -> str:
    try:
        return str(_Type(number).name)
    except ValueError:
        return str(number)

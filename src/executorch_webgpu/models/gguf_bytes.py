"""The stored bytes of a GGUF file's tensors in little-endian order, whatever order the file has.

In a big-endian file every number of several bytes is stored the other way round: whole elements of F32, F16 and BF16;
of a quantized block its float16 factors and the 32 high bits of Q5_0 and Q5_1, which that machine's memory holds as
one number.
"""

from __future__ import annotations

from collections.abc import Iterable

import gguf
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_Type = gguf.GGMLQuantizationType
# (first byte, number of bytes) of every number in a block of a type that has more than one byte.
_FIELDS: dict[int, tuple[tuple[int, int], ...]] = {
    _Type.F32.value: ((0, 4),),
    _Type.F16.value: ((0, 2),),
    _Type.BF16.value: ((0, 2),),
    _Type.Q8_0.value: ((0, 2),),
    _Type.Q4_0.value: ((0, 2),),
    _Type.Q4_1.value: ((0, 2), (2, 2)),
    _Type.Q5_0.value: ((0, 2), (2, 4)),
    _Type.Q5_1.value: ((0, 2), (2, 2), (4, 4)),
    _Type.Q4_K.value: ((0, 2), (2, 2)),
    _Type.Q5_K.value: ((0, 2), (2, 2)),
    _Type.Q6_K.value: ((208, 2),),
}
ALWAYS_SWAPPED = (_Type.F32.value, _Type.F16.value)
_ENOUGH = 256  # numbers of a tensor that tell the order of a file


def byteswapped(rows: Bytes, type: int) -> Bytes:
    """The bytes [rows, row bytes] of a tensor, with the bytes of each of their numbers reversed."""
    _, size = gguf.GGML_QUANT_SIZES[_Type(type)]
    blocks = rows.reshape(len(rows), -1, size).copy()
    for first, count in _FIELDS[type]:
        blocks[..., first : first + count] = blocks[..., first : first + count][..., ::-1].copy()
    return blocks.reshape(rows.shape)


def are_byteswapped(tensors: Iterable[tuple[int, Bytes]]) -> bool:
    """Whether BF16 and the quantized blocks of a big-endian file are big-endian, too.

    They are by the format, and writers that pass them through as bytes leave them as they were: ``gguf.GGUFWriter``
    does. Weights and their factors differ by little, so their exponents do in the right order, and are noise in the
    wrong one. ``tensors``: (type, some bytes [rows, row bytes]) of each.
    """
    samples = [(type, _sample(rows, type)) for type, rows in tensors if type not in ALWAYS_SWAPPED]
    if not samples:
        return True
    return _spread(samples, "<u2") >= _spread(samples, ">u2")


def _sample(rows: Bytes, type: int) -> Bytes:
    """The bytes [numbers, 2] of the first number of each block."""
    _, size = gguf.GGML_QUANT_SIZES[_Type(type)]
    (first, _), *_ = _FIELDS[type]
    return np.ascontiguousarray(rows.reshape(-1, size)[:_ENOUGH, first : first + 2])


def _spread(samples: Iterable[tuple[int, Bytes]], order: str) -> float:
    """How far exponents lie apart when read in this order, with what no weight has far away."""
    exponents = []
    for type, raw in samples:
        words = raw.view(order)[:, 0].astype(np.uint16)
        wide = words.astype(np.uint32) << 16
        numbers = wide.view(np.float32) if type == _Type.BF16.value else words.view(np.float16).astype(np.float32)
        with np.errstate(all="ignore"):
            found = np.log2(np.abs(numbers[numbers != 0]))
        exponents.append(np.where(np.isfinite(found), found, 64))
    used = np.concatenate(exponents)
    return float(np.std(used)) if len(used) else 0.0

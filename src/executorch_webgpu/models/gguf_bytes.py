"""The stored bytes of a GGUF file's tensors in little-endian order, whatever order the file has.

In a big-endian file every number of several bytes is turned around: whole elements of F32, F16 and BF16; of a quantized
block its float16 factors and the 32 high bits of Q5_0 and Q5_1, which that machine's memory holds as one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
PLAIN = (_Type.F32.value, _Type.F16.value, _Type.BF16.value)
_ENOUGH = 4096  # factors that tell the order of a file


def turned(rows: Bytes, type: int) -> Bytes:
    """The bytes [rows, row bytes] of a tensor, with each of their numbers turned around."""
    _, size = gguf.GGML_QUANT_SIZES[_Type(type)]
    blocks = rows.reshape(len(rows), -1, size).copy()
    for first, count in _FIELDS[type]:
        blocks[..., first : first + count] = blocks[..., first : first + count][..., ::-1].copy()
    return blocks.reshape(rows.shape)


def blocks_are_turned(tensors: Iterable[tuple[int, Bytes]]) -> bool:
    """Whether the quantized blocks of a big-endian file are big-endian, too.

    They are by the format, and writers that pass them through as bytes leave them as they were: ``gguf.GGUFWriter``
    does. Factors of weights differ by little, so their exponents do in the right order, and are noise in the wrong one.
    ``tensors``: (type, some bytes [rows, row bytes]) of each.
    """
    factors = [part for type, rows in tensors if type not in PLAIN for part in _factors(rows, type)]
    if not factors:
        return True
    found = np.concatenate(factors)[:_ENOUGH]
    return _spread(found.view("<f2")) >= _spread(found.view(">f2"))


def _factors(rows: Bytes, type: int) -> Iterator[NDArray[np.uint16]]:
    _, size = gguf.GGML_QUANT_SIZES[_Type(type)]
    (first, _), *_ = _FIELDS[type]
    blocks = rows.reshape(-1, size)
    yield np.ascontiguousarray(blocks[:, first : first + 2]).view(np.uint16)[:, 0]


def _spread(factors: NDArray[np.float16]) -> float:
    """How far exponents lie apart, with what no weight has far away."""
    with np.errstate(all="ignore"):
        exponents = np.log2(np.abs(factors.astype(np.float64)))
    used = exponents[factors != 0]
    return float(np.std(np.where(np.isfinite(used), used, 64))) if len(used) else 0.0

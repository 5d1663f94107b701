"""GGUF's quantized blocks as codes, scales and minimums, for weight formats that keep them as they are.

Blocks hold 32 weights (Q4_K: 256, in 8 groups), little-endian, w = code * scale + minimum:

| type | bytes of a block | scale | minimum |
|---|---|---|---|
| Q8_0 | f16 d; 32 int8 | d | 0 |
| Q4_0 | f16 d; 16 bytes of nibbles | d | -8 d |
| Q4_1 | f16 d, f16 m; 16 bytes of nibbles | d | m |
| Q4_K | f16 d, f16 dmin; 12 bytes with a 6-bit (s, m) a group; 128 bytes of nibbles | d s | -dmin m |

The nibbles of 16 bytes are weights 0 … 15 (low) and 16 … 31 (high); in Q4_K those of 32 bytes are a group (low) and the
next one (high). Source: the block structs of the ggml project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import gguf
import numpy as np
from numpy.typing import NDArray

from .weights import Floats

Bytes = NDArray[np.uint8]
Codes = tuple[Bytes, Floats, Floats]

GROUP = 32
_Type = gguf.GGMLQuantizationType


def _q8_0(blocks: Bytes) -> Codes:
    scales = _halves(blocks, 0)
    return blocks[..., 2:], scales, np.zeros_like(scales)


def _q4_0(blocks: Bytes) -> Codes:
    scales = _halves(blocks, 0)
    return _nibbles(blocks[..., 2:]), scales, np.float32(-8) * scales


def _q4_1(blocks: Bytes) -> Codes:
    return _nibbles(blocks[..., 4:]), _halves(blocks, 0), _halves(blocks, 2)


def _q4_k(blocks: Bytes) -> Codes:
    packed = blocks[..., 4:16]
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    # Four groups have their 6 bits in one byte; of the other four, the upper two bits are what is left in those bytes.
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=-1)
    minimums = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=-1)
    pairs = blocks[..., 16:].reshape(*blocks.shape[:-1], 4, GROUP)
    codes = np.stack([pairs & 15, pairs >> 4], axis=-2)  # [rows, blocks, 4 pairs, 2, 32]
    return (
        codes,
        _halves(blocks, 0)[..., None] * scales.astype(np.float32),
        -_halves(blocks, 2)[..., None] * minimums.astype(np.float32),
    )


def _halves(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)[..., 0].astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


_SPLIT: dict[int, tuple[Literal[4, 8], Callable[[Bytes], Codes]]] = {
    _Type.Q8_0.value: (8, _q8_0),
    _Type.Q4_0.value: (4, _q4_0),
    _Type.Q4_1.value: (4, _q4_1),
    _Type.Q4_K.value: (4, _q4_k),
}


def code_bits(type: int) -> Literal[4, 8] | None:
    """How many bits the codes of a ggml type have that ``split_blocks`` knows; None for all others."""
    return _SPLIT[type][0] if type in _SPLIT else None


def split_blocks(rows: Bytes, type: int) -> Codes:
    """(codes [rows, K], scales and minimums float32 [rows, K / 32]) of the bytes [rows, row bytes] of a tensor."""
    _, block_bytes = gguf.GGML_QUANT_SIZES[_Type(type)]
    codes, scales, minimums = _SPLIT[type][1](rows.reshape(len(rows), -1, block_bytes))
    return codes.reshape(len(rows), -1), scales.reshape(len(rows), -1), minimums.reshape(len(rows), -1)

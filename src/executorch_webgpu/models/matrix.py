"""Matrices of a program in its weight formats, as the linear and the embedding operators take them.

| format | a weight is | operators |
|---|---|---|
| f32 | float32 | aten.linear, aten.embedding |
| f16 | float16 | aten.linear |
| q8csw | 8 bits, one scale a row | aten._weight_int8pack_mm |
| q4gsw | 4 bits, one scale a group | et_vk.linear_q4gsw, et_vk.embedding_q4gsw |
| q8gsw | 8 bits, one scale a group | et_webgpu.linear_q8gsw, et_webgpu.embedding_q8gsw |
| q4gaw | 4 bits, one scale and one minimum a group | et_webgpu.linear_q4gaw, et_webgpu.embedding_q4gaw |

f32, q8csw and q4gsw are operators that other ExecuTorch runtimes have too. The last two hold GGUF's Q8_0, Q4_0 and Q4_1
without loss, so ``native`` stands for: q4gaw where the source has 4 bits, else q8gsw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError, UnsupportedProgramError
from ..format.vkgraph import DataType
from .quantize import asymmetric_4bit, pack, symmetric_4bit, symmetric_8bit
from .weights import Constant, Floats, Weight, float_constant

WeightFormat = Literal["f32", "f16", "q8csw", "q4gsw", "q8gsw", "q4gaw", "native"]
EmbeddingFormat = Literal["f32", "q4gsw", "q8gsw", "q4gaw", "native"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)
EMBEDDING_FORMATS: tuple[EmbeddingFormat, ...] = get_args(EmbeddingFormat)
GROUPS = (32, 64, 128)
NATIVE_GROUP = 32
HALF_SCALES = ("q8gsw", "q4gaw")  # their scales and minimums are float16
_ALIGN = 4  # kernels read scales and bias four at a time

# Rows start … stop as (bytes as they are stored; scales [rows, groups], or [rows, groups, 2] with minimums).
_Rows = Callable[[int, int], tuple[NDArray[np.generic], Floats]]


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """A matrix [N, K] in one of the quantized formats.

    ``packed`` has N rows. ``scales`` is float32 [N] in q8csw, else [K / group, N padded to 4]: float32 in q4gsw,
    float16 in q8gsw, float16 with a further dimension (scale, minimum) in q4gaw. ``row_scales`` is float32
    [N, K / group], what ``embedding_q4gsw`` takes.
    """

    format: Literal["q8csw", "q4gsw", "q8gsw", "q4gaw"]
    dims: tuple[int, int]
    group: int
    packed: Constant
    scales: Constant
    row_scales: Constant


Matrix = Constant | QuantizedMatrix


def matrix(weight: Weight, format: WeightFormat, group: int) -> Matrix:
    """The weight [N, K] in a format; ``group`` weights of a row share a scale (``native``: 32, whatever is asked).

    InvalidInputError when its rows are not whole groups. Reading the constants raises InvalidProgramError for weights
    that are not finite, and UnsupportedProgramError for those that are too large for the format.
    """
    rows, width = weight.dims
    if format == "native":
        if width % NATIVE_GROUP:
            return float_constant(weight)
        four = weight.blocks is not None and weight.blocks.bits == 4
        return matrix(weight, "q4gaw" if four else "q8gsw", NATIVE_GROUP)
    if format == "f32":
        return float_constant(weight)
    if format == "f16":
        return Constant(f"{weight.name}.f16", DataType.FLOAT16, weight.dims, lambda: _halves(weight))
    if format == "q8csw":
        group = width
    elif width % group:
        raise InvalidInputError(
            f"{weight.name} has rows of {width} weights, which are not whole groups of {group}: choose another group"
        )
    read = {"q8csw": _q8csw, "q4gsw": _q4gsw, "q8gsw": _q8gsw, "q4gaw": _q4gaw}[format](weight, group)
    four = format in ("q4gsw", "q4gaw")
    scales = _Scales(weight, read, format)
    name = f"{weight.name}.{format}" + ("" if format == "q8csw" else f"{group}")
    halves = DataType.FLOAT16 if format in HALF_SCALES else DataType.FLOAT32
    columns, pair = rows + -rows % _ALIGN, (2,) if format == "q4gaw" else ()
    by_group = (rows,) if format == "q8csw" else (width // group, columns, *pair)
    return QuantizedMatrix(
        format,
        (rows, width),
        group,
        Constant(
            f"{name}.packed",
            DataType.UINT8 if four else DataType.INT8,
            (rows, width // 2 if four else width),
            scales.packed_pieces,
        ),
        Constant(f"{name}.scales", halves, by_group, lambda: scales.pieces(by_group, halves)),
        Constant(f"{name}.row_scales", DataType.FLOAT32, (rows, width // group), scales.row_pieces),
    )


def _halves(weight: Weight) -> Iterator[NDArray[np.float16]]:
    for start, stop in weight.ranges():
        rows = weight.rows(start, stop)
        with np.errstate(over="ignore"):  # what overflows is refused
            halves = rows.astype(np.float16)
        _check_range(weight, start, halves, "f16")
        yield halves


def _check_range(weight: Weight, start: int, kept: NDArray[np.float16] | Floats, format: WeightFormat) -> None:
    """What a format keeps of the rows from ``start`` on is finite, as the weights are; refused if not."""
    finite = np.isfinite(kept).reshape(len(kept), -1).all(axis=1)
    if not finite.all():
        raise UnsupportedProgramError(
            f"The tensor {weight.source or weight.name!r} has weights in row {start + int(np.argmin(finite))} that are "
            f"too large for {format}: choose f32 for the weights."
        )


class _Scales:
    """Packed weights and scales come of one computation.

    The scales are kept when the packed weights are read, and let go when they are read themselves.
    """

    def __init__(self, weight: Weight, read: _Rows, format: WeightFormat) -> None:
        self._weight, self._read, self._format = weight, read, format
        self._kept: list[Floats] = []

    def packed_pieces(self) -> Iterator[NDArray[np.generic]]:
        self._kept = []
        for start, stop in self._weight.ranges():
            with np.errstate(all="ignore"):  # what overflows is refused
                packed, scales = self._read(start, stop)
                self._check(start, scales)
            self._kept.append(scales)
            yield packed

    def _check(self, start: int, scales: Floats) -> None:
        """The weights are finite, and so must be what the format keeps of them."""
        kept = scales.astype(np.float16) if self._format in HALF_SCALES else scales
        _check_range(self._weight, start, kept, self._format)

    def pieces(self, dims: tuple[int, ...], dtype: DataType) -> Iterator[NDArray[np.generic]]:
        """[K / group, N padded, …], or [N] when a row has one scale."""
        scales = self._take()
        if len(dims) == 1:
            yield scales[:, 0]
            return
        out = np.zeros(dims, np.float16 if dtype is DataType.FLOAT16 else np.float32)
        out[:, : len(scales)] = scales.swapaxes(0, 1)
        yield out

    def row_pieces(self) -> Iterator[Floats]:
        yield self._take()

    def _take(self) -> Floats:
        if not self._kept:
            for _ in self.packed_pieces():
                pass
        scales = np.concatenate(self._kept)
        self._kept = []
        return scales


def _q8csw(weight: Weight, group: int) -> _Rows:
    return lambda start, stop: symmetric_8bit(weight.rows(start, stop), group, half=False)


def _q4gsw(weight: Weight, group: int) -> _Rows:
    def rows(start: int, stop: int) -> tuple[NDArray[np.uint8], Floats]:
        codes, scales = symmetric_4bit(weight.rows(start, stop), group)
        return pack((codes + np.int8(8)).view(np.uint8)), scales

    return rows


def _q8gsw(weight: Weight, group: int) -> _Rows:
    blocks = weight.blocks
    if blocks is None or (blocks.bits, blocks.group) != (8, group):
        return lambda start, stop: symmetric_8bit(weight.rows(start, stop), group, half=True)

    def rows(start: int, stop: int) -> tuple[NDArray[np.int8], Floats]:
        codes, scales, _ = weight.stored(start, stop)
        return codes.view(np.int8), scales

    return rows


def _q4gaw(weight: Weight, group: int) -> _Rows:
    blocks = weight.blocks
    stored = blocks is not None and (blocks.bits, blocks.group) == (4, group)

    def rows(start: int, stop: int) -> tuple[NDArray[np.uint8], Floats]:
        if stored:
            codes, scales, minimums = weight.stored(start, stop)
        else:
            codes, scales, minimums = asymmetric_4bit(weight.rows(start, stop), group)
        return pack(codes), np.stack([scales, minimums], axis=-1)

    return rows

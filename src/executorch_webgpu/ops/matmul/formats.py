"""How quantized matrices lie in constants: codes of 4 or 8 bits, and what turns them into weights.

``weights`` [N, B], whole u32 words a row, hold the codes; ``scales`` have a row for each group of neighbouring codes
of a row, and a column for each of the N rows, so that neighbouring outputs read neighbouring scales. ``codes.wgsl`` and
``scales.wgsl`` read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Planner
from ..shapes import ceil_div
from ..values import Tensor


@dataclass(frozen=True)
class WeightFormat:
    """A weight is ``(code - zero_point) * scale``, plus the minimum of its group if the format has ``mins``."""

    dtype: str  # of the codes: uint8 for two of 4 bits a byte, the even one first; int8 for one of 8 bits
    zero_point: int
    scales_dtype: str
    mins: bool = False
    grouped: bool = True  # or one scale for a whole row
    high_first: bool = False  # codes of 4 bits: the even one is in the high nibble

    @property
    def bits(self) -> int:
        return 4 if self.dtype == "uint8" else 8

    @property
    def per_word(self) -> int:
        """Weights in a u32."""
        return 32 // self.bits

    @property
    def template(self) -> Mapping[str, Any]:
        """The template inputs of ``codes.wgsl`` and ``scales.wgsl``."""
        scales = f"{self.scales_dtype}_and_min" if self.mins else self.scales_dtype
        return {"bits": self.bits, "zero_point": self.zero_point, "scales": scales}


# 4 or 8 bits, one scale for each group (g) or channel (c), symmetric (s) or not (a): the names of ExecuTorch.
Q4GSW = WeightFormat("uint8", 8, "float32")
Q4GAW = WeightFormat("uint8", 0, "float16", mins=True)
Q8GSW = WeightFormat("int8", 0, "float16")
Q8CSW = WeightFormat("int8", 0, "float32", grouped=False)
Q4CSW = WeightFormat("uint8", 8, "float32", grouped=False, high_first=True)


@dataclass(frozen=True)
class QuantizedMatrix:
    """The tensors of a matrix, known to hold rows of ``width`` weights."""

    weight_format: WeightFormat
    weights: Tensor
    scales: Tensor
    group_size: int  # at most width
    width: int
    scale_quads: int  # from a row of scales to the next, in fours

    @property
    def rows(self) -> int:
        return self.weights.dims[0]

    @property
    def row_bytes(self) -> int:
        return self.weights.dims[1]


def grouped_matrix(
    planner: Planner, name: str, layout: WeightFormat, weights: Tensor, scales: Tensor, group_size: int, width: int
) -> QuantizedMatrix:
    """Refuses constants that do not hold rows of ``width`` weights in groups of ``group_size``.

    ``weights`` [N, B]: B bytes are whole words and hold a row. ``scales`` [ceil(width / group_size), S], with a last
    dimension of 2 (scale, minimum) where the format has minima; S >= N is a multiple of 4. ``group_size`` is a
    multiple of the weights in a word, or at least ``width``.
    """
    planner.check(
        weights.dtype == layout.dtype and scales.dtype == layout.scales_dtype,
        f"{name} takes {layout.dtype} weights and {layout.scales_dtype} scales, not {weights} and {scales}",
    )
    tail = (2,) if layout.mins else ()
    planner.check(
        weights.rank == 2 and scales.rank == 2 + len(tail),
        f"{name}: {weights} must be a matrix, and {scales} have {2 + len(tail)} dimensions",
    )
    rows, row_bytes = weights.dims
    planner.check(
        row_bytes % 4 == 0 and row_bytes * 8 >= width * layout.bits,
        f"{name}: rows of {weights} must be whole 4-byte words that hold {width} weights",
    )
    planner.check(
        group_size > 0 and (group_size % layout.per_word == 0 or group_size >= width),
        f"{name}: group size {group_size} must be a multiple of {layout.per_word}, or all of {width}",
    )
    groups = ceil_div(width, group_size)
    planner.check(
        scales.dims[0] >= groups and scales.dims[1] >= rows and scales.dims[1] % 4 == 0 and scales.dims[2:] == tail,
        f"{name}: scales {scales} must be {[groups, rows, *tail]}, with {rows} padded to a multiple of 4",
    )
    return QuantizedMatrix(layout, weights, scales, min(group_size, width), width, scales.dims[1] // 4)


def channel_matrix(
    planner: Planner, name: str, layout: WeightFormat, weights: Tensor, scales: Tensor, width: int
) -> QuantizedMatrix:
    """Refuses constants that do not hold ``weights`` [N, width], of any width, and a scale for each of N."""
    planner.check(
        weights.dtype == layout.dtype and scales.dtype == layout.scales_dtype,
        f"{name} takes {layout.dtype} weights and {layout.scales_dtype} scales, not {weights} and {scales}",
    )
    rows = weights.dims[0] if weights.rank else 0
    planner.check(
        weights.rank == 2
        and weights.dims[1] == ceil_div(width * layout.bits, 8)
        and scales.dims in ((rows,), (rows, 1), (ceil_div(rows, 4) * 4,)),
        f"{name}: {weights} must be [N, K] for an input of {width} features, and {scales} [N], or that padded to fours",
    )
    # Scales of columns past the edge lie in the padding of the buffer to 16 bytes; nothing of them is stored.
    return QuantizedMatrix(layout, weights, scales, width, width, ceil_div(weights.dims[0], 4))


def dequantize(layout: WeightFormat, weights: np.ndarray, scales: np.ndarray, group_size: int) -> np.ndarray:
    """The weights [N, K] in float64, with K as long as both codes and groups last."""
    codes = weights.astype(np.float64)
    if layout.bits == 4:
        pair = [weights & 15, weights >> 4]
        codes = np.stack(pair[::-1] if layout.high_first else pair, axis=-1).reshape(len(weights), -1) - float(
            layout.zero_point
        )
    group = np.arange(min(codes.shape[1], len(scales) * group_size)) // group_size
    by_code = scales[group, : len(weights)].swapaxes(0, 1).astype(np.float64)  # [N, K] or [N, K, 2]
    codes = codes[:, : len(group)]
    return codes * by_code[..., 0] + by_code[..., 1] if layout.mins else codes * by_code

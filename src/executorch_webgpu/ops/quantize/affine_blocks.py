"""Quantization with a scale for each block of a tensor: torchao's operators, and groups of quantized_decomposed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..plan import Planner
from ..registry import op
from ..rows import Cut
from ..sizes import like_first
from ..values import IntLike, Tensor
from .affine import spread
from .blocks import Blocks
from .numbers import RANGES, SCALAR_TYPES, Array, dequantized, dequantized_exactly, quantized
from .plan import Number, QParams, run_affine


def code_range(planner: Planner, low: Number | None, high: Number | None, dtype: Any) -> tuple[Number, Number]:
    """The bounds of codes; those that are None follow from ``dtype``, torch's number of it or its name."""
    name = SCALAR_TYPES.get(dtype, "") if isinstance(dtype, int) else dtype
    given = RANGES.get(name, (None, None)) if isinstance(name, str) else (None, None)
    low, high = (bound if value is None else value for value, bound in zip((low, high), given, strict=True))
    if low is None or high is None:
        planner.check(False, f"the range of codes follows neither from its bounds nor from the dtype {dtype}")
        raise AssertionError
    return low, high


def in_blocks(planner: Planner, name: str, x: Tensor, sizes: Sequence[IntLike]) -> Blocks:
    """``x`` in blocks of these sizes, of which live ones are watched."""
    planner.check(len(sizes) == x.rank, f"{name}: {x} needs {x.rank} block sizes, not {len(sizes)}")
    found = planner.values(sizes)
    planner.check(all(size >= 0 for size in found), f"{name}: block sizes {list(found)} must not be negative")
    return Blocks(x.dims, tuple(max(size, 1) for size in found))


def affine_rows(
    cut: Cut, x: Tensor, block_size: Sequence[IntLike], scale: Tensor, zero: Tensor | None, *rest: Any
) -> int | None:
    """An axis along which each index has blocks of its own, cut in all tensors; or any, if all is one block."""
    given = [x, scale] if zero is None else [x, scale, zero]
    axis = cut.together(given)
    if axis is None or len(block_size) != x.rank or axis >= len(block_size) or block_size[axis] != 1:
        return None
    counts = [d // b if isinstance(b, int) and b else None for d, b in zip(x.max_dims, block_size, strict=True)]
    kept = all(list(t.max_dims[: axis + 1]) == counts[: axis + 1] for t in given[1:])
    return axis if kept else None


def quantize_affine_reference(
    x: Array, block_size: Sequence[int], scale: Array, zero: Array | None, dtype: Any, low: Any, high: Any
) -> Array:
    name = SCALAR_TYPES.get(dtype, "int8") if isinstance(dtype, int) else "int8"
    low, high = (b if v is None else v for v, b in zip((low, high), RANGES[name], strict=True))
    return quantized(x, spread(scale, x.shape, block_size), spread(zero, x.shape, block_size), low, high)


@op(
    "torchao.quantize_affine.default",
    reference=quantize_affine_reference,
    promoted=("x",),
    discontinuous=True,
    sizes=like_first,
    rows=affine_rows,
)
def quantize_affine(
    planner: Planner,
    x: Tensor,
    block_size: Sequence[IntLike],
    scale: Tensor,
    zero_point: Tensor | None,
    output_dtype: Any,
    quant_min: Number | None,
    quant_max: Number | None,
    out: Tensor,
) -> None:
    """round(x * (1 / scale)) + zero_point between quant_min and quant_max.

    ``block_size`` has a size for each dimension of ``x``, which it divides. All elements of a block share a scale and a
    zero point; these lie in the order of the blocks, in tensors of any shape.
    """
    bounds = code_range(planner, quant_min, quant_max, out.dtype if output_dtype is None else output_dtype)
    blocks = in_blocks(planner, "quantize_affine", x, block_size)
    run_affine(planner, "quantize", x, out, QParams(scale, zero_point, blocks), bounds)


def dequantize_affine_reference(
    x: Array, block_size: Sequence[int], scale: Array, zero: Array | None, *_: Any
) -> Array:
    return dequantized(x, spread(scale, x.shape, block_size), spread(zero, x.shape, block_size))


@op("torchao.dequantize_affine.default", reference=dequantize_affine_reference, sizes=like_first, rows=affine_rows)
def dequantize_affine(
    planner: Planner,
    x: Tensor,
    block_size: Sequence[IntLike],
    scale: Tensor,
    zero_point: Tensor | None,
    input_dtype: Any,
    quant_min: Number | None,
    quant_max: Number | None,
    output_dtype: Any,
    out: Tensor,
) -> None:
    """(x - zero_point) * scale, of blocks as ``quantize_affine`` has them."""
    blocks = in_blocks(planner, "dequantize_affine", x, block_size)
    run_affine(planner, "dequantize", x, out, QParams(scale, zero_point, blocks))


# -- groups along rows of a matrix ------------------------------------------------------------------------------------


def _group_sizes(x: Any, scales: Any, group_size: int) -> tuple[int, int]:
    """A group larger than a row is a row, where a row has one scale."""
    width, last = x.shape[-1], scales.shape[-1] if scales.ndim else 1
    return 1, width if group_size > width and last == 1 else group_size


def _groups(planner: Planner, name: str, x: Tensor, scales: Tensor, group_size: int) -> Blocks:
    planner.check(x.rank == 2 and group_size > 1, f"{name}: {x} must be a matrix, in groups of more than one")
    whole = group_size > x.dims[1] and (scales.rank == 0 or scales.dims[-1] == 1)
    return Blocks(x.dims, (1, max(x.dims[1] if whole else group_size, 1)))


def group_rows(cut: Cut, x: Tensor, scales: Tensor, zero: Tensor | None, *rest: Any) -> int | None:
    """Rows of the matrix with their scales, which are a matrix of as many rows."""
    given = [scales] if zero is None else [scales, zero]
    matrices = all(t.rank == 2 and t.max_dims[0] == x.max_dims[0] for t in given) if x.rank == 2 else False
    return 0 if matrices and cut.together([x, *given]) == 0 else None


def quantize_group_reference(
    x: Array, scales: Array, zeros: Array, low: float, high: float, dtype: Any, group_size: int
) -> Array:
    sizes = _group_sizes(x, scales, group_size)
    return quantized(x, spread(scales, x.shape, sizes), spread(zeros, x.shape, sizes), low, high, shifted=True)


@op(
    "quantized_decomposed.quantize_per_channel_group.default",
    reference=quantize_group_reference,
    promoted=("x",),
    discontinuous=True,
    sizes=like_first,
    rows=group_rows,
)
def quantize_per_channel_group(
    planner: Planner,
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: Any,
    group_size: int,
    out: Tensor,
) -> None:
    """round(x * (1 / scale) + zero_point) of a matrix, with a scale for each group of neighbours in a row."""
    blocks = _groups(planner, "quantize_per_channel_group", x, scales, group_size)
    run_affine(planner, "quantize_shifted", x, out, QParams(scales, zero_points, blocks), (quant_min, quant_max))


def dequantize_group_reference(
    x: Array, scales: Array, zeros: Array | None, low: Any, high: Any, dtype: Any, group_size: int, *_: Any
) -> Array:
    sizes = _group_sizes(x, scales, group_size)
    return dequantized_exactly(x, spread(scales, x.shape, sizes), spread(zeros, x.shape, sizes))


@op(
    "quantized_decomposed.dequantize_per_channel_group.default",
    reference=dequantize_group_reference,
    sizes=like_first,
    rows=group_rows,
)
def dequantize_per_channel_group(
    planner: Planner,
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    quant_min: int | None,
    quant_max: int | None,
    dtype: Any,
    group_size: int,
    output_dtype: Any,
    out: Tensor,
) -> None:
    """(x - zero_point) * scale of a matrix, with a scale for each group of neighbours in a row."""
    blocks = _groups(planner, "dequantize_per_channel_group", x, scales, group_size)
    run_affine(planner, "dequantize_integers", x, out, QParams(scales, zero_points, blocks))

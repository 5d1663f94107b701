"""Scales and zero points for what a tensor holds: the choose_qparams operators.

Of each block, by its smallest element and its largest one, between which 0 is:

* ``asymmetric``: the codes from low to high spread over that range;
* ``least_error``: the same, and the zero point is the one of two that is off by less;
* ``symmetric``: the codes spread over the larger magnitude to both sides of 0;
* ``no_clipping``: the smallest scale with which both ends have codes;
* ``magnitude``: the larger magnitude is the highest code.

A workgroup reads four small blocks, and computes their parameters. Of large ones it reads a part, and what all parts
found becomes parameters in a second dispatch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..reindex.strided import coalesce, innermost_first
from ..rows import Cut
from ..shapes import ceil_div, row_major_strides
from ..sizes import Shape, Sizes, quotient
from ..values import IntLike, Tensor
from .affine_blocks import code_range, in_blocks
from .blocks import Blocks
from .numbers import RANGES, SCALAR_TYPES, Array, codes, float32
from .plan import FLOATS, Number

SCAN_WORKGROUP = 256
CHUNK = 16384  # elements of a block that a workgroup reads, at least
MOST_PARTS = 256  # of a block
ZEROS = ("int32", "int16", "int8", "uint8", "float32")
MAPPINGS = {
    "ASYMMETRIC": "asymmetric",
    "SYMMETRIC": "symmetric",
    "SYMMETRIC_NO_CLIPPING_ERR": "no_clipping",
}
FLOAT32_EPS = float(np.finfo(np.float32).eps)
SMALLEST_NORMAL = {np.dtype(t).name: float(np.finfo(t).smallest_normal) for t in (np.float32, np.float16)}


@dataclass(frozen=True)
class Rule:
    """How parameters follow from extremes; ``zero`` is the zero point of the mappings that have one for all."""

    mapping: str
    low: float
    high: float
    eps: float
    zero: float = 0.0

    def reference(self, least: Array, largest: Array) -> tuple[Array, Array]:
        """Scales float32, and zero points int64, of float32 extremes."""
        low, high, eps = np.float32(self.low), np.float32(self.high), np.float32(self.eps)
        least, largest = np.minimum(least, np.float32(0)), np.maximum(largest, np.float32(0))
        magnitude = np.maximum(-least, largest)
        zero = np.full(least.shape, self.zero)
        with np.errstate(all="ignore"):
            match self.mapping:
                case "symmetric":
                    scale = np.maximum(magnitude / ((high - low) / np.float32(2)), eps)
                case "magnitude":
                    scale = np.maximum(magnitude, eps) / high
                case "no_clipping":
                    scale = np.maximum(np.maximum(least / low, largest / high), eps)
                case _:
                    scale = np.maximum((largest - least) / (high - low), eps)
            if self.mapping == "asymmetric":
                zero = low - np.round(least / scale)
            elif self.mapping == "least_error":
                below, above = least / scale, largest / scale
                zero = np.round(np.where((low + below) + (high + above) > 0, low - below, high - above))
        return scale, codes(zero, self.low, self.high)


def choose(planner: Planner, name: str, x: Tensor, blocks: Blocks, rule: Rule, outs: Sequence[Tensor]) -> None:
    """Parameters of every block, in their order; ``outs`` are sized already."""
    planner.check(len(outs) == 2, f"{name} gives scales and zero points, not {list(outs)}")
    scale, zero = outs
    planner.check(x.dtype in FLOATS and scale.dtype in FLOATS, f"{name}: {x} and {scale} must hold floats")
    planner.check(zero.dtype in ZEROS, f"{name}: zero points {zero} must be one of {', '.join(ZEROS)}")
    planner.check(rule.low < rule.high, f"{name}: the lowest code {rule.low} must be less than the highest {rule.high}")
    planner.check(blocks.divide, f"{name}: blocks of {list(blocks.sizes)} must divide {x} without a rest")
    size = math.prod(min(b, d) for b, d in zip(blocks.sizes, blocks.dims, strict=True))
    planner.check(size > 0 or blocks.count == 0, f"{name}: {x} has no elements")
    fits = scale.numel == zero.numel == blocks.count
    planner.check(fits, f"{name}: {scale} and {zero} must have {blocks.count} elements, one for each block")
    _dispatch(planner, x, blocks, size, rule, scale, zero)


def _dispatch(planner: Planner, x: Tensor, blocks: Blocks, size: int, rule: Rule, scale: Tensor, zero: Tensor) -> None:
    count = blocks.count
    strides = row_major_strides(blocks.dims)
    outer, (outer_strides,) = coalesce(blocks.counts, [b * s for b, s in zip(blocks.sizes, strides, strict=True)])
    inner, (inner_strides,) = coalesce(blocks.sizes, strides)
    scanned = {
        "blocks": count,
        "size": size,
        "outer_rank": len(outer),
        "outer_dims": innermost_first(outer, 1),
        "outer_strides": innermost_first(outer_strides, 0),
        "inner_rank": len(inner),
        "inner_dims": innermost_first(inner, 1),
        "inner_strides": innermost_first(inner_strides, 0),
    }
    codes_range = (rule.low, rule.high, rule.eps, rule.zero)
    template = {"mapping": rule.mapping, "scale": scale.dtype, "zero": zero.dtype}
    overrides = {"wg_size": SCAN_WORKGROUP}
    at_once = {"finish": True, "x": x.dtype, **template}
    in_parts = {"finish": False, "x": x.dtype, "mapping": None, "scale": None, "zero": None}
    for one in (at_once, in_parts):  # live sizes decide
        planner.prepare("quantize/extremes", template=one, overrides=overrides)
    planner.prepare("quantize/parameters", template=template, overrides={"wg_size": 64})
    parts = max(1, min(ceil_div(size, CHUNK), MOST_PARTS, planner.limits.max_workgroups // max(count, 1)))
    if parts == 1:
        planner.dispatch(
            "quantize/extremes",
            planner.grid_1d(ceil_div(count, 4), 1),
            {"input": x, "scales": scale, "zeros": zero},
            {**scanned, "range": codes_range},
            overrides=overrides,
            template=at_once,
        )
        return
    found = planner.scratch(16 * count * parts)
    planner.dispatch(
        "quantize/extremes",
        planner.grid_1d(count * parts, 1),
        {"input": x, "extremes": found},
        {**scanned, "parts": parts, "chunk": ceil_div(size, parts)},
        overrides=overrides,
        template=in_parts,
    )
    planner.dispatch(
        "quantize/parameters",
        planner.grid_1d(ceil_div(count, 4), 64),
        {"extremes": found, "scales": scale, "zeros": zero},
        {"blocks": count, "parts": parts, "range": codes_range},
        overrides={"wg_size": 64},
        template=template,
    )


# -- one scale for a tensor -------------------------------------------------------------------------------------------


def _of_tensor(x: Array, rule: Rule) -> tuple[Array, Array]:
    wide = float32(x)
    return rule.reference(wide.min().reshape(1), wide.max().reshape(1))


def single_sizes(s: Sizes, *_: Any) -> list[Shape]:
    return [(1,), (1,)]


def _choose_of_tensor(planner: Planner, name: str, x: Tensor, rule: Rule, outs: Sequence[Tensor]) -> None:
    for out in outs:
        planner.resize(out)
    planner.check(x.numel > 0, f"{name}: {x} has no elements")
    choose(planner, name, x, Blocks((x.numel,), (x.numel,)), rule, outs)


@op(
    "quantized_decomposed.choose_qparams.tensor",
    reference=lambda x, low, high, eps, dtype: _of_tensor(x, Rule("asymmetric", low, high, eps)),
    promoted=("x",),
    discontinuous=True,
    sizes=single_sizes,
)
def choose_qparams(
    planner: Planner, x: Tensor, quant_min: int, quant_max: int, eps: float, dtype: Any, outs: list[Tensor]
) -> None:
    """Scale [1] and zero point [1] with which the codes spread over what ``x`` and 0 span; at least ``eps``.

    A scale is float32 on the device, which float64 holds in torch.
    """
    _choose_of_tensor(planner, "choose_qparams", x, Rule("asymmetric", quant_min, quant_max, eps), outs)


def _symmetric(low: int, high: int, eps: float, dtype: Any) -> Rule:
    return Rule("symmetric", low, high, eps, 128.0 if SCALAR_TYPES.get(dtype) == "uint8" else 0.0)


@op(
    "quantized_decomposed.choose_qparams_symmetric.tensor",
    reference=lambda x, low, high, eps, dtype: _of_tensor(x, _symmetric(low, high, eps, dtype)),
    promoted=("x",),
    discontinuous=True,
    sizes=single_sizes,
)
def choose_qparams_symmetric(
    planner: Planner, x: Tensor, quant_min: int, quant_max: int, eps: float, dtype: Any, outs: list[Tensor]
) -> None:
    """Scale [1] with which the codes spread over the largest magnitude; the zero point is 0, or 128 of uint8."""
    _choose_of_tensor(planner, "choose_qparams_symmetric", x, _symmetric(quant_min, quant_max, eps, dtype), outs)


# -- one for each row -------------------------------------------------------------------------------------------------

PER_TOKEN = Rule("magnitude", -128, 127, 1e-5)
PER_TOKEN_ASYMMETRIC = Rule("least_error", -128, 127, FLOAT32_EPS)


def _of_rows(x: Array, rule: Rule) -> tuple[Array, Array]:
    wide = float32(x)
    return rule.reference(wide.min(axis=-1, keepdims=True), wide.max(axis=-1, keepdims=True))


def token_sizes(s: Sizes, x: Tensor, *_: Any) -> list[Shape]:
    return [(*s.of(x)[:-1], 1)] * 2


def token_rows(cut: Cut, x: Tensor, *_: Any) -> int | None:
    axis = cut.only(x)
    return axis if axis != x.rank - 1 else None


def _choose_of_rows(planner: Planner, name: str, x: Tensor, rule: Rule, outs: list[Tensor]) -> None:
    planner.check(x.rank >= 1, f"{name}: {x} must have a dimension of features")
    for out in outs:
        planner.resize(out)
    choose(planner, name, x, Blocks(x.dims, (*(1,) * (x.rank - 1), max(x.dims[-1], 1))), rule, outs)


@op(
    "quantized_decomposed.choose_qparams_per_token.default",
    reference=lambda x, dtype: _of_rows(x, PER_TOKEN),
    promoted=("x",),
    discontinuous=True,
    sizes=token_sizes,
    rows=token_rows,
)
def choose_qparams_per_token(planner: Planner, x: Tensor, dtype: Any, outs: list[Tensor]) -> None:
    """A scale for every row of ``x``, with which its largest magnitude has the int8 code 127; zero points are 0."""
    _choose_of_rows(planner, "choose_qparams_per_token", x, PER_TOKEN, outs)


@op(
    "quantized_decomposed.choose_qparams_per_token_asymmetric.default",
    "quantized_decomposed._choose_qparams_per_token_asymmetric_impl.default",
    reference=lambda x, dtype: _of_rows(x, PER_TOKEN_ASYMMETRIC),
    promoted=("x",),
    discontinuous=True,
    sizes=token_sizes,
    rows=token_rows,
)
def choose_qparams_per_token_asymmetric(planner: Planner, x: Tensor, dtype: Any, outs: list[Tensor]) -> None:
    """A scale and a zero point for every row of ``x``, with which the int8 codes spread over what it and 0 span."""
    _choose_of_rows(planner, "choose_qparams_per_token_asymmetric", x, PER_TOKEN_ASYMMETRIC, outs)


# -- one for each block -----------------------------------------------------------------------------------------------


def _eps(eps: float | None, dtype: str) -> float:
    return SMALLEST_NORMAL.get(dtype, SMALLEST_NORMAL["float32"]) if eps is None else eps


def _affine_rule(mapping: str, low: Number, high: Number, eps: float) -> Rule:
    return Rule(MAPPINGS[mapping], low, high, eps, int((high + low + 1) / 2))


def choose_qparams_affine_reference(
    x: Array,
    mapping: str,
    block_size: Sequence[int],
    dtype: Any,
    low: Any,
    high: Any,
    eps: float | None,
    scale_dtype: Any,
    zero_dtype: Any,
    keepdim: bool,
) -> tuple[Array, Array]:
    of_dtype = RANGES[SCALAR_TYPES[dtype]] if low is None or high is None else (low, high)
    low, high = (bound if value is None else value for value, bound in zip((low, high), of_dtype, strict=True))
    pairs = [n for d, b in zip(x.shape, block_size, strict=True) for n in (d // max(b, 1), b)]
    split = float32(x).reshape(pairs)
    axes = tuple(range(1, len(pairs), 2))
    dims = _kept(x.shape, block_size, keepdim)
    scale, zero = _affine_rule(mapping, low, high, _eps(eps, str(x.dtype))).reference(
        split.min(axis=axes), split.max(axis=axes)
    )
    return scale.reshape(dims), zero.reshape(dims)


def _kept(dims: Sequence[Any], blocks: Sequence[Any], keepdim: bool, most: Sequence[int] | None = None) -> list[Any]:
    """Sizes of the parameters: a dimension that is one block goes away, unless it is one element, or ``keepdim``.

    ``most``: the dims at most, where ``dims`` may be symbols. A size that a block divides is at least the block's.
    """
    kept: list[Any] = []
    for size, block, bound in zip(dims, blocks, dims if most is None else most, strict=True):
        whole = block in (size, bound) and block != 1
        if keepdim or not whole:
            kept.append(1 if whole else size if block == 1 else quotient((size,), (block,)))
    return kept


def choose_affine_sizes(
    s: Sizes,
    x: Tensor,
    mapping: str,
    block_size: Sequence[IntLike],
    target_dtype: Any,
    quant_min: Any,
    quant_max: Any,
    eps: Any,
    scale_dtype: Any,
    zero_point_dtype: Any,
    keepdim: bool,
    outs: list[Tensor],
) -> list[Any]:
    if len(block_size) != x.rank:
        return [None] * len(outs)
    return [tuple(_kept(s.of(x), [s.value(b) for b in block_size], keepdim, x.max_dims))] * len(outs)


def choose_affine_rows(cut: Cut, x: Tensor, mapping: str, block_size: Sequence[IntLike], *rest: Any) -> int | None:
    """An axis along which each index has blocks of its own."""
    axis, keepdim = cut.only(x), rest[-2]
    if axis is None or len(block_size) != x.rank or block_size[axis] != 1:
        return None
    return len(_kept(x.max_dims[:axis], block_size[:axis], keepdim))


@op(
    "torchao.choose_qparams_affine.default",
    reference=choose_qparams_affine_reference,
    promoted=("x",),
    discontinuous=True,
    sizes=choose_affine_sizes,
    rows=choose_affine_rows,
)
def choose_qparams_affine(
    planner: Planner,
    x: Tensor,
    mapping_type: str,
    block_size: Sequence[IntLike],
    target_dtype: Any,
    quant_min: Number | None,
    quant_max: Number | None,
    eps: float | None,
    scale_dtype: Any,
    zero_point_dtype: Any,
    keepdim: bool,
    outs: list[Tensor],
) -> None:
    """A scale and a zero point for every block of ``x``, whose sizes are ``block_size``.

    ``mapping_type`` is "ASYMMETRIC", "SYMMETRIC" or "SYMMETRIC_NO_CLIPPING_ERR". Bounds of codes that are None follow
    from ``target_dtype``; ``eps``, the smallest scale, is by default the smallest normal number of the dtype of ``x``.
    """
    name = "choose_qparams_affine"
    planner.check(mapping_type in MAPPINGS, f"{name}: there is no mapping {mapping_type!r}")
    low, high = code_range(planner, quant_min, quant_max, target_dtype)
    if MAPPINGS[mapping_type] == "no_clipping":
        planner.check(low < 0 < high, f"{name}: 0 must lie between the codes {low} and {high}")
    blocks = in_blocks(planner, name, x, block_size)
    planner.check(blocks.divide, f"{name}: blocks of {list(blocks.sizes)} must divide {x} without a rest")
    for out in outs:
        planner.resize(out)
    choose(planner, name, x, blocks, _affine_rule(mapping_type, low, high, _eps(eps, x.dtype)), outs)

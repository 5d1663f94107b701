"""Embedding: the rows of a table, plain or quantized, that integer indices (token ids) name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..indexing.bounds import in_range
from ..indexing.gathering import Pick, gather
from ..matmul.formats import Q4GAW, Q8GSW, QuantizedMatrix, WeightFormat, dequantize, grouped_matrix
from ..matmul.packed import can_pack, pack
from ..plan import Binding, Planner
from ..registry import Table, op
from ..rows import Cut
from ..shapes import ceil_div, row_major_strides
from ..sizes import Shape, Sizes, quotient
from ..values import Tensor
from . import bag, parts
from .indices import check_indices

__all__ = ["bag", "parts"]

WORKGROUP = 64
_WORD, _QUAD = 4, 16  # bytes


def embedding_reference(
    weight: np.ndarray, indices: np.ndarray, padding_idx: int, scale_grad: bool, sparse: bool
) -> Any:
    return weight[in_range(indices, len(weight), wraps=False)]


def gathered_rows(cut: Cut, *args: Any) -> int | None:
    """Every index, which is the last tensor before the output, gets its row."""
    return cut.only([t for t in args[:-1] if isinstance(t, Tensor)][-1])


@op(
    "aten.embedding.default",
    reference=embedding_reference,
    sizes=lambda s, weight, indices, *rest: (*s.of(indices), *s.of(weight)[1:]),
    rows=gathered_rows,
    table=Table({"weight": 0}, "indices"),
)
def embedding(
    planner: Planner, weight: Tensor, indices: Tensor, padding_idx: int, scale_grad: bool, sparse: bool, out: Tensor
) -> None:
    """``out[..., :] = weight[indices[...], :]`` for ``weight`` [V, D]; the rest matters in training only."""
    planner.check(
        weight.rank == 2 and weight.dtype == out.dtype,
        f"embedding: {weight} must be a matrix of the dtype of {out}",
    )
    rows, width = weight.dims
    nbytes = width * weight.element.itemsize
    check_indices(planner, indices, rows)
    planner.resize(out)
    if nbytes % _WORD:  # rows share words
        strides = (*row_major_strides(indices.dims), 0)
        along = (*(0,) * indices.rank, 1)
        gather(planner, weight, along, [Pick(indices, strides, rows, width)], False, out)
        return
    unit = _QUAD if nbytes % _QUAD == 0 else _WORD
    row = nbytes // unit
    n = math.prod(indices.dims) * row
    planner.dispatch(
        "embedding/gather_rows",
        planner.grid_1d(n, WORKGROUP),
        {"table": weight, "indices": indices, "out": out},
        {"n": n, "row": row, "last": rows - 1},
        overrides={"wg_size": WORKGROUP},
        template={"unit": "vec4<u32>" if unit == _QUAD else "u32"},
    )


def embedding_q4gsw_reference(
    weight: np.ndarray, scales: np.ndarray, group_size: int, indices: np.ndarray, is_linear_weight: bool
) -> Any:
    low, high = (weight & 15).astype(np.float64) - 8, (weight >> 4).astype(np.float64) - 8
    pair = (low, high) if is_linear_weight else (high, low)
    values = np.stack(pair, axis=-1).reshape(len(weight), -1)
    return (values * np.repeat(scales.reshape(len(weight), -1), group_size, axis=1))[indices]


@op(
    "et_vk.embedding_q4gsw.default",
    reference=embedding_q4gsw_reference,
    sizes=lambda s, weight, scales, group_size, indices, *rest: (*s.of(indices), quotient((2, *s.of(weight)[1:]), ())),
    rows=gathered_rows,
    table=Table({"weight": 0, "scales": 0}, "indices"),
)
def embedding_q4gsw(
    planner: Planner,
    weight: Tensor,
    scales: Tensor,
    group_size: int,
    indices: Tensor,
    is_linear_weight: bool,
    out: Tensor,
) -> None:
    """Rows of a symmetric 4-bit table.

    ``weight`` [V, D/2] uint8 holds two elements a byte, each with 8 added: the even one in the low nibble if
    ``is_linear_weight``, in the high nibble if not. ``scales`` [V, D/group_size] f32.
    """
    planner.check(weight.rank == 2 and weight.dtype == "uint8", f"embedding_q4gsw: {weight} must be a uint8 matrix")
    rows, half_width = weight.dims
    planner.check(
        group_size > 0 and group_size % 2 == 0 and half_width * 2 % group_size == 0,
        f"embedding_q4gsw: groups of {group_size} must be even and divide the {half_width * 2} columns",
    )
    groups = half_width * 2 // group_size
    planner.check(
        scales.dtype == "float32" and scales.dims in ((rows, groups), (rows,) if groups == 1 else (rows, groups)),
        f"embedding_q4gsw: scales {scales} must be float32 [{rows}, {groups}]",
    )
    planner.check(out.dtype == "float32", f"embedding_q4gsw: {out} must be float32")
    check_indices(planner, indices, rows)
    planner.resize(out)
    n = ceil_div(out.numel, 2)
    planner.dispatch(
        "embedding/gather_rows_q4",
        planner.grid_1d(n, WORKGROUP),
        {"table": weight, "scales": scales, "indices": indices, "out": out},
        {"n": n, "row": half_width, "half_group": group_size // 2, "last": rows - 1},
        overrides={"wg_size": WORKGROUP},
        template={"low_first": is_linear_weight},
    )


def embedding_q8gsw_reference(weights: np.ndarray, scales: np.ndarray, group_size: int, indices: np.ndarray) -> Any:
    return dequantize(Q8GSW, weights, scales, group_size)[indices]


def packed_sizes(s: Sizes, weights: Tensor, scales: Tensor, group_size: int, indices: Tensor, out: Tensor) -> Shape:
    return (*s.of(indices), *out.max_dims[-1:])


@op(
    "et_webgpu.embedding_q8gsw.default",
    reference=embedding_q8gsw_reference,
    sizes=packed_sizes,
    rows=gathered_rows,
    table=Table({"weights": 0, "scales": 1}, "indices"),
)
def embedding_q8gsw(
    planner: Planner, weights: Tensor, scales: Tensor, group_size: int, indices: Tensor, out: Tensor
) -> None:
    """Rows of an 8-bit table, of the constants that ``linear_q8gsw`` takes, so that a tied head can share them.

    ``weights`` [V, B] int8 and ``scales`` [ceil(D / group_size), S] float16 give ``out`` [..., D] float32: D is what
    ``out`` is planned for.
    """
    _gather_quantized(planner, "embedding_q8gsw", Q8GSW, weights, scales, group_size, indices, out)


def embedding_q4gaw_reference(
    weights: np.ndarray, scales_and_mins: np.ndarray, group_size: int, indices: np.ndarray
) -> Any:
    return dequantize(Q4GAW, weights, scales_and_mins, group_size)[indices]


@op(
    "et_webgpu.embedding_q4gaw.default",
    reference=embedding_q4gaw_reference,
    sizes=packed_sizes,
    rows=gathered_rows,
    table=Table({"weights": 0, "scales_and_mins": 1}, "indices"),
)
def embedding_q4gaw(
    planner: Planner, weights: Tensor, scales_and_mins: Tensor, group_size: int, indices: Tensor, out: Tensor
) -> None:
    """Rows of a 4-bit table with minima, of the constants that ``linear_q4gaw`` takes.

    ``weights`` [V, B] uint8 and ``scales_and_mins`` [ceil(D / group_size), S, 2] float16 give ``out`` [..., D]
    float32: D is what ``out`` is planned for.
    """
    _gather_quantized(planner, "embedding_q4gaw", Q4GAW, weights, scales_and_mins, group_size, indices, out)


def _gather_quantized(
    planner: Planner,
    name: str,
    layout: WeightFormat,
    weights: Tensor,
    scales: Tensor,
    group_size: int,
    indices: Tensor,
    out: Tensor,
) -> None:
    planner.check(
        out.rank == indices.rank + 1 and out.dtype == "float32",
        f"{name}: {out} must be float32 with one dimension more than {indices}",
    )
    width = out.max_dims[-1]
    matrix = grouped_matrix(planner, name, layout, weights, scales, group_size, width)
    check_indices(planner, indices, matrix.rows)
    planner.resize(out)
    row_quads = ceil_div(width, 4)
    n = math.prod(indices.dims) * row_quads
    table, steps = _table(planner, name, matrix)
    planner.dispatch(
        "embedding/gather_rows_quantized",
        planner.grid_1d(n, WORKGROUP),
        table | {"indices": indices, "out": out},
        {
            "n": n,
            "row_quads": row_quads,
            "width": width,
            "group_size": matrix.group_size,
            **steps,
            "last": matrix.rows - 1,
        },
        overrides={"wg_size": WORKGROUP},
        template={**layout.template, "vec4_out": width % 4 == 0},
    )


def _table(planner: Planner, name: str, matrix: QuantizedMatrix) -> tuple[dict[str, Binding], dict[str, int]]:
    """The table as a linear layer of this device has it, so that they share it, and how it lies.

    Routes: ``rows``, as in the file; ``packed`` (matmul/packed.py).
    """
    possible = {"rows": True, "packed": can_pack(planner, [matrix], [None])}
    order = ("rows", "packed") if planner.features.cpu else ("packed", "rows")
    if planner.choose(name, {route: possible[route] for route in order}) == "rows":
        words = matrix.row_bytes // 4
        steps = (4 * words, words, 1, 1, matrix.scale_quads)
        bound: dict[str, Binding] = {"table": matrix.weights, "scales": matrix.scales}
    else:
        packed = pack([matrix], gated=False)
        assert packed.scales is not None, "a quantized matrix has scales"
        steps = (4 * packed.units, 1, 4, packed.groups, 1)
        bound = {"table": packed.weights, "scales": packed.scales}
    names = ("quad_step", "row_step", "word_step", "scale_quad_step", "scale_group_step")
    return bound, dict(zip(names, steps, strict=True))

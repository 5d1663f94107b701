"""Embeddings from tables of codes of 8, 4 or 2 bits, as the exporter's pass for quantized programs makes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ..plan import Binding, Planner
from ..registry import Table, op
from ..rows import Cut
from ..shapes import ceil_div
from ..sizes import Found, Sizes, quotient
from ..values import Tensor
from .numbers import Array, float32
from .plan import FLOATS

WORKGROUP = 64
BITS = {"embedding_byte": 8, "embedding_4bit": 4, "embedding_2bit": 2}


def unpacked(table: Array, bits: int) -> Array:
    """Codes [V, D] int64 of a table of bytes."""
    if bits == 8:
        return table.astype(np.int64)
    shifts = [4, 0] if bits == 4 else [0, 2, 4, 6]
    codes = np.stack([(table >> shift) & (2**bits - 1) for shift in shifts], axis=-1).astype(np.int64)
    return codes.reshape(len(table), -1) - 2 ** (bits - 1)


def embedding_reference(bits: int, table: Array, scales: Array, zeros: Array | None, indices: Array) -> Array:
    codes = unpacked(table, bits)
    groups = scales.shape[1] if scales.ndim == 2 else 1
    split = codes.reshape(len(codes), groups, -1)
    of_groups = (len(codes), groups, 1)
    zero = 0 if zeros is None else float32(zeros).reshape(of_groups)
    values = (float32(split) - zero) * float32(scales).reshape(of_groups)
    return values.reshape(codes.shape)[indices]


def index_rows(cut: Cut, table: Tensor, scales: Tensor, zeros: Tensor | None, *rest: Any) -> int | None:
    """Every index gets its row."""
    return cut.only(rest[2])


_TABLE = Table({"weight": 0, "weight_scales": 0, "weight_zero_points": 0}, "indices")


def _register(name: str, bits: int) -> None:
    def reference(
        table: Array, scales: Array, zeros: Array | None, low: int, high: int, indices: Array, dtype: Any = None
    ) -> Array:
        return embedding_reference(bits, table, scales, zeros, indices)

    def sizes(s: Sizes, table: Tensor, scales: Tensor, zeros: Tensor | None, *rest: Any) -> Found:
        return (*s.of(rest[2]), *(quotient((n, 8 // bits), ()) for n in s.of(table)[1:2]))

    @op(
        f"quantized_decomposed.{name}.dtype",
        reference=reference,
        sizes=sizes,
        rows=index_rows,
        table=_TABLE,
    )
    def with_dtype(
        planner: Planner,
        weight: Tensor,
        weight_scales: Tensor,
        weight_zero_points: Tensor | None,
        weight_quant_min: int,
        weight_quant_max: int,
        indices: Tensor,
        dtype: Any,
        out: Tensor,
    ) -> None:
        """The rows of a quantized table that ``indices`` name: (code - zero point) * scale, as floats.

        ``weight`` [V, D * bits / 8] holds codes of 8 bits, int8 or uint8, or uint8 bytes of smaller ones with half of
        their range added: two of 4 bits, the first one high, or four of 2 bits, the first one low. ``weight_scales``
        [V] or [V, groups], and zero points of the same dims and dtype. InvalidInputError for an index outside of the
        table that the program is given; one that it computes is clamped.
        """
        _plan(planner, name, bits, (weight, weight_scales, weight_zero_points), indices, out)

    @op(
        f"quantized_decomposed.{name}.default",
        reference=reference,
        sizes=sizes,
        rows=index_rows,
        table=_TABLE,
    )
    def plan(
        planner: Planner,
        weight: Tensor,
        weight_scales: Tensor,
        weight_zero_points: Tensor | None,
        weight_quant_min: int,
        weight_quant_max: int,
        indices: Tensor,
        out: Tensor,
    ) -> None:
        """As the ``dtype`` overload, in the dtype of the scales."""
        _plan(planner, name, bits, (weight, weight_scales, weight_zero_points), indices, out)


def _plan(
    planner: Planner, name: str, bits: int, matrix: tuple[Tensor, Tensor, Tensor | None], indices: Tensor, out: Tensor
) -> None:
    table, scales, zeros = matrix
    planner.check(
        table.rank == 2 and (table.dtype == "uint8" or (bits, table.dtype) == (8, "int8")) and table.dims[0] > 0,
        f"{name}: {table} must be a matrix of {bits}-bit codes",
    )
    rows, row_bytes = table.dims
    width = row_bytes * 8 // bits
    groups = scales.dims[1] if scales.rank == 2 else 1
    planner.check(
        scales.dtype in FLOATS and scales.dims in ((rows,), (rows, groups)) and groups > 0 and width % groups == 0,
        f"{name}: scales {scales} must be floats [{rows}], or [{rows}, groups] with groups that divide {width} columns",
    )
    planner.check(
        zeros is None or (zeros.numel, zeros.dtype) == (scales.numel, scales.dtype),
        f"{name}: zero points {zeros} must be like the scales {scales}",
    )
    planner.check(indices.dtype == "int32" and out.dtype in FLOATS, f"{name} makes floats of integers, not {out}")

    def check(given: Array | None) -> bool:
        if given is not None and given.size and not 0 <= given.min() <= given.max() < rows:
            bad = int(given[(given < 0) | (given >= rows)].flat[0])
            raise InvalidInputError(f"index {bad} is not in the table of {rows} rows, 0 to {rows - 1}")
        return True

    planner.inspect(indices, check)
    planner.resize(out)
    bindings: dict[str, Binding] = {"table": table, "scales": scales, "indices": indices, "out": out}
    if zeros is not None:
        bindings["zeros"] = zeros
    planner.dispatch(
        "quantize/embedding",
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        bindings,
        {
            "n": out.numel,
            "width": width,
            "row_bytes": row_bytes,
            "groups": groups,
            "group_size": max(width // groups, 1),
            "last": rows - 1,
        },
        overrides={"wg_size": WORKGROUP},
        template={
            "bits": bits,
            "signed": table.dtype == "int8",
            "scale": scales.dtype,
            "zeros": zeros is not None,
            "out": out.dtype,
        },
    )


for _name, _bits in BITS.items():
    _register(_name, _bits)

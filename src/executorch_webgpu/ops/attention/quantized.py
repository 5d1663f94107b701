"""Attention over caches of int8 codes, with a scale and a zero point for each row and head.

The flash route reads the codes; the parameters of a row come to it as pairs, and queries as float32.
"""

from __future__ import annotations

import math

from ..plan import Planner
from ..registry import op
from ..sizes import like_first
from ..values import IntLike, Scratch, Tensor
from . import reference
from .checks import are_float32, watch_context
from .flash import plan as flash_plan
from .mask import check_mask, mask_strides

_NAME = "custom_quantized_sdpa"
_WORKGROUP = 64


@op("llama.custom_quantized_sdpa.default", reference=reference.custom_quantized_sdpa, sizes=like_first)
def custom_quantized_sdpa(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start_pos: IntLike,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    q_zero_points: Tensor | None,
    q_scales: Tensor | None,
    k_zero_points: Tensor | None,
    k_scales: Tensor | None,
    v_zero_points: Tensor | None,
    v_scales: Tensor | None,
    is_seq_at_dim_2: bool,
    out: Tensor,
) -> None:
    """Attention of q [1, S, Hq, D] over k, v [1, C, Hkv, D], which hold the rows up to ``start_pos`` + S.

    All are float32, or int8 with float32 scales and int8 zero points [1, rows, heads, 1]; ``out`` is float32. With
    ``is_seq_at_dim_2`` heads come before rows in all of them. Query s sees the rows 0 … ``start_pos`` + s, or without
    ``is_causal`` the context. ``attn_mask`` [S, C] or [1], float32, excludes ``is_causal`` and lets all C rows be seen.
    D is a multiple of 4 up to 256. InvalidInputError when ``start_pos`` + S is beyond C.
    """
    planner.check(not dropout_p, f"{_NAME} has dropout {dropout_p}; export the model in eval mode")
    planner.check(attn_mask is None or not is_causal, f"{_NAME} takes a mask or is_causal, not both")
    rows, heads = (2, 1) if is_seq_at_dim_2 else (1, 2)
    _check_shapes(planner, q, k, v, heads, out)
    planner.resize(out)
    tokens, capacity = q.dims[rows], k.dims[rows]
    group, vectors = q.dims[heads] // k.dims[heads], q.dims[3] // 4
    watch_context(planner, _NAME, q, k, start_pos, axis=rows)
    if attn_mask is not None:
        check_mask(planner, _NAME, attn_mask, (1, q.dims[heads], tokens, capacity))
    queries = _floats(planner, q, q_scales, q_zero_points)
    of_keys = _pairs(planner, k, k_scales, k_zero_points, rows)
    of_values = _pairs(planner, v, v_scales, v_zero_points, rows)
    flash_plan.stream(
        planner,
        flash_plan.Streams(
            queries,
            k,
            v,
            out,
            input_pos=start_pos if attn_mask is None else 0,
            new_columns=tokens if attn_mask is None else capacity,
            tokens=tokens,
            group=group,
            kv_heads=k.dims[heads],
            vectors=vectors,
            scale=1 / math.sqrt(q.dims[3]) if scale is None else scale,
            token_stride=vectors if is_seq_at_dim_2 else q.dims[2] * vectors,
            head_stride=tokens * vectors if is_seq_at_dim_2 else vectors,
            column_stride=vectors if is_seq_at_dim_2 else k.dims[2] * vectors,
            kv_head_stride=capacity * vectors if is_seq_at_dim_2 else vectors,
            causal=bool(is_causal),
            mask=attn_mask,
            heads=q.dims[heads],
            mask_strides=mask_strides(attn_mask),
            pairs=None if of_keys is None or of_values is None else (of_keys, of_values),
        ),
    )


def _check_shapes(planner: Planner, q: Tensor, k: Tensor, v: Tensor, heads: int, out: Tensor) -> None:
    tensors = [q, k, v]
    planner.check(all(t.rank == 4 and t.dims[0] == 1 for t in tensors), f"{_NAME} needs batch 1, not {tensors}")
    known = q.dtype in ("float32", "int8") and k.dtype in ("float32", "int8") and out.dtype == "float32"
    planner.check(known, f"{_NAME} takes float32 or int8 and gives float32, not {tensors} and {out}")
    fits = k.dims == v.dims and k.dtype == v.dtype and k.dims[3] == q.dims[3]
    planner.check(fits, f"{_NAME}: keys {k} and values {v} must be alike, with the head size of {q}")
    grouped = k.dims[heads] > 0 and q.dims[heads] % k.dims[heads] == 0
    planner.check(grouped, f"{_NAME}: the heads of {q} are no multiple of those of {k}")
    whole = q.dims[3] % 4 == 0 and q.dims[3] // 4 <= flash_plan.MAX_VECTORS
    planner.check(whole, f"{_NAME}: head size {q.dims[3]} is not a multiple of 4 up to {4 * flash_plan.MAX_VECTORS}")


def _check_parameters(planner: Planner, x: Tensor, scales: Tensor | None, zeros: Tensor | None) -> None:
    alike = all(t is not None and t.dims == (*x.dims[:3], 1) for t in (scales, zeros))
    planner.check(
        alike and scales is not None and zeros is not None and are_float32(scales) and zeros.dtype == x.dtype == "int8",
        f"{_NAME}: {x} must have float32 scales and int8 zero points of its rows and heads, not {scales} and {zeros}",
    )


def _floats(planner: Planner, x: Tensor, scales: Tensor | None, zeros: Tensor | None) -> Tensor | Scratch:
    """What the codes of ``x`` stand for."""
    if x.dtype == "float32":
        return x
    _check_parameters(planner, x, scales, zeros)
    assert scales is not None and zeros is not None
    out = planner.scratch(4 * x.numel)
    planner.dispatch(
        "attention/dequantized_rows",
        planner.grid_1d(x.numel // 4, _WORKGROUP),
        {"codes": x, "scales": scales, "zeros": zeros, "out": out},
        {"n": x.numel // 4, "vectors": x.dims[3] // 4},
        overrides={"wg_size": _WORKGROUP},
    )
    return out


def _pairs(planner: Planner, x: Tensor, scales: Tensor | None, zeros: Tensor | None, rows: int) -> Scratch | None:
    """Scale and zero point of every row and head, in this order; None of float32."""
    if x.dtype == "float32":
        return None
    _check_parameters(planner, x, scales, zeros)
    assert scales is not None and zeros is not None
    n, heads = x.numel // x.dims[3], x.dims[3 - rows]
    out = planner.scratch(8 * n)
    planner.dispatch(
        "attention/row_parameters",
        planner.grid_1d(n, _WORKGROUP),
        {"scales": scales, "zeros": zeros, "out": out},
        {
            "n": n,
            "heads": heads,
            "row_step": 1 if rows == 2 else heads,
            "head_step": x.dims[2] if rows == 2 else 1,
        },
        overrides={"wg_size": _WORKGROUP},
    )
    return out

"""Rotary position embeddings: pairs of a head's elements turn by an angle that grows with the position."""

from __future__ import annotations

from typing import Any

from ...errors import InvalidInputError
from ..plan import Planner
from ..registry import op
from ..rows import Cut, RowAxes
from ..sizes import Shape, Sizes, like_first
from ..values import IntLike, Tensor
from . import reference


def rotated_sizes(s: Sizes, xq: Tensor, xk: Tensor, *rest: Any) -> list[Shape]:
    return [s.of(xq), s.of(xk)]


def rotated_rows(cut: Cut, xq: Tensor, xk: Tensor, cos: Tensor, sin: Tensor, *rest: Any) -> int | RowAxes | None:
    """Batches of both, heads of either, and tokens with their rows of tables that begin with the first one's."""
    start = rest[0] if len(rest) == 2 else 0
    if cut.counts:
        return None
    if len(cos.max_dims) == 3:
        return _rotated_by_heads(cut, xq, xk, cos, sin)
    tokens = {xq.id: 1, xk.id: 1, cos.id: 0, sin.id: 0}
    if cut.axes == tokens and start == 0 and cos.max_dims[0] == xq.max_dims[1]:
        return 1
    if cut.axes == {xq.id: 0, xk.id: 0}:
        return 0
    heads = {x.id: 2 for x in (xq, xk) if x.id in cut.axes}
    return (heads.get(xq.id), heads.get(xk.id)) if cut.axes == heads else None


def _rotated_by_heads(cut: Cut, xq: Tensor, xk: Tensor, cos: Tensor, sin: Tensor) -> int | RowAxes | None:
    """The same where heads come before tokens, and batches have angles in common or each its own."""
    if cut.axes == {xq.id: 2, xk.id: 2, cos.id: 1, sin.id: 1}:
        return 2
    batches = {xq.id: 0, xk.id: 0}
    if cut.axes == {**batches, cos.id: 0, sin.id: 0} or (cut.axes == batches and cos.max_dims[0] == 1):
        return 0
    heads = {x.id: 1 for x in (xq, xk) if x.id in cut.axes}
    return (heads.get(xq.id), heads.get(xk.id)) if cut.axes == heads else None


@op(
    "et_vk.apply_rotary_emb.default",
    reference=reference.apply_rotary_emb,
    sizes=rotated_sizes,
    rows=rotated_rows,
    reads_rows_of=("cos", "sin"),
)
def apply_rotary_emb(planner: Planner, xq: Tensor, xk: Tensor, cos: Tensor, sin: Tensor, outs: list[Tensor]) -> None:
    """Rotate the neighbours (2i, 2i+1) of every head of xq [B, S, Hq, D] and xk [B, S, Hkv, D]; float32.

    Token s takes row s of cos and sin [at least S, D/2].
    """
    half = check_pairs(planner, "apply_rotary_emb", xq, xk, cos, sin, 0, outs)
    _rotate(planner, "rope/pairs", half, xq, xk, {"cos_table": cos, "sin_table": sin}, outs, {"half": half})


@op(
    "et_vk.apply_rotary_emb_hf.default",
    reference=reference.apply_rotary_emb_hf,
    sizes=rotated_sizes,
    rows=rotated_rows,
    reads_rows_of=("cos", "sin"),
)
def apply_rotary_emb_hf(
    planner: Planner, xq: Tensor, xk: Tensor, cos: Tensor, sin: Tensor, start_pos: IntLike, outs: list[Tensor]
) -> None:
    """Rotate element i with element i + R/2 in the first R elements of every head; the rest passes unchanged.

    xq [B, S, Hq, D], xk [B, S, Hkv, D]; token s takes row start_pos + s of cos and sin [rows, R], with R even
    and at most D. float32. The kernel reads ``start_pos`` from its live uniform.

    Or, as models of transformers have them, xq [B, Hq, S, D], xk [B, Hkv, S, D] and cos, sin [B or 1, S, R], with 0
    as ``start_pos``.
    """
    name = "apply_rotary_emb_hf"
    by_heads = cos.rank == 3
    check = check_head_halves if by_heads else check_halves
    half = check(planner, name, xq, xk, cos, sin, start_pos, outs)
    params = {
        "half": half,
        "head_dim": xq.dims[3],
        "by_heads": int(by_heads),
        "table_batch": cos.dims[1] if by_heads and cos.dims[0] > 1 else 0,
    }
    bindings = {"cos_table": cos, "sin_table": sin, "start_pos": start_pos}
    _rotate(planner, "rope/halves", xq.dims[3] - half, xq, xk, bindings, outs, params)


def interleaved_rows(cut: Cut, x: Tensor, freqs: Tensor, out: Tensor) -> int | None:
    """Batches, and tokens with their angles."""
    if cut.only(x) == 0:
        return 0
    place = next((a for a, n in enumerate(freqs.max_dims) if n != 1), 0)
    tokens = cut.axes == {x.id: 1, freqs.id: place} and freqs.max_dims[place : place + 1] == x.max_dims[1:2]
    return 1 if tokens and not cut.counts else None


@op(
    "et_vk.apply_rotary_emb_interleaved.default",
    reference=reference.apply_rotary_emb_interleaved,
    sizes=like_first,
    rows=interleaved_rows,
)
def apply_rotary_emb_interleaved(planner: Planner, x: Tensor, freqs: Tensor, out: Tensor) -> None:
    """Rotate the neighbours (2i, 2i+1) of x [B, N, C] by the angle that freqs[n] holds for the pair.

    ``freqs`` holds cos at 2i and sin at 2i+1, in any shape with N * C elements. float32.
    """
    planner.check(
        x.dtype == freqs.dtype == out.dtype == "float32",
        f"apply_rotary_emb_interleaved takes float32, not {x}, {freqs} and {out}",
    )
    planner.check(
        x.rank == 3 and x.dims[2] % 2 == 0 and freqs.numel == x.dims[1] * x.dims[2],
        f"apply_rotary_emb_interleaved: x {x} must be [B, N, even C], and freqs {freqs} have N * C elements",
    )
    planner.resize(out)
    n = x.numel // 2
    params = {"n": n, "table": freqs.numel // 2}
    planner.dispatch("rope/interleaved", planner.grid_1d(n, 64), {"x": x, "freqs": freqs, "out": out}, params)


def check_pairs(
    planner: Planner,
    name: str,
    xq: Tensor,
    xk: Tensor,
    cos: Tensor,
    sin: Tensor,
    start_pos: IntLike | None,
    outs: list[Tensor],
) -> int:
    """Refuse what cannot be rotated by neighbours, from row ``start_pos`` of the tables on, if that is known; D/2."""
    _check_heads(planner, name, xq, xk, cos, sin, outs)
    half = xq.dims[3] // 2
    planner.check(
        cos.dims[1] == half and xq.dims[3] % 2 == 0,
        f"{name}: cos is {list(cos.dims)}, but heads of {xq.dims[3]} need [S, {half}]",
    )
    if start_pos is not None:
        _check_rows(planner, name, xq, cos, start_pos)
    return half


def check_halves(
    planner: Planner,
    name: str,
    xq: Tensor,
    xk: Tensor,
    cos: Tensor,
    sin: Tensor,
    start_pos: IntLike | None,
    outs: list[Tensor],
) -> int:
    """Refuse what cannot be rotated by halves, from row ``start_pos`` of the tables on, if that is known; R/2."""
    _check_heads(planner, name, xq, xk, cos, sin, outs)
    head_dim, rotary_dim = xq.dims[3], cos.dims[1]
    planner.check(
        rotary_dim % 2 == 0 and 0 < rotary_dim <= head_dim,
        f"{name}: cos is {list(cos.dims)}, but needs an even number of columns up to {head_dim}",
    )
    if start_pos is not None:
        _check_rows(planner, name, xq, cos, start_pos)
    return rotary_dim // 2


def check_head_halves(
    planner: Planner,
    name: str,
    xq: Tensor,
    xk: Tensor,
    cos: Tensor,
    sin: Tensor,
    start_pos: IntLike,
    outs: list[Tensor],
) -> int:
    """Refuse heads of tokens, and angles of batches, that cannot be rotated by halves; R/2."""
    tensors = [xq, xk, cos, sin, *outs]
    planner.check(all(t.dtype == "float32" for t in tensors), f"{name} takes float32 tensors, not {tensors}")
    planner.check(len(outs) == 2, f"{name} has two results, not {len(outs)}")
    planner.check(isinstance(start_pos, int) and start_pos == 0, f"{name}: angles {cos} of batches begin at 0")
    planner.check(
        xq.rank == xk.rank == 4 and xq.dims[::2] == xk.dims[::2] and xq.dims[3] == xk.dims[3],
        f"{name}: xq {xq} and xk {xk} must be [B, heads, S, D] with the same B, S and D",
    )
    planner.check(
        cos.dims == sin.dims and cos.dims[0] in (1, xq.dims[0]) and cos.dims[1] == xq.dims[2],
        f"{name}: cos {cos} and sin {sin} must have a row for every token of {xq}",
    )
    planner.check(
        cos.dims[2] % 2 == 0 and 0 < cos.dims[2] <= xq.dims[3],
        f"{name}: cos is {list(cos.dims)}, but needs an even number of columns up to {xq.dims[3]}",
    )
    return cos.dims[2] // 2


def _check_heads(
    planner: Planner, name: str, xq: Tensor, xk: Tensor, cos: Tensor, sin: Tensor, outs: list[Tensor]
) -> None:
    tensors = [xq, xk, cos, sin, *outs]
    planner.check(all(t.dtype == "float32" for t in tensors), f"{name} takes float32 tensors, not {tensors}")
    planner.check(len(outs) == 2, f"{name} has two results, not {len(outs)}")
    planner.check(
        xq.rank == xk.rank == 4 and xq.dims[:2] == xk.dims[:2] and xq.dims[3] == xk.dims[3],
        f"{name}: xq {xq} and xk {xk} must be [B, S, heads, D] with the same B, S and D",
    )
    planner.check(
        cos.rank == 2 and cos.dims == sin.dims,
        f"{name}: cos {cos} and sin {sin} must be tables of the same size",
    )


def _check_rows(planner: Planner, name: str, xq: Tensor, cos: Tensor, start_pos: IntLike) -> None:
    why = (
        ""
        if planner.building
        else ": input_pos is negative or past the program's context; shorten the input or start over"
    )
    planner.check(
        xq.dims[1] <= cos.dims[0],
        f"{name} has angles for {cos.dims[0]} of {xq.dims[1]} tokens{why}",
    )

    tokens, rows = xq.dims[1], cos.dims[0]  # numbers, so that all layers watch the same function

    def check(start: int) -> bool:
        if start < 0 or start + tokens > rows:
            raise InvalidInputError(
                f"{name}: tokens at positions {start} to {start + tokens - 1} need a row each, "
                f"but cos and sin have rows 0 to {rows - 1}"
            )
        return True

    planner.derive(check, start_pos)


def _rotate(
    planner: Planner,
    kernel: str,
    per_head: int,
    xq: Tensor,
    xk: Tensor,
    bindings: dict[str, Any],
    outs: list[Tensor],
    params: dict[str, int],
) -> None:
    """One dispatch over the heads of both tensors, with ``per_head`` invocations a head."""
    batch, tokens, q_heads, _ = xq.dims
    k_heads = xk.dims[2]
    if params.get("by_heads"):
        tokens, q_heads, k_heads = q_heads, tokens, xk.dims[1]
    for out in outs:
        planner.resize(out)
    n = batch * tokens * (q_heads + k_heads) * per_head
    planner.dispatch(
        kernel,
        planner.grid_1d(n, 64),
        {"xq": xq, "xk": xk, **bindings, "xq_out": outs[0], "xk_out": outs[1]},
        {"n": n, "tokens": tokens, "q_heads": q_heads, "k_heads": k_heads, **params},
    )

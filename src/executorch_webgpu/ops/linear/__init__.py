"""Matrix products in float32: linear layers, by the routes of ``matmul``, and mm, addmm and bmm."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..matmul import Product, multiply
from ..matmul.gemm import Tile, Tuning
from ..plan import Planner
from ..registry import Linear, op
from ..rows import Cut, each_row
from ..shapes import broadcast, broadcast_strides, ceil_div
from ..sizes import Shape, Sizes
from ..sizes import linear as linear_sizes
from ..values import Dims, Tensor
from . import matrix

TUNING = Tuning((Tile(2, 2, 16), Tile(1, 1, 32)))


def linear_reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    out = x @ weight.T
    return out if bias is None else out + bias[: len(weight)]


@op(
    "aten.linear.default",
    reference=linear_reference,
    sizes=linear_sizes,
    rows=each_row,
    linear=Linear("f32", "weight", bias="bias"),
)
def linear(planner: Planner, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """``out`` [..., N] = ``x`` [..., K] times the transpose of ``weight`` [N, K], plus ``bias`` [N].

    All are float32; ``weight`` may be float16.
    """
    _check_floats(planner, "linear", x, bias, out)
    planner.check(weight.dtype in ("float32", "float16"), f"linear: {weight} must be float32 or float16")
    planner.check(
        x.rank >= 1 and weight.rank == 2 and x.dims[-1] == weight.dims[1],
        f"linear: the last dimension of {x} must be that of the matrix {weight}",
    )
    n = weight.dims[0]
    m = math.prod(x.dims[:-1])
    planner.check(bias is None or bias.numel >= n, f"linear: bias {bias} must hold {n} elements")
    planner.resize(out)
    multiply(planner, "linear", Product(x, m, (weight,), (bias,), (out,)))


def mm_reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b


def matmul_sizes(s: Sizes, a: Tensor, b: Tensor, out: Tensor) -> Shape:
    return (*s.of(a)[:-1], *s.of(b)[-1:])


def matmul_rows(cut: Cut, a: Tensor, b: Tensor, out: Tensor) -> int | None:
    """Batches of both, rows of the first, columns of the second."""
    batches = cut.together([a, b])
    if batches is not None:
        return batches if batches < out.rank - 2 else None
    if cut.only(a) == out.rank - 2:
        return out.rank - 2
    return out.rank - 1 if cut.only(b) == out.rank - 1 else None


@op("aten.mm.default", reference=mm_reference, sizes=matmul_sizes, rows=matmul_rows)
def mm(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
    """``out`` [M, N] = ``a`` [M, K] x ``b`` [K, N]; float32."""
    _check_floats(planner, "mm", a, b, out)
    planner.check(
        a.rank == b.rank == 2 and a.dims[1] == b.dims[0],
        f"mm: {a} and {b} must be matrices [M, K] and [K, N]",
    )
    (m, k), n = a.dims, b.dims[1]
    planner.resize(out)
    gemm(planner, (1, m, n, k), a, b, out)


@op("aten.bmm.default", reference=mm_reference, sizes=matmul_sizes, rows=matmul_rows)
def bmm(planner: Planner, a: Tensor, b: Tensor, out: Tensor) -> None:
    """``out`` [B, M, N] = ``a`` [B, M, K] x ``b`` [B, K, N]; float32."""
    _check_floats(planner, "bmm", a, b, out)
    planner.check(
        a.rank == b.rank == 3 and a.dims[0] == b.dims[0] and a.dims[2] == b.dims[1],
        f"bmm: {a} and {b} must be [B, M, K] and [B, K, N]",
    )
    (batches, m, k), n = a.dims, b.dims[2]
    planner.resize(out)
    gemm(planner, (batches, m, n, k), a, b, out)


def addmm_reference(bias: np.ndarray, a: np.ndarray, b: np.ndarray, beta: float, alpha: float) -> np.ndarray:
    product = alpha * (a @ b)
    return product if beta == 0 else product + beta * bias


def addmm_rows(cut: Cut, bias: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float, out: Tensor) -> int | None:
    """Rows of ``a`` or columns of ``b``, with those of a bias that has as many."""
    for operand, axis in ((a, 0), (b, 1)):
        along = axis + bias.rank - 2
        if along >= 0 and bias.max_dims[along] != 1 and beta != 0:
            joint = {operand.id: axis, bias.id: along}
        else:
            joint = {operand.id: axis}
        if cut.axes == joint and not cut.counts:
            return axis
    return None


@op(
    "aten.addmm.default",
    reference=addmm_reference,
    sizes=lambda s, bias, a, b, beta, alpha, out: matmul_sizes(s, a, b, out),
    rows=addmm_rows,
)
def addmm(planner: Planner, bias: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float, out: Tensor) -> None:
    """``out`` [M, N] = ``beta`` * ``bias`` + ``alpha`` * ``a`` [M, K] x ``b`` [K, N]; float32.

    ``bias`` broadcasts to [M, N]; with ``beta`` 0 it is not read, whatever it holds.
    """
    _check_floats(planner, "addmm", bias, a, b, out)
    planner.check(
        a.rank == b.rank == 2 and a.dims[1] == b.dims[0],
        f"addmm: {a} and {b} must be matrices [M, K] and [K, N]",
    )
    (m, k), n = a.dims, b.dims[1]
    planner.check(
        bias.rank <= 2 and broadcast(bias.dims, (m, n)) == (m, n),
        f"addmm: bias {bias} does not broadcast to [{m}, {n}]",
    )
    planner.resize(out)
    strides = broadcast_strides(bias.dims, (m, n))
    gemm(planner, (1, m, n, k), a, b, out, bias if beta != 0 else None, strides, alpha=alpha, beta=beta)


def addmv_rows(cut: Cut, bias: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float, out: Tensor) -> int | None:
    """Rows of ``a``, with those of a bias that has as many."""
    joint = {a.id: 0} if beta == 0 or bias.max_dims in ((), (1,)) else {a.id: 0, bias.id: 0}
    return 0 if cut.axes == joint and not cut.counts else None


@op(
    "aten.addmv.default",
    reference=addmm_reference,
    sizes=lambda s, bias, a, b, beta, alpha, out: s.of(a)[:1],
    rows=addmv_rows,
)
def addmv(planner: Planner, bias: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float, out: Tensor) -> None:
    """``out`` [M] = ``beta`` * ``bias`` [M] or [1] + ``alpha`` * ``a`` [M, K] x ``b`` [K]; float32."""
    _check_floats(planner, "addmv", bias, a, b, out)
    planner.check(
        a.rank == 2 and b.rank == 1 and a.dims[1] == b.dims[0],
        f"addmv: {a} and {b} must be a matrix [M, K] and a vector [K]",
    )
    m, k = a.dims
    planner.check(bias.rank <= 1 and bias.numel in (1, m), f"addmv: bias {bias} does not broadcast to [{m}]")
    planner.resize(out)
    strides = (1 if bias.numel == m else 0, 0)
    gemm(planner, (1, m, 1, k), a, b, out, bias if beta != 0 else None, strides, alpha=alpha, beta=beta)


def _check_floats(planner: Planner, name: str, *tensors: Tensor | None) -> None:
    given = [t for t in tensors if t is not None]
    planner.check(all(t.dtype == "float32" for t in given), f"{name} takes float32 tensors, not {given}")


@dataclass(frozen=True)
class Codes:
    """What makes a matrix [K, N] of codes of 4 bits: ``scales`` [N / group_size, K at least]."""

    scales: Tensor
    group_size: int


def gemm(
    planner: Planner,
    sizes: tuple[int, int, int, int],
    a: Tensor,
    b: Tensor,
    out: Tensor,
    bias: Tensor | None = None,
    bias_strides: Dims = (0, 0),
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    a_transposed: bool = False,
    codes: Codes | None = None,
) -> None:
    """``out`` = ``alpha`` * ``a`` x ``b`` + ``beta`` * ``bias``, float32; ``sizes``: batches, M, N, K.

    ``a_transposed``: a single ``a`` lies as [K, M]. ``codes``: a single ``b`` lies as the weights of ``linear_q4gsw``.
    """
    batches, m, n, k = sizes
    quads = ceil_div(n, 4)
    tuning = planner.tuning("linear/gemm", TUNING)
    enough = (tile for tile in tuning.tiles if tile.workgroups(m, quads) * batches >= tuning.workgroups)
    tile = next(enough, tuning.tiles[-1])
    template = {"bias": bias is not None, "a_transposed": a_transposed, "b_codes": codes is not None}
    for other in tuning.tiles:
        planner.prepare("linear/gemm", template={**asdict(other), **template})
    plain = (
        alpha == 1 and not a_transposed and codes is None and (bias is None or (beta == 1 and bias_strides == (0, 1)))
    )
    if _on_tensor_cores(planner, matrix.Sizes(*sizes), (a, b), out, bias, plain):
        return
    x, y, _ = planner.grid_1d(tile.workgroups(m, quads), 1)
    bindings = {"a": a, "b": b, "out": out} | ({} if bias is None else {"bias": bias})
    params: dict[str, Any] = {
        "m": m,
        "n": n,
        "k": k,
        "alpha": alpha,
        "beta": beta,
        "bias_row": bias_strides[0],
        "bias_column": bias_strides[1],
        "column_tiles": ceil_div(quads, 16 * tile.column_quads),
        "batches": batches,
    }
    if codes is not None:
        bindings["scales"] = codes.scales
        params |= {"b_bytes": b.dims[1], "group_size": codes.group_size, "scale_stride": codes.scales.dims[1]}
    planner.dispatch(
        "linear/gemm",
        (x, y, min(batches, planner.limits.max_workgroups)),
        bindings,
        params,
        template={**asdict(tile), **template},
    )


def _on_tensor_cores(
    planner: Planner,
    sizes: matrix.Sizes,
    operands: tuple[Tensor, Tensor],
    out: Tensor,
    bias: Tensor | None,
    plain: bool,
) -> bool:
    """Whether a matrix route takes the product, which is then planned."""
    if not plain:
        planner.choose("mm", {"gemm": True})
        return False
    a, b = (t.max_dims for t in operands)
    batches, m, n, k = math.prod(a[:-2]), a[-2], b[-1] if len(b) > 1 else 1, a[-1]
    largest = matrix.Sizes(batches, m, n, k)
    can = {name: sizes.k > 0 and matrix.fits(planner, largest, parts) for name, parts in matrix.PARTS.items()}
    names = ["matrix_f16", "matrix"] if planner.rounds else ["matrix"]
    first = [
        name
        for name in names
        if can[name] and all(matrix.pays(planner, s, matrix.PARTS[name]) for s in (largest, sizes))
    ]
    order = [*first, "gemm", *(name for name in can if name not in first)]
    route = planner.choose("mm", {name: can.get(name, True) for name in order})
    if route == "gemm":
        return False
    parts = matrix.PARTS[route]
    matrix.prepare(planner, largest, parts, bias is not None)
    matrix.run(planner, sizes, largest, operands, out, bias, parts)
    return True

"""What on-device training calls besides ordinary operators: a loss with its gradient, products of gradients, a step."""

from __future__ import annotations

import math

import numpy as np

from ...errors import InvalidInputError
from ..linear import Codes, gemm
from ..matmul.formats import Q4GSW, dequantize
from ..plan import Binding, Planner
from ..quantize.numbers import float32
from ..registry import op
from ..rows import Cut, each_row
from ..shapes import ceil_div
from ..sizes import Found, Sizes, quotient
from ..values import Tensor

WORKGROUP = 64
ROW_WORKGROUP = 256
Array = np.ndarray


# -- the loss ---------------------------------------------------------------------------------------------------------


def fused_ce_reference(logits: Array, labels: Array, n_valid: float) -> tuple[Array, Array]:
    counted, rows = labels >= 0, np.arange(len(labels))
    columns = np.clip(labels, 0, logits.shape[-1] - 1)
    with np.errstate(all="ignore"):
        shifted = logits - logits.max(axis=-1, keepdims=True)
        e = np.exp(shifted)
        total = e.sum(axis=-1, keepdims=True)
        losses = (np.log(total[:, 0]) - shifted[rows, columns]) / n_valid
        gradient = e / total
        gradient[rows, columns] -= 1
        gradient /= n_valid
    return np.where(counted, losses, 0).sum(), np.where(counted[:, None], gradient, 0)


@op(
    "et_vk.fused_ce.default",
    reference=fused_ce_reference,
    sizes=lambda s, logits, labels, n_valid, outs: [(), s.of(logits)],
)
def fused_ce(planner: Planner, logits: Tensor, labels: Tensor, n_valid: float, outs: list[Tensor]) -> None:
    """The cross-entropy [] of ``logits`` [M, V] float32 for ``labels`` [M], and its gradient [M, V].

    Both are divided by ``n_valid``. A row with a negative label counts nothing. InvalidInputError for a label of V or
    more that the program is given; one that it computes counts as V - 1.
    """
    planner.check(len(outs) == 2, f"fused_ce gives a loss and a gradient, not {outs}")
    loss, gradient = outs
    floats = [logits, loss, gradient]
    planner.check(all(t.dtype == "float32" for t in floats), f"fused_ce takes float32, not {floats}")
    planner.check(
        logits.rank == 2 and labels.dtype == "int32" and labels.dims == logits.dims[:1] and logits.dims[1] > 0,
        f"fused_ce: {logits} must be [M, V], and {labels} integers [M]",
    )
    planner.check(n_valid != 0, "fused_ce: the number of rows that count must not be 0")
    rows, width = logits.dims

    def check(given: Array | None) -> bool:
        if given is not None and given.size and int(given.max()) >= width:
            raise InvalidInputError(f"label {int(given.max())} is not one of {width} classes, 0 to {width - 1}")
        return True

    planner.inspect(labels, check)
    planner.resize(loss)
    planner.resize(gradient)
    losses = planner.scratch(4 * max(rows, 1))
    overrides = {"wg_size": ROW_WORKGROUP}
    planner.dispatch(
        "training/cross_entropy",
        planner.grid_1d(rows, 1),
        {"logits": logits, "labels": labels, "losses": losses, "gradient": gradient},
        {"rows": rows, "width": width, "count": n_valid},
        overrides=overrides,
    )
    planner.dispatch("training/sum", (1, 1, 1), {"x": losses, "out": loss}, {"n": rows}, overrides=overrides)


# -- the products -----------------------------------------------------------------------------------------------------


def linear_dw_reference(d_out: Array, x: Array) -> Array:
    return d_out.reshape(-1, d_out.shape[-1]).T @ x.reshape(-1, x.shape[-1])


def linear_dw_rows(cut: Cut, d_out: Tensor, x: Tensor, out: Tensor) -> int | None:
    """Features of the output, or of the input."""
    if cut.only(d_out) == d_out.rank - 1:
        return 0
    return 1 if cut.only(x) == x.rank - 1 else None


@op(
    "et_vk.linear_dW.default",
    reference=linear_dw_reference,
    sizes=lambda s, d_out, x, out: (*s.of(d_out)[-1:], *s.of(x)[-1:]),
    rows=linear_dw_rows,
)
def linear_dw(planner: Planner, d_out: Tensor, x: Tensor, out: Tensor) -> None:
    """The gradient [N, K] of a linear layer's weight, from that of its output [..., N] and its input [..., K]."""
    tensors = [d_out, x, out]
    planner.check(all(t.dtype == "float32" for t in tensors), f"linear_dW takes float32, not {tensors}")
    planner.check(d_out.rank >= 1 and x.rank >= 1, f"linear_dW: {d_out} and {x} must have features")
    m = math.prod(x.dims[:-1])
    planner.check(math.prod(d_out.dims[:-1]) == m, f"linear_dW: {d_out} and {x} must have as many rows")
    planner.resize(out)
    gemm(planner, (1, d_out.dims[-1], x.dims[-1], m), d_out, x, out, a_transposed=True)


def linear_q4gsw_backward_reference(d_out: Array, weights: Array, scales: Array, group_size: int) -> Array:
    return d_out @ dequantize(Q4GSW, weights, scales, group_size)[:, : 2 * weights.shape[1]]


def backward_sizes(s: Sizes, d_out: Tensor, weights: Tensor, *rest: object) -> Found:
    return (*s.of(d_out)[:-1], *(quotient((n, 2), ()) for n in s.of(weights)[1:2]))


@op(
    "et_vk.linear_q4gsw_backward.default",
    reference=linear_q4gsw_backward_reference,
    sizes=backward_sizes,
    rows=each_row,
)
def linear_q4gsw_backward(
    planner: Planner, d_out: Tensor, weights: Tensor, weight_scales: Tensor, group_size: int, out: Tensor
) -> None:
    """The gradient [..., 2 * B] of the input of ``linear_q4gsw``, from that of its output ``d_out`` [..., N].

    ``weights`` [N, B] uint8 and ``weight_scales`` [ceil(2 * B / group_size), N at least] are those of the layer.
    """
    name = "linear_q4gsw_backward"
    planner.check(d_out.dtype == out.dtype == "float32", f"{name} takes float32, not {d_out} and {out}")
    planner.check(
        d_out.rank >= 1 and weights.rank == 2 and weights.dtype == "uint8" and weights.dims[0] == d_out.dims[-1],
        f"{name}: {weights} must be a uint8 matrix with a row for each of the last dimension of {d_out}",
    )
    n, width = weights.dims[0], 2 * weights.dims[1]
    _check_scales(planner, name, weight_scales, n, width, group_size)
    planner.resize(out)
    codes = Codes(weight_scales, group_size)
    gemm(planner, (1, math.prod(d_out.dims[:-1]), width, n), d_out, weights, out, codes=codes)


def _check_scales(planner: Planner, name: str, scales: Tensor, n: int, k: int, group_size: int) -> None:
    planner.check(group_size > 0, f"{name}: groups of {group_size} weights are none")
    groups = ceil_div(k, group_size)
    planner.check(
        scales.dtype == "float32" and scales.rank == 2 and scales.dims[0] >= groups and scales.dims[1] >= n,
        f"{name}: scales {scales} must be float32 [{groups}, {n}]",
    )


# -- the step ---------------------------------------------------------------------------------------------------------


def adamw_step_reference(
    param: Array,
    m: Array,
    v: Array,
    grad: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias_correction1: float,
    bias_correction2: float,
) -> tuple[Array, Array, Array]:
    param *= 1 - lr * weight_decay
    m[...] = beta1 * m + (1 - beta1) * grad
    v[...] = beta2 * v + (1 - beta2) * grad * grad
    param -= lr * (m / bias_correction1) / (np.sqrt(v / bias_correction2) + eps)
    return param.copy(), m.copy(), v.copy()


def adamw_rows(cut: Cut, param: Tensor, m: Tensor, v: Tensor, grad: Tensor, *rest: object) -> int | None:
    """All of them, along any dimension."""
    return cut.together([param, m, v, grad])


@op(
    "et_vk.adamw_step.default",
    reference=adamw_step_reference,
    mutates=("param", "m", "v"),
    sizes=lambda s, param, m, v, *rest: [s.of(t) for t in (param, m, v)],
    rows=adamw_rows,
)
def adamw_step(
    planner: Planner,
    param: Tensor,
    m: Tensor,
    v: Tensor,
    grad: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias_correction1: float,
    bias_correction2: float,
    outs: list[Tensor],
) -> None:
    """A step of AdamW in place: on parameters and on both moments of their gradients, of any dims; float32.

    ``bias_correction1`` is 1 - beta1^t at step t, and the other one likewise. The outputs are the new values.
    """
    state = [param, m, v]
    planner.check(len(outs) == 3, f"adamw_step gives a parameter and two moments, not {outs}")
    tensors = [*state, grad, *outs]
    planner.check(all(t.dtype == "float32" for t in tensors), f"adamw_step takes float32, not {tensors}")
    planner.check(len({t.dims for t in (*state, grad)}) == 1, f"adamw_step: {[*state, grad]} must have the same dims")
    planner.check(len({t.id for t in state}) == 3, f"adamw_step: {state} must be three tensors")
    corrections = (bias_correction1, bias_correction2)
    planner.check(all(c > 0 for c in corrections), f"adamw_step: the bias corrections {corrections} must be above 0")
    fresh = [out for out, t in zip(outs, state, strict=True) if out.id != t.id]
    planner.check(len(fresh) in (0, 3), f"adamw_step: either all of {outs} are {state}, or none is")
    for out in fresh:
        planner.resize(out)
    names = ("out_param", "out_m", "out_v")
    bindings: dict[str, Binding] = {"param": param, "m": m, "v": v, "grad": grad}
    bindings |= dict(zip(names, fresh, strict=False))
    planner.dispatch(
        "training/adamw",
        planner.grid_1d(param.numel, WORKGROUP),
        bindings,
        {
            "n": param.numel,
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "rest1": 1 - beta1,
            "rest2": 1 - beta2,
            "eps": eps,
            "decay": 1 - lr * weight_decay,
            "bias_correction1": bias_correction1,
            "bias_correction2": bias_correction2,
        },
        overrides={"wg_size": WORKGROUP},
        template={"copies": bool(fresh)},
    )


# -- new codes --------------------------------------------------------------------------------------------------------


def q4gsw_requant_reference(latent: Array, scales: Array, group_size: int) -> Array:
    n, k = latent.shape
    by_weight = float32(scales)[np.arange(k) // group_size, :n].T
    with np.errstate(all="ignore"):
        rounded = np.round(float32(latent) / np.where(by_weight == 0, np.float32(1), by_weight))
    usable = (by_weight != 0) & ~np.isnan(rounded)
    codes = np.clip(np.where(usable, rounded, 0), -8, 7).astype(np.int64) + 8
    if k % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)


def requant_sizes(s: Sizes, latent: Tensor, *rest: object) -> Found:
    return (*s.of(latent)[:1], *(ceil_div(k, 2) if isinstance(k, int) else None for k in s.of(latent)[1:2]))


@op("et_vk.q4gsw_requant.default", reference=q4gsw_requant_reference, sizes=requant_sizes, discontinuous=True)
def q4gsw_requant(planner: Planner, latent: Tensor, scales: Tensor, group_size: int, out: Tensor) -> None:
    """Weights ``latent`` [N, K] float32 as the codes that ``linear_q4gsw`` reads, uint8 [N, ceil(K / 2)].

    A code is round(weight / scale) between -8 and 7, with 8 added; it is that of 0 where the scale is 0, and of NaN.
    ``scales`` [ceil(K / group_size), N at least] float32 stay as they are. The high nibble after an odd K is 0.
    """
    name = "q4gsw_requant"
    planner.check(
        latent.rank == 2 and latent.dtype == "float32" and out.dtype == "uint8",
        f"{name} makes uint8 codes of a float32 matrix, not {out} of {latent}",
    )
    n, k = latent.dims
    _check_scales(planner, name, scales, n, k, group_size)
    nbytes = ceil_div(k, 2)
    planner.resize(out, (n, nbytes))
    planner.dispatch(
        "training/requantize",
        planner.grid_1d(ceil_div(n * nbytes, 4), WORKGROUP),
        {"weights": latent, "scales": scales, "out": out},
        {
            "k": k,
            "bytes": nbytes,
            "all_bytes": n * nbytes,
            "group_size": group_size,
            "scale_stride": scales.dims[1],
        },
        overrides={"wg_size": WORKGROUP},
    )

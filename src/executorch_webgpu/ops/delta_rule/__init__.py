"""The gated delta rule: linear attention whose state is a matrix for each head, corrected token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..plan import Planner
from ..registry import op
from ..sizes import Sizes
from ..values import Tensor

_WORKGROUP = 64


def gated_delta_rule_reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, decay: np.ndarray, beta: np.ndarray, initial: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    state = np.array(initial, np.float64)
    group = q.shape[1] // k.shape[1]
    gates = decay[..., None] if decay.ndim == 3 else decay
    out = np.zeros((*q.shape[:3], v.shape[3]))
    for t in range(q.shape[2]):
        state *= gates[:, :, t, :, None]
        predicted = np.einsum("bhkv,bhk->bhv", state, k[:, :, t])
        correction = (v[:, :, t] - predicted) * beta[:, :, t, None]
        state += k[:, :, t, :, None] * correction[:, :, None]
        out[:, :, t] = np.einsum("bhkv,bhk->bhv", np.repeat(state, group, axis=1), q[:, :, t])
    return out, state


def delta_rule_sizes(
    s: Sizes, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, initial: Tensor, outs: Sequence[Tensor]
) -> list[tuple[object, ...]]:
    return [(*s.of(q)[:3], s.of(v)[-1]), tuple(s.of(initial))]


@op(
    "llama.gated_delta_rule.default",
    "llama.channelwise_gated_delta_rule.default",
    reference=gated_delta_rule_reference,
    sizes=delta_rule_sizes,
)
def gated_delta_rule(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    beta: Tensor,
    initial_state: Tensor,
    outs: list[Tensor],
) -> None:
    """For each token: state *= decay; state += k ⊗ (v - kᵀ state) * beta; result = qᵀ state.

    q [B, Hq, S, K]; k [B, H, S, K], v [B, H, S, V], beta [B, H, S]; decay [B, H, S], or [B, H, S, K] for each channel;
    the state is [B, H, K, V], which Hq / H heads of q read. All are float32. ``outs``: the results [B, Hq, S, V] and
    the state after the last token.
    """
    name = "gated_delta_rule"
    tensors = [q, k, v, decay, beta, initial_state, *outs]
    planner.check(all(t.dtype == "float32" for t in tensors) and len(outs) == 2, f"{name} takes float32, not {tensors}")
    planner.check(all(t.rank == 4 for t in (q, k, v, initial_state)), f"{name} takes [B, H, S, D], not {tensors}")
    batches, heads, tokens, keys = k.dims
    values = v.dims[3]
    fits = (
        q.dims == (batches, q.dims[1], tokens, keys)
        and v.dims == (batches, heads, tokens, values)
        and decay.dims in (beta.dims, k.dims)
        and beta.dims == (batches, heads, tokens)
        and initial_state.dims == (batches, heads, keys, values)
        and heads > 0
        and q.dims[1] % heads == 0
    )
    planner.check(fits, f"{name}: the dims of {tensors} do not belong together")
    out, state = outs
    for each in outs:
        planner.resize(each)
    n = batches * heads * values
    planner.dispatch(
        "delta_rule/recurrence",
        planner.grid_1d(n, _WORKGROUP),
        {"q": q, "k": k, "v": v, "decay": decay, "beta": beta, "initial": initial_state, "out": out, "state": state},
        {
            "n": n,
            "group": q.dims[1] // heads,
            "tokens": tokens,
            "keys": keys,
            "values": values,
            "channels": keys if decay.rank == 4 else 1,
        },
        overrides={"wg_size": _WORKGROUP},
    )

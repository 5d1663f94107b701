"""The next token, chosen from logits where they lie; see ``reference`` for what is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..plan import Planner, Prepared
from ..registry import op
from ..shapes import ceil_div
from ..values import INT32_MAX, IntLike, Tensor
from . import reference

WORKGROUP = 256
_BEST = {"wg_size": 64}
_OTHERS = {"wg_size": WORKGROUP}

# Everything that a call may dispatch, so that no step compiles: kernel, template values, overrides.
PIPELINES: tuple[Prepared, ...] = (
    ("sampling/best", {"noise": False}, _BEST),
    ("sampling/best", {"noise": True}, _BEST),
    ("sampling/sift", {"top_k": False}, _OTHERS),
    ("sampling/sift", {"top_k": True}, _OTHERS),
    *((f"sampling/{kernel}", {}, _OTHERS) for kernel in ("choose", "peaks", "kth_peak", "pick")),
)

MOST_GROUPS = WORKGROUP  # of the kernels that share the vocabulary; one workgroup then reads what they found
_TOKENS_A_CALL = 4  # of the generator


def sample_token_reference(
    logits: np.ndarray, row: int, position: int, seed: int, temperature: float, top_k: int, top_p: float
) -> np.ndarray:
    rows = np.asarray(logits, np.float32).reshape(-1, logits.shape[-1])
    return np.array([reference.choose(rows[row], position, seed, temperature, top_k, top_p)], np.int32)


@op("et_webgpu.sample_token.default", reference=sample_token_reference)
def sample_token(
    g: Planner,
    logits: Tensor,
    row: IntLike,
    position: IntLike,
    seed: int,
    temperature: float,
    top_k: int,
    top_p: float,
    out: Tensor,
) -> None:
    """``out`` int32 [1] = the token at ``position`` of a text, drawn from row ``row`` of float32 ``logits`` [..., V].

    It is -1 when one of these logits is NaN or the largest is not finite. ``seed``: 64 bits. ``temperature`` 0 takes
    the largest logit, of equal ones the first. ``top_k`` 0 and ``top_p`` 1 keep all tokens.
    """
    g.check(
        logits.dtype == "float32" and logits.rank > 0 and logits.numel > 0,
        f"sample_token: {logits} must be float32 [..., vocabulary], not empty",
    )
    g.check(out.dtype == "int32", f"sample_token: {out} must be int32")
    g.check(
        0 <= temperature < float("inf") and top_k >= 0 and 0 < top_p <= 1,
        f"sample_token: there is no temperature {temperature} with top_k {top_k} and top_p {top_p}",
    )
    vocab = logits.dims[-1]
    g.require(0, row, logits.numel // vocab - 1, "sample_token: the row")
    g.require(0, position, INT32_MAX, "sample_token: the position")
    g.resize(out, (1,))
    top_k, share = (top_k if top_k < vocab else 0), reference.share_of(top_p)
    draw = {} if temperature == 0 else {"seed": _words(seed), **_temperatures(temperature)}
    for kernel, template, overrides in PIPELINES:
        g.prepare(kernel, overrides=overrides, template=template)
    if draw and (top_k or share):
        _draw_among_kept(g, logits, row, position, draw, top_k, share, out)
    else:
        _draw_among_all(g, logits, row, position, draw, out)


def _draw_among_all(
    g: Planner, logits: Tensor, row: IntLike, position: IntLike, draw: dict[str, Any], out: Tensor
) -> None:
    """The best score of each workgroup's share, then the best of these; without ``draw``, logits are the scores."""
    vocab = logits.dims[-1]
    groups = min(MOST_GROUPS, ceil_div(vocab, _TOKENS_A_CALL * _BEST["wg_size"]))
    bests = g.scratch(8 * groups)
    where: dict[str, Any] = {"position": position} if draw else {}
    g.dispatch(
        "sampling/best",
        (groups,),
        {"logits": logits, "row": row, "bests": bests, **where},
        {"vocab": vocab, **{name: value for name, value in draw.items() if name != "inverse_temperature"}},
        overrides=_BEST,
        template={"noise": bool(draw)},
    )
    g.dispatch("sampling/choose", (1,), {"bests": bests, "out": out}, {"count": groups}, overrides=_OTHERS)


def _draw_among_kept(
    g: Planner,
    logits: Tensor,
    row: IntLike,
    position: IntLike,
    draw: dict[str, Any],
    top_k: int,
    share: int,
    out: Tensor,
) -> None:
    """A list of all tokens that may be kept is made first: one workgroup cannot read the whole vocabulary in time."""
    vocab = logits.dims[-1]
    groups = min(MOST_GROUPS, ceil_div(vocab, WORKGROUP))
    sizes = {"vocab": vocab, "groups": groups}
    found = {"peaks": g.scratch(4 * groups), "candidates": g.scratch(4 * (1 + vocab))}
    totals = {"totals": g.scratch(8 * groups)}
    read = {"logits": logits, "row": row}
    g.dispatch("sampling/peaks", (groups,), {**read, **found}, {"vocab": vocab}, overrides=_OTHERS)
    if top_k:
        bound: dict[str, Any] = {"least": g.scratch(4)}
        counts, peaks = {"groups": groups, "top_k": top_k}, {"peaks": found["peaks"]}
        g.dispatch("sampling/kth_peak", (1,), {**peaks, **bound}, counts, overrides=_OTHERS)
        least = {}
    else:
        bound = {}
        # Lighter tokens together weigh less than what top-p leaves out of the heaviest one's weight alone.
        least = {"least_weight": ((2**32 - share) * reference.WEIGHT_ONE >> 32) // vocab}
    g.dispatch(
        "sampling/sift",
        (groups,),
        {**read, **found, **totals, **bound},
        {**sizes, **least, "inverse_temperature": draw["inverse_temperature"]},
        overrides=_OTHERS,
        template={"top_k": top_k > 0},
    )
    g.dispatch(
        "sampling/pick",
        (1,),
        {**read, **found, **totals, "position": position, "out": out},
        {**sizes, "top_k": top_k, "share": share, **draw},
        overrides=_OTHERS,
    )


def _temperatures(temperature: float) -> dict[str, float]:
    """The temperature and its inverse, as kernels take them."""
    rounded = reference.float32_temperature(temperature)
    return {"temperature": float(rounded), "inverse_temperature": float(np.float32(1) / rounded)}


def _words(seed: int) -> tuple[int, int]:
    """The low and the high 32 bits."""
    return seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF

"""The next token, chosen from logits where they lie; see ``reference`` for what is chosen."""

from __future__ import annotations

import numpy as np

from ..plan import Planner
from ..registry import op
from ..shapes import ceil_div
from ..values import INT32_MAX, IntLike, Tensor
from . import reference

MOST_GROUPS = 256  # of ``best``, which one workgroup of ``choose`` then reads
_BEST_WORKGROUP = 64
_CUT_WORKGROUP = 256
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
    noise = temperature > 0
    top_k = top_k if top_k < vocab else 0
    share = reference.share_of(top_p)
    cut = g.scratch(8) if noise and (top_k or share) else None
    if cut is not None:
        inverse = float(np.float32(1) / reference.float32_temperature(temperature))
        g.dispatch(
            "sampling/cut",
            (1,),
            {"logits": logits, "row": row, "cut": cut},
            {"vocab": vocab, "top_k": top_k, "share": share, "inverse_temperature": inverse},
            overrides={"wg_size": _CUT_WORKGROUP},
        )
    groups = min(MOST_GROUPS, ceil_div(vocab, _TOKENS_A_CALL * _BEST_WORKGROUP))
    bests = g.scratch(8 * groups)
    draw = {"temperature": float(reference.float32_temperature(temperature)), "seed": _words(seed)} if noise else {}
    g.dispatch(
        "sampling/best",
        (groups,),
        {"logits": logits, "row": row, "bests": bests}
        | ({"position": position} if noise else {})
        | ({"cut": cut} if cut is not None else {}),
        {"vocab": vocab, **draw},
        overrides={"wg_size": _BEST_WORKGROUP},
        template={"noise": noise, "cut": cut is not None},
    )
    g.dispatch(
        "sampling/choose",
        (1,),
        {"bests": bests, "out": out},
        {"count": groups},
        overrides={"wg_size": MOST_GROUPS},
    )


def _words(seed: int) -> tuple[int, int]:
    """The low and the high 32 bits."""
    return seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF

"""The next token of one text, chosen from a row of logits where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Planner, Prepared
from ..registry import op
from ..shapes import ceil_div
from ..values import INT32_MAX, IntLike, Scratch, Tensor
from . import reference

WORKGROUP = 256
_PARTIAL_ARGMAX = {"wg_size": 64}
_OTHERS = {"wg_size": WORKGROUP}
_ONE_ROW = {"rows": False}

# Everything that a call may dispatch, so that no step compiles: kernel, template values, overrides.
PIPELINES: tuple[Prepared, ...] = (
    ("sampling/partial_argmax", {"noise": False, "rows": False}, _PARTIAL_ARGMAX),
    ("sampling/partial_argmax", {"noise": True, "rows": False}, _PARTIAL_ARGMAX),
    ("sampling/argmax", _ONE_ROW, _OTHERS),
    ("sampling/partial_max", _ONE_ROW, _OTHERS),
    ("sampling/top_k_bound", _ONE_ROW, _OTHERS),
    *(("sampling/candidates", {"filter": name}, _OTHERS) for name in ("top_k", "top_p", "min_p")),
    ("sampling/sample_candidates", _ONE_ROW, _OTHERS),
    ("sampling/repetition_penalty", {}, _OTHERS),
    ("sampling/mark_seen", {}, {}),
)

MOST_GROUPS = WORKGROUP  # of the kernels that share the vocabulary; one workgroup then reads what they found
TOKENS_A_CALL = 4  # of the generator


def sample_token_reference(
    logits: np.ndarray,
    row: int,
    position: int,
    seed_low: int,
    seed_high: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seen: np.ndarray | None,
) -> np.ndarray:
    seed = _word(seed_low) | _word(seed_high) << 32
    vocab = logits.shape[-1]
    chosen_from = np.asarray(logits, np.float32).reshape(-1, vocab)[row]
    if seen is None:
        token = reference.choose(chosen_from, position, seed, temperature, top_k, top_p, min_p)
        return np.array([token], np.int32)
    occurred = reference.from_bits(seen, vocab)
    chosen_from = reference.penalized(chosen_from, occurred, repetition_penalty)
    token = reference.choose(chosen_from, position, seed, temperature, top_k, top_p, min_p)
    if token != reference.BROKEN:
        words = np.array(seen, np.int32).view(np.uint32)
        words[token // 32] |= np.uint32(1 << token % 32)
        seen[:] = words.view(np.int32)
    return np.array([token], np.int32)


@dataclass(frozen=True)
class _Row:
    """Where the logits of a draw are: row ``row`` of ``logits`` [..., vocab]."""

    logits: Tensor | Scratch
    row: IntLike
    vocab: int

    @property
    def bindings(self) -> dict[str, Any]:
        return {"logits": self.logits, "row": self.row}


@op(
    "et_webgpu.sample_token.default",
    reference=sample_token_reference,
    mutates=("seen",),
    sizes=lambda s, *args: (1,),  # no rows: it takes one of them
)
def sample_token(
    planner: Planner,
    logits: Tensor,
    row: IntLike,
    position: IntLike,
    seed_low: IntLike,
    seed_high: IntLike,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seen: Tensor | None,
    out: Tensor,
) -> None:
    """``out`` int32 [1] = the token at ``position`` of a text, drawn from row ``row`` of float32 ``logits`` [..., V].

    It is -1 when one of these logits is NaN or the largest is not finite. ``seed_low`` and ``seed_high``: the two
    halves of a seed of 64 bits, signed. ``temperature`` 0 takes the largest logit, of equal ones the first. ``top_k``
    0, ``top_p`` 1 and ``min_p`` 0 keep all tokens.
    ``seen`` int32 [ceil(V / 32)], a bit for each token: those whose logits the penalty changes; the token that is drawn
    joins them. None: no penalty.
    """
    planner.check(
        logits.dtype == "float32" and logits.rank > 0 and logits.numel > 0,
        f"sample_token: {logits} must be float32 [..., vocabulary], not empty",
    )
    planner.check(out.dtype == "int32", f"sample_token: {out} must be int32")
    planner.check(
        0 <= temperature < float("inf") and top_k >= 0 and 0 < top_p <= 1 and 0 <= min_p <= 1,
        f"sample_token: there is no temperature {temperature} with top_k {top_k}, top_p {top_p} and min_p {min_p}",
    )
    vocab = logits.dims[-1]
    planner.require(0, row, logits.numel // vocab - 1, "sample_token: the row")
    planner.require(0, position, INT32_MAX, "sample_token: the position")
    planner.resize(out)
    top_k, share = (top_k if top_k < vocab else 0), reference.share_of(top_p)
    draw: dict[str, Any] = {}
    if temperature:
        seed = _word(planner.value(seed_low)), _word(planner.value(seed_high))
        draw = {"seed": seed, **_temperatures(temperature)}
    for kernel, template, overrides in PIPELINES:
        planner.prepare(kernel, overrides=overrides, template=template)
    read = _Row(logits, row, vocab)
    if seen is not None:
        read = _penalize(planner, read, repetition_penalty, seen)
    if draw and (top_k or share or min_p):
        margin = float(reference.margin_of(min_p, temperature))
        _draw_among_kept(planner, read, position, draw, top_k, share, margin, out)
    else:
        _draw_among_all(planner, read, position, draw, out)
    if seen is not None:
        planner.dispatch("sampling/mark_seen", (1,), {"out": out, "seen": seen})


def _penalize(planner: Planner, read: _Row, repetition_penalty: float, seen: Tensor) -> _Row:
    """Logits of their own for this draw; what is drawn from them is marked in ``seen`` at the end."""
    planner.check(
        0 < repetition_penalty < float("inf"), f"sample_token: there is no repetition penalty {repetition_penalty}"
    )
    planner.check(
        seen.dtype == "int32" and seen.dims == (ceil_div(read.vocab, 32),),
        f"sample_token: {seen} must be int32 with a bit for each of {read.vocab} tokens",
    )
    penalized = planner.scratch(4 * read.vocab)
    positive, negative = map(float, reference.factors(repetition_penalty))
    planner.dispatch(
        "sampling/repetition_penalty",
        (min(MOST_GROUPS, ceil_div(read.vocab, WORKGROUP)),),
        {**read.bindings, "seen": seen, "penalized": penalized},
        {"vocab": read.vocab, "positive": positive, "negative": negative},
        overrides=_OTHERS,
    )
    return _Row(penalized, 0, read.vocab)


def _draw_among_all(planner: Planner, read: _Row, position: IntLike, draw: dict[str, Any], out: Tensor) -> None:
    """The best score of each workgroup's share, then the best of these; without ``draw``, logits are the scores."""
    groups = min(MOST_GROUPS, ceil_div(read.vocab, TOKENS_A_CALL * _PARTIAL_ARGMAX["wg_size"]))
    bests = planner.scratch(8 * groups)
    where: dict[str, Any] = {"position": position} if draw else {}
    planner.dispatch(
        "sampling/partial_argmax",
        (groups,),
        {**read.bindings, "bests": bests, **where},
        {"vocab": read.vocab, **{name: value for name, value in draw.items() if name != "inverse_temperature"}},
        overrides=_PARTIAL_ARGMAX,
        template={"noise": bool(draw), **_ONE_ROW},
    )
    best: dict[str, Any] = {"bests": bests, "out": out}
    planner.dispatch("sampling/argmax", (1,), best, {"count": groups}, overrides=_OTHERS, template=_ONE_ROW)


def _draw_among_kept(
    planner: Planner,
    read: _Row,
    position: IntLike,
    draw: dict[str, Any],
    top_k: int,
    share: int,
    margin: float,
    out: Tensor,
) -> None:
    """A list of all tokens that may be kept is made first: one workgroup cannot read the whole vocabulary in time."""
    vocab = read.vocab
    groups = min(MOST_GROUPS, ceil_div(vocab, WORKGROUP))
    sizes = {"vocab": vocab, "maxima": groups}
    found = {"maxima": planner.scratch(4 * groups), "candidates": planner.scratch(4 * (1 + vocab))}
    totals = {"totals": planner.scratch(8 * groups)}
    planner.dispatch(
        "sampling/partial_max",
        (groups,),
        {**read.bindings, **found},
        {"vocab": vocab, "parts": 1},
        overrides=_OTHERS,
        template=_ONE_ROW,
    )
    bound: dict[str, Any] = {}
    least: dict[str, Any] = {}
    if top_k:
        kept_by = "top_k"
        bound = {"bound": planner.scratch(4)}
        counts, maxima = {"count": groups, "top_k": top_k}, {"maxima": found["maxima"]}
        planner.dispatch(
            "sampling/top_k_bound", (1,), {**maxima, **bound}, counts, overrides=_OTHERS, template=_ONE_ROW
        )
    elif share:
        # Lighter tokens together weigh less than what top-p leaves out of the heaviest one's weight alone.
        kept_by, least = "top_p", {"least_weight": ((2**32 - share) * reference.WEIGHT_ONE >> 32) // vocab}
    else:
        kept_by, least = "min_p", {"margin": margin}
    planner.dispatch(
        "sampling/candidates",
        (groups,),
        {**read.bindings, **found, **totals, **bound},
        {**sizes, **least, "inverse_temperature": draw["inverse_temperature"]},
        overrides=_OTHERS,
        template={"filter": kept_by},
    )
    planner.dispatch(
        "sampling/sample_candidates",
        (1,),
        {**read.bindings, **found, **totals, "position": position, "out": out},
        {**sizes, "groups": groups, "top_k": top_k, "share": share, "margin": margin, **draw},
        overrides=_OTHERS,
        template=_ONE_ROW,
    )


def _temperatures(temperature: float) -> dict[str, float]:
    """The temperature and its inverse, as kernels take them."""
    rounded = reference.float32_temperature(temperature)
    return {"temperature": float(rounded), "inverse_temperature": float(np.float32(1) / rounded)}


def signed_halves(seed: int) -> tuple[int, int]:
    """The low and the high 32 bits of a seed, each as a signed integer."""
    low, high = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32).view(np.int32).tolist()
    return low, high


def _word(half: int) -> int:
    return half & 0xFFFFFFFF

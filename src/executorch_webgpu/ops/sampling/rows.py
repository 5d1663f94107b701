"""The next token of many rows, each drawn in its own way, in dispatches that they share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ..plan import Binding, Planner, Prepared
from ..registry import op
from ..shapes import ceil_div
from ..sizes import Shape, Sizes
from ..values import Tensor
from . import reference
from .draws import (
    CHANGE_WORDS,
    CHANGES,
    DRAW_WORDS,
    EVERYTHING,
    FILTERS,
    FIRST_CHANGE,
    KINDS,
    LAST_CHANGE,
    LIKELIEST,
    LOGPROBS,
    MARGIN,
    MASK,
    MASKS,
    MOST_LIKELIEST,
    NOISE,
    PLAIN,
    POSITION,
    SEED,
    SHARE,
    TEMPERATURE,
    TOP_K,
    TOP_KS,
)
from .single import MOST_GROUPS, TOKENS_A_CALL, WORKGROUP

_SMALL, _OTHERS = {"wg_size": 64}, {"wg_size": WORKGROUP}
_CHUNK = 8 * WORKGROUP  # tokens of a workgroup that looks for the likeliest
# Workgroups that all rows together get: enough to fill a large GPU, if there are few rows.
_SMALL_GROUPS, _LARGE_GROUPS = 4096, 1024

PIPELINES: tuple[Prepared, ...] = (
    *(("sampling/partial_argmax", {"noise": noise, "rows": True}, _SMALL) for noise in (False, True)),
    ("sampling/argmax", {"rows": True}, _OTHERS),
    ("sampling/partial_max", {"rows": True}, _OTHERS),
    ("sampling/top_k_bound", {"rows": True}, _OTHERS),
    ("sampling/candidates", {"filter": "each"}, _OTHERS),
    ("sampling/sample_candidates", {"rows": True}, _OTHERS),
    ("sampling/change_logits", {}, _OTHERS),
    ("sampling/mask_logits", {}, _OTHERS),
    ("sampling/likeliest_tokens", {}, _OTHERS),
    ("sampling/logprobs", {}, _OTHERS),
)


def sample_rows_reference(
    logits: np.ndarray, draws: np.ndarray, changes: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, words = len(draws), np.ascontiguousarray(draws, np.int32)
    floats, values = words.view(np.float32), words.view(np.uint32)
    factors = np.ascontiguousarray(changes, np.int32).view(np.float32)
    tokens = np.zeros(rows, np.int32)
    logprobs = np.zeros((rows, 1 + MOST_LIKELIEST))
    likeliest = np.full((rows, MOST_LIKELIEST), -1, np.int32)
    of_rows = logits.reshape(-1, logits.shape[-1])
    for row, drawn in enumerate(values):
        raw = after = of_rows[row].astype(np.float32)
        some = slice(int(drawn[FIRST_CHANGE]), int(drawn[LAST_CHANGE]))
        after = reference.changed(after, changes[some, 0], factors[some, 2], factors[some, 3])
        if drawn[KINDS] & MASKS:
            after = reference.masked(after, masks[drawn[MASK]].astype(np.int32).view(np.uint32))
        of_rows[row] = after
        low, high = map(int, drawn[SEED])
        filters = int(drawn[TOP_K]), int(drawn[SHARE]), floats[row, MARGIN]
        how = int(drawn[POSITION]), high << 32 | low, float(floats[row, TEMPERATURE]), *filters
        tokens[row] = reference.choose_within(after, *how)
        if drawn[LIKELIEST]:
            exact, order = reference.log_probabilities(raw), np.argsort(-raw, kind="stable")[: drawn[LIKELIEST] - 1]
            logprobs[row, 0] = np.nan if tokens[row] == reference.BROKEN else exact[tokens[row]]
            if not np.isnan(exact).all():
                logprobs[row, 1 : 1 + order.size], likeliest[row, : order.size] = exact[order], order
    return tokens, logprobs, likeliest


def _sizes(s: Sizes, logits: Tensor, draws: Tensor, *rest: Any) -> list[Shape]:
    rows = s.of(draws)[:1]
    return [rows, (*rows, 1 + MOST_LIKELIEST), (*rows, MOST_LIKELIEST)]


@op("et_webgpu.sample_rows.default", reference=sample_rows_reference, mutates=("logits",), sizes=_sizes)
def sample_rows(
    planner: Planner, logits: Tensor, draws: Tensor, changes: Tensor, masks: Tensor, out: list[Tensor]
) -> None:
    """Tokens int32 [R] of the first R rows of float32 ``logits`` [..., V], each drawn as its row of ``draws`` says.

    Each is what ``sample_token`` draws of that row alone. Logits are changed where they lie: by a row's range of
    ``changes`` int32 [N, 4], then by its mask of ``masks`` int32 [M, ceil(V / 32)]. ``draws`` int32 [R, 14]; for all
    of these words see ``ops/sampling/draws.py``.
    The other outputs are float32 [R, 21] and int32 [R, 20]: log probabilities of the drawn token and of the likeliest
    ones, and these; of rows that ask for some, if any does, else nothing is written there.
    """
    _check(planner, logits, draws, changes, masks, out)
    for result in out:
        planner.resize(result)
    for kernel, template, overrides in PIPELINES:
        planner.prepare(kernel, overrides=overrides, template=template)
    needs = planner.inspect(draws, _needs)
    _Rows(planner, logits, draws, changes, masks, out, needs).plan()


def _check(planner: Planner, logits: Tensor, draws: Tensor, changes: Tensor, masks: Tensor, out: list[Tensor]) -> None:
    planner.check(
        logits.dtype == "float32" and logits.rank > 0 and logits.numel > 0,
        f"sample_rows: {logits} must be float32 [..., vocabulary], not empty",
    )
    vocab = logits.dims[-1]
    planner.check(
        draws.dtype == "int32" and draws.rank == 2 and draws.dims[1] == DRAW_WORDS,
        f"sample_rows: {draws} must be int32 [rows, {DRAW_WORDS}]",
    )
    planner.check(
        draws.dims[0] <= logits.numel // vocab, f"sample_rows: {draws} has more rows than the logits {logits}"
    )
    planner.check(
        changes.dtype == "int32" and changes.rank == 2 and changes.dims[1] == CHANGE_WORDS,
        f"sample_rows: {changes} must be int32 [changes, {CHANGE_WORDS}]",
    )
    planner.check(
        masks.dtype == "int32" and masks.rank == 2 and masks.dims[1] == ceil_div(vocab, 32),
        f"sample_rows: {masks} must be int32 with a bit for each of {vocab} tokens",
    )
    planner.check(
        [o.dtype for o in out] == ["int32", "float32", "int32"],
        f"sample_rows: its outputs are int32, float32 and int32, not {out}",
    )


def _needs(draws: np.ndarray | None) -> int:
    """What some of the rows need; everything, where the host does not see them."""
    return EVERYTHING if draws is None else int(np.bitwise_or.reduce(draws[:, KINDS], initial=0))


class _Rows:
    """The dispatches for some rows after the other, so many at a time as scratch memory is for."""

    def __init__(
        self,
        planner: Planner,
        logits: Tensor,
        draws: Tensor,
        changes: Tensor,
        masks: Tensor,
        out: list[Tensor],
        needs: int,
    ) -> None:
        self._planner, self._needs = planner, needs
        self._vocab, self._rows = logits.dims[-1], draws.dims[0]
        self._out, self._logprobs, self._likeliest = out
        self._read: dict[str, Binding] = {"logits": logits, "draws": draws}
        self._changes, self._masks = changes, masks

    def plan(self) -> None:
        """Dispatch everything that the rows need."""
        vocab, planner = self._vocab, self._planner
        self._chunks = ceil_div(vocab, _CHUNK)
        sizes = {"bests": 8 * MOST_GROUPS, "maxima": 4 * MOST_GROUPS, "totals": 8 * MOST_GROUPS, "bound": 4}
        sizes |= {"candidates": 4 * (1 + vocab), "found": 8 * self._chunks * (1 + MOST_LIKELIEST)}
        unused = {"found"} if not self._needs & LOGPROBS else set()
        unused |= {"maxima", "totals", "bound", "candidates"} if not self._needs & FILTERS else set()
        one = sum(nbytes for name, nbytes in sizes.items() if name not in unused)
        most = max(1, planner.scratch_bytes // one)
        count = ceil_div(self._rows, ceil_div(max(1, self._rows), most))
        self._scratch = {name: planner.scratch(count * nbytes) for name, nbytes in sizes.items()}
        self._changed = planner.scratch(8 * max(1, self._changes.dims[0]))
        for first in range(0, self._rows, max(1, count)):
            self._plan_some(first, min(count, self._rows - first))

    def _plan_some(self, first: int, rows: int) -> None:
        whole = min(MOST_GROUPS, ceil_div(self._vocab, WORKGROUP))
        groups = min(whole, ceil_div(_LARGE_GROUPS, rows))
        if self._needs & LOGPROBS:
            self._run("likeliest_tokens", (self._chunks, rows), ["found"], first)
        if self._needs & CHANGES:
            given: dict[str, Binding] = {"changes": self._changes, "changed": self._changed}
            count = self._changes.dims[0]
            shared = min(ceil_div(count, WORKGROUP), ceil_div(_LARGE_GROUPS, rows), MOST_GROUPS)
            self._run("change_logits", (shared, rows), [], first, given, params={"count": count})
        if self._needs & MASKS:
            sizes = {"count": self._masks.dims[0]}
            self._run("mask_logits", (groups, rows), [], first, {"masks": self._masks}, params=sizes)
        if self._needs & PLAIN:
            self._draw_among_all(first, rows)
        if self._needs & FILTERS:
            self._draw_among_kept(first, rows, groups)
        if self._needs & LOGPROBS:
            given = {"changed": self._changed, "out": self._out}
            given |= {"logprobs": self._logprobs, "likeliest": self._likeliest}
            sizes = {"chunks": self._chunks, "changes": self._changes.dims[0]}
            self._run("logprobs", (1, rows), ["found"], first, given, params=sizes)

    def _draw_among_all(self, first: int, rows: int) -> None:
        whole = min(MOST_GROUPS, ceil_div(self._vocab, TOKENS_A_CALL * _SMALL["wg_size"]))
        groups = min(whole, ceil_div(_SMALL_GROUPS, rows))
        template = {"noise": bool(self._needs & NOISE), "rows": True}
        self._run("partial_argmax", (groups, rows), ["bests"], first, template=template, overrides=_SMALL)
        self._planner.dispatch(
            "sampling/argmax",
            (1, rows),
            {"bests": self._scratch["bests"], "draws": self._read["draws"], "out": self._out},
            {"count": groups, "first": first},
            overrides=_OTHERS,
            template={"rows": True},
        )

    def _draw_among_kept(self, first: int, rows: int, groups: int) -> None:
        """Few workgroups a row find many maxima, so that top-k has a good bound."""
        parts = MOST_GROUPS // groups
        maxima = groups * parts
        template = {"rows": True}
        self._run(
            "partial_max", (groups, rows), ["maxima", "candidates"], first, template=template, params={"parts": parts}
        )
        if self._needs & TOP_KS:
            self._planner.dispatch(
                "sampling/top_k_bound",
                (1, rows),
                {name: self._scratch[name] for name in ("maxima", "bound")} | {"draws": self._read["draws"]},
                {"count": maxima, "first": first},
                overrides=_OTHERS,
                template=template,
            )
        found = ["maxima", "totals", "candidates"]
        each = {"filter": "each"}
        self._run("candidates", (groups, rows), [*found, "bound"], first, template=each, params={"maxima": maxima})
        sizes = {"maxima": maxima, "groups": groups}
        self._run("sample_candidates", (1, rows), found, first, {"out": self._out}, template=template, params=sizes)

    def _run(
        self,
        kernel: str,
        grid: tuple[int, int],
        scratch: list[str],
        first: int,
        bindings: Mapping[str, Binding] = MappingProxyType({}),
        *,
        template: Mapping[str, Any] = MappingProxyType({}),
        overrides: Mapping[str, int] = MappingProxyType(_OTHERS),
        params: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """A kernel that reads the logits of rows from ``first`` on."""
        self._planner.dispatch(
            f"sampling/{kernel}",
            grid,
            {**self._read, **{name: self._scratch[name] for name in scratch}, **bindings},
            {"vocab": self._vocab, "first": first, **params},
            overrides=overrides,
            template=template,
        )

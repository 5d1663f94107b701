"""Tokens that the step before has drawn, in their places among those that the host gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ..plan import Planner
from ..registry import op
from ..rows import Cut
from ..sizes import like_first
from ..values import Tensor

WORKGROUP = 64


def feed_tokens_reference(tokens: np.ndarray, drawn: np.ndarray, vocab: int) -> np.ndarray:
    rows = np.minimum(-1 - np.minimum(tokens, -1), drawn.size - 1)
    return np.where(tokens < 0, np.clip(drawn.reshape(-1)[rows], 0, vocab - 1), tokens)


def feed_tokens_rows(cut: Cut, tokens: Tensor, *rest: Any) -> int | None:
    """Every token for itself: what it may stand for is no row."""
    return cut.only(tokens)


@op("et_webgpu.feed_tokens.default", reference=feed_tokens_reference, sizes=like_first, rows=feed_tokens_rows)
def feed_tokens(planner: Planner, tokens: Tensor, drawn: Tensor, vocab: int, out: Tensor) -> None:
    """``out`` = int32 ``tokens`` [...], but in place of -1 - i the token that is ``drawn[i]``, of int32 [R].

    A token that could not be drawn, -1, becomes 0. Raises InvalidInputError for tokens of the host that are not below
    ``vocab``, and for rows that there are not.
    """
    planner.check(
        tokens.dtype == drawn.dtype == out.dtype == "int32" and drawn.numel > 0 and vocab > 0,
        f"feed_tokens: {tokens}, {drawn} and {out} must be int32, and {drawn} not empty",
    )
    rows = drawn.numel

    def check(given: np.ndarray | None) -> bool:
        if given is not None and given.size and not -rows <= given.min() <= given.max() < vocab:
            bad = int(given[(given < -rows) | (given >= vocab)].flat[0])
            what = f"token {bad} is not in the vocabulary of {vocab} tokens, 0 to {vocab - 1}"
            raise InvalidInputError(what if bad >= 0 else f"token {bad} stands for drawn token {-1 - bad} of {rows}")
        return True

    planner.inspect(tokens, check)
    planner.resize(out)
    planner.dispatch(
        "sampling/feed_tokens",
        planner.grid_1d(tokens.numel, WORKGROUP),
        {"tokens": tokens, "drawn": drawn, "out": out},
        {"n": tokens.numel, "rows": rows, "last": vocab - 1},
        overrides={"wg_size": WORKGROUP},
    )

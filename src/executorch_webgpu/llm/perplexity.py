"""How well a model predicts a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from .model import LanguageModel


def perplexity(
    model: LanguageModel,
    tokens: Sequence[int],
    window: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """exp of the mean negative log likelihood of ``tokens`` but the first, each once.

    The text is cut into windows of ``window`` tokens, each of which begins with an empty KV cache; its first token is
    the last one that the window before predicted. The model must give logits of every position.
    Raises InvalidInputError for fewer than two tokens, and for a window that is longer than the context.
    """
    if len(tokens) < 2:
        raise InvalidInputError(f"a text of {len(tokens)} tokens leaves nothing to predict; give a longer one")
    if not 1 <= window <= model.context_len:
        raise InvalidInputError(f"the window is {window} tokens, but must be 1 to {model.context_len}, the context")
    count, total = len(tokens) - 1, 0.0
    for start in range(0, count, window):
        end = min(start + window, count)
        model.reset()
        at = start
        for rows in model.logits(tokens[start:end]):
            total += surprise(rows, tokens[at + 1 : at + 1 + len(rows)])
            at += len(rows)
            on_progress(at, count)
    return math.exp(total / count)


def surprise(logits: NDArray[np.float32], targets: Sequence[int]) -> float:
    """The sum of -log softmax(logits)[target] over the rows of logits [S, vocab]."""
    wide = logits.astype(np.float64)
    largest = wide.max(axis=1)
    normalizers = largest + np.log(np.exp(wide - largest[:, None]).sum(axis=1))
    return float((normalizers - wide[np.arange(len(targets)), list(targets)]).sum())

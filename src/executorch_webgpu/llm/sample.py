"""Choose the next token from logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import Error, InvalidInputError


@dataclass(frozen=True)
class SamplingParams:
    """How a text is continued. Raises InvalidInputError for values outside their range.

    ``max_new_tokens``: at least 1. ``temperature``: 0 takes the likeliest token (greedy). ``top_k``: sample
    among the k likeliest tokens, 0 for all. ``top_p``: then among the fewest that hold this share of the
    probability, 1 for all. ``seed``: the same seed gives the same text; None draws a fresh one.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InvalidInputError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise InvalidInputError(f"temperature is {self.temperature}; it must be 0 (greedy) or above")
        if self.top_k < 0:
            raise InvalidInputError(f"top_k is {self.top_k}; it must be 0 (all tokens) or above")
        if not 0 < self.top_p <= 1:
            raise InvalidInputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.seed is not None and self.seed < 0:
            raise InvalidInputError(f"seed is {self.seed}; it must be 0 or above")


def sample(logits: NDArray[np.float32], params: SamplingParams, rng: np.random.Generator) -> int:
    """A token id drawn from logits [vocab]; ties go to the lower id. Uses ``rng`` unless greedy.

    Raises Error when a logit is NaN or none is finite: the model's arithmetic broke.
    """
    if np.isnan(logits).any() or not np.isfinite(logits.max()):
        raise Error(
            "the model's logits are not finite numbers, so no token can be chosen; check the program's "
            "weights, or run it on another adapter (see et-webgpu devices)"
        )
    if params.temperature == 0:
        return int(logits.argmax())
    tokens, probabilities = distribution(logits, params)
    cumulative = probabilities.cumsum()
    # Scaling by the last sum keeps the draw below it, whatever the rounding.
    drawn = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(tokens[drawn])


def distribution(logits: NDArray[np.float32], params: SamplingParams) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The tokens that may be drawn, ids [n], and their probabilities, f64 [n]; for a temperature above 0."""
    tokens = _top_k(logits, params.top_k)
    with np.errstate(over="ignore"):  # a tiny temperature makes all but the largest -inf: weight 0
        weights = np.exp((logits[tokens].astype(np.float64) - float(logits.max())) / params.temperature)
    probabilities = weights / weights.sum()
    if params.top_p < 1:
        order = np.argsort(-probabilities, kind="stable")
        kept = np.searchsorted(probabilities[order].cumsum(), params.top_p) + 1
        tokens, probabilities = tokens[order[:kept]], probabilities[order[:kept]]
        probabilities = probabilities / probabilities.sum()
    return tokens, probabilities


def _top_k(logits: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Ids of the k largest logits in ascending order of id; of equal ones at the edge, the lower ids."""
    if k == 0 or k >= logits.size:
        return np.arange(logits.size)
    smallest_kept = np.partition(logits, -k)[-k]
    above = np.flatnonzero(logits > smallest_kept)
    at_edge = np.flatnonzero(logits == smallest_kept)[: k - above.size]
    return np.sort(np.concatenate((above, at_edge)))

"""Choose the next token from logits."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import Error, InvalidInputError
from ..ops.sampling.reference import BROKEN, choose

SEEDS = 2**64


@dataclass(frozen=True)
class SamplingParams:
    """How a text is continued. Raises InvalidInputError for values outside their range.

    ``max_new_tokens``: at least 1. ``temperature``: 0 takes the likeliest token (greedy). ``top_k``: sample
    among the k likeliest tokens, 0 for all. ``top_p``: then among the fewest that hold this share of the
    probability, 1 for all. ``seed``: the same seed gives the same text, whether the GPU or the host draws; below 2^64;
    None draws a fresh one.
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
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise InvalidInputError(f"seed is {self.seed}; it must be 0 or above, and below 2^64")

    @property
    def some_seed(self) -> int:
        """``seed``, or a fresh one."""
        return secrets.randbelow(SEEDS) if self.seed is None else self.seed


def sample(logits: NDArray[np.float32], params: SamplingParams, position: int, seed: int) -> int:
    """The token of logits [vocab] that stands at ``position`` of the text; ties go to the lower id.

    What is drawn depends on the arguments only; see ``ops.sampling.reference``.
    Raises Error when a logit is NaN or none is finite: the model's arithmetic broke.
    """
    return checked(choose(logits, position, seed, params.temperature, params.top_k, params.top_p))


def checked(token: int) -> int:
    """The token, unless it says that the logits were no numbers."""
    if token == BROKEN:
        raise Error(
            "the model's logits are not finite numbers, so no token can be chosen; check the program's "
            "weights, or run it on another adapter (see et-webgpu devices)"
        )
    return token

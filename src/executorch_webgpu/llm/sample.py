"""Choose the next token from logits."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Error, InvalidInputError
from ..ops.sampling.reference import BROKEN, choose, penalized
from ..text.generation import SamplingDefaults

SEEDS = 2**64
LEAST_SHARE = 2**-32  # top-p of the likeliest token alone, which files may write as 0


@dataclass(frozen=True)
class SamplingParams:
    """How a text is continued. Raises InvalidInputError for values outside their range.

    ``max_new_tokens``: at least 1. ``temperature``: 0 takes the likeliest token (greedy). ``top_k``: sample
    among the k likeliest tokens, 0 for all. ``top_p``: then among the fewest that hold this share of the
    probability, 1 for all. ``seed``: the same seed gives the same text, whether the GPU or the host draws; below 2^64;
    None draws a fresh one. ``min_p``: then among tokens with at least this share of the likeliest one's probability,
    0 for all. ``repetition_penalty``: logits of tokens that occur in the prompt or the new text are divided by it if
    positive, multiplied if not; 1 for none. ``stop``: strings that end the text before them, wherever its tokens begin.

    The order is that of transformers: penalty, temperature, top-k, top-p, min-p. So shares are of probabilities after
    the temperature; llama.cpp applies it last.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

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
        if not 0 <= self.min_p <= 1:
            raise InvalidInputError(f"min_p is {self.min_p}; it must be between 0 (all tokens) and 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise InvalidInputError(
                f"repetition_penalty is {self.repetition_penalty}; it must be above 0, and 1 for none"
            )
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise InvalidInputError(f"stop is {self.stop!r}; give a tuple of strings that are not empty")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, of logits as they are."""
        return self.temperature == 0 and self.repetition_penalty == 1

    @property
    def some_seed(self) -> int:
        """``seed``, or a fresh one."""
        return secrets.randbelow(SEEDS) if self.seed is None else self.seed


def sampling_params(
    model: SamplingDefaults, given: Mapping[str, Any], otherwise: Mapping[str, Any] = MappingProxyType({})
) -> SamplingParams:
    """What a user has ``given``, over what the model's authors want, by names of ``SamplingParams``.

    As in transformers, a model is sampled only where its files say ``do_sample``, and else greedy, whatever temperature
    they state; a user who gives a temperature samples at it. Of a model that is sampled the stated temperature, top-k,
    top-p and min-p count, or none: temperature 1 and all tokens. Its repetition penalty always counts.
    ``otherwise``: how to draw where the files do not say; with a temperature in it, ``do_sample`` is true by default.
    Raises InvalidInputError for values outside their range.
    """
    stated = model.stated()
    penalty = {"repetition_penalty": stated.pop("repetition_penalty", 1.0)}
    silent = otherwise if not stated else {}
    sampled = stated.pop("do_sample", otherwise.get("temperature", 0) > 0)
    if "top_p" in stated:
        stated["top_p"] = max(stated["top_p"], LEAST_SHARE)
    # What the files state beside "greedy" is for a user who asks for sampling.
    temperature = {"temperature": {"temperature": 1.0, **silent, **stated}["temperature"] if sampled else 0.0}
    return SamplingParams(**{**silent, **stated, **penalty, **temperature, **given})


def sample(
    logits: NDArray[np.float32], params: SamplingParams, position: int, seed: int, text: Iterable[int] = ()
) -> int:
    """The token of logits [vocab] that stands at ``position`` of the text; ties go to the lower id.

    ``text``: the tokens before it, in any order, for the repetition penalty. What is drawn depends on the arguments
    only; see ``ops.sampling.reference``.
    Raises Error when a logit is NaN or none is finite: the model's arithmetic broke.
    """
    if params.repetition_penalty != 1:
        seen = np.zeros(logits.size, np.bool_)
        seen[list(text)] = True
        logits = penalized(logits, seen, params.repetition_penalty)
    return checked(choose(logits, position, seed, params.temperature, params.top_k, params.top_p, params.min_p))


def checked(token: int) -> int:
    """The token, unless it says that the logits were no numbers."""
    if token == BROKEN:
        raise Error(
            "the model's logits are not finite numbers, so no token can be chosen; check the program's "
            "weights, or run it on another adapter (see et-webgpu devices)"
        )
    return token

"""Choose the next token from logits."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Error, InvalidInputError
from ..ops.sampling.draws import MOST_LIKELIEST, Draw, allows_some
from ..ops.sampling.reference import BROKEN, changed, choose, masked
from ..ops.shapes import ceil_div
from ..ops.values import INT32_MAX
from ..text.generation import SamplingDefaults
from .text_changes import TextChanges

if TYPE_CHECKING:
    from .grammar import CompiledGrammar

SEEDS = 2**64
LEAST_SHARE = 2**-32  # top-p of the likeliest token alone, which files may write as 0
LARGEST = sys.float_info.max
MOST_PENALTY, MOST_BIAS = 2, 100  # as OpenAI's API has them

# What says before each token which ones may come, given the new tokens so far: a mask, or None for all.
AllowedTokens = Callable[[Sequence[int]], "NDArray[np.uint32] | None"]


@dataclass(frozen=True)
class SamplingParams:
    """How a text is continued. Raises InvalidInputError for values outside their range.

    ``max_new_tokens``: at least 1. ``temperature``: 0 takes the likeliest token (greedy). ``top_k``: sample
    among the k likeliest tokens, 0 for all. ``top_p``: then among the fewest that hold this share of the
    probability, 1 for all. ``seed``: the same seed gives the same text, whether the GPU or the host draws; below 2^64;
    None draws a fresh one. ``min_p``: then among tokens with at least this share of the likeliest one's probability,
    0 for all. ``repetition_penalty``: logits of tokens that occur in the prompt or the new text are divided by it if
    positive, multiplied if not; 1 for none. ``stop``: strings that end the text before them, wherever its tokens begin.
    ``presence_penalty``, ``frequency_penalty``, from -2 to 2: what is subtracted from the logits of tokens that occur
    in the new text, once, and for each time; 0 for none. ``logit_bias``: what is added to logits, from -100 to 100,
    by token. ``allowed_tokens``: is asked before each token which ones may come, given the new tokens so far; it
    returns a bit for each token of the vocabulary, uint32 [ceil(V / 32)] or less, token t being bit t % 32 of word
    t // 32, or None for all. ``grammar``: what the text must be, from ``GrammarVocabulary.compile``; it ends where it
    is whole. ``logprobs``: of an ``Engine``'s tokens, how many of the likeliest to give with their log probabilities,
    up to 20, beside the token's own; None for none. They are those of the model, before all of the above.
    ``prompt_logprobs``: the same for the tokens of the prompt, all of which are then computed.

    The order is that of transformers: penalties and bias, what is allowed, temperature, top-k, top-p, min-p. So shares
    are of probabilities after the temperature; llama.cpp applies it last.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    allowed_tokens: AllowedTokens | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: CompiledGrammar | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InvalidInputError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if not 0 <= self.temperature <= LARGEST:
            raise InvalidInputError(f"temperature is {self.temperature}; it must be 0 (greedy) or above")
        if not self.top_k >= 0:
            raise InvalidInputError(f"top_k is {self.top_k}; it must be 0 (all tokens) or above")
        object.__setattr__(self, "top_k", min(self.top_k, INT32_MAX))  # which no vocabulary has, and kernels can hold
        if not 0 < self.top_p <= 1:
            raise InvalidInputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise InvalidInputError(f"seed is {self.seed}; it must be 0 or above, and below 2^64")
        if not 0 <= self.min_p <= 1:
            raise InvalidInputError(f"min_p is {self.min_p}; it must be between 0 (all tokens) and 1")
        if not 0 < self.repetition_penalty <= LARGEST:
            raise InvalidInputError(
                f"repetition_penalty is {self.repetition_penalty}; it must be above 0, and 1 for none"
            )
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise InvalidInputError(f"stop is {self.stop!r}; give a tuple of strings that are not empty")
        self._check_changes()

    def _check_changes(self) -> None:
        for name in ("presence_penalty", "frequency_penalty"):
            if not -MOST_PENALTY <= (value := getattr(self, name)) <= MOST_PENALTY:
                raise InvalidInputError(f"{name} is {value}; it must be between -{MOST_PENALTY} and {MOST_PENALTY}")
        for token, bias in self.logit_bias.items():
            is_token = isinstance(token, int | np.integer) and not isinstance(token, bool)
            if not is_token or not -MOST_BIAS <= bias <= MOST_BIAS:
                raise InvalidInputError(
                    f"logit_bias has {bias!r} for {token!r}; it takes numbers from -{MOST_BIAS} to {MOST_BIAS} by token"
                )
        if self.allowed_tokens is not None and not callable(self.allowed_tokens):
            raise InvalidInputError("allowed_tokens is asked before each token, so it must be a function")
        if self.allowed_tokens is not None and self.grammar is not None:
            raise InvalidInputError("allowed_tokens and grammar both say which tokens may come; give one of them")
        for name in ("logprobs", "prompt_logprobs"):
            if (count := getattr(self, name)) is not None and not 0 <= count <= MOST_LIKELIEST:
                raise InvalidInputError(f"{name} is {count}; it must be between 0 and {MOST_LIKELIEST}, or None")

    @property
    def needs_tokens(self) -> bool:
        """Whether a token depends, beside its logits, on which ones came before, so that the host must know those."""
        return self._penalized or self.allowed_tokens is not None or self.grammar is not None

    @property
    def may_refuse(self) -> bool:
        """Whether a token may be drawn without the grammar's mask: if the grammar allows it, it is drawn with it, too.

        So it is for greedy texts, and for those with a temperature alone. What filters keep depends on the mask.
        """
        filtered = self.temperature > 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)
        return self.grammar is not None and not self._penalized and not filtered

    @property
    def _penalized(self) -> bool:
        return self.repetition_penalty != 1 or bool(self.presence_penalty or self.frequency_penalty)

    @property
    def host_reason(self) -> str | None:
        """Why a ``DecodeSession`` cannot draw like this; None if it can."""
        by_host = {
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": self.logit_bias,
            "allowed_tokens": self.allowed_tokens is not None,
            "grammar": self.grammar is not None,
            "logprobs": self.logprobs is not None,
            "prompt_logprobs": self.prompt_logprobs is not None,
        }
        named = [name for name, given in by_host.items() if given]
        return f"{' and '.join(named)} must be applied to each token's logits by the host" if named else None

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
    logits: NDArray[np.float32],
    params: SamplingParams,
    position: int,
    seed: int,
    prompt: Sequence[int] = (),
    new_tokens: Sequence[int] = (),
) -> int:
    """The token of logits [vocab] that stands at ``position`` of the text; ties go to the lower id.

    ``prompt``, ``new_tokens``: the text before it. What is drawn depends on the arguments only; see
    ``ops.sampling.reference``.
    Raises Error when a logit is NaN or none is finite: the model's arithmetic broke; and InvalidInputError as
    ``TextChanges`` and ``allowed_mask`` do.
    """
    changes = TextChanges(params, prompt, logits.size)
    for token in new_tokens:
        changes.add(token)
    return sample_text(logits, params, position, seed, changes, allowed_mask(params, new_tokens, logits.size))


def sample_text(
    logits: NDArray[np.float32],
    params: SamplingParams,
    position: int,
    seed: int,
    changes: TextChanges,
    allowed: NDArray[np.uint32] | None,
) -> int:
    """``sample`` for a text whose ``changes`` are kept, and of which ``allowed`` tokens may come now; None for all."""
    if (some := changes.changes()) is not None:
        logits = changed(logits, some.tokens, some.penalty, some.shift)
    if allowed is not None:
        logits = masked(logits, allowed)
    return checked(choose(logits, position, seed, params.temperature, params.top_k, params.top_p, params.min_p))


def draw_of(
    params: SamplingParams,
    position: int,
    seed: int,
    changes: TextChanges,
    allowed: NDArray[np.uint32] | None,
) -> Draw:
    """What ``sample_text`` does to a row of logits, for a ``BatchMethod``."""
    return Draw(
        position,
        seed,
        params.temperature,
        params.top_k,
        params.top_p,
        params.min_p,
        changes.changes(),
        allowed,
        params.logprobs,
    )


def allowed_mask(params: SamplingParams, new_tokens: Sequence[int], vocab: int) -> NDArray[np.uint32] | None:
    """The tokens that may come now, uint32 [ceil(vocab / 32)]; None for all.

    What a shorter mask leaves out is not allowed: heads often have more rows than tokenizers have tokens.
    Raises InvalidInputError where ``allowed_tokens`` gives something else, or nothing may come; and what it raises.
    """
    given = None if params.allowed_tokens is None else params.allowed_tokens(new_tokens)
    if given is None:
        return None
    words = ceil_div(vocab, 32)
    is_mask = isinstance(given, np.ndarray) and given.dtype in (np.uint32, np.int32)
    if not is_mask or given.ndim != 1 or given.size > words:
        what = f"{given.dtype} {list(given.shape)}" if isinstance(given, np.ndarray) else type(given).__name__
        raise InvalidInputError(f"allowed_tokens gave {what}; it must give uint32 [{words}], a bit for each token")
    mask = np.zeros(words, np.uint32)
    mask[: given.size] = given.view(np.uint32)
    if not allows_some(mask, vocab):
        raise InvalidInputError(f"allowed_tokens allows no token after {len(new_tokens)} new ones")
    return mask


def checked(token: int) -> int:
    """The token, unless it says that the logits were no numbers."""
    if token == BROKEN:
        raise Error(
            "the model's logits are not finite numbers, so no token can be chosen; check the program's "
            "weights, or run it on another adapter (see et-webgpu devices)"
        )
    return token

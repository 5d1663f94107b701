"""Continue a prompt, token by token."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from time import perf_counter
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..text.tokenizer import Tokenizer
from .sample import SamplingParams, sample

FinishReason = Literal["eos", "length", "context"]


class Model(Protocol):
    """What generation needs of a model; ``llm.model.LanguageModel`` is the real one."""

    @property
    def context_len(self) -> int: ...
    @property
    def eos_ids(self) -> frozenset[int]: ...
    @property
    def cached_tokens(self) -> tuple[int, ...]: ...
    def reset(self) -> None: ...
    def prefill(self, tokens: Sequence[int], start: int = 0) -> NDArray[np.float32]: ...
    def step(self, token: int, position: int) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class GenerationStats:
    """Counts, seconds of the model's work (not the reader's), and why the text ended: an end token ("eos"),
    ``max_new_tokens`` ("length") or a full KV cache ("context"). The first new token comes from the prefill,
    each later one from a decode step. ``reused_tokens`` of the prompt were in the KV cache already."""

    prompt_tokens: int
    prefill_seconds: float
    new_tokens: int
    decode_steps: int
    decode_seconds: float
    finish_reason: FinishReason
    reused_tokens: int = 0

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens that were computed."""
        return self.prompt_tokens - self.reused_tokens

    @property
    def prefill_rate(self) -> float:
        """Computed prompt tokens per second."""
        return self.prefilled_tokens / max(self.prefill_seconds, 1e-9)

    @property
    def decode_rate(self) -> float:
        """Decode steps per second."""
        return self.decode_steps / max(self.decode_seconds, 1e-9)


@dataclass(frozen=True)
class Piece:
    """One new token and the text that it completes, in whole characters (so sometimes none).

    The last piece has no token: it brings what is left of the text, and the ``stats``.
    """

    text: str
    token: int | None = None
    stats: GenerationStats | None = None


def cached_prefix(model: Model, prompt_tokens: Sequence[int]) -> int:
    """How many of the prompt's first tokens the KV cache holds: the ``start`` of ``generate`` that reuses the most.

    The last token never counts, because what comes next is chosen from its logits.
    """
    pairs = zip(model.cached_tokens, prompt_tokens[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def generate(
    model: Model, tokenizer: Tokenizer, prompt_tokens: Sequence[int], params: SamplingParams, start: int = 0
) -> Generator[Piece]:
    """Continue a prompt; pieces come as they are made, the last one with the stats.

    The first ``start`` tokens of the prompt are in the KV cache already and are not computed again; with 0 the cache
    is cleared. The iterator may be closed at any piece, and a KeyboardInterrupt or an error may end it: the model
    stays usable, and its ``cached_tokens`` say what the cache holds.
    Raises InvalidInputError for an empty prompt, for one that is longer than the context, and for a ``start`` that is
    not in the prompt or in the cache.
    """
    prompt = list(prompt_tokens)
    _check_prompt(prompt, model.context_len)
    if not 0 <= start <= cached_prefix(model, prompt):
        raise InvalidInputError(
            f"start is {start}, but {cached_prefix(model, prompt)} tokens of the prompt can be taken from the KV cache"
        )
    return _generate(model, tokenizer, prompt, params, start)


def _generate(
    model: Model, tokenizer: Tokenizer, prompt: list[int], params: SamplingParams, start: int
) -> Generator[Piece]:
    end_tokens = tokenizer.eos_ids | model.eos_ids
    text = tokenizer.stream(after=prompt)
    seed = params.some_seed
    finish: FinishReason = "length"
    new_tokens = decode_steps = 0
    decode_seconds = 0.0

    if start == 0:
        model.reset()
    started = perf_counter()
    logits = model.prefill(prompt[start:], start)
    prefill_seconds = perf_counter() - started

    while True:
        token = sample(logits, params, len(prompt) + decode_steps, seed)
        if token in end_tokens:
            finish = "eos"
            break
        new_tokens += 1
        yield Piece(text.push(token), token)
        if new_tokens == params.max_new_tokens:
            break
        position = len(prompt) + decode_steps
        if position == model.context_len:
            finish = "context"
            break
        started = perf_counter()
        logits = model.step(token, position)
        decode_seconds += perf_counter() - started
        decode_steps += 1

    stats = GenerationStats(len(prompt), prefill_seconds, new_tokens, decode_steps, decode_seconds, finish, start)
    yield Piece(text.finish(), stats=stats)


def _check_prompt(prompt: list[int], context_len: int) -> None:
    if not prompt:
        raise InvalidInputError("the prompt is empty; give at least one token to continue")
    if len(prompt) > context_len:
        raise InvalidInputError(
            f"the prompt is {len(prompt)} tokens long, the model's context holds {context_len}; shorten it"
        )

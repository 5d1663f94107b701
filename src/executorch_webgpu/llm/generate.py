"""Continue a prompt, token by token."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from time import perf_counter
from typing import Literal

from ..errors import InvalidInputError
from ..text.tokenizer import Tokenizer
from .decode_session import DecodeSession
from .exclusive import Exclusive, ExclusiveGenerator
from .model import LanguageModel
from .plain_loop import FinishReason, PlainLoop
from .sample import SamplingParams
from .stop_strings import StopStrings, unspoken_tokens


@dataclass(frozen=True)
class GenerationStats:
    """Counts, seconds, and why the text ended: an end token ("eos"), a stop string ("stop"), ``max_new_tokens``
    ("length") or a full KV cache ("context").

    The first new token comes from the prefill, each later one from a decode step. ``reused_tokens`` of the prompt were
    in the KV cache already. ``drawn_by``: "gpu" where steps followed one another on the GPU; then seconds of decoding
    are all from the first token on, since the GPU goes on while a piece is read. "host" where each step waited for its
    token to be drawn; then they are the model's, not the reader's, and ``host_reason`` says why.
    """

    prompt_tokens: int
    prefill_seconds: float
    new_tokens: int
    decode_steps: int
    decode_seconds: float
    finish_reason: FinishReason
    reused_tokens: int = 0
    host_reason: str | None = None

    @property
    def drawn_by(self) -> Literal["gpu", "host"]:
        """Who drew the tokens."""
        return "gpu" if self.host_reason is None else "host"

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

    What may be the beginning of a stop string waits until it is known not to be one.
    The last piece has no token: it brings what is left of the text, and the ``stats``.
    """

    text: str
    token: int | None = None
    stats: GenerationStats | None = None


def cached_prefix(model: LanguageModel, prompt_tokens: Sequence[int]) -> int:
    """How many of the prompt's first tokens the KV cache holds: the ``start`` of ``generate`` that reuses the most.

    The last token never counts, because what comes next is chosen from its logits.
    """
    cached = model.cached_tokens
    most = max(0, min(len(cached), len(prompt_tokens) - 1))
    cached, wanted = cached[:most], tuple(prompt_tokens[:most])
    if cached == wanted:  # much faster than token by token
        return most
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(cached, wanted, strict=True)))


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt_tokens: Sequence[int],
    params: SamplingParams,
    start: int = 0,
    *,
    steps_in_flight: int | None = None,
) -> Generator[Piece]:
    """Continue a prompt; pieces come as they are made, the last one with the stats.

    The first ``start`` tokens of the prompt are in the KV cache already and are not computed again; with 0 the cache
    is cleared. Tokens are drawn on the GPU, ``steps_in_flight`` at most ahead of the reader (see ``DecodeSession``),
    or on the host where the program or the parameters ask for that, or ``steps_in_flight`` is 0: the stats say so. They
    are the same.
    The iterator may be closed at any piece, and a KeyboardInterrupt or an error may end it: the model stays usable, and
    its ``cached_tokens`` say what the cache holds. When the model is used for something else meanwhile, a ClosedError
    ends it. Texts that go on at the same time, in one thread or in many, need a ``LanguageModel.new_sequence`` each.
    A stop string ends the text before it, whatever tokens it consists of; what ran ahead is taken back as for an end
    token, and the token that completes the string is the last one given. The text of a special token, which is no part
    of what is given, is a stop string as well.
    Raises InvalidInputError for an empty prompt, for one that is longer than the context, for a ``start`` that is not
    in the prompt or in the cache, for negative ``steps_in_flight``, and for ``logprobs``, which pieces do not have.
    """
    prompt = list(prompt_tokens)
    _check_prompt(prompt, model.context_len)
    if not 0 <= start <= cached_prefix(model, prompt):
        raise InvalidInputError(
            f"start is {start}, but {cached_prefix(model, prompt)} tokens of the prompt can be taken from the KV cache"
        )
    if steps_in_flight is not None and steps_in_flight < 0:
        raise InvalidInputError(f"steps_in_flight is {steps_in_flight}; it must be 0 or above")
    if params.logprobs is not None:
        raise InvalidInputError("generate gives text, not log probabilities; ask an Engine for logprobs")
    pieces = _generate(model, tokenizer, prompt, params, start, steps_in_flight)
    use = Exclusive(
        "another thread is taking a piece of this text; let one thread take them, or each make its own text"
    )
    return ExclusiveGenerator(pieces, use)


def _generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: list[int],
    params: SamplingParams,
    start: int,
    steps_in_flight: int | None,
) -> Generator[Piece]:
    text, stops = tokenizer.stream(after=prompt), StopStrings(params.stop)
    stop_tokens = unspoken_tokens(tokenizer, params.stop)
    new_tokens = 0
    reading = 0.0  # seconds
    with model.use:
        start = min(start, cached_prefix(model, prompt))  # less, if something else has run since we were asked
        if start == 0:
            model.reset()
        tokens, host_reason = _loop(model, params, tokenizer.eos_ids | model.eos_ids, steps_in_flight)
        started = first = perf_counter()
        try:
            tokens.prefill(prompt[start:], start)
        except BaseException:
            tokens.close()
            raise
    try:
        for token in tokens:
            given = perf_counter()
            first = first if new_tokens else given
            new_tokens += 1
            yield Piece(stops.push(text.push(token)), token)
            reading += perf_counter() - given
            if stops.found or token in stop_tokens:
                break
        ended = perf_counter()
    finally:
        tokens.close()

    rest = stops.push(text.finish()) + stops.finish()
    finish = "stop" if stops.found else tokens.finish_reason or "stop"
    first = first if new_tokens else ended
    decode_seconds = ended - first - (0 if host_reason is None else reading)
    decode_steps = new_tokens if finish == "eos" else new_tokens - 1
    counts = (len(prompt), first - started, new_tokens, decode_steps, decode_seconds)
    yield Piece(rest, stats=GenerationStats(*counts, finish, start, host_reason))


def _loop(
    model: LanguageModel, params: SamplingParams, end_tokens: Collection[int], steps_in_flight: int | None
) -> tuple[DecodeSession | PlainLoop, str | None]:
    """What makes the tokens, and why it is the plain loop if it is that."""
    reason = "steps_in_flight is 0" if steps_in_flight == 0 else params.host_reason or model.host_reason
    if reason is None:
        return DecodeSession(model, params, end_tokens=end_tokens, steps_in_flight=steps_in_flight), None
    return PlainLoop(model, params, end_tokens), reason


def _check_prompt(prompt: list[int], context_len: int) -> None:
    if not prompt:
        raise InvalidInputError("the prompt is empty; give at least one token to continue")
    if len(prompt) > context_len:
        raise InvalidInputError(
            f"the prompt is {len(prompt)} tokens long, the model's context holds {context_len}; shorten it"
        )

"""The text of a stream of an engine, piece by piece, as ``generate`` gives that of a model."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from time import perf_counter

from ..text.tokenizer import Tokenizer
from .engine import Engine
from .generate import GenerationStats, Piece
from .plain_loop import FinishReason
from .sample import SamplingParams
from .stop_strings import StopStrings, unspoken_tokens
from .stream import Stream


def submit_text(
    engine: Engine, tokenizer: Tokenizer, prompt_tokens: Sequence[int], params: SamplingParams
) -> Generator[Piece]:
    """Continue a prompt in an engine; the pieces, stop strings and end tokens are those of ``generate``.

    It is submitted at once, and goes on whether or not its pieces are taken. Closing the iterator, or dropping it after
    its first piece, ends the text. Of the stats, prefill is the time from then to the first token, which includes the
    wait for other texts.
    Raises InvalidInputError for a prompt that cannot be, ClosedError, and what broke the engine.
    """
    ends = tokenizer.eos_ids | engine.eos_ids
    stream = engine.submit(prompt_tokens, replace(params, stop=()), end_tokens=ends)
    return _pieces(stream, tokenizer, list(prompt_tokens), params.stop)


def _pieces(stream: Stream, tokenizer: Tokenizer, prompt: list[int], stop: Sequence[str]) -> Generator[Piece]:
    text, stops, stop_tokens = tokenizer.stream(after=prompt), StopStrings(stop), unspoken_tokens(tokenizer, stop)
    new_tokens, stopped = 0, False
    try:
        for token in stream:
            new_tokens += 1
            yield Piece(stops.push(text.push(token)), token)
            if stopped := stops.found or token in stop_tokens:
                break
    finally:
        stream.cancel()  # of a text that has ended this changes nothing
    rest = stops.push(text.finish()) + stops.finish()
    yield Piece(rest, stats=_stats(stream, len(prompt), new_tokens, "stop" if stopped or stops.found else None))


def _stats(stream: Stream, prompt_tokens: int, new_tokens: int, stopped: FinishReason | None) -> GenerationStats:
    """Counts and seconds of the tokens that were taken; more may have come."""
    submitted, came = stream.times.submitted, stream.times.tokens[:new_tokens]
    first = came[0] if came else perf_counter()
    reason = stopped or stream.finish_reason
    assert reason is not None and reason != "cancelled"
    decode_seconds = came[-1] - first if came else 0.0
    return GenerationStats(prompt_tokens, first - submitted, new_tokens, max(0, new_tokens - 1), decode_seconds, reason)

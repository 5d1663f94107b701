from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from executorch_webgpu import Program
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm.decode_session import DecodeSession
from executorch_webgpu.llm.generate import GenerationStats, Piece, cached_prefix, generate
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.ops.sampling.reference import bits_of
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.calls import recorded
from tests.llm.tiny_program import continuation
from tests.text.tiny_vocabulary import BPE_TOKENS

VOCAB = len(BPE_TOKENS)
PROMPT = [40, 41, 42, 43, 44, 45, 46]


Open = Callable[..., Program]


def run(
    program: Program, tokenizer: Tokenizer, prompt: list[int], params: SamplingParams
) -> tuple[list[Piece], GenerationStats]:
    model = LanguageModel(program)
    *pieces, last = generate(model, tokenizer, prompt, params)
    assert last.token is None and last.stats is not None
    assert all(piece.token is not None and piece.stats is None for piece in pieces)
    return [*pieces, last], last.stats


def tokens(pieces: list[Piece]) -> list[int]:
    return [piece.token for piece in pieces if piece.token is not None]


def prompt_without_end(tokenizer: Tokenizer, steps: int) -> list[int]:
    """A prompt whose continuation has no end token for a while."""
    for first in range(10, VOCAB):
        prompt = [first, *PROMPT]
        if not tokenizer.eos_ids & set(continuation(prompt, steps, VOCAB)):
            return prompt
    raise AssertionError("every prompt ends early")


def prompt_with_end(tokenizer: Tokenizer, after: int) -> list[int]:
    """A prompt whose continuation ends after exactly so many tokens."""
    for first in range(VOCAB):
        for second in range(VOCAB):
            said = continuation([first, second], after + 1, VOCAB)
            if said[-1] in tokenizer.eos_ids and not tokenizer.eos_ids & set(said[:-1]):
                return [first, second]
    raise AssertionError("no prompt ends there")


def test_greedy_continuation_and_stats(open_tiny: Open, bpe: Tokenizer) -> None:
    prompt = prompt_without_end(bpe, 20)
    pieces, stats = run(open_tiny(vocab_size=VOCAB), bpe, prompt, SamplingParams(max_new_tokens=20))
    assert tokens(pieces) == continuation(prompt, 20, VOCAB)
    assert "".join(piece.text for piece in pieces) == bpe.decode(tokens(pieces))
    assert (stats.prompt_tokens, stats.new_tokens, stats.decode_steps) == (len(prompt), 20, 19)
    assert stats.finish_reason == "length"
    assert stats.prefill_rate == pytest.approx(len(prompt) / stats.prefill_seconds)
    assert stats.decode_rate == pytest.approx(19 / stats.decode_seconds)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_stops_at_an_end_token_and_leaves_it_out(open_tiny: Open, bpe: Tokenizer, after: int) -> None:
    prompt = prompt_with_end(bpe, after)
    pieces, stats = run(open_tiny(vocab_size=VOCAB), bpe, prompt, SamplingParams(max_new_tokens=50))
    assert tokens(pieces) == continuation(prompt, after, VOCAB)
    assert (stats.finish_reason, stats.new_tokens, stats.decode_steps) == ("eos", after, after)


def test_end_token_of_the_program(open_tiny: Open, bpe: Tokenizer) -> None:
    prompt = prompt_without_end(bpe, 5)
    third = continuation(prompt, 3, VOCAB)[2]
    constants = {"get_max_context_len": [64], "get_eos_ids": [third]}
    model = LanguageModel(open_tiny(vocab_size=VOCAB, constants=constants))
    *pieces, last = generate(model, bpe, prompt, SamplingParams())
    assert last.stats is not None and last.stats.finish_reason == "eos"
    assert third not in tokens(pieces)


@pytest.mark.parametrize("room", [0, 1, 3])
def test_stops_at_the_end_of_the_context(open_tiny: Open, bpe: Tokenizer, room: int) -> None:
    """A full cache still gives one token: the one that would stand behind it."""
    prompt = prompt_without_end(bpe, room + 1)
    pieces, stats = run(open_tiny(vocab_size=VOCAB, context_len=len(prompt) + room), bpe, prompt, SamplingParams(50))
    assert tokens(pieces) == continuation(prompt, room + 1, VOCAB)
    assert (stats.finish_reason, stats.decode_steps) == ("context", room)


def test_each_text_starts_from_an_empty_cache(open_tiny: Open, bpe: Tokenizer) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    prompt = prompt_without_end(bpe, 8)
    params = SamplingParams(max_new_tokens=8)
    first = list(generate(model, bpe, [*prompt, 50], params))
    second = list(generate(model, bpe, prompt, params))
    assert tokens(first) != tokens(second)
    assert tokens(second) == continuation(prompt, 8, VOCAB)


def test_pieces_come_as_they_are_made(open_tiny: Open, monkeypatch: pytest.MonkeyPatch, bpe: Tokenizer) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    prompt = prompt_without_end(bpe, 8)
    pieces = generate(model, bpe, prompt, SamplingParams(max_new_tokens=8), steps_in_flight=0)
    calls = recorded(model, monkeypatch)
    next(pieces)
    steps_before = len(calls)
    next(pieces)
    assert len(calls) == steps_before + 1


def test_a_seed_repeats_a_sampled_text(open_tiny: Open, bpe: Tokenizer) -> None:
    def sampled(seed: int) -> list[int]:
        params = SamplingParams(max_new_tokens=30, temperature=5.0, seed=seed)
        return tokens(run(open_tiny(vocab_size=VOCAB), bpe, PROMPT, params)[0])

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_prompt_longer_than_the_context(open_tiny: Open, bpe: Tokenizer) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB, context_len=6))
    with pytest.raises(InvalidInputError, match="7 tokens long, the model's context holds 6"):
        generate(model, bpe, PROMPT, SamplingParams())


def test_empty_prompt(open_tiny: Open, bpe: Tokenizer) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    with pytest.raises(InvalidInputError, match="prompt is empty"):
        generate(model, bpe, [], SamplingParams())


def test_what_only_the_host_applies_is_applied_there(open_tiny: Open, bpe: Tokenizer) -> None:
    """Penalties of the new text alone, a bias and a mask, one call at a time; a session refuses them."""
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    prompt = prompt_without_end(bpe, 8)
    usual = continuation(prompt, 4, VOCAB)
    wanted = next(token for token in range(VOCAB) if token not in {*usual, *bpe.eos_ids})

    def unusual(new_tokens: Sequence[int]) -> np.ndarray:
        allowed = np.ones(VOCAB, np.bool_)
        allowed[usual] = False
        return bits_of(allowed).view(np.uint32)

    def said(**changes: Any) -> list[int]:
        params = SamplingParams(max_new_tokens=4, **changes)
        with pytest.raises(
            InvalidInputError, match=f"a DecodeSession draws tokens on the GPU, but {params.host_reason}"
        ):
            DecodeSession(model, params)
        pieces = list(generate(model, bpe, prompt, params))
        stats = pieces[-1].stats
        assert stats is not None and stats.host_reason == params.host_reason is not None
        return tokens(pieces)

    assert said(logit_bias={wanted: 100.0}) == [wanted] * 4
    assert said(logit_bias={wanted: 100.0, usual[0]: 98.5}, frequency_penalty=2.0) != [wanted] * 4
    assert not {*said(allowed_tokens=unusual)} & {*usual}
    with pytest.raises(InvalidInputError, match="not log probabilities"):
        generate(model, bpe, prompt, SamplingParams(logprobs=2))


def test_negative_steps_in_flight(open_tiny: Open, bpe: Tokenizer) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    with pytest.raises(InvalidInputError, match="steps_in_flight is -1"):
        generate(model, bpe, PROMPT, SamplingParams(), steps_in_flight=-1)


@pytest.mark.parametrize("start", [0, 1, 4, 7])
def test_part_of_the_prompt_in_the_cache(
    open_tiny: Open, monkeypatch: pytest.MonkeyPatch, bpe: Tokenizer, start: int
) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    prompt = prompt_without_end(bpe, 6)
    model.prefill([*prompt[:start], 99, 98, 97])
    calls = recorded(model, monkeypatch)
    pieces = list(generate(model, bpe, prompt, SamplingParams(max_new_tokens=6), start, steps_in_flight=0))
    assert tokens(pieces) == continuation(prompt, 6, VOCAB)
    assert model.cached_tokens == (*prompt, *tokens(pieces)[:-1])
    assert sum(count for count, _ in calls) == len(prompt) - start + 5
    assert calls[0][1] == start
    stats = pieces[-1].stats
    assert stats is not None
    assert (stats.prompt_tokens, stats.reused_tokens, stats.prefilled_tokens) == (8, start, 8 - start)
    assert stats.prefill_rate == pytest.approx((8 - start) / stats.prefill_seconds)


@pytest.mark.parametrize(
    ("cached", "prefix"), [([], 0), ([9], 0), (PROMPT[:3], 3), ([*PROMPT[:3], 9, 9], 3), (PROMPT, 6), ([*PROMPT, 9], 6)]
)
def test_what_can_be_reused(open_tiny: Open, bpe: Tokenizer, cached: list[int], prefix: int) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    if cached:
        model.prefill(cached)
    assert cached_prefix(model, PROMPT) == prefix
    for start in (-1, prefix + 1):
        with pytest.raises(InvalidInputError, match=f"start is {start}, but {prefix} tokens"):
            generate(model, bpe, PROMPT, SamplingParams(), start)


@pytest.mark.parametrize("pieces", [0, 1, 4])
def test_closing_leaves_the_model_usable(open_tiny: Open, bpe: Tokenizer, pieces: int) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    prompt = prompt_without_end(bpe, 9)
    text = generate(model, bpe, prompt, SamplingParams(max_new_tokens=9))
    said = tokens([next(text) for _ in range(pieces)])
    text.close()
    assert model.cached_tokens == ((*prompt, *said[:-1]) if pieces else ())
    again = [*prompt, *said]
    rest = generate(model, bpe, again, SamplingParams(max_new_tokens=9 - pieces), cached_prefix(model, again))
    assert said + tokens(list(rest)) == continuation(prompt, 9, VOCAB)

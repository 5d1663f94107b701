"""Guesses: texts are token for token what they are without them, and those that are right save steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.llm.speculation import MOST_DRAFTS, NgramIndex, Trust
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program

CONTEXT = 96
OPTIONS = LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=CONTEXT)


def write(path: Path, seed: int = 0, vocab: int = 40) -> Path:
    write_llama(path, replace(SHAPES["tiny"], context_len=CONTEXT, vocab=vocab), OPTIONS, seed=seed)
    return path


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Program]]:
    """One, another with the same vocabulary, and one with another vocabulary."""
    folder, runtime = tmp_path_factory.mktemp("speculation"), Runtime.get()
    paths = [write(folder / "a.pte"), write(folder / "b.pte", 1), write(folder / "c.pte", vocab=48)]
    loaded = [runtime.load_program(path) for path in paths]
    yield loaded
    for program in loaded:
        program.close()


def texts(engine: Engine, params: list[SamplingParams], seed: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    prompts = [random.integers(0, 40, random.integers(1, 30)).tolist() for _ in params]
    streams = [engine.submit(prompt, each, end_tokens=[3]) for prompt, each in zip(prompts, params, strict=True)]
    return [list(stream) for stream in streams]


@pytest.mark.parametrize("guesser", ["prompt-lookup", 0, 1])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_texts_are_what_they_are_without_guesses(
    programs: list[Program], guesser: str | int, temperature: float
) -> None:
    params = [SamplingParams(40, temperature=temperature, top_p=0.95, seed=i) for i in range(5)]
    sizes: dict[str, Any] = {"max_rows": 32, "max_sequences": 3}
    with Engine(programs[0], **sizes) as plain:
        wanted = texts(plain, params, 1)
    speculate = guesser if isinstance(guesser, str) else programs[guesser]
    with Engine(programs[0], speculate=speculate, **sizes) as engine:
        assert texts(engine, params, 1) == wanted
        assert engine.idle_pages == engine.kv_pages
        guessed, right = engine.guessed_tokens
        assert right <= guessed
        if guesser == 0:  # a program that guesses for itself is right, but for what rounding decides
            assert right > 0.8 * guessed > 0


def test_texts_that_are_not_guessed_run_beside_those_that_are(programs: list[Program]) -> None:
    """Penalties and masks need every token before the next."""
    odd = np.full(2, 0xAAAAAAAA, np.uint32)
    params = [
        SamplingParams(20),
        SamplingParams(20, frequency_penalty=0.5, temperature=0.7, seed=1),
        SamplingParams(20, allowed_tokens=lambda new: odd),
        SamplingParams(20, logit_bias={7: 3.0}, logprobs=2),
    ]
    with Engine(programs[0], max_rows=32) as plain:
        wanted = texts(plain, params, 2)
    guessers: list[str | Program] = ["prompt-lookup", programs[1]]
    for speculate in guessers:
        with Engine(programs[0], speculate=speculate, max_rows=32) as engine:
            assert texts(engine, params, 2) == wanted
    assert all(token % 2 for token in wanted[2])


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_small_pools(programs: list[Program], data: st.DataObject) -> None:
    seed, count = data.draw(st.integers(0, 99)), data.draw(st.integers(2, 6))
    rows, sequences = data.draw(st.sampled_from([(4, 3), (16, 2), (40, 6)]))
    pages = data.draw(st.integers(9, 20))
    params = [SamplingParams(data.draw(st.integers(1, 40)), temperature=i % 2, seed=i) for i in range(count)]
    sizes: dict[str, Any] = {"kv_pages": pages, "page_rows": 8, "max_rows": rows, "max_sequences": sequences}
    with Engine(programs[0]) as plain:
        wanted = texts(plain, params, seed)
    speculate: Any = data.draw(st.sampled_from(["prompt-lookup", programs[0], programs[1]]))
    with Engine(programs[0], speculate=speculate, **sizes) as engine:
        assert texts(engine, params, seed) == wanted
        assert engine.idle_pages == pages


def test_guesses_save_steps(programs: list[Program]) -> None:
    """A text that repeats itself takes few steps once that has been seen."""
    params = SamplingParams(60, logit_bias={5: 100.0})
    with Engine(programs[0], speculate="prompt-lookup") as engine:
        assert list(engine.submit([1], params, end_tokens=())) == [5] * 60
        guessed, right = engine.guessed_tokens
        assert guessed == right > 40


def test_what_cannot_guess(programs: list[Program]) -> None:
    with pytest.raises(InvalidInputError, match="a program of 48 tokens cannot guess for one of 40"):
        Engine(programs[0], speculate=programs[2])
    with pytest.raises(InvalidInputError, match="speculate is \"magic\"|speculate is 'magic'"):
        Engine(programs[0], speculate="magic")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 9))
def test_an_index_finds_what_followed(tokens: list[int], most: int) -> None:
    """The same as looking through the whole text, for every beginning of it."""
    index = NgramIndex()
    for length in range(1, len(tokens) + 1):
        text = tokens[:length]
        found = index.following(text, most)
        wanted: list[int] = []
        for n in range(min(5, length), 2, -1):
            places = [i for i in range(n, length) if text[i - n : i] == text[length - n :]]
            if places:
                cycle = text[places[-1] :]
                wanted = [cycle[i % len(cycle)] for i in range(most)]
                break
        assert found == wanted


def test_trust_ends_and_comes_back() -> None:
    trust = Trust()
    assert trust.most == MOST_DRAFTS
    trust.judge(7, 0)
    assert trust.most == 0
    tokens = 0
    while not trust.most:
        trust.judge(0, 0)
        tokens += 1
    assert tokens == 16
    trust.judge(trust.most, 0)
    for _ in range(32):
        assert not trust.most
        trust.judge(0, 0)
    assert 0 < trust.most < MOST_DRAFTS
    for _ in range(3):
        trust.judge(trust.most, trust.most)
    assert trust.most == MOST_DRAFTS

"""Log probabilities of prompts, and how much of a prompt was there already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Method, Program

VOCAB, CONTEXT = SHAPES["tiny"].vocab, 96


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("prompt") / "model.pte"
    config = replace(SHAPES["tiny"], context_len=CONTEXT)
    write_llama(path, config, LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=CONTEXT))
    with Runtime.get().load_program(path) as program:
        yield program


@pytest.fixture(scope="module")
def method(program: Program) -> Iterator[Method]:
    with program.load_method("forward") as method:
        yield method


def expected(method: Method, tokens: list[int]) -> np.ndarray:
    """Log probabilities [S - 1, V] of what follows each token but the last, one token at a time."""
    rows = []
    for position, token in enumerate(tokens[:-1]):
        (logits,) = method.execute([np.array([[token]]), np.array([position])])
        rows.append(np.asarray(logits, np.float64).ravel())
    logits = np.stack(rows)
    peaks = logits.max(-1, keepdims=True)
    return np.asarray(logits - peaks - np.log(np.exp(logits - peaks).sum(-1, keepdims=True)))


@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    rows=st.integers(4, 40),
    sequences=st.integers(1, 4),
    speculate=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_prompts_are_scored(
    program: Program, method: Method, lengths: list[int], rows: int, sequences: int, speculate: bool, seed: int
) -> None:
    """Beside texts that are not, whatever room a step has, with pages that are given back and shared."""
    random = np.random.default_rng(seed)
    prompts = [random.integers(0, VOCAB, length).tolist() for length in lengths]
    prompts.append(prompts[0])  # whose pages are there
    speculation = "prompt-lookup" if speculate else None
    params = SamplingParams(5, prompt_logprobs=3)
    with Engine(
        program, max_rows=rows, max_sequences=sequences, kv_pages=14, page_rows=8, speculate=speculation
    ) as engine:
        plain = [engine.submit(prompt, SamplingParams(5), end_tokens=()) for prompt in prompts]
        scored = [engine.submit(prompt, params, end_tokens=()) for prompt in prompts]
        for prompt, stream, other in zip(prompts, scored, plain, strict=True):
            assert list(stream) == list(other)
            assert not other.prompt_logprobs
            assert len(stream.prompt_logprobs) == len(prompt) - 1
            if len(prompt) > 1:
                wanted = expected(method, prompt)
                got = [each.logprob for each in stream.prompt_logprobs]
                np.testing.assert_allclose(got, wanted[np.arange(len(prompt) - 1), prompt[1:]], atol=1e-3)
                for row, each in zip(wanted, stream.prompt_logprobs, strict=True):
                    assert len(each.likeliest) == 3
                    np.testing.assert_allclose([p for _, p in each.likeliest], np.sort(row)[:-4:-1], atol=1e-3)
        assert engine.idle_pages == engine.kv_pages


def test_cached_tokens_say_what_was_there(program: Program) -> None:
    prompt = np.random.default_rng(3).integers(0, VOCAB, 40).tolist()
    with Engine(program, page_rows=8, max_rows=16) as engine:
        first = engine.submit(prompt, SamplingParams(3), end_tokens=())
        list(first)
        second = engine.submit([*prompt[:20], 5, 6], SamplingParams(3), end_tokens=())
        list(second)
        whole = engine.submit(prompt, SamplingParams(3), end_tokens=())
        list(whole)
        assert first.cached_tokens == 0
        assert second.cached_tokens == 16
        assert whole.cached_tokens == 32  # the last page has the row whose logits are wanted
        scored = engine.submit(prompt, SamplingParams(3, prompt_logprobs=0), end_tokens=())
        list(scored)
        assert scored.cached_tokens == 0

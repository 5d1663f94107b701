"""The text of a stream of an engine is the one that ``generate`` gives of a model, stop strings and all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm import Engine, LanguageModel, SamplingParams
from executorch_webgpu.llm.generate import GenerationStats, Piece, generate
from executorch_webgpu.llm.stream_text import submit_text
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.models.tiny_gguf import TinyGguf
from tests.text.tiny_vocabulary import BPE_TOKENS

CONTEXT, TEXTS = 48, 24
VOCAB = len(BPE_TOKENS)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path: Path = tmp_path_factory.mktemp("stream_text") / "model.gguf"
    TinyGguf(layers=1, vocab=VOCAB, context_len=CONTEXT).write(path)
    convert(path, path.with_suffix(".pte"), LlamaOptions("f32", max_seq_len=17, max_context_len=CONTEXT))
    with Runtime.get().load_program(path.with_suffix(".pte")) as program:
        yield program


@pytest.fixture(scope="module")
def model(program: Program) -> Iterator[LanguageModel]:
    with LanguageModel(program) as model:
        yield model


@pytest.fixture(scope="module")
def engine(program: Program) -> Iterator[Engine]:
    with Engine(program, max_rows=16, page_rows=8) as engine:
        yield engine


def sampled(seed: int, stop: tuple[str, ...] = ()) -> SamplingParams:
    return SamplingParams(1 + seed % 40, temperature=3, seed=seed, stop=stop)


def prompts() -> list[list[int]]:
    random = np.random.default_rng(7)
    return [random.integers(0, VOCAB, random.integers(1, 30)).tolist() for _ in range(TEXTS)]


def whole(pieces: list[Piece]) -> tuple[str, list[int], GenerationStats]:
    stats = pieces[-1].stats
    assert stats is not None and pieces[-1].token is None
    tokens = [piece.token for piece in pieces[:-1] if piece.token is not None]
    assert len(tokens) == len(pieces) - 1
    return "".join(piece.text for piece in pieces), tokens, stats


def test_texts_are_those_that_a_model_gives(engine: Engine, model: LanguageModel, bpe: Tokenizer) -> None:
    """Sampled, so that some end by an end token, and with stop strings that were taken out of those very texts."""
    plain = [whole(list(generate(model, bpe, p, sampled(i)))) for i, p in enumerate(prompts())]
    stops = [(text[len(text) // 2 :][:2],) if i % 3 and len(text) > 3 else () for i, (text, _, _) in enumerate(plain)]
    params = [sampled(i, stop) for i, stop in enumerate(stops)]
    together = [submit_text(engine, bpe, p, s) for p, s in zip(prompts(), params, strict=True)]
    reasons = set()
    for prompt, param, pieces in zip(prompts(), params, together, strict=True):
        text, tokens, stats = whole(list(pieces))
        alone_text, alone_tokens, alone = whole(list(generate(model, bpe, prompt, param)))
        assert (text, tokens) == (alone_text, alone_tokens)
        assert (stats.finish_reason, stats.prompt_tokens, stats.new_tokens) == (
            *(alone.finish_reason, len(prompt)),
            len(tokens),
        )
        assert stats.prefill_seconds > 0 and stats.decode_seconds >= 0 and stats.host_reason is None
        reasons.add(stats.finish_reason)
    assert reasons >= {"eos", "stop", "length"}


def test_what_has_stopped_gives_its_pages_back(engine: Engine, bpe: Tokenizer) -> None:
    pages = engine.idle_pages
    first = next(submit_text(engine, bpe, [1, 2], sampled(39))).text or "?"
    for closed in (False, True):
        pieces = submit_text(engine, bpe, [1, 2], replace(sampled(39), stop=() if closed else (first,)))
        next(pieces)
        if closed:
            pieces.close()
        else:
            list(pieces)
    wait_for_pages(engine, pages)


def wait_for_pages(engine: Engine, pages: int) -> None:
    for _ in range(1000):
        if engine.idle_pages == pages:
            return
        time.sleep(0.01)
    raise AssertionError(f"{engine.idle_pages} of {pages} pages are idle")


def test_a_full_context_and_an_empty_text(engine: Engine, model: LanguageModel, bpe: Tokenizer) -> None:
    endless, ended = (
        Tokenizer(bpe.backend, replace(bpe.settings, eos_ids=ids)) for ids in (frozenset(), frozenset(range(VOCAB)))
    )
    prompt = prompts()[0]
    for tokenizer, tokens, reason, count in ((endless, prompt * CONTEXT, "context", 1), (ended, prompt, "eos", 0)):
        text, found, stats = whole(list(submit_text(engine, tokenizer, tokens[:CONTEXT], SamplingParams(9))))
        assert (text, found) == whole(list(generate(model, tokenizer, tokens[:CONTEXT], SamplingParams(9))))[:2]
        assert (stats.finish_reason, stats.new_tokens, stats.decode_steps) == (reason, count, 0)
        assert stats.decode_seconds == 0 and stats.decode_rate == 0


def test_bad_prompts_are_refused_at_once(engine: Engine, bpe: Tokenizer) -> None:
    for prompt in ([], [VOCAB], [1] * (CONTEXT + 1)):
        with pytest.raises(InvalidInputError):
            submit_text(engine, bpe, prompt, SamplingParams())

"""Texts with a grammar that are drawn ahead are the texts that wait for each mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import Error
from executorch_webgpu.llm import Engine, LanguageModel, SamplingParams, Stream
from executorch_webgpu.llm.grammar import Grammar, GrammarVocabulary
from executorch_webgpu.llm.plain_loop import PlainLoop
from executorch_webgpu.llm.refusals import Refusals, pays_to_draw_ahead
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.chain_program import chain_program, chain_table
from tests.llm.json_schemas import Schema, possible, schemas
from tests.text.tiny_vocabulary import write_bpe

VOCAB, CONTEXT = SHAPES["tiny"].vocab, 128
UNSHRUNK = Phase.explicit, Phase.reuse, Phase.generate
# Random weights draw what most of these refuse, and what the first ones allow.
GRAMMARS = [
    Grammar.regex(r"[\s\S]*"),
    Grammar.regex(r"[\s\S]{4}[^a-e]{90}"),
    Grammar.regex(r"[a-z]{3,60}"),
    Grammar.lark('start: "a number " /[0-9]{3}/ " is it, and " /[0-9]{2}/ " is not"'),
    Grammar.lark('start: ("hell" /[a-m ]/ | "a" /[^b]/ "bc")+ "!"'),
    Grammar.choice(["hello", "hell", "hello hello hello"]),
    Grammar.json_schema({"type": "array", "items": {"type": "string"}, "minItems": 99}),
    Grammar.json_object(),
]
ENDS = 0, 2, 511


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("refusals") / "model.pte"
    config = replace(SHAPES["tiny"], context_len=CONTEXT)
    write_llama(path, config, LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=CONTEXT))
    with Runtime.get().load_program(path) as program:
        yield program


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(write_bpe(tmp_path_factory.mktemp("vocabulary") / "bpe.gguf"))


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> GrammarVocabulary:
    return GrammarVocabulary(tokenizer, VOCAB)


@pytest.fixture(scope="module")
def engines(program: Program) -> Iterator[list[Engine]]:
    """With room for all texts, and with room for a few, of which the youngest give their pages back."""
    with (
        Engine(program, max_rows=32, max_sequences=8, kv_pages=128, steps_in_flight=3) as roomy,
        Engine(program, max_rows=8, max_sequences=5, kv_pages=20, page_rows=8, steps_in_flight=6) as tight,
    ):
        yield [roomy, tight]


def went(
    engine: Engine, ahead: bool | None, prompts: Sequence[list[int]], params: Sequence[SamplingParams]
) -> list[Stream]:
    engine._loop.draws_ahead = ahead
    return [engine.submit(p, s, end_tokens=ENDS) for p, s in zip(prompts, params, strict=True)]


def pulled(tokenizer: Tokenizer) -> dict[int, float]:
    """To letters, which most grammars mostly allow."""
    return {tokenizer.encode(letter, add_special=False)[-1]: 40.0 for letter in "abcdefghijklm"}


ways = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.0, 0.3, 1.0, 3.0]), "seed": st.integers(0, 99)},
    optional={
        "logit_bias": st.just({}),
        "logprobs": st.integers(0, 2),
        "prompt_logprobs": st.just(1),
        "top_k": st.just(20),
        "frequency_penalty": st.just(0.5),
    },
)


@settings(max_examples=12, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_drawn_ahead_or_not(
    engines: list[Engine], tokenizer: Tokenizer, vocabulary: GrammarVocabulary, data: Any
) -> None:
    engine = data.draw(st.sampled_from(engines))
    count, most = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 50))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    prompts = [random.integers(0, VOCAB, random.integers(1, 40)).tolist() for _ in range(count)]
    params = []
    for _ in range(count):
        how = data.draw(ways)
        if "logit_bias" in how:
            how["logit_bias"] = pulled(tokenizer)
        if data.draw(st.integers(0, 4)):
            how = {**how, "grammar": vocabulary.compile(data.draw(grammars(vocabulary)))}
        params.append(SamplingParams(most, **how))
    waiting = went(engine, False, prompts, params)
    texts = [list(stream) for stream in waiting]
    cut = data.draw(st.sets(st.integers(0, count - 1)))
    for ahead in (True, None):
        streams = went(engine, ahead, prompts, params)
        for i in cut:
            next(streams[i], None)
            streams[i].cancel()
        for i, (stream, text, before) in enumerate(zip(streams, texts, waiting, strict=True)):
            tokens = list(stream)
            if i in cut:
                assert tokens == text[1:][: len(tokens)]
                continue
            assert tokens == text and stream.finish_reason == before.finish_reason
            told, told_before = ([t.logprob for t in each.logprobs] for each in (stream, before))
            assert told == pytest.approx(told_before, abs=1e-4)
            assert len(stream.prompt_logprobs) == len(before.prompt_logprobs)
        engine.held_tokens([0])  # the cancelled ones have ended
        assert engine.idle_pages == engine.kv_pages


@st.composite
def grammars(draw: st.DrawFn, vocabulary: GrammarVocabulary) -> Grammar:
    found: Schema | None = draw(st.one_of(st.none(), schemas.filter(lambda schema: possible(vocabulary, schema))))
    return draw(st.sampled_from(GRAMMARS)) if found is None else Grammar.json_schema(found)


def test_what_others_find_of_a_text_is_that_text(
    engines: list[Engine], program: Program, vocabulary: GrammarVocabulary
) -> None:
    """Rows of tokens that were refused are not among the pages that it leaves."""
    grammar = vocabulary.compile(GRAMMARS[4])
    with LanguageModel(program) as model:
        for engine in engines:
            for seed in range(2):
                prompt = [seed] * 9
                params = SamplingParams(60, temperature=1.0, seed=seed, grammar=grammar)
                (stream,) = went(engine, True, [prompt], [params])
                text = [*prompt, *stream]
                assert engine.held_tokens(text) >= len(text) - 1 - engine.page_rows > 0
                (stream,) = went(engine, True, [[*text, 5]], [SamplingParams(20)])
                loop = PlainLoop(model, SamplingParams(20), ENDS)
                loop.prefill([*text, 5])
                assert list(stream) == list(loop) and stream.cached_tokens > 0


def test_what_is_allowed_takes_no_longer_than_a_free_text(
    program: Program, tokenizer: Tokenizer, vocabulary: GrammarVocabulary
) -> None:
    pull, grammar = pulled(tokenizer), vocabulary.compile(GRAMMARS[0])
    prompts = [[n] * 5 for n in range(4)]
    with Engine(program, max_rows=32, max_sequences=8, steps_in_flight=3) as engine:
        steps = []
        for kept_to in (None, grammar):
            before = engine.submitted_steps
            params = [SamplingParams(40, temperature=1.0, seed=i, logit_bias=pull, grammar=kept_to) for i in range(4)]
            texts = [list(stream) for stream in went(engine, None, prompts, params)]
            steps.append(engine.submitted_steps - before)
        assert engine.unmasked_draws[0] > 0 and engine.unmasked_draws[1] == 0
        assert all(len(text) > 30 for text in texts) and steps[1] <= steps[0] + 4


def test_a_text_waits_where_its_draws_are_refused(program: Program, vocabulary: GrammarVocabulary) -> None:
    """Alone, it soon takes a step a token; among others that do not wait, it never makes them."""
    grammar = vocabulary.compile(Grammar.regex("[0-9]{100}"))
    params = SamplingParams(80, temperature=1.0, seed=1, grammar=grammar)
    with Engine(program, max_rows=32, max_sequences=8, steps_in_flight=3) as engine:
        (stream,) = went(engine, None, [[1, 2]], [params])
        tokens = len(list(stream))
        assert engine.submitted_steps < 1.5 * tokens and engine.unmasked_draws[1] >= 2
        before = engine.unmasked_draws[0]
        free = [SamplingParams(90, temperature=1.0, seed=i) for i in range(6)]
        prompts = [*([n] for n in range(6)), [1, 2]]
        streams = went(engine, None, prompts, [*free, replace(params, max_new_tokens=20)])
        assert len(list(streams[-1])) == 20 and engine.unmasked_draws[0] - before >= 20 - 1


def test_logits_that_are_no_numbers_are_refused(vocabulary: GrammarVocabulary) -> None:
    """The mask leaves those that are: the text goes on as if it had been there before."""
    table = chain_table(VOCAB)
    table[1::2, 3] = np.nan
    params = SamplingParams(30, grammar=vocabulary.compile(Grammar.regex("[a-z]{60}")))
    texts = []
    with (
        Runtime.get().load_program(chain_program(table, context_len=64)) as program,
        Engine(program, max_rows=8, max_sequences=2, page_rows=8, steps_in_flight=3) as engine,
    ):
        for ahead in (False, True):
            (stream,) = went(engine, ahead, [[1]], [params])
            texts.append(list(stream))
        with pytest.raises(Error, match="not finite"):
            list(engine.submit([1], SamplingParams(30)))
        assert engine.unmasked_draws[1] > 0
    assert texts[0] == texts[1] and len(texts[0]) == 30 and any(token % 2 for token in texts[0])


def test_refusals_cost_the_steps_in_flight() -> None:
    for in_flight in (2, 3, 8):
        text = Refusals()
        assert pays_to_draw_ahead([text], 0)
        text.drawn(True, in_flight)
        assert pays_to_draw_ahead([text], 0)
        text.drawn(True, in_flight)
        assert not pays_to_draw_ahead([text], 0) and not pays_to_draw_ahead([text, text], 0)
        assert pays_to_draw_ahead([text], 31)
        for pause in (32, 64, 128, 256, 512, 512):
            for _ in range(pause - 1):
                text.waited()
                assert not pays_to_draw_ahead([text], 0)
            text.waited()
            assert pays_to_draw_ahead([text], 0)
            text.drawn(True, in_flight)
            assert not pays_to_draw_ahead([text], 0)
        for _ in range(20 * in_flight):
            text.drawn(False, in_flight)
        text.drawn(True, in_flight)
        assert pays_to_draw_ahead([text], 0)
        for _ in range(40):
            text.drawn(True, in_flight)
        assert not pays_to_draw_ahead([text] * 2, 1) and pays_to_draw_ahead([text], 3)

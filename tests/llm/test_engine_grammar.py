"""Texts that keep to a grammar in an engine: whoever else is there, and however they end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm import DecodeSession, Engine, LanguageModel, SamplingParams, Stream
from executorch_webgpu.llm.generate import generate
from executorch_webgpu.llm.grammar import CompiledGrammar, Grammar, GrammarVocabulary
from executorch_webgpu.llm.plain_loop import PlainLoop
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.json_schemas import Schema, possible, schemas
from tests.text.tiny_vocabulary import write_bpe

VOCAB, CONTEXT = SHAPES["tiny"].vocab, 512
UNSHRUNK = Phase.explicit, Phase.reuse, Phase.generate  # what fails says which schema it was
UNHURRIED = HealthCheck.too_slow, HealthCheck.data_too_large
CHECKED_FORMATS = jsonschema.FormatChecker(formats=("ipv4", "ipv6", "email", "uuid"))  # Python knows no year 0
SIZES: dict[str, Any] = {"max_rows": 64, "max_sequences": 64, "kv_pages": 1024}
DIGITS = r'start: "a number " /[0-9]{3}/ " is it, and " /[0-9]{2}/ " is not"'


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("engine-grammar") / "model.pte"
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
def engine(program: Program) -> Iterator[Engine]:
    with Engine(program, **SIZES) as engine:
        yield engine


@pytest.fixture(scope="module")
def model(program: Program) -> Iterator[LanguageModel]:
    with LanguageModel(program) as model:
        yield model


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCAB, random.integers(1, 20)).tolist() for _ in range(count)]


def sampled(seed: int, most: int = 400, **more: Any) -> SamplingParams:
    return SamplingParams(most, temperature=1.0, seed=seed, **more)


def plain(model: LanguageModel, prompt: Sequence[int], params: SamplingParams, ends: Sequence[int]) -> list[int]:
    loop = PlainLoop(model, params, ends)
    loop.prefill(prompt)
    return list(loop)


@settings(max_examples=10, deadline=None, phases=UNSHRUNK, suppress_health_check=UNHURRIED)
@given(found=st.lists(schemas, min_size=30, max_size=30))
def test_texts_fit_random_schemas(
    engine: Engine, tokenizer: Tokenizer, vocabulary: GrammarVocabulary, found: list[Schema]
) -> None:
    found = [schema for schema in found if possible(vocabulary, schema)]
    grammars = [vocabulary.compile(Grammar.json_schema(schema)) for schema in found]
    streams = [
        engine.submit(prompt, sampled(i, 200, grammar=grammar), end_tokens=tokenizer.eos_ids)
        for i, (prompt, grammar) in enumerate(zip(prompts(len(found)), grammars, strict=True))
    ]
    whole = 0
    for schema, stream in zip(found, streams, strict=True):
        text = tokenizer.decode(list(stream))
        if stream.finish_reason == "length":
            continue
        whole += 1
        assert stream.finish_reason == "eos"
        jsonschema.Draft202012Validator(schema, format_checker=CHECKED_FORMATS).validate(json.loads(text))
    assert whole >= 0.8 * len(found)
    assert engine.idle_pages == engine.kv_pages


@pytest.mark.parametrize(
    "pattern", [r"[0-9]{3}-[a-f]{4}", r"(hello|hell) [a-z]{0,9}!", r"[^a-z\n]{5,20}", r"(\+|-)?[1-9][0-9]*(\.[0-9]+)?"]
)
def test_texts_match_regular_expressions_as_they_do_alone(
    engine: Engine, model: LanguageModel, tokenizer: Tokenizer, vocabulary: GrammarVocabulary, pattern: str
) -> None:
    grammar, ends = vocabulary.compile(Grammar.regex(pattern)), sorted(tokenizer.eos_ids)
    params = [
        sampled(1, grammar=grammar),
        SamplingParams(400, grammar=grammar, temperature=0.7, top_p=0.8, seed=2),
        SamplingParams(400, grammar=grammar, temperature=1.0, frequency_penalty=1.0, repetition_penalty=1.2, seed=3),
        SamplingParams(40, grammar=grammar),
    ]
    streams = [engine.submit(p, s, end_tokens=ends) for p, s in zip(prompts(4, 1), params, strict=True)]
    for prompt, param, stream in zip(prompts(4, 1), params, streams, strict=True):
        tokens = list(stream)
        assert tokens == plain(model, prompt, param, ends)
        assert stream.finish_reason == "length" or re.fullmatch(pattern, tokenizer.decode(tokens))


def test_tokens_that_must_follow_are_not_drawn(
    program: Program, tokenizer: Tokenizer, vocabulary: GrammarVocabulary
) -> None:
    """The same text as if they were, in fewer steps."""
    ways = [Grammar.lark(DIGITS), Grammar.lark('%llguidance {"no_forcing": true}\n' + DIGITS)]
    texts, steps = [], []
    for grammar in ways:
        with Engine(program, **SIZES) as engine:
            (prompt,) = prompts(1)
            texts.append(list(engine.submit(prompt, sampled(5, grammar=vocabulary.compile(grammar)), end_tokens=())))
            steps.append(engine.submitted_steps)
    assert texts[0] == texts[1]
    assert re.fullmatch("a number [0-9]{3} is it, and [0-9]{2} is not", tokenizer.decode(texts[0]))
    most = 12 if Runtime.get().device.features.cpu else 18  # a GPU has more steps in flight when the end is known
    assert steps[0] <= most < len(texts[0]) - 3 <= steps[1]


def test_log_probabilities_are_told_of_each_token(
    engine: Engine, model: LanguageModel, tokenizer: Tokenizer, vocabulary: GrammarVocabulary
) -> None:
    (prompt,) = prompts(1)
    grammar = vocabulary.compile(Grammar.lark(DIGITS))
    tokens = list(engine.submit(prompt, sampled(5, grammar=grammar), end_tokens=()))
    stream = engine.submit(prompt, sampled(5, grammar=grammar, logprobs=2), end_tokens=())
    assert list(stream) == tokens and len(stream.logprobs) == len(tokens)
    logits = np.array([model.prefill([*prompt, *tokens[:i]]) for i in range(len(tokens))], np.float64)
    wanted = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for row, token, told in zip(wanted, tokens, stream.logprobs, strict=True):
        assert told.logprob == pytest.approx(row[token], abs=1e-3)
        assert told.likeliest[0][1] == pytest.approx(row.max(), abs=1e-3)


def test_log_probabilities_of_a_prompt_end_where_the_text_begins(engine: Engine, vocabulary: GrammarVocabulary) -> None:
    prompt = prompts(2, 3)[1]
    grammar = vocabulary.compile(Grammar.lark(DIGITS))
    wanted = list(engine.submit(prompt, sampled(5, grammar=grammar), end_tokens=()))
    stream = engine.submit(prompt, sampled(5, grammar=grammar, prompt_logprobs=1), end_tokens=())
    assert list(stream) == wanted and len(stream.prompt_logprobs) == len(prompt) - 1


def test_no_other_text_changes(
    program: Program, model: LanguageModel, tokenizer: Tokenizer, vocabulary: GrammarVocabulary
) -> None:
    """Free texts, penalized ones and such with a grammar come and go in one batch."""
    grammar = vocabulary.compile(Grammar.lark(DIGITS))
    ways: list[dict[str, Any]] = [{}, {"grammar": grammar}, {"frequency_penalty": 1.5}, {"top_k": 9}]
    given_prompts = prompts(24, 3)
    params = [sampled(i, 3 + 2 * i, **ways[i % 4]) for i in range(24)]
    with Engine(program, max_rows=24, max_sequences=8, kv_pages=64) as engine:
        streams = [engine.submit(p, s, end_tokens=()) for p, s in zip(given_prompts, params, strict=True)]
        got = [list(stream) for stream in streams]
        assert engine.idle_pages == engine.kv_pages
    for prompt, param, tokens in zip(given_prompts, params, got, strict=True):
        assert tokens == plain(model, prompt, param, ())


def test_texts_that_give_their_pages_back_go_on_as_before(
    program: Program, model: LanguageModel, vocabulary: GrammarVocabulary
) -> None:
    grammar = vocabulary.compile(Grammar.lark(DIGITS))
    with Engine(program, max_rows=16, max_sequences=6, kv_pages=14, page_rows=8) as engine:
        params = [sampled(i, 60, grammar=grammar if i % 2 else None) for i in range(6)]
        streams = [engine.submit(p, s, end_tokens=()) for p, s in zip(prompts(6, 4), params, strict=True)]
        for prompt, param, stream in zip(prompts(6, 4), params, streams, strict=True):
            assert list(stream) == plain(model, prompt, param, ())
        assert engine.idle_pages == engine.kv_pages


def test_ends(engine: Engine, model: LanguageModel, tokenizer: Tokenizer, vocabulary: GrammarVocabulary) -> None:
    (prompt,) = prompts(1)
    grammar = vocabulary.compile(Grammar.lark(DIGITS))
    whole = list(engine.submit(prompt, sampled(5, grammar=grammar), end_tokens=()))
    for most in (1, 4, 12, 30, len(whole)):  # in the middle of what must follow, and at a drawn token
        params = sampled(5, most, grammar=grammar)
        stream = engine.submit(prompt, params, end_tokens=())
        assert list(stream) == whole[:most] == plain(model, prompt, params, ())
        assert stream.finish_reason == ("eos" if most == len(whole) else "length")
    long = (prompt * CONTEXT)[: CONTEXT - 9]
    stream = engine.submit(long, sampled(5, grammar=grammar), end_tokens=())
    assert list(stream) == whole[:10] and stream.finish_reason == "context"
    stream = engine.submit(
        prompt, sampled(0, grammar=vocabulary.compile(Grammar.regex("(1|12)(3{0,40})"))), end_tokens=[2]
    )
    assert re.fullmatch("(1|12)3*", tokenizer.decode(list(stream))) and stream.finish_reason == "eos"


def test_a_text_that_can_be_one_only_takes_no_step(
    program: Program, tokenizer: Tokenizer, vocabulary: GrammarVocabulary, model: LanguageModel
) -> None:
    params = SamplingParams(grammar=vocabulary.compile(Grammar.choice(["hello 12 hello"])))
    with Engine(program, **SIZES) as engine:
        stream = engine.submit([1, 2], params, end_tokens=())
        tokens = list(stream)
        assert tokenizer.decode(tokens) == "hello 12 hello" and stream.finish_reason == "eos"
        assert engine.submitted_steps == 0
    pieces = list(generate(model, tokenizer, [1, 2], params))
    assert "".join(piece.text for piece in pieces) == "hello 12 hello" and pieces[-1].stats is not None
    assert pieces[-1].stats.finish_reason == "eos" and "grammar" in str(pieces[-1].stats.host_reason)
    with pytest.raises(InvalidInputError, match="grammar must be applied to each token's logits by the host"):
        DecodeSession(model, params)


def test_a_cancelled_text_gives_its_pages_back(
    engine: Engine, tokenizer: Tokenizer, vocabulary: GrammarVocabulary
) -> None:
    grammar = vocabulary.compile(Grammar.regex("[a-z]{400}"))
    streams = [engine.submit(p, sampled(i, grammar=grammar), end_tokens=()) for i, p in enumerate(prompts(6, 7))]
    for stream in streams[::2]:
        next(stream)
        stream.cancel()
        assert len(list(stream)) < 400 and stream.finish_reason == "cancelled"
    for stream in streams[1::2]:
        assert len(tokenizer.decode(list(stream))) == 400
    assert engine.idle_pages == engine.kv_pages


def test_a_grammar_that_becomes_too_complex_ends_its_text_only(
    engine: Engine, model: LanguageModel, vocabulary: GrammarVocabulary
) -> None:
    bad = vocabulary.compile(Grammar.lark('start: /[ab]{3}/ endless\nendless: "a" endless'))
    prompt = prompts(1)[0]
    fails = engine.submit(prompt, sampled(1, grammar=bad), end_tokens=())
    goes_on = engine.submit(prompt, sampled(2, 30), end_tokens=())
    with pytest.raises(InvalidInputError, match="cannot go on in its grammar: it is too complex"):
        list(fails)
    assert list(goes_on) == plain(model, prompt, sampled(2, 30), ())
    assert engine.idle_pages == engine.kv_pages


def test_a_grammar_for_another_vocabulary_is_refused(engine: Engine, tokenizer: Tokenizer) -> None:
    other = GrammarVocabulary(tokenizer, 300).compile(Grammar.json_object())
    with pytest.raises(InvalidInputError, match=f"for a vocabulary of 300 tokens, but the program's has {VOCAB}"):
        engine.submit([1], SamplingParams(grammar=other))


def test_guesses_beside_grammars(
    program: Program, model: LanguageModel, tokenizer: Tokenizer, vocabulary: GrammarVocabulary
) -> None:
    grammar = vocabulary.compile(Grammar.lark(DIGITS))
    (prompt,) = prompts(1)
    with Engine(program, speculate=program, max_rows=64, max_sequences=8) as engine:
        ways = [sampled(0, 40), sampled(1, grammar=grammar), SamplingParams(60), sampled(2, grammar=grammar)]
        streams = [engine.submit(prompt, way, end_tokens=()) for way in ways]
        for way, stream in zip(ways, streams, strict=True):
            assert list(stream) == plain(model, prompt, way, ())
        assert engine.guessed_tokens[0] > 0


def test_sixty_four_texts_at_once(engine: Engine, tokenizer: Tokenizer, vocabulary: GrammarVocabulary) -> None:
    """Of a few compiled grammars, each of which many texts share."""
    patterns = [r"[0-9]{4}-[0-9]{2}", r"(a|b){12} hello", r"x[^x]{7}x", "hello hello"]
    grammars: list[CompiledGrammar] = [vocabulary.compile(Grammar.regex(pattern)) for pattern in patterns]
    streams: list[Stream] = [
        engine.submit(prompt, sampled(i, grammar=grammars[i % 4]), end_tokens=tokenizer.eos_ids)
        for i, prompt in enumerate(prompts(64, 9))
    ]
    for i, stream in enumerate(streams):
        assert re.fullmatch(patterns[i % 4], tokenizer.decode(list(stream)))
    again = [
        list(engine.submit(prompt, sampled(i, grammar=grammars[i % 4]), end_tokens=tokenizer.eos_ids))
        for i, prompt in enumerate(prompts(8, 9))
    ]
    assert all(re.fullmatch(patterns[i % 4], tokenizer.decode(tokens)) for i, tokens in enumerate(again))
    assert engine.idle_pages == engine.kv_pages


def test_one_step_in_flight_gives_the_same(
    program: Program, model: LanguageModel, vocabulary: GrammarVocabulary
) -> None:
    grammar = vocabulary.compile(Grammar.lark(DIGITS))
    with Engine(program, steps_in_flight=1, **SIZES) as engine:
        for prompt in prompts(2, 5):
            params = sampled(4, grammar=grammar)
            assert list(engine.submit(prompt, params, end_tokens=())) == plain(model, prompt, params, ())

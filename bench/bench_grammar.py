"""What a grammar costs: python -m bench.bench_grammar [MODEL] [--streams 1 8 32] [--steps 256] [--shape llama-3.2-1b]

Texts are continued freely, under a frequency penalty, and as JSON of two schemas, in turns in one process and from the
same prompts. Texts with a grammar go three ways: as it pays ("records"), drawn without a mask ahead of what the host
has read ("records ahead"), and with each step waiting for all masks ("records waits"). Prints tokens a second of texts
that begin together, from the first token to the last, the ratio to free texts, steps for each token of the longest
text, which forced tokens make fewer and refused ones more, and how many of the draws without a mask were refused;
before that, what masks take on the host alone.

MODEL is what ``et-webgpu generate`` takes, with a tokenizer and a chat template in it. Its prompts ask for a list of
records, a list of strings, or one record, and show an example. Texts are greedy and sampled at temperature 0.7, and
end where the model ends them, or after ``--steps`` tokens.
Without a MODEL, a program with the sizes of ``--shape`` and random weights continues random tokens at temperature 1,
with a byte-level vocabulary of random words, numbers, punctuation and white space. Lists do not end before ``--steps``
tokens. Nearly all that it draws is refused, so this is the worst case.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from bench.bench_decode import program_file
from bench.models import SHAPES
from bench.vocabulary import random_tokenizer
from executorch_webgpu import Runtime
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.llm.grammar import CompiledGrammar, Grammar, GrammarVocabulary
from executorch_webgpu.llm.grammar_matcher import GrammarMatcher, MaskRows
from executorch_webgpu.llm.measure.streams import random_prompts
from executorch_webgpu.runtime import Program
from executorch_webgpu.text.chat import encode_chat, user_message
from executorch_webgpu.text.tokenizer import Tokenizer

LONG = 10**6  # items that a list has at least
RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "score": {"type": "number"},
        "active": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
    },
    "required": ["name", "age", "score", "active", "tags"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "records": {"type": "array", "items": RECORD, "minItems": LONG},
    "strings": {"type": "array", "items": {"type": "string"}, "minItems": LONG},
}
ASKED: dict[str, dict[str, Any]] = {  # of a model, which ends them
    "records": {"type": "array", "items": RECORD},
    "strings": {"type": "array", "items": {"type": "string"}},
    "answer": RECORD,
}
PROMPT = 64
TOPICS = "a sailor", "a baker", "a king", "a spy", "a farmer", "a poet", "a robot", "a nurse", "a thief", "a pilot"
EXAMPLE = '{"name": "Ann Lee", "age": 34, "score": 7.5, "active": true, "tags": ["tall", "kind"]}'
QUESTIONS = {
    "records": "Write a JSON list of 100 people, each of whom is {topic}, like [{example}]. Write only JSON.",
    "strings": "Write a JSON list of 100 sentences about {topic}, like "
    '["It rains.", "Birds sing in the wood.", "We go home."]. Write only JSON.',
    "answer": "Describe {topic} as a JSON object, like {example}. Write only JSON.",
}
WAYS: dict[str, bool | None] = {"": None, " ahead": True, " waits": False}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5, help="the median counts")
    parser.add_argument("--steps-in-flight", type=int)
    args = parser.parse_args(argv)
    args.context = PROMPT
    runtime = Runtime.get(args.engine, args.adapter)
    print(f"{runtime.device.info.name} ({runtime.device.engine})")
    with program_file(args) as path, runtime.load_program(path) as program:
        measure(program, args)


def measure(program: Program, args: argparse.Namespace) -> None:
    most = max(args.streams)
    pages = most * -(-(2 * PROMPT + args.steps) // 16) + 1
    sizes = {"max_sequences": most, "max_rows": max(256, most), "kv_pages": pages}
    with Engine(program, kv_cache_dtype="f16", steps_in_flight=args.steps_in_flight, **sizes) as engine:
        own = Tokenizer.from_files(program.named_data) if args.model is not None else None
        tokenizer = own or random_tokenizer(engine.vocab_size)
        begun = time.perf_counter()
        vocabulary = GrammarVocabulary(tokenizer, engine.vocab_size)
        schemas = SCHEMAS if own is None else ASKED
        grammars = {name: vocabulary.compile(Grammar.json_schema(schema)) for name, schema in schemas.items()}
        print(f"vocabulary of {engine.vocab_size} tokens and grammars: {time.perf_counter() - begun:.2f} s")
        for name, schema in SCHEMAS.items():
            for count in args.streams:
                show_masks(name, vocabulary.compile(Grammar.json_schema(schema)), count, args.steps)
        print(f"{'texts':>5}{'':>15}{'tokens/s':>10}{'ratio':>7}{'steps/token':>13}{'refused':>9}{'tokens':>8}")
        for count in args.streams:
            if own is None:
                random = np.random.default_rng(count)
                prompts = random_prompts(random, count, PROMPT, engine.vocab_size)
                show_rates(engine, prompts, "random prompts", grammars, 1.0, args)
                continue
            for temperature in (0.0, 0.7):
                for name, question in QUESTIONS.items():
                    prompts = [asked(own, question, i) for i in range(count)]
                    show_rates(engine, prompts, f"{name} asked", {name: grammars[name]}, temperature, args)


def asked(tokenizer: Tokenizer, question: str, number: int) -> list[int]:
    """The tokens of a chat in which a user asks for JSON; those of many users differ."""
    topic = TOPICS[number % len(TOPICS)]
    text = question.format(topic=topic, example=EXAMPLE)
    return encode_chat(tokenizer, user_message(f"{text} This is request {number}."))


def show_masks(name: str, grammar: CompiledGrammar, count: int, steps: int) -> None:
    """Random walks through a grammar, without a program."""
    random, rows = np.random.default_rng(0), MaskRows()
    texts = [grammar.matcher(()) for _ in range(count)]
    taken: dict[str, list[float]] = {"masks": [], "tokens": []}
    for _ in range(steps):
        found = clocked(taken["masks"], partial(rows.of, texts))
        drawn = [int(random.choice(np.flatnonzero(np.unpackbits(m.view(np.uint8), bitorder="little")))) for m in found]
        clocked(taken["tokens"], partial(take, texts, drawn))
    figures = [f"{what} {1e6 * np.mean(t):.0f} us (p99 {1e6 * np.quantile(t, 0.99):.0f})" for what, t in taken.items()]
    print(f"{count} texts of {name} a step: {', '.join(figures)}")


def take(texts: Sequence[GrammarMatcher], tokens: Sequence[int]) -> None:
    for text, token in zip(texts, tokens, strict=True):
        text.take(token)


def clocked(taken: list[float], function: Callable[[], Any]) -> Any:
    begun = time.perf_counter()
    result = function()
    taken.append(time.perf_counter() - begun)
    return result


def show_rates(
    engine: Engine,
    prompts: Sequence[list[int]],
    title: str,
    grammars: dict[str, CompiledGrammar],
    temperature: float,
    args: argparse.Namespace,
) -> None:
    """Texts that go on from the same prompts in turns: without a grammar, and with each in each way."""
    ways: dict[str, tuple[dict[str, Any], bool | None]] = {"free": ({}, None)}
    if args.model is None:
        ways["penalty"] = {"frequency_penalty": 0.1}, None
    ways |= {f"{name}{way}": ({"grammar": g}, ahead) for name, g in grammars.items() for way, ahead in WAYS.items()}
    ends = () if args.model is None else engine.eos_ids
    measured: dict[str, list[Measured]] = {name: [] for name in ways}
    for repeat in range(args.repeats + 1):  # the first one warms up
        for name, (how, ahead) in ways.items():
            params = [SamplingParams(args.steps, temperature=temperature, seed=i, **how) for i in range(len(prompts))]
            found = run(engine, prompts, params, ends, ahead)
            if repeat:
                measured[name].append(found)
    print(f"{title}, temperature {temperature}, {len(prompts[0])} tokens")
    free = median(each.rate for each in measured["free"])
    for name, runs in measured.items():
        rate, steps = median(each.rate for each in runs), median(each.steps for each in runs)
        drawn, refused = (sum(each.draws[i] for each in runs) for i in range(2))
        share = f"{refused / drawn:.1%}" if drawn else "-"
        length = median(each.tokens for each in runs)
        print(f"{len(prompts):>5}{name:>15}{rate:>10.1f}{rate / free:>7.3f}{steps:>13.3f}{share:>9}{length:>8.0f}")


@dataclass(frozen=True)
class Measured:
    """Texts that began together: their ``rate`` in tokens a second, ``steps`` for each token of the longest one,
    ``tokens`` of a text on average, and ``draws`` without a mask, with those that were refused."""

    rate: float
    steps: float
    tokens: float
    draws: tuple[int, int]


def run(
    engine: Engine,
    prompts: Sequence[list[int]],
    params: Sequence[SamplingParams],
    ends: Collection[int],
    ahead: bool | None,
) -> Measured:
    engine._loop.draws_ahead = ahead
    steps, draws = engine.submitted_steps, engine.unmasked_draws
    streams = [engine.submit(prompt, each, end_tokens=ends) for prompt, each in zip(prompts, params, strict=True)]
    tokens = [tuple(stream) for stream in reversed(streams)][::-1]
    assert ends or all(len(text) == each.max_new_tokens for text, each in zip(tokens, params, strict=True))
    # The rate of all at once, as each text has it from its first token to its last, for some end before others. What a
    # grammar begins with is there before the prompt is read, so it does not count.
    begins = [begin_of(each, ends) for each in params]
    came = [stream.times.tokens[begin:] for stream, begin in zip(streams, begins, strict=True)]
    texts = [times for times in came if len(times) > 1]
    rate = len(streams) * sum(len(came) - 1 for came in texts) / sum(came[-1] - came[0] for came in texts)
    after = engine.unmasked_draws
    return Measured(
        rate,
        (engine.submitted_steps - steps) / max(map(len, tokens)),
        float(np.mean([len(text) for text in tokens])),
        (after[0] - draws[0], after[1] - draws[1]),
    )


def begin_of(params: SamplingParams, ends: Collection[int]) -> int:
    """Tokens that a grammar begins with, which are not drawn."""
    if params.grammar is None:
        return 0
    matcher, count = params.grammar.matcher(ends), 0
    while matcher.forced:
        matcher.take(matcher.forced[0])
        count += 1
    return count


if __name__ == "__main__":
    main()

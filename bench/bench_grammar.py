"""What a grammar costs: python -m bench.bench_grammar [MODEL] [--streams 1 8 32] [--steps 256] [--shape llama-3.2-1b]

Texts are continued freely, under a frequency penalty, and as JSON of two schemas, in turns in one process: a list of
records with short strings, and a list of strings without end. Their lists never end before ``--steps`` tokens. Prints
tokens and steps a second while all texts decode, the ratio to free texts, how many tokens were forced, and before that
what masks take on the host alone. All texts are sampled at temperature 1, since random weights repeat themselves.

MODEL is what ``et-webgpu generate`` takes, with a tokenizer in it; without one, a program with the sizes of
``--shape``, random weights, and a byte-level vocabulary of random words, numbers, punctuation and white space.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
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
from executorch_webgpu.llm.measure.streams import TextTimes, decode_rate, random_prompts
from executorch_webgpu.runtime import Program
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
SCHEMAS = {
    "records": {"type": "array", "items": RECORD, "minItems": LONG},
    "strings": {"type": "array", "items": {"type": "string"}, "minItems": LONG},
}
PROMPT = 64


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5, help="the median counts")
    args = parser.parse_args(argv)
    args.context = PROMPT
    runtime = Runtime.get(args.engine, args.adapter)
    with program_file(args) as path, runtime.load_program(path) as program:
        measure(program, args)


def measure(program: Program, args: argparse.Namespace) -> None:
    most = max(args.streams)
    pages = most * -(-(PROMPT + args.steps) // 16) + 1
    sizes = {"max_sequences": most, "max_rows": max(256, most), "kv_pages": pages}
    with Engine(program, kv_cache_dtype="f16", **sizes) as engine:
        own = Tokenizer.from_files(program.named_data) if args.model is not None else None
        tokenizer = own or random_tokenizer(engine.vocab_size)
        begun = time.perf_counter()
        vocabulary = GrammarVocabulary(tokenizer, engine.vocab_size)
        grammars = {name: vocabulary.compile(Grammar.json_schema(schema)) for name, schema in SCHEMAS.items()}
        print(f"vocabulary of {engine.vocab_size} tokens and grammars: {time.perf_counter() - begun:.2f} s")
        for name, grammar in grammars.items():
            for count in args.streams:
                show_masks(name, grammar, count, args.steps)
        ways: dict[str, dict[str, Any]] = {"free": {}, "penalty": {"frequency_penalty": 0.1}}
        ways |= {name: {"grammar": grammar} for name, grammar in grammars.items()}
        print(f"{'texts':>6}{'':>10}{'tokens/s':>11}{'ratio':>8}{'steps/s':>10}{'ratio':>8}{'forced':>8}")
        for count in args.streams:
            show_rates(engine, count, ways, args)


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


def show_rates(engine: Engine, count: int, ways: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    random = np.random.default_rng(count)
    tokens: dict[str, list[float]] = {name: [] for name in ways}
    steps: dict[str, list[float]] = {name: [] for name in ways}
    forced: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(args.repeats + 1):  # the first one warms up
        for name, how in ways.items():
            before, texts = engine.submitted_steps, run(engine, random, count, args.steps, how)
            if repeat == 0:
                continue
            seconds = max(text.came[-1] for text in texts) - min(text.came[0] for text in texts)
            made = engine.submitted_steps - before
            rate = decode_rate(texts)
            assert rate is not None
            tokens[name].append(rate)
            steps[name].append(made / seconds)
            forced[name].append(1 - made / args.steps)
    free = median(tokens["free"]), median(steps["free"])
    for name in ways:
        rate, step_rate = median(tokens[name]), median(steps[name])
        print(
            f"{count:>6}{name:>10}{rate:>11.1f}{rate / free[0]:>8.3f}{step_rate:>10.1f}{step_rate / free[1]:>8.3f}"
            f"{max(0.0, median(forced[name])):>8.1%}"
        )


def run(engine: Engine, random: np.random.Generator, count: int, steps: int, how: dict[str, Any]) -> list[TextTimes]:
    prompts = random_prompts(random, count, PROMPT, engine.vocab_size)
    params = [SamplingParams(steps, temperature=1.0, seed=i, **how) for i in range(count)]
    streams = [engine.submit(prompt, each, end_tokens=()) for prompt, each in zip(prompts, params, strict=True)]
    tokens = [tuple(stream) for stream in reversed(streams)][::-1]
    assert all(len(text) == steps for text in tokens)
    return [
        TextTimes(tuple(prompt), text, stream.times.submitted, tuple(stream.times.tokens))
        for prompt, stream, text in zip(prompts, streams, tokens, strict=True)
    ]


if __name__ == "__main__":
    main()

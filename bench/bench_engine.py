"""Many texts at once: python -m bench.bench_engine [MODEL] [--streams 1 8 32] [--prompts 512] [--steps 128] [--torch]

Prints, for each number of streams that begin together, what ``et-webgpu bench --streams`` does: the rate of all and of
one while all decode, the time to the first token, and the time between tokens, each at the 50th, 95th and 99th
percentile. MODEL is what ``et-webgpu generate`` takes; without one, a program with the sizes of ``--shape`` and random
weights. With ``--torch`` the same shape is measured in PyTorch, too: float16, compiled, under a CUDA graph, a static
cache, as many sequences in a step, in a process of its own.

``--session`` measures one text in a ``DecodeSession``, too, which an engine with one text should not be slower than.
``--repeat-text`` measures prompts that repeat a phrase beside random ones, and says how many of the new tokens a lookup
in the text so far would have guessed. ``--prefix N`` measures prompts that share their first N tokens instead, and how
many rows are computed for them: the shared ones must be computed once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.bench_decode import program_file
from bench.bench_model import commit
from bench.models import SHAPES
from bench.torch_runs import VARIANTS, torch_available, torch_stream_lines
from executorch_webgpu import Runtime
from executorch_webgpu.cli.bench import run_streams
from executorch_webgpu.cli.tables import print_stream_lines
from executorch_webgpu.errors import DeviceError
from executorch_webgpu.llm import DecodeSession, Engine, LanguageModel, SamplingParams
from executorch_webgpu.llm.measure.history import append
from executorch_webgpu.llm.measure.lines import rounded
from executorch_webgpu.llm.measure.plot import draw_streams, require_matplotlib
from executorch_webgpu.llm.measure.stream_lines import StreamLine, stream_lines
from executorch_webgpu.llm.measure.streams import (
    PERCENTILES,
    PromptsOf,
    StreamReport,
    TextTimes,
    random_prompts,
    timed,
    total_rate,
)

PHRASE = 24  # tokens that a prompt repeats
OWN = 16  # tokens that a prompt has behind what it shares
NGRAM = 3  # tokens that a lookup compares
REPEATS = "prompts repeat"  # how the note of such lines begins
SESSION_REPEATS = 5


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.plot:
        require_matplotlib()
    runtime = Runtime.get(args.engine, args.adapter)
    args.context = max(*args.prompts, (args.prefix or 0) + OWN)
    begun = time.perf_counter()
    with program_file(args) as path:
        print(f"{name_of_model(args)} is there after {time.perf_counter() - begun:.1f} s")
        if args.prefix is not None:
            show_prefix(runtime, path, args)
            return
        lines = measure(runtime, path, args)
        others = session_lines(runtime, path, args, lines) if args.session else []
    if args.torch:
        others += torch_stream_lines("compiled", lines, args.shape, args.torch_seconds)
    if others:
        keep(args, others)
        lines += others
        print_stream_lines(lines)
    if args.plot:
        draw_streams(args.plot, lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompts", type=int, nargs="+", default=[512], help="tokens of each prompt, none shared")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--repeats", type=int, help="the median counts")
    parser.add_argument("--rows", type=int, default=512, help="the most rows of a step")
    parser.add_argument("--page-rows", type=int, default=16)
    parser.add_argument("--kv-cache", choices=["f32", "f16", "int8"], default="f16")
    parser.add_argument("--matmul-precision", choices=["highest", "high"], default="highest")
    parser.add_argument("--session", action="store_true", help="also one text without an engine")
    parser.add_argument("--repeat-text", action="store_true", help="also prompts that repeat a phrase")
    parser.add_argument("--prefix", type=int, metavar="N", help="prompts that share N tokens instead")
    parser.add_argument("--prefix-texts", type=int, default=32, help="how many of them")
    parser.add_argument("--torch", action="store_true", help=f"the shape also in {VARIANTS['compiled']}")
    parser.add_argument("--torch-seconds", type=float, default=300, help="that torch may take")
    parser.add_argument("--csv", type=Path, help="append the lines to a history")
    parser.add_argument("--plot", type=Path, help="draw the rates")
    args = parser.parse_args(argv)
    if args.torch and args.model is not None:
        parser.error("--torch measures a shape with random weights, so it cannot be given with a model")
    if args.torch and not torch_available():
        parser.error("--torch needs torch with CUDA in this environment")
    return args


def name_of_model(args: argparse.Namespace) -> str:
    return f"{args.shape} (random)" if args.model is None else Path(args.model).name


def measure(runtime: Runtime, path: Path, args: argparse.Namespace) -> list[StreamLine]:
    """Texts of each kind; prints their lines."""
    sizes = {"streams": tuple(args.streams), "prompts": tuple(args.prompts), "steps": args.steps}
    sizes |= {"repeats": args.repeats, "max_rows": args.rows, "page_rows": args.page_rows}
    loading = {"kv_cache_dtype": args.kv_cache, "matmul_precision": args.matmul_precision}
    kinds: dict[str, PromptsOf] = {"": random_prompts}
    if args.repeat_text:
        kinds[f"{REPEATS} {PHRASE} tokens"] = repeating_prompts
    lines: list[StreamLine] = []
    for note, prompts_of in kinds.items():
        report = run_streams(runtime, path, sizes, prompts_of=prompts_of, **loading)
        found = stream_lines(report, runtime.device, name_of_model(args), version=commit(), note=note)
        print_stream_lines(found)
        if args.repeat_text:
            show_guessed(report)
        keep(args, found)
        lines += found
    return lines


def session_lines(
    runtime: Runtime, path: Path, args: argparse.Namespace, ours: Sequence[StreamLine]
) -> list[StreamLine]:
    """What a ``DecodeSession`` makes of each line of one random text: rates between its first and its last token."""
    random = np.random.default_rng(0)
    loading = {"kv_cache_dtype": args.kv_cache, "matmul_precision": args.matmul_precision}
    lines = []
    with runtime.load_program(path) as program, LanguageModel(program, **loading) as model:
        for line in ours:
            if line.streams != 1 or REPEATS in line.note:
                continue
            (prompt,) = random_prompts(random, 1, line.prompt, model.vocab_size)
            taken = []
            with DecodeSession(model, SamplingParams(line.steps), end_tokens=()) as session:
                for _ in range(1 + (args.repeats or SESSION_REPEATS)):
                    session.prefill(prompt)
                    came = [time.perf_counter() for _ in session]
                    taken.append(came[-1] - came[0])
            if line.steps > 1:
                lines.append(beside(line, "DecodeSession", (line.steps - 1) / np.array(taken[1:])))
    return lines


def beside(line: StreamLine, name: str, rates: np.ndarray) -> StreamLine:
    """Another implementation's rates of one text; what it has not been asked for is left out."""
    rate = float(np.median(rates))
    waits = {f"{wait}_{percentile}_ms": None for wait in ("first", "between") for percentile in PERCENTILES}
    nothing: dict[str, Any] = dict.fromkeys(("rows", "total", "load_s", "resident_mib", "device_mib")) | waits
    spread = float(np.ptp(rates)) / rate if len(rates) > 1 else None
    return replace(
        line,
        **nothing,
        implementation=name,
        rate=rounded(rate),
        each=rounded(rate),
        spread=None if spread is None else rounded(spread),
        share=None if line.roofline is None else rounded(rate / line.roofline),
    )


def keep(args: argparse.Namespace, lines: Sequence[StreamLine]) -> None:
    if args.csv and lines:
        append(args.csv, [asdict(line) for line in lines])


def repeating_prompts(random: np.random.Generator, count: int, length: int, vocab: int) -> list[list[int]]:
    """Prompts that have nothing in common, each of which repeats a phrase of its own."""
    phrases = random.integers(0, vocab, (count, min(PHRASE, length)))
    return [np.resize(phrase, length).tolist() for phrase in phrases]


def show_guessed(report: StreamReport) -> None:
    for speed in report.speeds:
        guessed = sum(guessed_tokens(text) for text in speed.texts)
        share = guessed / sum(len(text.tokens) for text in speed.texts)
        print(f"{speed.streams} texts: a lookup of the last {NGRAM} tokens guesses {share:.1%} of the new ones")


def guessed_tokens(text: TextTimes) -> int:
    """New tokens that followed the same ``NGRAM`` tokens when those stood in the text before for the last time."""
    tokens = (*text.prompt, *text.tokens)
    followed: dict[tuple[int, ...], int] = {}
    guessed = 0
    for at in range(NGRAM, len(tokens)):
        before = tokens[at - NGRAM : at]
        guessed += at >= len(text.prompt) and followed.get(before) == tokens[at]
        followed[before] = tokens[at]
    return guessed


def show_prefix(runtime: Runtime, path: Path, args: argparse.Namespace) -> None:
    """Prompts that share their first tokens, twice: with a beginning that is new, and with one that is known."""
    count, shared = args.prefix_texts, args.prefix
    random = np.random.default_rng(0)
    tokens = shared + OWN + args.steps
    pages = 2 * (count + 1) * -(-tokens // args.page_rows)
    options = {"kv_pages": pages, "page_rows": args.page_rows, "max_rows": max(args.rows, count)}
    loading = {"kv_cache_dtype": args.kv_cache, "matmul_precision": args.matmul_precision}
    # Pages are shared whole, so what is left of the last one belongs to each text; the last token is not computed.
    whole = shared // args.page_rows * args.page_rows
    own = count * (shared - whole + OWN + args.steps - 1)
    with runtime.load_program(path) as program, Engine(program, max_sequences=count, **options, **loading) as engine:
        timed(engine, random_prompts(random, count, 8, engine.vocab_size), 2)
        beginning = random.integers(0, engine.vocab_size, shared).tolist()
        for what, once in (("new", whole), ("known", 0)):
            ends = random_prompts(random, count, OWN, engine.vocab_size)
            before = engine.computed_rows
            texts = timed(engine, [beginning + end for end in ends], args.steps)
            rows = engine.computed_rows - before
            waits = np.percentile([1e3 * (text.came[0] - text.submitted) for text in texts], PERCENTILES)
            print(
                f"{count} prompts of {shared} shared tokens ({what}) and {OWN} own ones, {args.steps} new tokens each: "
                f"{rows} rows were computed, {once + own} if shared pages are {'computed once' if once else 'found'}; "
                f"first token after {' / '.join(f'{wait:.1f}' for wait in waits)} ms, {total_rate(texts):.1f} tokens/s"
            )
            if rows > once + own:
                raise DeviceError("shared tokens were computed more than once")


if __name__ == "__main__":
    main()

"""Many texts at once: python -m bench.bench_engine [MODEL] [--streams 1 8 32] [--prompt 512] [--steps 128]

Prints, for each number of streams that begin together, the rate of all and of one, the time to the first token, and the
time between tokens, each at the 50th, 95th and 99th percentile. By wall clock; rates begin when the last text has its
first token. MODEL is what ``et-webgpu generate`` takes; without one, a program with the sizes of ``--shape`` and random
weights.
"""

from __future__ import annotations

import argparse
import csv
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.bench_decode import program_file
from bench.models import SHAPES
from executorch_webgpu import Runtime
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.runtime import Program

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Line:
    """Of ``streams`` texts: tokens a second after the first ones, and seconds at the percentiles."""

    streams: int
    aggregate: float
    each: float
    first_50: float
    first_95: float
    first_99: float
    between_50: float
    between_95: float
    between_99: float

    def __str__(self) -> str:
        first, between = (
            " / ".join(f"{1e3 * getattr(self, f'{name}_{p}'):.1f}" for p in PERCENTILES)
            for name in ("first", "between")
        )
        return f"{self.streams:7} {self.aggregate:11.1f} {self.each:10.1f}   {first:>24}   {between:>24}"


def measure(engine: Engine, prompts: Sequence[Sequence[int]], steps: int) -> Line:
    """Texts that begin together, each read by a thread of its own as its tokens come."""
    came: list[list[float]] = [[] for _ in prompts]
    begin = time.perf_counter()
    streams = [engine.submit(prompt, SamplingParams(steps), end_tokens=()) for prompt in prompts]

    def read(index: int) -> None:
        came[index] += (time.perf_counter() for _ in streams[index])

    threads = [threading.Thread(target=read, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    firsts = [times[0] - begin for times in came]
    between = np.concatenate([np.diff(times) for times in came])
    # From when the last text has its first token on, all of them decode.
    all_decode = max(times[0] for times in came)
    counted = sum(time > all_decode for times in came for time in times)
    seconds = max(times[-1] for times in came) - all_decode
    rate = counted / seconds if seconds > 0 else 0.0
    percentiles = [*np.percentile(firsts, PERCENTILES), *np.percentile(between, PERCENTILES)]
    return Line(len(prompts), rate, rate / len(prompts), *map(float, percentiles))


def measure_all(program: Program, args: argparse.Namespace) -> list[Line]:
    random, most = np.random.default_rng(0), max(args.streams)
    pages = most * -(-(args.prompt + args.steps) // args.page_rows) + 1
    options = {"kv_pages": pages, "page_rows": args.page_rows, "max_rows": max(args.rows, most), "max_sequences": most}
    lines = []
    with Engine(program, kv_cache_dtype=args.kv_cache, matmul_precision=args.matmul_precision, **options) as engine:
        list(engine.submit([1, 2, 3], SamplingParams(8), end_tokens=()))  # warm clocks and plans
        for count in args.streams:
            prompts = [random.integers(1, engine.vocab_size, args.prompt).tolist() for _ in range(count)]
            lines.append(measure(engine, prompts, args.steps))
            print(lines[-1], flush=True)
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=512, help="tokens of each prompt, none shared")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--rows", type=int, default=512, help="the most rows of a step")
    parser.add_argument("--page-rows", type=int, default=16)
    parser.add_argument("--kv-cache", choices=["f32", "f16", "int8"], default="f16")
    parser.add_argument("--matmul-precision", choices=["highest", "high"], default="highest")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args(argv)
    args.context = args.prompt
    runtime = Runtime.get(args.engine, args.adapter)
    print(f"{runtime.device.info.name} ({runtime.device.engine}), {args.kv_cache} cache, percentiles {PERCENTILES}")
    print(
        f"{'streams':>7} {'all, tok/s':>11} {'one, tok/s':>10}   {'first token, ms':>24}   {'between tokens, ms':>24}"
    )
    with program_file(args) as path, runtime.load_program(path) as program:
        lines = measure_all(program, args)
    if args.csv is not None:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(lines[0])))
            writer.writeheader()
            writer.writerows(asdict(line) for line in lines)


if __name__ == "__main__":
    main()

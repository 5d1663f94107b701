"""Speed and memory of a whole model: python -m bench.bench_model [MODEL] [--contexts 0 128 512] [--csv FILE]

MODEL is what ``et-webgpu generate`` takes: a program, a GGUF file, a folder or a name. Without one, a program with the
sizes of ``--shape`` (see bench/models.py) and random weights is measured. Prints load time, memory, prefill and decode
rates by wall clock (tokens in, logits out, everything in between), and GPU time by operator. ``--csv`` appends the line
to a history.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.models import SHAPES, write_llama
from executorch_webgpu import Method, Program, Runtime
from executorch_webgpu.cli.tables import print_profile
from executorch_webgpu.models.library import find_program


@dataclass(frozen=True)
class Line:
    """One measurement; rates in tokens a second, by wall clock."""

    date: str
    commit: str
    model: str
    adapter: str
    engine: str
    load_s: float
    resident_ratio: float  # growth of resident memory by loading, over the file's size
    context: int
    prefill_tokens: int
    prefill_rate: float
    decode_rate: float
    decode_gpu_ms: float | None  # sum of GPU time of one step's kernels, from a run of its own
    dispatches: int


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--engine")
    parser.add_argument("--adapter")
    parser.add_argument("--contexts", type=int, nargs="+", default=[0, 128, 512])
    parser.add_argument("--prefill", type=int, default=128, help="tokens of the timed prompt")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(argv)

    runtime = Runtime.get(options.engine, options.adapter)
    with program_file(options.model, options.shape) as path:
        lines = measure(runtime, path, options)
    if options.csv:
        append(options.csv, lines)


@contextmanager
def program_file(model: str | None, shape: str) -> Iterator[Path]:
    """The program of a model, or for the time being one of a shape."""
    if model is not None:
        yield find_program(model)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pte"
        write_llama(path, SHAPES[shape])
        yield path


def measure(runtime: Runtime, path: Path, options: argparse.Namespace) -> list[Line]:
    """A line for each context, printed; and the profile of a decode step."""
    device = runtime.device
    before = resident_bytes()
    start = time.perf_counter()
    with runtime.load_program(path) as program, program.load_method("forward") as method:
        load_s = time.perf_counter() - start
        ratio = (resident_bytes() - before) / path.stat().st_size
        most = context_len(program)
        lines = []
        for context in options.contexts:
            prefill = min(options.prefill, method.metadata.inputs[0].max_dims[1], most - context - options.steps)
            if prefill < 1:
                continue
            gpu_ms, dispatches = gpu_time(program, context)
            lines.append(
                Line(
                    datetime.date.today().isoformat(),
                    commit(),
                    Path(options.model).name if options.model else f"{options.shape} (random)",
                    device.info.name,
                    device.engine,
                    round(load_s, 2),
                    round(ratio, 2),
                    context,
                    prefill,
                    round(prefill / median(prefill_seconds(method, context, prefill)), 1),
                    round(1 / median(decode_seconds(method, context, options.steps)), 1),
                    gpu_ms,
                    dispatches,
                )
            )
        show(lines)
        with program.load_method("forward", profile=True) as profiled:
            decode_seconds(profiled, lines[-1].context, 8)
            print_profile(profiled.profile())
    return lines


def step(method: Method, count: int, position: int) -> float:
    """Seconds of one call with ``count`` random tokens."""
    tokens = np.random.default_rng().integers(0, 400, (1, count))
    start = time.perf_counter()
    (logits,) = method.execute([tokens, np.array([position])])
    assert np.isfinite(logits).all()
    return time.perf_counter() - start


def prefill_seconds(method: Method, position: int, count: int) -> list[float]:
    step(method, count, position)
    return [step(method, count, position) for _ in range(3)]


def decode_seconds(method: Method, position: int, steps: int) -> list[float]:
    for warm_up in range(3):
        step(method, 1, position + warm_up)
    return [step(method, 1, position + i) for i in range(steps)]


def gpu_time(program: Program, position: int) -> tuple[float | None, int]:
    """(GPU milliseconds, dispatches) of one decode step."""
    with program.load_method("forward", profile=True) as method:
        decode_seconds(method, position, 2)
        earlier = totals(method)
        decode_seconds(method, position, 5)
        later = totals(method)
    steps = 8  # three of them warm-up
    gpu_ms = (later[0] - earlier[0]) / steps
    return round(gpu_ms, 3) if gpu_ms else None, (later[1] - earlier[1]) // steps


def totals(method: Method) -> tuple[float, int]:
    rows = method.profile()
    return sum(row.gpu_ms or 0 for row in rows), sum(row.dispatches for row in rows)


def context_len(program: Program) -> int:
    (length,) = program.load_method("get_max_context_len").execute()
    return int(length)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def commit() -> str:
    """The commit that is checked out; without git, or outside a checkout, there is none to name."""
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    return ""


def show(lines: list[Line]) -> None:
    first = lines[0]
    table = Table(
        title=f"{first.model} on {first.adapter} ({first.engine}): loaded in {first.load_s} s, "
        f"memory +{first.resident_ratio}x of the file, {first.dispatches} dispatches a decode step"
    )
    for heading in ("context", "prefill tokens", "prefill tok/s", "decode tok/s", "GPU ms a decode step"):
        table.add_column(heading, justify="right")
    for line in lines:
        values = (line.context, line.prefill_tokens, line.prefill_rate, line.decode_rate, line.decode_gpu_ms)
        table.add_row(*map(str, values))
    Console().print(table)


def append(path: Path, lines: list[Line]) -> None:
    fresh = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(lines[0])))
        if fresh:
            writer.writeheader()
        writer.writerows(asdict(line) for line in lines)


if __name__ == "__main__":
    main()

"""Speed of encoders: python -m bench.bench_embed [--shape minilm] [--batches 1 8 64] [--lengths 16 128] [--csv FILE]

Programs with the sizes of ``--shape`` (see bench/encoder_models.py) and random weights, by batch and length of texts.
``texts/s`` counts the whole call, from tokens on the host to vectors on the host, best of several; ``gpu ms`` is the
time between timestamps of its kernels. ``share`` is the time that the device needs at best over the time of the call:
for its products at the rate of its matrix units, or of float32 multiply-adds where there are none, or for reading the
weights. Vectors are held against float32 before anything is timed; a wrong one gets no time. Beside them torch, where
it has CUDA: in float32 with TF32 off and in float16, eager and as a CUDA graph. ``--mixed N`` also embeds N texts of
random lengths up to the longest one with ``Embedder``, which sorts and batches them.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.bench_attention import rounded, shown
from bench.bench_model import commit
from bench.encoder_models import SHAPES, TorchEncoder, best_seconds, operations, weight_bytes, write_encoder
from bench.torch_runs import torch_available
from executorch_webgpu import Runtime
from executorch_webgpu.cli.tables import print_profile
from executorch_webgpu.gpu.ceilings import Ceilings
from executorch_webgpu.llm.embedder import Embedder
from executorch_webgpu.llm.measure.history import append
from executorch_webgpu.models.encoder import EncoderConfig, EncoderOptions
from executorch_webgpu.runtime import Method

BITS = {"f32": 32, "f16": 16, "q8csw": 8, "q8gsw": 8.5, "native": 8.5, "q4gsw": 5, "q4gaw": 5}
# Largest error of an element of a vector of length one.
EXACT = {"f32": 1e-4, "f16": 2e-3}
ROUNDED = 0.2
VOCABULARY_START = 5
REPEATS = 20


@dataclass(frozen=True)
class Line:
    """One measurement. Times are milliseconds of a call; ``share``: of ``ceiling``, at best 1."""

    date: str
    commit: str
    adapter: str
    engine: str
    shape: str
    weights: str
    precision: str
    batch: int
    length: int
    ms: float | None
    texts_per_second: float | None
    gpu_ms: float | None
    dispatches: int
    ceiling: str
    share: float | None
    error: float | None
    torch_float32: float | None
    torch_float32_graph: float | None
    torch_float16: float | None
    torch_float16_graph: float | None
    note: str


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    console = Console(width=None if sys.stdout.isatty() else 170)
    config, most = SHAPES[options.shape], (max(options.batches), max(options.lengths))
    torch_times = {} if options.no_torch or not torch_available() else of_torch(config, options)
    with tempfile.TemporaryDirectory() as folder:
        for weights in options.weights:
            path = Path(folder) / f"{weights}.pte"
            chosen = EncoderOptions(weights, max_batch=most[0], max_seq_len=most[1])
            write_encoder(path, config, chosen)
            for engine in options.engines:
                lines = list(measured(console, options, path, weights, engine, torch_times))
                if options.csv:
                    append(options.csv, [asdict(line) for line in lines])
                show(console, f"{options.shape}, {weights}, {lines[0].adapter}, {lines[0].engine}", lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 128, 256])
    parser.add_argument("--weights", nargs="+", choices=BITS, default=["f32", "f16", "native"])
    parser.add_argument("--precisions", nargs="+", default=["highest", "high"], help="matmul_precision")
    parser.add_argument("--engines", nargs="+", default=[None], help="wgpu, dawn, or both")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--mixed", type=int, default=0, metavar="N", help="embed N texts of random lengths, too")
    parser.add_argument("--profile", action="store_true", help="print the time of each kind of operator")
    parser.add_argument("--no-torch", action="store_true", help="do not time torch")
    parser.add_argument("--csv", type=Path, help="append the lines to a history")
    return parser.parse_args(argv)


def inputs(config: EncoderConfig, batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens, and a mask that ends some texts earlier."""
    random = np.random.default_rng(batch * 1000 + length)
    tokens = random.integers(VOCABULARY_START, config.vocab, (batch, length), np.int64)
    mask = (np.arange(length) < np.maximum(1, length - np.arange(batch) % 4)[:, None]).astype(np.int64)
    return tokens, mask


def of_torch(config: EncoderConfig, options: argparse.Namespace) -> dict[tuple[int, int], tuple[float, ...]]:
    """Milliseconds by batch and length: float32 eager and as a graph, float16 the same."""
    found: dict[tuple[int, int], list[float]] = {}
    for dtype in ("float32", "float16"):
        model = TorchEncoder(config, dtype)
        for batch, length in ((b, n) for b in options.batches for n in options.lengths):
            given = inputs(config, batch, length)
            times = [model.seconds(*given, graph=graph) * 1e3 for graph in (False, True)]
            found.setdefault((batch, length), []).extend(times)
    return {key: tuple(times) for key, times in found.items()}


def measured(
    console: Console,
    options: argparse.Namespace,
    path: Path,
    weights: str,
    engine: str | None,
    torch_times: dict[tuple[int, int], tuple[float, ...]],
) -> Iterator[Line]:
    config = SHAPES[options.shape]
    runtime = Runtime.get(engine, options.adapter)
    ceilings, right = Ceilings.of(runtime.device), TorchEncoder(config, "float32", "cpu")
    ceiling, rate = ("matrix", ceilings.matrix) if ceilings.matrix else ("fma", ceilings.fma)
    for precision in options.precisions:
        with runtime.load_program(path) as program:
            method = program.load_method("forward", matmul_precision=precision)
            timed = program.load_method("forward", matmul_precision=precision, profile=True)
            for batch, length in ((b, n) for b in options.batches for n in options.lengths):
                given = inputs(config, batch, length)
                off = float(np.abs(method.execute(list(given))[0] - right.vectors(*given)).max())
                wrong = not off <= (EXACT.get(weights, ROUNDED) if precision == "highest" else ROUNDED)
                seconds = None if wrong else time_of(method, given, options.repeats)
                gpu_ms, dispatches = gpu_time(timed, given)
                least = max(
                    operations(config, batch, length) / rate, weight_bytes(config, BITS[weights]) / ceilings.read
                )
                beside = torch_times.get((batch, length))
                yield Line(
                    date=datetime.date.today().isoformat(),
                    commit=commit(),
                    adapter=runtime.device.info.name,
                    engine=runtime.device.engine,
                    shape=options.shape,
                    weights=weights,
                    precision=precision,
                    batch=batch,
                    length=length,
                    ms=rounded(seconds * 1e3) if seconds else None,
                    texts_per_second=rounded(batch / seconds) if seconds else None,
                    gpu_ms=None if gpu_ms is None else rounded(gpu_ms),
                    dispatches=dispatches,
                    ceiling=ceiling,
                    share=rounded(least / seconds) if seconds else None,
                    error=rounded(off),
                    torch_float32=rounded(beside[0]) if beside else None,
                    torch_float32_graph=rounded(beside[1]) if beside else None,
                    torch_float16=rounded(beside[2]) if beside else None,
                    torch_float16_graph=rounded(beside[3]) if beside else None,
                    note="WRONG" if wrong else "",
                )
            if options.profile:
                print_profile(timed.profile())
            if options.mixed:
                with Embedder(program, matmul_precision=precision) as embedder:
                    console.print(f"{weights}, {precision}: {mixed(embedder, options.mixed, config)}")


def time_of(method: Method, given: Sequence[np.ndarray], repeats: int) -> float:
    return best_seconds(lambda: method.execute(list(given)), repeats, warm_up=0.1)


def gpu_time(timed: Method, given: Sequence[np.ndarray]) -> tuple[float | None, int]:
    """Milliseconds and dispatches of one call, by what it adds to the profile."""

    def total() -> tuple[float | None, int]:
        rows = timed.profile()
        times = [row.gpu_ms for row in rows if row.gpu_ms is not None]
        return sum(times) if times else None, sum(row.dispatches for row in rows)

    timed.execute(list(given))
    before = total()
    timed.execute(list(given))
    after = total()
    ms = after[0] - (before[0] or 0.0) if after[0] is not None else None
    return ms, after[1] - before[1]


def mixed(embedder: Embedder, count: int, config: EncoderConfig) -> str:
    """Texts of random lengths, twice: what must be planned anew for their shapes, and then not."""
    random = np.random.default_rng(1)
    lengths = random.integers(3, embedder.max_tokens + 1, count)
    texts = [random.integers(VOCABULARY_START, config.vocab, length).tolist() for length in lengths]
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        embedder.embed(texts)
        rates.append(count / (time.perf_counter() - start))
    return f"{count} texts of {lengths.mean():.0f} tokens: {rates[0]:.4g}, then {rates[1]:.4g} texts/s"


def show(console: Console, title: str, lines: Sequence[Line]) -> None:
    table = Table(title=title)
    headings = ("precision", "batch", "length", "ms", "texts/s", "gpu ms", "dispatches", "share", "error")
    for heading in (*headings, "torch f32", "graph", "torch f16", "graph", ""):
        table.add_column(heading, no_wrap=True)
    for line in lines:
        share = "" if line.share is None else f"{line.share:.3f} {line.ceiling}"
        beside = (line.torch_float32, line.torch_float32_graph, line.torch_float16, line.torch_float16_graph)
        table.add_row(
            *(line.precision, str(line.batch), str(line.length), shown(line.ms), shown(line.texts_per_second)),
            *(shown(line.gpu_ms), str(line.dispatches), share, shown(line.error)),
            *(shown(ms) for ms in beside),
            line.note,
        )
    console.print(table)


if __name__ == "__main__":
    main()

"""Time of attention over a KV cache: python -m bench.bench_attention [--quick] [--heads 32/8] [--csv FILE]

Decode (one new token) and causal prefill of ``sdpa_with_kv_cache``, without the write to the caches. Prints
microseconds a call, by GPU timestamps, best of 5 passes; GB/s of visible cache rows, or TFLOP/s over the columns that
each row sees; and that as a share of a ceiling measured in the same run. In decode, enough caches take turns that the
device cannot serve them from a cache of its own; where they are still too small for that, the line says "cached".
Before a call is timed, its output is held against float64 in sampled rows and heads; a wrong one gets no time.
Where torch has CUDA, or ONNX Runtime a WebGPU provider, the same attention by them stands beside.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.attention_call import TOLERANCE, AttentionCall, Case
from bench.bench_model import commit
from bench.onnx_attention import available as onnx_available
from bench.onnx_attention import onnx_seconds
from bench.torch_attention import cuda_available, torch_times
from executorch_webgpu.errors import Error
from executorch_webgpu.gpu.ceilings import Ceilings
from executorch_webgpu.gpu.device import Device, open_device
from executorch_webgpu.gpu.timing import passes
from executorch_webgpu.llm.measure.history import append

MAX_COPIES = 512
REPEATS = 5
LONG_SECONDS = 0.5  # two passes must do where one takes longer
PASS_SECONDS = 5e-3  # a pass repeats short calls for about this long
SHORT_WARM_UP = 0.05  # before it is known how often that is
OURS = "executorch-webgpu"
CANNOT = "cannot run"


@dataclass(frozen=True)
class Sizes:
    """What is measured unless the command line says otherwise."""

    head_dims: tuple[int, ...]
    contexts: tuple[int, ...]
    lengths: tuple[int, ...]
    dtypes: tuple[str, ...]


FULL = Sizes((64, 80, 128, 256), (1024, 4096, 16384, 65536), (512, 2048, 8192), ("f32", "f16", "int8"))
QUICK = Sizes((64, 128), (4096, 16384, 65536), (2048, 8192), ("f16",))
SOFTWARE = Sizes((64, 128), (256, 1024), (64, 256), ("f32", "f16"))  # for adapters that are no GPU


@dataclass(frozen=True)
class Line:
    """One measurement. ``rate`` is GB/s in decode and TFLOP/s in prefill, ``share`` that over ``ceiling_rate``."""

    date: str
    commit: str
    adapter: str
    engine: str
    implementation: str
    route: str
    phase: str
    heads: str
    head_dim: int
    rows: int
    context: int
    dtype: str
    microseconds: float | None
    rate: float | None
    ceiling: str
    ceiling_rate: float
    share: float | None
    error: float | None  # over the output's largest element
    note: str


@dataclass(frozen=True)
class Bench:
    """What all lines of a run have in common."""

    device: Device
    ceilings: Ceilings
    commit: str
    routes: Sequence[str | None]
    torch: bool
    onnx: bool = False


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    for i, engine in enumerate(options.engines):
        with open_device(engine, options.adapter) as device:
            with_torch = i == 0 and not options.no_torch and cuda_available()  # once is enough
            with_onnx = i == 0 and not options.no_onnx and onnx_available()
            bench = Bench(device, Ceilings.of(device), commit(), options.routes, with_torch, with_onnx)
            console.print(title(bench), soft_wrap=True)
            for cases in tables(options.heads, sizes(options, device)):
                lines = []
                for line in measure(bench, cases):
                    lines.append(line)
                    if options.csv:
                        append(options.csv, [asdict(line)])
                show(console, lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=[None], help="wgpu, dawn, or both")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--quick", action="store_true", help="few sizes: less than a minute on a fast GPU")
    parser.add_argument("--heads", nargs="+", default=["32/8"], help="query heads/key-value heads, like 32/8 9/3 8/1")
    parser.add_argument("--head-dims", type=int, nargs="+")
    parser.add_argument("--contexts", type=int, nargs="*", help="of decode")
    parser.add_argument("--lengths", type=int, nargs="*", help="new tokens of prefill")
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCE, help="of the KV caches")
    parser.add_argument("--routes", nargs="+", default=[None], help="force these routes, one after the other")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--no-onnx", action="store_true")
    parser.add_argument("--csv", type=Path, help="append the lines to a history")
    return parser.parse_args(argv)


def sizes(options: argparse.Namespace, device: Device) -> Sizes:
    """The sizes for this device, but for what the command line names."""
    base = SOFTWARE if device.features.cpu else QUICK if options.quick else FULL
    named = {
        field: tuple(getattr(options, field))
        for field in ("head_dims", "contexts", "lengths", "dtypes")
        if getattr(options, field) is not None
    }
    return replace(base, **named)


def tables(heads: Sequence[str], of: Sizes) -> Iterator[list[Case]]:
    """The cases of each table: decode, then prefill, for a number of heads."""
    for name in heads:
        query, _, key = name.partition("/")
        for shapes in ([(1, context) for context in of.contexts], [(length, length) for length in of.lengths]):
            cases = [
                Case((int(query), int(key)), head_dim, rows, context, dtype)
                for head_dim in of.head_dims
                for rows, context in shapes
                for dtype in of.dtypes
            ]
            if cases:
                yield cases


def measure(bench: Bench, cases: Sequence[Case]) -> Iterator[Line]:
    """A line for every case and route; after each shape also those of torch and ONNX Runtime."""
    for i, case in enumerate(cases):
        yield from (measure_one(bench, case, route) for route in bench.routes)
        last_of_shape = i + 1 == len(cases) or replace(cases[i + 1], dtype=case.dtype) != case
        if bench.torch and last_of_shape:
            yield from measure_torch(bench, case)
        if bench.onnx and last_of_shape:
            yield measure_onnx(bench, case)


def measure_one(bench: Bench, case: Case, route: str | None) -> Line:
    """Check, then time; what fails is the line's note."""
    device, copies = bench.device, copies_of(bench.device, case)
    try:
        with AttentionCall(device, case, route, copies) as call:
            error = call.error(call.run())
            if not error <= TOLERANCE[case.dtype]:  # NaN is wrong too
                return line_of(bench, case, OURS, call.route, error=error, note="WRONG")
            commands = call.commands()
            once = min(passes(device, commands, 1, SHORT_WARM_UP))
            loops = min(50, math.ceil(PASS_SECONDS / once))
            repeats = REPEATS if once < LONG_SECONDS else 2
            taken = min(passes(device, commands * loops, repeats)) / (loops * copies)
            note = "" if is_cold(device, case, copies) else "cached"
            return line_of(bench, case, OURS, call.route, taken, error, note)
    except Error as failure:
        return line_of(bench, case, OURS, route or "", note=f"{CANNOT}: {failure}")


def measure_torch(bench: Bench, case: Case) -> Iterator[Line]:
    copies = copies_of(bench.device, replace(case, dtype="f16"))
    for time in torch_times(case.heads, case.head_dim, case.rows, case.context, copies):
        note = "K and V repeated" if time.repeated else ""
        yield line_of(bench, replace(case, dtype=time.dtype), time.name, "", time.seconds, note=note)


def measure_onnx(bench: Bench, case: Case) -> Line:
    seconds, failure = onnx_seconds(case.heads, case.head_dim, case.rows, case.context)
    note = f"{CANNOT}: {failure}" if failure else "wall clock, cached" if case.decode else "wall clock"
    return line_of(bench, replace(case, dtype="f16"), "onnxruntime webgpu", "", seconds, note=note)


def copies_of(device: Device, case: Case) -> int:
    """Sets of caches that take turns."""
    return min(MAX_COPIES, math.ceil(cold_bytes(device) / case.cache_bytes)) if case.decode else 1


def is_cold(device: Device, case: Case, copies: int) -> bool:
    return not case.decode or copies * case.cache_bytes >= cold_bytes(device)


def cold_bytes(device: Device) -> int:
    """Several times what the device's own cache holds."""
    return (16 if device.features.cpu else 256) << 20


def line_of(
    bench: Bench,
    case: Case,
    implementation: str,
    route: str,
    seconds: float | None = None,
    error: float | None = None,
    note: str = "",
) -> Line:
    ceiling, limit = ceiling_of(bench.ceilings, case, implementation, route)
    rate = None if seconds is None else (case.cache_bytes if case.decode else case.operations) / seconds
    unit = 1e9 if case.decode else 1e12
    return Line(
        date=datetime.date.today().isoformat(),
        commit=bench.commit,
        adapter=bench.device.info.name,
        engine=engine_of(bench, implementation),
        implementation=implementation,
        route=route,
        phase="decode" if case.decode else "prefill",
        heads="{}/{}".format(*case.heads),
        head_dim=case.head_dim,
        rows=case.rows,
        context=case.context,
        dtype=case.dtype,
        microseconds=None if seconds is None else rounded(seconds * 1e6),
        rate=None if rate is None else rounded(rate / unit),
        ceiling=ceiling,
        ceiling_rate=rounded(limit / unit),
        share=None if rate is None else rounded(rate / limit),
        error=None if error is None else rounded(error),
        note=note,
    )


def engine_of(bench: Bench, implementation: str) -> str:
    return bench.device.engine if implementation == OURS else "dawn" if "webgpu" in implementation else "cuda"


def ceiling_of(ceilings: Ceilings, case: Case, implementation: str, route: str) -> tuple[str, float]:
    """(name, rate) of what bounds a line: memory in decode, in prefill the units that multiply."""
    if case.decode:
        return "read", ceilings.read
    matrices = "matrix" in route or (implementation != OURS and case.dtype == "f16")
    if matrices and ceilings.matrix is not None:
        return "matrix", ceilings.matrix
    return "fma", ceilings.fma


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def title(bench: Bench) -> str:
    ceilings = bench.ceilings
    matrix = f", matrix units {ceilings.matrix / 1e12:.1f} TFLOP/s" if ceilings.matrix else ""
    return (
        f"{bench.device.info.name} ({bench.device.engine}): reads {ceilings.read / 1e9:.4g} GB/s, "
        f"float32 multiply-add {ceilings.fma / 1e12:.3g} TFLOP/s{matrix}"
    )


def show(console: Console, lines: Sequence[Line]) -> None:
    first = lines[0]
    decode = first.phase == "decode"
    table = Table(title=f"{first.phase}, {first.heads} heads, {first.engine}")
    for heading in ("head dim", "context" if decode else "tokens", "cache"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("by", no_wrap=True)
    for heading in ("us", "GB/s" if decode else "TFLOP/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("share of", no_wrap=True)
    table.add_column("", no_wrap=True)
    for line in lines:
        if not line.note.startswith(CANNOT):
            by = line.route if line.implementation == OURS else line.implementation
            share = "" if line.share is None else f"{line.share:.2f} {line.ceiling}"
            times = (shown(line.microseconds), shown(line.rate))
            table.add_row(str(line.head_dim), str(line.context), line.dtype, by, *times, share, line.note)
    console.print(table)
    for note in dict.fromkeys(line.note for line in lines if line.note.startswith(CANNOT)):
        console.print(note, markup=False, soft_wrap=True)


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    main()

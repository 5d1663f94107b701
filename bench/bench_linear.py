"""Time of linear layers: python -m bench.bench_linear [--set must] [--rows 1 512] [--sweep] [--csv FILE]

Prints microseconds a call, by GPU timestamps, best of several passes; GB/s of weights and scales for up to 8 rows of x,
TFLOP/s for more; and that as a share of a ceiling measured in the same run. A pass calls layers with weights of their
own in turn, enough of them that the device cannot serve them from a cache; where even the most are too small for that,
the line says "cached". Before a call is timed, its output is held against float64 in sampled rows and columns; a wrong
one gets no time. ``--sweep`` times many tunings of every kernel, some minutes' worth.
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

from bench.bench_attention import cold_bytes, rounded, shown
from bench.bench_model import commit
from bench.linear_call import Case, LinearCalls
from bench.linear_tunings import Tuned, of_few_rows, of_many_rows
from executorch_webgpu.errors import Error
from executorch_webgpu.gpu.ceilings import Ceilings
from executorch_webgpu.gpu.device import Device, open_device
from executorch_webgpu.gpu.timing import passes
from executorch_webgpu.llm.measure.history import append
from executorch_webgpu.ops.fused_linear import WEIGHT_FORMATS

MAX_COPIES = 512
SWEEP_COPIES = 64  # each tuning makes a program of them: small layers may then lie in the device's cache
REPEATS = 5
PASS_SECONDS = 3e-3  # a pass repeats short calls for about this long
SWEEP_WARM_UP = 0.1  # the device is busy nearly all the time
# Over the largest element; other routes: EXACT. Tensor cores cut off sums that they add up instead of rounding them.
TOLERANCE = {"matrix": 1e-4, "few": 1e-4, "matrix_f16": 3e-3, "few_f16": 3e-3}
EXACT = 2e-5
CANNOT = "cannot run"

# Output features of the matrices of one call, input features, and what is fused.
SETS = {
    "must": [
        Case("q4gsw", 1, (8192,), 2048),
        Case("q4gsw", 1, (128256,), 2048),
        Case("q4gsw", 1, (49152,), 576),
        Case("q4gsw", 1, (576,), 576),
        Case("q4gsw", 1, (1536,), 576),
        Case("q4gsw", 1, (576,), 1536),
    ],
    "smollm2": [
        Case("q4gsw", 1, (576, 192, 192), 576, norm=True),
        Case("q4gsw", 1, (576,), 576, residual=True),
        Case("q4gsw", 1, (1536, 1536), 576, norm=True, gated=True),
        Case("q4gsw", 1, (576,), 1536, residual=True),
        Case("q4gsw", 1, (49152,), 576, norm=True),
    ],
    "llama": [
        Case("q4gsw", 1, (2048, 512, 512), 2048, norm=True),
        Case("q4gsw", 1, (2048,), 2048, residual=True),
        Case("q4gsw", 1, (8192, 8192), 2048, norm=True, gated=True),
        Case("q4gsw", 1, (2048,), 8192, residual=True),
        Case("q4gsw", 1, (128256,), 2048, norm=True),
    ],
    "vit_b16": [  # of floats: --weight-format f32; an image is 197 rows
        Case("q4gsw", 1, (2304,), 768),
        Case("q4gsw", 1, (768,), 768, residual=True),
        Case("q4gsw", 1, (3072,), 768),
        Case("q4gsw", 1, (768,), 3072, residual=True),
    ],
}
MANY_ROWS = Case("q4gsw", 512, (8192,), 2048)  # the only case of "must" for many rows
SOFTWARE = Case("q4gsw", 64, (576,), 576)  # for adapters that are no GPU


@dataclass(frozen=True)
class Line:
    """One measurement. ``rate`` is GB/s for few rows and TFLOP/s for many, ``share`` that over ``ceiling_rate``."""

    date: str
    commit: str
    adapter: str
    engine: str
    weight_format: str
    layer: str
    rows: int
    route: str
    tuning: str
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
    sweep: bool
    routes: Sequence[str | None]


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    console = Console(width=None if sys.stdout.isatty() else 120)
    for engine in options.engines:
        with open_device(engine, options.adapter) as device:
            bench = Bench(device, Ceilings.of(device), commit(), options.sweep, options.routes)
            for case in cases(options, device):
                lines = []
                for line in measure(bench, case):
                    lines.append(line)
                    if options.csv:
                        append(options.csv, [asdict(line)])
                show(console, case, lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=[None], help="wgpu, dawn, or both")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--set", choices=SETS, default="must")
    parser.add_argument("--weight-format", choices=WEIGHT_FORMATS, default="q4gsw", help="of the weights")
    parser.add_argument("--rows", type=int, nargs="+", help="rows of x: 1 is decode; by default 1, 512 and 2048")
    parser.add_argument("--routes", nargs="+", default=[None], help="force these routes, one after the other")
    parser.add_argument("--sweep", action="store_true", help="time many tunings of every kernel")
    parser.add_argument("--csv", type=Path, help="append the lines to a history")
    return parser.parse_args(argv)


def cases(options: argparse.Namespace, device: Device) -> list[Case]:
    if options.rows:
        found = [replace(case, rows=rows) for rows in options.rows for case in SETS[options.set]]
    else:
        found = list(SETS[options.set])
        many = [MANY_ROWS] if options.set == "must" else found
        many_rows: tuple[int, ...] = (512, 2048)
        if device.features.cpu:
            many, many_rows = [SOFTWARE], (SOFTWARE.rows,)
        found += [replace(case, rows=rows) for rows in many_rows for case in many]
    if device.features.cpu:
        found = [case for case in found if case.operations < 1 << 30]
    return [replace(case, weight_format=options.weight_format) for case in found]


def measure(bench: Bench, case: Case) -> Iterator[Line]:
    """A line for every route or tuning."""
    tunings = [Tuned(route) for route in bench.routes]
    if bench.sweep:
        tunings = list(of_few_rows() if case.few_rows else of_many_rows())
    seen: set[object] = set()
    copies = min(copies_of(bench.device, case), SWEEP_COPIES if bench.sweep else MAX_COPIES)
    with LinearCalls(bench.device, case, copies) as calls:
        for tuned in tunings:
            line = measure_one(bench, calls, tuned, seen)
            if line is not None:
                yield line


def measure_one(bench: Bench, calls: LinearCalls, tuned: Tuned, seen: set[object]) -> Line | None:
    """Check, then time; what fails is the line's note. None: the tuning is no other kernel than one before."""
    device, case = bench.device, calls.case
    try:
        with calls.executor(tuned.route, tuned.tunings) as executor:
            kernels = repr([(d.kernel, d.grid, d.overrides, d.template) for d in executor.plans.plans[0].dispatches])
            if kernels in seen:
                return None
            seen.add(kernels)
            route = str(executor.plans.plans[0].route)
            error = calls.error(calls.run(executor))
            if not error <= TOLERANCE.get(route, EXACT):  # NaN is wrong too
                return line_of(bench, case, route, tuned, error=error, note="WRONG")
            commands = calls.commands(executor)
            warm_up = {"warm_up": SWEEP_WARM_UP} if bench.sweep else {}
            once = min(passes(device, commands, 1, **warm_up))
            loops = min(50, math.ceil(PASS_SECONDS / once))
            taken = min(passes(device, commands * loops, REPEATS, **warm_up)) / (loops * calls.copies)
            note = "" if is_cold(device, case, calls.copies) else "cached"
            return line_of(bench, case, route, tuned, taken, error, note)
    except Error as failure:
        return line_of(bench, case, tuned.route or "", tuned, note=f"{CANNOT}: {failure}")


def copies_of(device: Device, case: Case) -> int:
    """Layers that take turns."""
    return min(MAX_COPIES, math.ceil(cold_bytes(device) / case.weight_bytes)) if case.few_rows else 1


def is_cold(device: Device, case: Case, copies: int) -> bool:
    return not case.few_rows or copies * case.weight_bytes >= cold_bytes(device)


def line_of(
    bench: Bench,
    case: Case,
    route: str,
    tuned: Tuned,
    seconds: float | None = None,
    error: float | None = None,
    note: str = "",
) -> Line:
    ceiling, limit = ceiling_of(bench.ceilings, case, route)
    rate = None if seconds is None else (case.weight_bytes if case.few_rows else case.operations) / seconds
    unit = 1e9 if case.few_rows else 1e12
    return Line(
        date=datetime.date.today().isoformat(),
        commit=bench.commit,
        adapter=bench.device.info.name,
        engine=bench.device.engine,
        weight_format=case.weight_format,
        layer=case.name,
        rows=case.rows,
        route=route,
        tuning=tuned.name,
        microseconds=None if seconds is None else rounded(seconds * 1e6),
        rate=None if rate is None else rounded(rate / unit),
        ceiling=ceiling,
        ceiling_rate=rounded(limit / unit),
        share=None if rate is None else rounded(rate / limit),
        error=None if error is None else rounded(error),
        note=note,
    )


def ceiling_of(ceilings: Ceilings, case: Case, route: str) -> tuple[str, float]:
    """(name, rate) of what bounds a line: memory for few rows, for many the units that multiply."""
    if case.few_rows:
        return "read", ceilings.read
    if route.startswith(("matrix", "few")) and ceilings.matrix is not None:
        return "matrix", ceilings.matrix
    return "fma", ceilings.fma


def show(console: Console, case: Case, lines: Sequence[Line]) -> None:
    """Of a sweep, the fastest lines."""
    table = Table(title=f"{case.rows} row(s), {case.name}, {case.weight_format}, {lines[0].engine}")
    for heading in ("route", "tuning", "us", "GB/s" if case.few_rows else "TFLOP/s", "share of", "error", ""):
        table.add_column(heading, no_wrap=True)
    for line in sorted(lines, key=lambda line: line.microseconds or math.inf)[:24]:
        share = "" if line.share is None else f"{line.share:.2f} {line.ceiling}"
        times = (shown(line.microseconds), shown(line.rate), share, shown(line.error))
        table.add_row(line.route, line.tuning, *times, "" if line.note.startswith(CANNOT) else line.note)
    console.print(table)
    for note in dict.fromkeys(line.note for line in lines if line.note.startswith(CANNOT)):
        console.print(note, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

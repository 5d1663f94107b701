"""Time of vision networks and their convolutions: python -m bench.bench_vision [--batches 1 16] [--sweep] [--csv FILE]

First whole models with random weights: microseconds of GPU time by timestamps, best of several passes, beside torch in
float32 with TF32 off where it has CUDA: eager with batch norms, as torchvision has them; eager with batch norms folded;
and the latter as a CUDA graph. Then every different convolution of the models, with TFLOP/s, and that as a share of the
multiply-add ceiling measured in the same run. Before anything is timed, its output is held against float64; a wrong one
gets no time. ``--sweep`` times other routes and tunings of each layer, and prints the best ones.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.bench_attention import rounded, shown
from bench.bench_model import commit
from bench.torch_vision import TorchTime, cuda_available, right, torch_time
from bench.vision_call import Case, VisionProgram, commands
from bench.vision_models import MODELS, layers_of
from bench.vision_tunings import Tuned, of_layers
from executorch_webgpu.errors import Error
from executorch_webgpu.gpu.ceilings import Ceilings
from executorch_webgpu.gpu.device import Device, open_device
from executorch_webgpu.gpu.timing import passes
from executorch_webgpu.llm.measure.history import append

REPEATS = 5
PASS_SECONDS = 3e-3  # a pass repeats short layers for about this long
# Largest error over the largest element of the output.
EXACT, ROUNDED = 1e-4, 2e-2
SHOWN = 3  # of the tunings of a sweep


@dataclass(frozen=True)
class Line:
    """One measurement. ``rate`` is TFLOP/s of a layer, ``share`` that over ``ceiling_rate``; torch's are microseconds.

    ``count``: how often the model has the layer.
    """

    date: str
    commit: str
    adapter: str
    engine: str
    model: str
    name: str
    batch: int
    count: int
    precision: str
    route: str
    tuning: str
    microseconds: float | None
    rate: float | None
    ceiling: str
    ceiling_rate: float
    share: float | None
    error: float | None
    torch_eager: float | None
    torch_folded: float | None
    torch_graph: float | None
    note: str


@dataclass(frozen=True)
class Bench:
    """What all lines of a run have in common."""

    device: Device
    ceilings: Ceilings
    commit: str
    torch: bool
    precision: str


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    console = Console(width=None if sys.stdout.isatty() else 150)
    beside = cuda_available() and not options.no_torch
    for engine in options.engines:
        with open_device(engine, options.adapter) as device:
            ceilings = Ceilings.of(device)
            rates = f"{ceilings.fma / 1e12:.2g} TFLOP/s, {ceilings.read / 1e9:.3g} GB/s"
            console.print(f"{device.info.name}, {device.engine}: {rates}")
            for precision in options.precisions:
                bench = Bench(device, ceilings, commit(), beside, precision)
                if not options.no_models:
                    cases = [Case(batch, options.size, model) for model in options.models for batch in options.batches]
                    keep(console, options.csv, "models", [measure(bench, case, Tuned(), case.model) for case in cases])
                if not options.no_layers:
                    for model, batch in ((m, b) for m in options.models for b in options.batches):
                        lines = list(of_model(bench, model, batch, options))
                        keep(console, options.csv, f"{model}, batch {batch}", lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=[None], help="wgpu, dawn, or both")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["resnet50", "mobilenet_v2", "vit_b16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--size", type=int, default=224, help="height and width of images")
    parser.add_argument("--precisions", nargs="+", default=["highest"], help="matmul_precision: highest, high, or both")
    parser.add_argument("--routes", nargs="+", default=[None], help="force these routes for layers in turn")
    parser.add_argument("--sweep", action="store_true", help="time other routes and tunings of each layer")
    parser.add_argument("--no-models", action="store_true")
    parser.add_argument("--no-layers", action="store_true")
    parser.add_argument("--no-torch", action="store_true", help="do not time torch")
    parser.add_argument("--csv", type=Path, help="append the lines to a history")
    return parser.parse_args(argv)


def of_model(bench: Bench, model: str, batch: int, options: argparse.Namespace) -> Iterator[Line]:
    """Lines of each different convolution of a model: its own, or those of the routes, or the best of the sweep."""
    for (layer, size), count in layers_of(model, options.size).items():
        case = Case(batch, size, layer=layer)
        tunings = of_layers(layer, bench.precision) if options.sweep else [Tuned(route) for route in options.routes]
        lines = list(measure_all(bench, case, tunings, model, count))
        yield from sorted(lines, key=lambda line: line.microseconds or math.inf)[:SHOWN] if options.sweep else lines


def measure(bench: Bench, case: Case, tuned: Tuned, model: str) -> Line:
    return next(measure_all(bench, case, [tuned], model, 1))


def measure_all(bench: Bench, case: Case, tunings: Sequence[Tuned], model: str, count: int) -> Iterator[Line]:
    """Check, then time; what fails is the line's note. A tuning that makes no other dispatches has no line."""
    expected = right(case, "cuda" if bench.torch else "cpu")
    beside = torch_times(bench, case)
    seen: set[str] = set()
    with_case = VisionProgram(bench.device, case)
    for tuned in tunings:
        try:
            with with_case.executor(tuned.routes, tuned.tunings, matmul_precision=bench.precision) as executor:
                plans = executor.plans.plans
                kernels = repr([(d.kernel, d.grid, d.params, d.template) for plan in plans for d in plan.dispatches])
                if kernels in seen:
                    continue
                seen.add(kernels)
                error = float(np.abs(with_case.run(executor) - expected).max() / np.abs(expected).max())
                route = ", ".join(dict.fromkeys(plan.route for plan in plans if plan.route))
                if not error <= (EXACT if bench.precision == "highest" else ROUNDED):  # NaN is wrong too
                    yield line_of(bench, case, model, count, route, tuned, beside, error=error, note="WRONG")
                    continue
                work = commands(executor)
                once = min(passes(bench.device, work, 1))
                loops = 1 if bench.device.features.cpu else min(100, math.ceil(PASS_SECONDS / once))
                warm_up = {"warm_up": 0.05} if seen else {}
                taken = min(passes(bench.device, work * loops, REPEATS, **warm_up)) / loops
                yield line_of(bench, case, model, count, route, tuned, beside, taken, error)
        except Error as failure:
            yield line_of(bench, case, model, count, tuned.route or "", tuned, beside, note=str(failure))


def torch_times(bench: Bench, case: Case) -> tuple[TorchTime, TorchTime] | None:
    """With batch norms, and with them folded."""
    return (torch_time(case, True), torch_time(case, False)) if bench.torch else None


def line_of(
    bench: Bench,
    case: Case,
    model: str,
    count: int,
    route: str,
    tuned: Tuned,
    beside: tuple[TorchTime, TorchTime] | None,
    seconds: float | None = None,
    error: float | None = None,
    note: str = "",
) -> Line:
    matrix = bench.ceilings.matrix if "matrix" in route and case.layer is not None else None
    ceiling, limit = ("fma", bench.ceilings.fma) if matrix is None else ("matrix", matrix)
    rate = case.operations / seconds if seconds and case.layer is not None else None

    def microseconds(value: float | None) -> float | None:
        return None if value is None else rounded(value * 1e6)

    return Line(
        date=datetime.date.today().isoformat(),
        commit=bench.commit,
        adapter=bench.device.info.name,
        engine=bench.device.engine,
        model=model,
        name=case.name,
        batch=case.batch,
        count=count,
        precision=bench.precision,
        route=route,
        tuning=tuned.name,
        microseconds=microseconds(seconds),
        rate=None if rate is None else rounded(rate / 1e12),
        ceiling=ceiling,
        ceiling_rate=rounded(limit / 1e12),
        share=None if rate is None else rounded(rate / limit),
        error=None if error is None else rounded(error),
        torch_eager=microseconds(beside[0].eager) if beside else None,
        torch_folded=microseconds(beside[1].eager) if beside else None,
        torch_graph=microseconds(beside[1].graph) if beside else None,
        note=note,
    )


def keep(console: Console, csv: Path | None, title: str, lines: Sequence[Line]) -> None:
    """Print lines, and append them to a history."""
    if csv and lines:
        append(csv, [asdict(line) for line in lines])
    table = Table(title=title)
    for heading in (
        "",
        "batch",
        "x",
        "route",
        "tuning",
        "us",
        "TFLOP/s",
        "share",
        "error",
        "torch",
        "folded",
        "graph",
        "",
    ):
        table.add_column(heading, no_wrap=heading != "route")
    for line in lines:
        times = (shown(n) for n in (line.torch_eager, line.torch_folded, line.torch_graph))
        share = "" if line.share is None else f"{line.share:.2f} {line.ceiling}"
        about = (line.name, str(line.batch), str(line.count), line.route, line.tuning, shown(line.microseconds))
        table.add_row(*about, shown(line.rate), share, shown(line.error), *times, line.note[:60])
    console.print(table)
    measured = [line for line in lines if line.microseconds is not None]
    if title != "models" and len({(line.name, line.batch) for line in measured}) == len(measured):
        ours = sum(line.count * (line.microseconds or 0) for line in measured) / 1e3
        graph = sum(line.count * (line.torch_graph or 0) for line in measured) / 1e3
        console.print(f"all of them: {ours:.3g} ms" + (f", torch as graphs {graph:.3g} ms" if graph else ""))


if __name__ == "__main__":
    main()

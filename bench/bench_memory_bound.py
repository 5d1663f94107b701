"""Time of memory-bound operators: python -m bench.bench_memory_bound [--megabytes 64] [--only softmax] [--csv FILE]

Prints microseconds a call, by GPU timestamps, best of several passes; GB/s of the bytes that a call must move; and how
many times as long it takes as a plain copy of as many bytes, whose rate is measured in the same run on buffers of the
same size. Aim: at most 1.5 times. Before a call is timed, its output is held against the float64 reference, all of it,
and two runs must agree bit for bit; a wrong one gets no time. Sorting is shown beside, without an aim. An operator that
is not registered is "missing", not failed. Exits with 1 if a call is wrong, cannot run, or misses the aim on a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.memory_cases import Case, cases, named
from executorch_webgpu.errors import Error
from executorch_webgpu.gpu.buffers import create
from executorch_webgpu.gpu.device import Device, open_device
from executorch_webgpu.gpu.kernel import Kernels
from executorch_webgpu.gpu.timing import passes
from executorch_webgpu.llm.measure.history import append
from executorch_webgpu.ops.registry import find
from tests.ops.harness import OpProgram

AIM = 1.5
REPEATS = 7
PASS_SECONDS = 3e-3  # a pass repeats short calls for about this long
WARM_UP = 0.1  # the device is busy nearly all the time
SOFTWARE_MEGABYTES = 1


@dataclass(frozen=True)
class Line:
    """One measurement; ``ratio`` is its time over that of a copy of ``megabytes`` moved in all."""

    date: str
    adapter: str
    engine: str
    family: str
    case: str
    op: str
    megabytes: float
    microseconds: float | None
    rate: float | None  # GB/s
    ratio: float | None
    note: str


@dataclass(frozen=True)
class _Copy:
    """A recorded copy."""

    pipeline: Any
    bind_group: Any
    grid: tuple[int, int, int]


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    failed = 0
    for engine in options.engines:
        with open_device(engine, options.adapter) as device:
            megabytes = options.megabytes or (SOFTWARE_MEGABYTES if device.features.cpu else 64)
            bits = round(math.log2(megabytes)) + 18
            rate = copy_rate(device, 4 << bits)
            print(f"{device.info.name}, {device.engine}: a copy of {megabytes} MB moves {rate / 1e9:.0f} GB/s")
            lines = []
            for case in named(list(cases(bits)), options.only):
                lines.append(measure(device, case, rate))
                show(lines[-1])
                if options.csv:
                    append(options.csv, [asdict(lines[-1])])
            again = copy_rate(device, 4 << bits)
            print(f"the copy again: {again / 1e9:.0f} GB/s")
            failed += summary(lines, device.features.cpu)
    return int(failed > 0)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=[None], help="wgpu, dawn, or both")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument(
        "--megabytes", type=int, choices=[1, 4, 16, 64, 256], help="of the largest tensor; by default 64"
    )
    parser.add_argument("--only", nargs="+", default=[], help="words of the families, cases or operators to run")
    parser.add_argument("--csv", type=Path, help="append the lines to a history")
    return parser.parse_args(argv)


def copy_rate(device: Device, nbytes: int) -> float:
    """Bytes a second, read and written, of a copy of ``nbytes``."""
    kernels = Kernels(device, [Path(__file__).parent])
    pipeline = kernels.pipeline("copy")
    x, out = create(device, nbytes, "x"), create(device, nbytes, "out")
    group = kernels.bind_group(pipeline, {"x": (x, 0, x.size), "out": (out, 0, out.size)})
    groups = nbytes // 16 // 256
    rows = math.ceil(groups / device.limits.max_workgroups)
    taken = seconds(device, [_Copy(pipeline.raw, group, (groups // rows, rows, 1))])
    x.destroy()
    out.destroy()
    return 2 * nbytes / taken


def seconds(device: Device, commands: Sequence[Any]) -> float:
    """The best time of a call, of passes of several."""
    once = min(passes(device, commands, 1, WARM_UP))
    loops = max(1, min(100, round(PASS_SECONDS / once)))
    return min(passes(device, [*commands] * loops, REPEATS, WARM_UP)) / loops


def measure(device: Device, case: Case, rate: float) -> Line:
    """Check, then time; what fails is the line's note."""
    if find(case.op) is None:
        return line_of(device, case, rate, note="missing")
    try:
        with OpProgram(device, case.op, case.args, case.out) as program:
            note = wrong(program, case)
            if note:
                return line_of(device, case, rate, note=note)
            commands = [command for commands in program.executor.commands for command in commands]
            return line_of(device, case, rate, seconds(device, commands))
    except Error as error:
        return line_of(device, case, rate, note=f"cannot run: {error}")


def wrong(program: OpProgram, case: Case) -> str:
    """What is wrong with a call's outputs; nothing if they are right."""
    rng = np.random.default_rng(0)
    inputs = [given.array(rng) for given in case.inputs]
    program.poison()
    got, again = (_listed(program.run(inputs)) for _ in range(2))
    if any(a.tobytes() != b.tobytes() for a, b in zip(got, again, strict=True)):
        return "WRONG: two runs differ"
    for number, (result, expected) in enumerate(zip(got, _listed(program.reference(inputs)), strict=True)):
        if result.shape != np.shape(expected):
            return f"WRONG: result {number} has dims {result.shape}, not {np.shape(expected)}"
        error = _error(result, np.asarray(expected))
        if not error <= case.tolerance:  # NaN is wrong, too
            return f"WRONG: result {number} is off by {error:.1e} of the largest element"
    return ""


def _listed(results: Any) -> list[np.ndarray]:
    return [np.asarray(r) for r in (results if isinstance(results, list | tuple) else [results])]


def _error(result: np.ndarray, expected: np.ndarray) -> float:
    """The largest error over the largest element; of integers, whether any differs."""
    if not result.size:
        return 0.0
    if result.dtype.kind != "f":
        return float(np.any(result.astype(np.int64) != expected.astype(np.int64)))
    return float(np.abs(result - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def line_of(device: Device, case: Case, rate: float, taken: float | None = None, note: str = "") -> Line:
    return Line(
        date=datetime.date.today().isoformat(),
        adapter=device.info.name,
        engine=device.engine,
        family=case.family,
        case=case.name,
        op=case.op,
        megabytes=round(case.nbytes / 2**20, 2),
        microseconds=None if taken is None else round(taken * 1e6, 2),
        rate=None if taken is None else round(case.nbytes / taken / 1e9, 1),
        ratio=None if taken is None else round(taken * rate / case.nbytes, 3),
        note=note if taken is None or case.bound else "no aim",
    )


def show(line: Line) -> None:
    name = f"{line.family}: {line.case}"
    if line.microseconds is None:
        print(f"{name:42} {line.note}  ({line.op})", flush=True)
        return
    mark = "" if line.ratio is None or line.ratio <= AIM or line.note else "  OVER"
    print(
        f"{name:42} {line.megabytes:8.1f} MB {line.microseconds:10.1f} us {line.rate:8.0f} GB/s "
        f"{line.ratio:6.2f} x copy{mark}  {line.note}",
        flush=True,
    )


def summary(lines: Sequence[Line], software: bool) -> int:
    """Print how many lines reach the aim. Returns how many are wrong, cannot run, or miss it on a GPU."""
    missing = [line for line in lines if line.note == "missing"]
    failed = [line for line in lines if line.microseconds is None and line.note != "missing"]
    timed = [line for line in lines if line.ratio is not None and not line.note]
    over = [line for line in timed if line.ratio is not None and line.ratio > AIM]
    print(f"{len(timed) - len(over)} of {len(timed)} take at most {AIM} times a copy")
    for title, found in (("over", over), ("failed", failed), ("missing", missing)):
        if found:
            print(f"{title}: " + ", ".join(f"{line.family} ({line.case})" for line in found))
    return len(failed) + (0 if software else len(over))


if __name__ == "__main__":
    sys.exit(main())

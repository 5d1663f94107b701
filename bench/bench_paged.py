"""Time of attention over pages: python -m bench.bench_paged [--quick] [--head-dims 64 128] [--csv FILE]

A call of ``rope_paged_sdpa``, which rotates, writes its rows to the pages, and attends: decode rows of 1 to 128
sequences, chunks of prompts, and both in one step. Prints microseconds a call by GPU timestamps, best of 5 passes, GB/s
of the pools' rows that must be read as a share of what the device reads at best (TFLOP/s for chunks), and what was
dispatched. In decode, enough pools take turns that the device cannot serve them from a cache of its own. Before a call
is timed, its output is held against float64 in sampled rows and heads; a wrong one gets no time.
``--tunings`` tries out numbers of the decode kernel.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.attention_call import TOLERANCE
from bench.paged_call import Case, PagedCall
from executorch_webgpu.errors import Error
from executorch_webgpu.gpu.ceilings import read_rate
from executorch_webgpu.gpu.device import Device, open_device
from executorch_webgpu.gpu.timing import passes
from executorch_webgpu.ops.attention.flash_decode_subgroups.plan import TUNING

HEADS = (32, 8)
REPEATS = 5
PASS_SECONDS = 5e-3  # a pass repeats short calls for about this long
MAX_COPIES = 64
SUBGROUPS = "attention/flash_decode_subgroups"


@dataclass(frozen=True)
class Line:
    """One measurement; GB/s for decode rows, TFLOP/s for all others."""

    name: str
    head_dim: int
    dtype: str
    route: str
    microseconds: float | None
    rate: float | None
    share: float | None  # of the reading of memory
    error: float | None
    kernels: str

    def __str__(self) -> str:
        numbers = (self.microseconds, self.rate, self.share)
        shown = " ".join(f"{'' if x is None else f'{x:.4g}':>9}" for x in numbers)
        return f"{self.name:28} {self.head_dim:4} {self.dtype:5} {self.route:22} {shown}   {self.kernels}"


def decode(rows: int, context: int, head_dim: int, **more: object) -> Case:
    name = f"{rows} rows at {context}"
    return replace(Case(name, HEADS, head_dim, ((context - 1, 1),) * rows), **more)  # type: ignore[arg-type]


def ragged(head_dim: int) -> Case:
    """Contexts from 100 to 1,100, one of 8,192."""
    lengths = [100 + 1000 * i // 63 for i in range(63)]
    return Case("64 rows, 100-1100, one 8192", HEADS, head_dim, (*((n, 1) for n in lengths), (8191, 1)))


def chunks(head_dim: int) -> list[Case]:
    decoding = ((600, 1),) * 127
    return [
        Case("chunk of 512", HEADS, head_dim, ((0, 512),)),
        Case("chunk of 512 after 1536", HEADS, head_dim, ((1536, 512),)),
        Case("4 chunks of 128", HEADS, head_dim, ((0, 128),) * 4),
        Case("chunk of 385", HEADS, head_dim, ((0, 385),)),
        Case("127 rows at 601", HEADS, head_dim, decoding),
        Case("127 rows, chunk of 385", HEADS, head_dim, (*decoding, (0, 385))),
    ]


def cases(options: argparse.Namespace) -> Iterator[Case]:
    contexts, rows = ((600,), (1, 8, 128)) if options.quick else ((600, 2048, 8192), (1, 8, 32, 128))
    for head_dim in options.head_dims:
        for context, count in itertools.product(options.contexts or contexts, options.rows or rows):
            yield decode(count, context, head_dim, dtype=options.dtype, page_rows=options.page_rows)
        others = [] if options.rows or options.contexts else [ragged(head_dim), *chunks(head_dim)]
        yield from (replace(case, dtype=options.dtype, page_rows=options.page_rows) for case in others)


def measure(
    device: Device, case: Case, route: str, ceiling: float, tunings: Mapping[str, object] | None = None, note: str = ""
) -> Line:
    """Check, then time; what fails says why."""
    cold = (16 if device.features.cpu else 256) << 20
    copies = min(MAX_COPIES, math.ceil(cold / case.cache_bytes)) if case.decode else 1
    base = Line(case.name, case.head_dim, case.dtype, note or route or "default", None, None, None, None, "")
    routes = {"paged_sdpa": route} if route else {}
    try:
        with PagedCall(device, case, routes, copies, tunings) as call:
            error = call.error(call.run())
            if not error <= TOLERANCE[case.dtype]:  # NaN is wrong too
                return replace(base, error=error, kernels=f"WRONG by {error:.2g}: {call.kernels}")
            commands = call.commands()
            once = min(passes(device, commands, 1, 0.05))
            loops = min(50, math.ceil(PASS_SECONDS / once))
            taken = min(passes(device, commands * loops, REPEATS)) / (loops * copies)
            rate = case.cache_bytes / taken / 1e9 if case.decode else case.operations / taken / 1e12
            share = case.cache_bytes / taken / ceiling if case.decode else None
            return replace(base, microseconds=1e6 * taken, rate=rate, share=share, error=error, kernels=call.kernels)
    except Error as failure:
        return replace(base, kernels=f"cannot run: {failure}")


def tuned(device: Device, case: Case, ceiling: float) -> Iterator[Line]:
    """The decode kernel with other numbers than its own."""
    for unroll, subgroups, workgroups in itertools.product((2, 4, 8), (2, 4, 8), (256, 512, 1024)):
        tuning = replace(TUNING, unroll=unroll, subgroups=subgroups, workgroups=workgroups)
        note = f"u{unroll} s{subgroups} w{workgroups}"
        yield measure(device, case, "flash_decode_subgroups", ceiling, {SUBGROUPS: tuning}, note)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--quick", action="store_true", help="few sizes")
    parser.add_argument("--head-dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rows", type=int, nargs="+", help="decode rows; then no chunks")
    parser.add_argument("--contexts", type=int, nargs="+", help="of decode rows; then no chunks")
    parser.add_argument("--dtype", choices=TOLERANCE, default="f16")
    parser.add_argument("--page-rows", type=int, default=16)
    parser.add_argument("--routes", nargs="+", default=["", "flash_decode"], help='"" is what a load would choose')
    parser.add_argument("--tunings", action="store_true")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(argv)
    lines = []
    with open_device(options.engine, options.adapter) as device:
        ceiling = read_rate(device)
        print(f"{device.info.name} ({device.engine}) reads {ceiling / 1e9:.0f} GB/s; pages of {options.page_rows} rows")
        print(f"{'rows':28} {'D':>4} {'pools':5} {'route':22} {'us':>9} {'GB/s':>9} {'share':>9}   dispatches")
        for case in cases(options):
            found = (measure(device, case, route, ceiling) for route in options.routes)
            for line in tuned(device, case, ceiling) if options.tunings and case.decode else found:
                lines.append(line)
                print(line, flush=True)
    if options.csv is not None:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(lines[0])))
            writer.writeheader()
            writer.writerows(asdict(line) for line in lines)


if __name__ == "__main__":
    main()

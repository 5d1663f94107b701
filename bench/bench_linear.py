"""Time of linear layers: python -m bench.bench_linear [--rows 1] [--set wide] [--weights q8gsw] [--route NAME]

Prints a line per layer: microseconds a call, GB/s of weights and scales, the share of the rate at which this
adapter reads memory in the same run, and GFLOP/s; for SmolLM2 also the time of all linear layers of one step.
A pass makes up to ``CALLS`` calls, each with weights of its own, as the layers of a model have.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from executorch_webgpu.gpu.ceilings import read_rate
from executorch_webgpu.gpu.device import Device, open_device
from executorch_webgpu.gpu.timing import seconds
from tests.ops.harness import Const, In, OpProgram, Out
from tests.ops.test_linear_quantized import FORMATS, INT8, Layer, family, rows

COLD_BYTES = 64 << 20  # more than most caches hold
CALLS = 30
GROUP = 32
OPERATORS = {family(op).removeprefix("linear_"): op for op in FORMATS} | {"float": "aten.linear.default"}


@dataclass(frozen=True)
class Shape:
    """A layer of ``n`` output and ``k`` input features, and how often a model runs it for one token."""

    n: int
    k: int
    calls: int = 1


SETS = {
    "smollm2": [
        Shape(576, 576, 60),
        Shape(192, 576, 60),
        Shape(1536, 576, 60),
        Shape(576, 1536, 30),
        Shape(49152, 576, 1),
    ],
    "wide": [Shape(8192, 2048), Shape(128256, 2048)],
}


def program(device: Device, shape: Shape, m: int, route: str | None, op: str) -> OpProgram:
    if op in FORMATS:
        return Layer.random(op, shape.n, shape.k, GROUP).program(device, m, route)
    routes = {"linear": route} if route else {}
    args = [In((m, shape.k)), Const(rows(shape.n, shape.k)), None]
    return OpProgram(device, op, args, Out((m, shape.n)), routes=routes)


def weight_bytes(shape: Shape, op: str) -> int:
    """Bytes of weights and scales that one call must read."""
    if op not in FORMATS:
        return shape.n * shape.k * 4
    form = FORMATS[op]
    groups = 1 if op == INT8 else shape.k // GROUP
    scale_bytes = np.dtype(form.scales_dtype).itemsize * (2 if form.mins else 1)
    return shape.n * (shape.k * form.bits // 8 + groups * scale_bytes)


def bench(device: Device, shape: Shape, m: int, route: str | None, op: str) -> tuple[float, str]:
    """Seconds a call, and the route."""
    copies = max(1, min(CALLS, COLD_BYTES // weight_bytes(shape, op)))
    programs = [program(device, shape, m, route, op) for _ in range(copies)]
    try:
        for one in programs:
            one.run([np.zeros((m, shape.k), np.float32)])
        taken = seconds(device, [c for one in programs for c in one.executor.commands[0]])
        return taken / copies, str(programs[0].executor.plans.plans[0].route)
    finally:
        for one in programs:
            one.executor.close()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--rows", type=int, default=1, help="rows of x: 1 is decode")
    parser.add_argument("--set", choices=SETS, default="smollm2")
    parser.add_argument("--weights", choices=OPERATORS, default="q4gsw", help="format of the weights")
    parser.add_argument("--route", help="force a route")
    args = parser.parse_args(argv)
    op = OPERATORS[args.weights]
    with open_device(args.engine, args.adapter) as device:
        ceiling = read_rate(device)
        print(f"{device.info.name}: reads {ceiling / 1e9:.2f} GB/s")
        print(f"{'n':>7}{'k':>6}{'route':>9}{'us':>11}{'GB/s':>9}{'of read':>9}{'GFLOP/s':>9}")
        total = 0.0
        for shape in SETS[args.set]:
            taken, route = bench(device, shape, args.rows, args.route, op)
            rate = weight_bytes(shape, op) / taken
            flops = 2 * args.rows * shape.n * shape.k / taken
            total += taken * shape.calls
            print(
                f"{shape.n:>7}{shape.k:>6}{route:>9}{taken * 1e6:>11.1f}{rate / 1e9:>9.3f}"
                f"{rate / ceiling:>9.2f}{flops / 1e9:>9.2f}"
            )
        if args.set == "smollm2":
            print(f"all linear layers of one step of {args.rows}: {total * 1e3:.1f} ms")


if __name__ == "__main__":
    main()

"""Decoder layers in one dispatch beside a dispatch a call: python -m bench.bench_layers [--shape ...] [--sweep]

Random weights; the caches hold a prompt of ``--context`` tokens. A line for each tuning of the persistent kernel: how
many workgroups run at once, microseconds of GPU time of the layers and of a whole step with its head, and how far
logits are from those of the calls, in parts of the largest one. A step is repeated, and its bits are compared.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.models import SHAPES, fitting_options, write_llama
from executorch_webgpu import Error, Runtime
from executorch_webgpu.gpu.ceilings import read_rate
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.timing import seconds
from executorch_webgpu.graph.build import Graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.decoder_layers import find_runs
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.state import Command
from executorch_webgpu.ops.decoder_layers.persistent.plan import CPU_TUNING, KERNEL, TUNING
from executorch_webgpu.ops.plan import MATMUL_PRECISIONS, Planning
from executorch_webgpu.runtime.graphs import PlannedGraph
from executorch_webgpu.runtime.options import LoadOptions

CHUNK = 256  # tokens of a step of the prompt
SWEEP: dict[str, Mapping[str, Any]] = {
    "as it is": {},
    "3 units at a time": {"unroll": 3},
    "4 units at a time": {"unroll": 4},
    "8 units at a time": {"unroll": 8},
    "512 invocations": {"size": 512},
    "512, weights late": {"size": 512, "early": False},
    "512, 4 units, weights late": {"size": 512, "unroll": 4, "early": False},
    "two a multiprocessor": {"expected": 264},
    "weights after attention late": {"early": False},
    "and early": {"early": True},
    "4 units, weights late": {"unroll": 4, "early": False},
    "with meetings": {"throttle": True},
    "1 key": {"keys": 1},
    "4 keys": {"keys": 4},
    "16 merged": {"merged": 16},
    "chunks from 32 rows": {"least_chunk": 32},
    "chunks from 64 rows": {"least_chunk": 64},
    "96 workgroups": {"workgroups": 96, "expected": 96},
    "66 workgroups": {"workgroups": 66, "expected": 66},
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--engine", help="wgpu or dawn")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--context", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--cache", choices=("f32", "f16"), default="f16")
    parser.add_argument("--matmul-precision", choices=MATMUL_PRECISIONS, default="highest")
    parser.add_argument("--sweep", action="store_true", help="other tunings, too")
    parser.add_argument(
        "--only", nargs="+", default=[], help="only those tunings of the sweep whose names have a word of these"
    )
    parser.add_argument("--check", type=int, default=3, help="how often a step is repeated")
    args = parser.parse_args(argv)
    runtime = Runtime.get(args.engine, args.adapter)
    device, config = runtime.device, SHAPES[args.shape]
    print(f"{device.info.name} ({device.engine}), {args.shape}, context {args.context}, {args.cache} cache")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "model.pte"
        write_llama(path, config, fitting_options(config, CHUNK, args.context + 1))
        program = stack.enter_context(runtime.load_program(path))
        (stage,) = program.graphs("forward", LoadOptions(kv_cache_dtype=args.cache), on_device=True).stages
        assert isinstance(stage, PlannedGraph)
        prompt = np.random.default_rng(0).integers(0, config.vocab, args.context + 1).astype(np.int32)
        pool = ConstantPool(device, lambda view: None)
        by_calls, by_one = ({"decoder_layers": route} for route in ("calls", "persistent"))
        planning = Planning(device.features, device.limits, by_calls, matmul_precision=args.matmul_precision)
        wanted = show(device, stage.graph, pool, "dispatch by dispatch", planning, prompt, args.check, None)
        for name, changes in SWEEP.items():
            if name != "as it is" and not args.sweep:
                continue
            if args.only and not any(word in name for word in args.only):
                continue
            tuning = replace(CPU_TUNING if device.features.cpu else TUNING, **changes)
            tuned = replace(planning, routes=by_one, tunings={KERNEL: tuning} if changes else {})
            show(device, stage.graph, pool, name, tuned, prompt, args.check, wanted)
        print(f"read ceiling {read_rate(device) / 1e9:.0f} GB/s")


def show(
    device: Device,
    graph: Graph,
    pool: ConstantPool,
    name: str,
    planning: Planning,
    prompt: np.ndarray,
    repeats: int,
    wanted: np.ndarray | None,
) -> np.ndarray | None:
    """Print the line of a way to compute the layers.  Returns logits."""
    try:
        executor = GraphExecutor(graph, pool, planning)
    except Error as error:  # a tuning that does not fit the device is a line, too
        print(f"{name:28} {type(error).__name__}: {str(error)[:90]}")
        return None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for tokens, position in steps(prompt):
                executor.execute([tokens, position])
            results = [
                executor.execute([prompt[None, -1:], np.array([len(prompt) - 1], np.int32)])[0] for _ in range(repeats)
            ]
        same = all(np.array_equal(results[0], other) for other in results)
        commands = executor.commands
        layers = list(layer_commands(executor, graph))
        whole = [command for of_call in commands for command in of_call]
        workgroups = ", ".join(str(run.workgroups) for run in executor.plans.runs) or "-"
        off = 0.0 if wanted is None else float(np.abs(results[0] - wanted).max() / np.abs(wanted).max())
        layer_us = f"{seconds(device, layers) * 1e6:8.1f}" if layers else "       -"
        print(
            f"{name:28} workgroups {workgroups:>5}  layers {layer_us}  step {seconds(device, whole) * 1e6:8.1f} us of "
            f"{len(whole):3} dispatches  error {off:.1e}  {'same bits' if same else 'OTHER BITS'}"
            + ("  GAVE UP" if caught else ""),
            flush=True,
        )
        return results[0]
    finally:
        executor.close()


def steps(prompt: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All but the last token, in chunks, with their positions."""
    for begin in range(0, len(prompt) - 1, CHUNK):
        yield prompt[None, begin : min(begin + CHUNK, len(prompt) - 1)], np.array([begin], np.int32)


def layer_commands(executor: GraphExecutor, graph: Graph) -> Iterator[Command]:
    """Of the calls that are decoder layers, whichever route they take."""
    for run in find_runs(graph):
        for index in sorted(run.calls):
            yield from executor.commands[index]


if __name__ == "__main__":
    main()

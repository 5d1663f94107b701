"""What partial delegation costs: python -m bench.bench_partial FOLDER --export, then the same without --export.

The first form needs executorch. It exports one model three times: delegated in full, with five operators in its middle
kept from the delegates, and without a partitioner. The second form runs the three in turns, in one process, and prints
microseconds a call by the clock, their spread, and each as a ratio to full delegation: with everything lowered to one
graph, and with what was not delegated left to the host.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from executorch_webgpu import Runtime
from executorch_webgpu.runtime import Method

WIDTH, LAYERS, ROWS, ROUNDS, CALLS = 256, 10, 64, 15, 20
FORMS = ("full", "partial", "undelegated")
Form = tuple[str, str]  # how it was exported, and what is lowered


def export(folder: Path) -> None:
    """Write the programs, and an input with torch's answer."""
    import torch
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.exir.dialects._ops import ops
    from torch import nn

    class Layer(nn.Module):  # type: ignore[misc]
        """``mixed`` layers have a relu, which no other one has."""

        def __init__(self, mixed: bool) -> None:
            super().__init__()
            self.norm, self.up, self.down = (
                nn.LayerNorm(WIDTH),
                nn.Linear(WIDTH, 2 * WIDTH),
                nn.Linear(2 * WIDTH, WIDTH),
            )
            self.mixed = mixed

        def forward(self, x: Any) -> Any:
            y = self.up(self.norm(x))
            y = torch.relu(y) if self.mixed else torch.tanh(y)
            return x + self.down(y)

    torch.manual_seed(0)
    module = nn.Sequential(*(Layer(mixed=i % 2 == 1) for i in range(LAYERS))).eval()
    x = torch.randn(ROWS, WIDTH)
    folder.mkdir(parents=True, exist_ok=True)
    partitioners = {
        "full": [VulkanPartitioner()],
        "partial": [VulkanPartitioner(operator_blocklist=[ops.edge.aten.relu.default])],
        "undelegated": None,
    }
    for name, partitioner in partitioners.items():
        exported = torch.export.export(module, (x,))
        program = to_edge_transform_and_lower(exported, partitioner=partitioner).to_executorch()
        (folder / f"{name}.pte").write_bytes(program.buffer)
    with torch.no_grad():
        np.savez(folder / "answer.npz", x=x.numpy(), y=module(x).numpy())


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--export", action="store_true", help="write the programs, instead of running them")
    parser.add_argument("--engine", help="wgpu or dawn")
    options = parser.parse_args(given)
    if options.export:
        export(options.folder)
        return
    answer = np.load(options.folder / "answer.npz")
    runtime = Runtime.get(options.engine)
    print(runtime.device)
    methods = {}
    for name, lower in [*((name, "all") for name in FORMS), ("partial", "delegates")]:
        method = runtime.load_program(options.folder / f"{name}.pte").load_method("forward", lower=lower)
        (got,) = method.execute([answer["x"]])
        np.testing.assert_allclose(got, answer["y"], rtol=1e-3, atol=1e-4)
        methods[name, lower] = method
    times = in_turns(methods, answer["x"])
    full = statistics.median(times["full", "all"])
    for (name, lower), taken in times.items():
        median, spread = statistics.median(taken), max(taken) - min(taken)
        dispatches = sum(use.dispatches for use in methods[name, lower].kernels())
        print(
            f"{name:12} lower={lower:10} {median:9.0f} us ±{spread / 2 / median:4.0%}  {median / full:5.2f} x full  "
            f"{dispatches:4} dispatches"
        )


def in_turns(methods: Mapping[Form, Method], x: np.ndarray) -> dict[Form, list[float]]:
    """Microseconds a call of each method, of rounds in which all of them run."""
    times: dict[Form, list[float]] = {form: [] for form in methods}
    for _ in range(ROUNDS):
        for form, method in methods.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                method.execute([x])
            times[form].append((time.perf_counter() - start) / CALLS * 1e6)
    return times


if __name__ == "__main__":
    main()

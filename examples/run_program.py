"""Run any program on random inputs, at its largest shape and at a smaller one, with the time of each operator.

python examples/run_program.py model.pte [method]
"""

from __future__ import annotations

import sys

import numpy as np

from executorch_webgpu import Runtime
from executorch_webgpu.runtime.metadata import TensorMetadata


def random_input(random: np.random.Generator, x: TensorMetadata, shrink: int) -> np.ndarray:
    """Numbers of the input's dtype; dynamic dims are divided by ``shrink``."""
    dims = [max(1, d // shrink) if i in x.dynamic_dims else d for i, d in enumerate(x.max_dims)]
    return random.normal(size=dims).astype(x.dtype) if x.dtype == "float32" else random.integers(0, 2, dims, x.dtype)


def main(path: str, name: str = "forward") -> list[list[np.ndarray]]:
    random = np.random.default_rng(0)
    results = []
    with Runtime.get().load_program(path) as program, program.load_method(name, profile=True) as method:
        print(f"{name}({', '.join(map(str, method.metadata.inputs))})")
        for shrink in (1, 2):
            inputs = [random_input(random, x, shrink) for x in method.metadata.inputs]
            outputs = method.execute(inputs)
            print([i.shape for i in inputs], "->", [np.shape(o) for o in outputs])
            results.append(outputs)
        for row in method.profile():
            print(f"{row.op:40} {row.route or '':14} {row.dispatches:6} dispatches  {row.gpu_ms or 0:8.2f} ms")
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])

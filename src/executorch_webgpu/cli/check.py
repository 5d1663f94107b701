"""``et-webgpu check FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError
from .options import FILE, device_options
from .run import fit_input, read_input

if TYPE_CHECKING:
    from ..runtime.metadata import TensorMetadata


@click.command("check")
@click.argument("file", type=FILE)
@click.option("--input", "inputs", multiple=True, metavar="NPY|NUMBER", help="One for each input, in order")
@click.option("--method", default="forward", show_default=True, help="Which method to check")
@click.option("--steps", type=click.IntRange(1), default=3, show_default=True, help="Calls with one state")
@click.option("--seed", type=int, default=0, show_default=True, help="Of inputs that are not given")
@device_options
def command(
    file: Path,
    inputs: tuple[str, ...],
    method: str,
    steps: int,
    seed: int,
    engine: str | None,
    adapter: int | str | None,
) -> None:
    """Hold what the device computes against the host's references, in 64 bits.

    Integers and floats have 32 bits on the device. The report names operators whose results need more, and the largest
    difference of each output. Without --input, tensors are random: floats around 0, integers 0 and 1.
    Ends with 1 when a result needs more than 32 bits.
    """
    import numpy as np

    from ..runtime import Runtime
    from .tables import console, table

    with Runtime.get(engine=engine, adapter=adapter).load_program(file) as program:
        expected = program.metadata(method).inputs
        if inputs and len(inputs) != len(expected):
            raise InvalidInputError(f"{method} takes {len(expected)} inputs, {len(inputs)} were given")
        given = [fit_input(read_input(text), tensor) for text, tensor in zip(inputs, expected, strict=False)]
        generator = np.random.default_rng(seed)
        calls = (given or [random_input(tensor, generator) for tensor in expected] for _ in range(steps))
        report = program.check(method, calls)
    out = console()
    made = table(("Graph>", "Output>", "Largest difference>", "Largest element>"))
    for row in report.differences:
        made.add_row(str(row.graph), str(row.output), f"{row.error:.3g}", f"{row.largest:.6g}")
    out.print(made)
    for overflow in report.overflows:
        out.print(
            f"graph {overflow.graph}, call {overflow.call}: {overflow.operator} gives {overflow.low:g} to "
            f"{overflow.high:g}, which 32 bits cannot hold"
        )
    if report.overflows:
        raise click.exceptions.Exit(1)


def random_input(expected: TensorMetadata, generator: Any) -> Any:
    """An input of the largest dims; what a program takes as a plain value cannot be guessed."""
    import ml_dtypes
    import numpy as np

    if not expected.is_tensor:
        raise InvalidInputError(f"an input is a plain {expected.dtype}: give all inputs with --input")
    dtype = np.dtype(getattr(ml_dtypes, expected.dtype, expected.dtype))
    if expected.dtype.startswith(("float", "bfloat")):
        return generator.standard_normal(expected.max_dims).astype(dtype)
    return generator.integers(0, 2, expected.max_dims).astype(dtype)

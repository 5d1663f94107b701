"""``et-webgpu run FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError
from .options import FILE, device_options, load_options

if TYPE_CHECKING:
    from ..runtime import LoadOptions
    from ..runtime.metadata import TensorMetadata

LITERALS = {"true": True, "false": False}


@click.command("run")
@click.argument("file", type=FILE)
@click.option("--input", "inputs", multiple=True, metavar="NPY|NUMBER", help="One for each input, in order")
@click.option("--method", default="forward", show_default=True, help="Which method to run")
@click.option("--output", type=FILE, metavar="DIR", help="Folder for output_0.npy, output_1.npy, …")
@load_options("fuse", "profile", "check")
@device_options
def command(
    file: Path,
    inputs: tuple[str, ...],
    method: str,
    output: Path | None,
    loading: LoadOptions,
    engine: str | None,
    adapter: int | str | None,
) -> None:
    """Run one method once.

    An input is a .npy file, or a number: 3, 0.5 or true. A number given for a tensor of one element becomes
    that tensor.
    """
    from ..runtime import Runtime
    from .tables import print_profile

    values = [read_input(text) for text in inputs]
    with (
        Runtime.get(engine=engine, adapter=adapter).load_program(file) as program,
        program.load_method(method, loading) as loaded,
    ):
        fitted = fitted_inputs(method, values, loaded.metadata.inputs)
        outputs = loaded.execute(fitted)
        _print_outputs(outputs)
        if output is not None:
            _save_outputs(outputs, output)
        if loading.profile:
            print_profile(loaded.profile())


def fitted_inputs(method: str, values: Sequence[Any], expected: Sequence[TensorMetadata]) -> list[Any]:
    """Values as a method takes them. Raises InvalidInputError when there are too many or too few, or one cannot fit."""
    if len(values) != len(expected):
        wanted = ", ".join(map(str, expected)) or "none"
        raise InvalidInputError(
            f"{method} takes {len(expected)} inputs ({wanted}), {len(values)} were given; repeat --input once for each"
        )
    return [fit_input(value, tensor) for value, tensor in zip(values, expected, strict=True)]


def read_input(text: str) -> Any:
    """A number for a literal, else the array of a .npy file. Raises InvalidInputError when it is neither."""
    import numpy as np

    if text.lower() in LITERALS:
        return LITERALS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    try:
        return np.load(Path(text), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidInputError(f"{text} is not a readable .npy file; save one with numpy.save") from error


def fit_input(value: Any, expected: TensorMetadata) -> Any:
    """A number as the one-element tensor that the method expects; anything else as it is."""
    import numpy as np

    if isinstance(value, np.ndarray) or not expected.is_tensor or not set(expected.max_dims) <= {1}:
        return value
    try:
        return np.full(expected.max_dims, value, np.dtype(expected.dtype))
    except (OverflowError, ValueError) as error:
        raise InvalidInputError(f"{value} does not fit {expected.dtype}; give another number") from error


def _print_outputs(outputs: Sequence[Any]) -> None:
    import numpy as np

    from .tables import console, table

    made = table(("Output>", "Type", "Shape", "Min>", "Max>", "Mean>", "Not finite>"))
    for index, output in enumerate(outputs):
        array = np.asarray(output)
        finite = array[np.isfinite(array)]
        stats = [f"{reduce(finite):.6g}" for reduce in (np.min, np.max, np.mean)] if finite.size else [""] * 3
        made.add_row(str(index), array.dtype.name, str(list(array.shape)), *stats, str(array.size - finite.size))
    console().print(made)


def _save_outputs(outputs: Sequence[Any], folder: Path) -> None:
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for index, output in enumerate(outputs):
        np.save(folder / f"output_{index}.npy", np.asarray(output))

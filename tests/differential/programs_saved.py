"""Programs kept as files: ``NAME.pte``, its data files ``NAME_*.ptd``, and ``NAME.npz`` with inputs and answers.

The archive holds ``steps``; for step s ``method{s}`` (where it is not "forward"), ``in{s}_{i}`` (a plain number where
``plain{s}_{i}`` exists) and ``out{s}_{i}``; ``atol`` and ``rtol``. Ours also have ``rules``, the tolerances by dtype,
``bfloat16in{s}_{i}`` and ``bfloat16out{s}_{i}`` where float32 stands for bfloat16, ``outcome`` and ``message`` when
it was saved, and the model's ``source``. NumPy and our package only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from executorch_webgpu import Error, Runtime

from .programs_compare import BFLOAT16, RULES, Tolerance, Tolerances, difference, dtype_name


@dataclass(frozen=True)
class Step:
    method: str
    inputs: list[Any]
    outputs: list[Any]


@dataclass(frozen=True)
class Saved:
    """A saved program. ``outcome``: "right", "refused" or "wrong" when it was saved; empty if unknown."""

    path: Path
    steps: list[Step]
    tolerances: Tolerances
    outcome: str
    source: str

    @property
    def data_files(self) -> list[Path]:
        """The data files that lie beside it."""
        return sorted(self.path.parent.glob(f"{self.path.stem}_*.ptd"))


def save_steps(path: Path, steps: Sequence[Step], rules: str, outcome: str, message: str, source: str) -> None:
    """Write the archive of a program, ``path`` with the ending ``.npz``."""
    fields: dict[str, Any] = {"steps": len(steps), "rules": rules, "outcome": outcome, "message": message}
    fields |= {"source": source, "atol": RULES[rules]["float32"].absolute, "rtol": RULES[rules]["float32"].relative}
    for s, step in enumerate(steps):
        fields[f"method{s}"] = step.method
        for kind, values in (("in", step.inputs), ("out", step.outputs)):
            for i, value in enumerate(values):
                fields[f"{kind}{s}_{i}"] = np.asarray(value, getattr(value, "dtype", None) and value.dtype.name)
                if not isinstance(value, np.ndarray):
                    fields[f"plain{'' if kind == 'in' else kind}{s}_{i}"] = 1
                elif dtype_name(value) == "bfloat16":
                    fields[f"bfloat16{kind}{s}_{i}"] = 1
    np.savez_compressed(path.with_suffix(".npz"), **fields)


def read_saved(path: Path) -> Saved:
    """The saved program of a ``.pte`` file."""
    with np.load(path.with_suffix(".npz")) as archive:
        fields = {name: archive[name] for name in archive.files}
    steps = [
        Step(str(fields.get(f"method{s}", "forward")), _values(fields, "in", s), _values(fields, "out", s))
        for s in range(int(fields["steps"]))
    ]
    if "rules" in fields:
        tolerances = RULES[str(fields["rules"])]
    else:
        given = Tolerance(float(fields["atol"]), float(fields["rtol"]))
        tolerances = dict.fromkeys(RULES["host"], given)
    return Saved(path, steps, tolerances, str(fields.get("outcome", "")), str(fields.get("source", "")))


def _values(fields: dict[str, np.ndarray], kind: str, step: int) -> list[Any]:
    values: list[Any] = []
    while (name := f"{kind}{step}_{len(values)}") in fields:
        value: Any = fields[name]
        marker = "plain" if kind == "in" else "plainout"
        if f"{marker}{step}_{len(values)}" in fields:
            value = value.item()
        elif f"bfloat16{name}" in fields:
            value = value.astype(BFLOAT16)
        values.append(value)
    return values


def replay(saved: Saved, engine: str | None = None) -> tuple[str, str]:
    """Run a saved program: ("right", ""), ("refused", message) or ("wrong", what differs)."""
    options: dict[str, Any] = {"data_files": saved.data_files} if saved.data_files else {}
    try:
        with Runtime.get(engine).load_program(saved.path, **options) as program:
            methods = {name: program.load_method(name) for name in dict.fromkeys(s.method for s in saved.steps)}
            for number, step in enumerate(saved.steps):
                answers = methods[step.method].execute([_given(value) for value in step.inputs])
                got = [_kept(value) for value in answers]
                if problem := difference(got, step.outputs, saved.tolerances):
                    return "wrong", f"step {number}, {problem}"
    except Error as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:  # any other exception is a fault
        return "wrong", f"{type(error).__name__}: {error}"
    return "right", ""


def _given(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return value.astype(ml_dtypes.bfloat16) if dtype_name(value) == "bfloat16" else value.copy()


def _kept(value: Any) -> Any:
    is_bfloat16 = isinstance(value, np.ndarray) and value.dtype == ml_dtypes.bfloat16
    return value.astype(np.float32).astype(BFLOAT16) if is_bfloat16 else value

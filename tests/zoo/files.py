"""Where the zoo's programs are kept, and how one is judged. No torch: tests with a warm cache need none.

A program is kept as ``tests.differential.programs_saved`` has it: ``NAME-VARIANT-KEY.pte``, its data files, and an
archive with the inputs of some calls and torch's answers. The key covers all that decides what they hold: versions of
the exporter and the models' libraries, and the source of the model.
"""

from __future__ import annotations

import functools
import hashlib
import re
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from executorch_webgpu import Error, Runtime
from executorch_webgpu.models.cache import cache_folder
from tests.differential.programs_compare import Tolerance, Tolerances, difference
from tests.differential.programs_saved import read_saved

# Delegated as far as the partitioner can; with operators in the middle left to the host; not at all; in float16.
VARIANTS = ("vulkan", "partial", "portable", "half")
_PACKAGES = ("torch", "torchao", "executorch", "transformers")
_FOLDER = Path(__file__).parent
_IMPORT = re.compile(r"^from \.(\w+) import", re.MULTILINE)


def program_path(name: str, variant: str, full: bool = False) -> Path:
    """Where a model's program lies when it has been exported."""
    return cache_folder() / "zoo" / f"{name}-{'full' if full else 'thin'}-{variant}-{_key(name)}.pte"


@functools.cache
def _key(name: str) -> str:
    deciding = [f"{package}=={version(package)}" for package in _PACKAGES]
    deciding += [path.read_text() for path in _sources(name)]
    return hashlib.sha256("\n".join(deciding).encode()).hexdigest()[:12]


def _sources(name: str) -> list[Path]:
    """The file of this folder that defines a model, with all that it imports from here, and the exporting one."""
    defines = re.compile(rf'\b(?:zoo|small)\(\s*"{re.escape(name)}"')
    pending = [path for path in _FOLDER.glob("*.py") if defines.search(path.read_text())]
    assert len(pending) == 1, f"{name} is defined in {len(pending)} files"
    pending.append(_FOLDER / "export.py")
    found: set[Path] = set()
    while pending:
        path = pending.pop()
        if path not in found and path.name != "files.py":
            found.add(path)
            pending += [_FOLDER / f"{module}.py" for module in _IMPORT.findall(path.read_text())]
    return sorted(found)


@dataclass(frozen=True)
class Judged:
    """``kind``: right, refused (by one of our errors) or wrong; ``detail`` says how.

    ``error``: the largest absolute difference of a float from torch's, over all calls. ``load_s`` and ``run_s``:
    seconds for loading the program and for all of its calls.
    """

    kind: str
    detail: str = ""
    error: float = 0.0
    load_s: float = 0.0
    run_s: float = 0.0


def judged(path: Path, **runtime: Any) -> Judged:
    """Run a program's calls one after the other on one loaded method, and hold the answers against torch's.

    A float is right if its error is at most 1e-3 of what is right, or at most 1e-4 of the largest number of its output
    where that is below one, so that outputs of small numbers are held as tightly.

    ``runtime`` are options of ``Runtime.get``.
    """
    saved = read_saved(path)
    options: dict[str, Any] = {"data_files": saved.data_files} if saved.data_files else {}
    largest, load_s, began = 0.0, 0.0, time.perf_counter()
    try:
        with Runtime.get(**runtime).load_program(path, **options) as program:
            methods = {name: program.load_method(name) for name in dict.fromkeys(step.method for step in saved.steps)}
            load_s, began = time.perf_counter() - began, time.perf_counter()
            for number, step in enumerate(saved.steps):
                given = [value.copy() if isinstance(value, np.ndarray) else value for value in step.inputs]
                got = list(methods[step.method].execute(given))
                largest = max(largest, _largest(got, step.outputs))
                if problem := _problem(got, step.outputs, saved.tolerances):
                    return Judged("wrong", f"call {number}, {problem}", largest, load_s, time.perf_counter() - began)
    except Error as error:
        return Judged("refused", f"{type(error).__name__}: {error}", largest)
    return Judged("right", "", largest, load_s, time.perf_counter() - began)


def operators(path: Path) -> tuple[list[str], dict[str, int]]:
    """Names of the operators of a program that are not supported, and how many calls run where."""
    saved = read_saved(path)
    options: dict[str, Any] = {"data_files": saved.data_files} if saved.data_files else {}
    with Runtime().load_program(path, **options) as program:
        calls = [o for method in program.inspect().methods for o in method.operators]
    places: Counter[str] = Counter()
    for call in calls:
        places[call.where] += call.count
    return sorted({call.name for call in calls if not call.supported}), dict(sorted(places.items()))


def _problem(got: list[Any], wanted: list[Any], tolerances: Tolerances) -> str | None:
    if len(got) != len(wanted):
        return f"{len(got)} outputs, not {len(wanted)}"
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        scale = _scale(b)
        scaled = {name: Tolerance(scale * t.absolute, t.relative) for name, t in tolerances.items()}
        if problem := difference([a], [b], scaled):
            return problem.replace("output 0", f"output {number}")
    return None


def _scale(wanted: Any) -> float:
    if not isinstance(wanted, np.ndarray) or wanted.dtype.kind != "f":
        return 1.0
    finite = np.abs(wanted[np.isfinite(wanted)])
    return min(1.0, float(finite.max(initial=0.0)))


def _largest(got: list[Any], wanted: list[Any]) -> float:
    largest = 0.0
    for a, b in zip(got, wanted, strict=False):
        if isinstance(b, np.ndarray) and b.dtype.kind == "f" and b.size and np.shape(a) == b.shape:
            with np.errstate(invalid="ignore"):
                apart = np.abs(np.asarray(a, np.float64) - b.astype(np.float64))
            largest = max(largest, float(np.max(np.nan_to_num(apart, nan=0.0))))
    return largest

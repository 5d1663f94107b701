"""A method held against the references of its operators: where the device computes something else, and why.

Graphs keep 64-bit integers and floats in 32 bits. The references compute in 64, from the same inputs, so a number
that 32 bits cannot hold is noticed where it comes up, and other differences are measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph.build import OpCall
from ..graph.reference import ReferenceExecutor
from .method import Method
from .method_file import MethodFile


@dataclass(frozen=True)
class Overflow:
    """Results of one operator call that do not fit the 32 bits of the device; what it computed from them is wrong.

    ``low`` and ``high``: the smallest and the largest result over all steps, as they should be.
    """

    graph: int
    call: int
    operator: str
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The largest difference of one output of a graph from its reference, and the largest element of that."""

    graph: int
    output: int
    error: float
    largest: float


@dataclass(frozen=True)
class CheckReport:
    """What ``Program.check`` found in ``steps`` calls."""

    steps: int
    overflows: tuple[Overflow, ...]
    differences: tuple[Difference, ...]


def check_method(file: MethodFile, method: Method, steps: Iterable[Sequence[Any]]) -> CheckReport:
    """Run ``method``, newly loaded, on the inputs of each step, and the references of its graphs beside it."""
    overflows: dict[tuple[int, int], Overflow] = {}
    differences: dict[tuple[int, int], Difference] = {}

    def notice(number: int, call: OpCall, array: np.ndarray) -> None:
        key = (number, call.index)
        low, high = array.min().item(), array.max().item()
        if (before := overflows.get(key)) is not None:
            low, high = min(low, before.low), max(high, before.high)
        overflows[key] = Overflow(*key, call.name, low, high)

    references = [
        ReferenceExecutor(graph, lambda call, array, number=i: notice(number, call, array))  # type: ignore[misc]
        for i, graph in enumerate(file.graphs())
    ]

    def watch(number: int, inputs: Sequence[np.ndarray | int], outputs: Sequence[np.ndarray | int]) -> None:
        with np.errstate(all="ignore"):
            wanted = references[number].execute(inputs)
            for i, (got, right) in enumerate(zip(outputs, wanted, strict=True)):
                found = _difference(number, i, np.asarray(got, np.float64), np.asarray(right, np.float64))
                before = differences.get((number, i))
                differences[number, i] = found if before is None or found.error > before.error else before

    method._watch = watch
    count = 0
    try:
        for inputs in steps:
            method.execute(inputs)
            count += 1
    finally:
        method._watch = None
    return CheckReport(count, tuple(overflows.values()), tuple(differences.values()))


def _difference(graph: int, output: int, got: np.ndarray, wanted: np.ndarray) -> Difference:
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    errors = np.where(same, 0, np.abs(got - wanted))
    finite = np.abs(wanted[np.isfinite(wanted)])
    return Difference(
        graph, output, float(np.nan_to_num(errors, nan=np.inf).max(initial=0)), float(finite.max(initial=0))
    )

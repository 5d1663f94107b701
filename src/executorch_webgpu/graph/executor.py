"""What runs a graph, on a device or on the host: all that a method asks of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .build import Graph
from .resize import LivePlans
from .timing import CallTime


class GraphMemory(Protocol):
    """The memory that a graph writes and keeps, of one sequence of steps; by root tensor id, in device elements."""

    def read(self, rows: int) -> dict[int, np.ndarray]:
        """The contents; of KV caches the first ``rows`` rows."""

    def layout(self, rows: int) -> dict[int, tuple[tuple[int, ...], np.dtype]]:
        """Dims and dtype of what ``read`` gives and ``write`` takes."""

    def write(self, contents: Mapping[int, np.ndarray]) -> None:
        """Take contents that ``read`` gave; other rows of KV caches get their first contents."""

    def reset(self) -> None:
        """Put all memory back to its first contents."""

    def clear_rows(self, first: int) -> None:
        """Put the rows of all KV caches from ``first`` on back to their first contents."""

    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""


class Executor(Protocol):
    """A loaded graph: ``GraphExecutor`` on a device, ``HostExecutor`` without one.

    ``execute`` takes an array or an int for each graph input, and returns arrays at live dims, and ints, for each
    output. It raises InvalidInputError before anything has run.
    """

    graph: Graph
    plans: LivePlans

    @property
    def state(self) -> Any:
        """The ``GraphMemory`` that steps use by default."""

    @property
    def profiling(self) -> bool:
        """Whether every step is timed, and waited for."""

    @property
    def times(self) -> dict[tuple[str, str | None], CallTime]:
        """What calls have taken, by operator and route; empty unless profiling."""

    @property
    def keeps_only_caches(self) -> bool:
        """Whether all memory that lasts is KV caches, written by rows."""

    @property
    def cache_ends(self) -> set[int]:
        """Rows of its KV caches up to where the last step wrote: one number, if it wrote them all alike."""

    def new_state(self) -> Any:
        """Another ``GraphMemory``, with its first contents."""

    def execute(self, inputs: Sequence[Any], state: Any = None, stay: Collection[int] = ()) -> list[Any]:
        """Run one step on a ``GraphMemory`` of this graph, by default ``state``.

        ``stay``: positions of the outputs that stay on the device, if there is one.
        """

    def close(self) -> None:
        """Free all memory, that of states included. Closing twice is allowed."""

"""States of a method: what it remembers from call to call, such as KV caches; kept apart, rewound, saved and loaded.

A saved state is an uncompressed ``.npz`` file. It holds contents only, so that it does not matter on which engine and
adapter it was made: ``about`` (a string of JSON: format, method, fingerprint of the program, dtype of the KV caches,
tokens), the GPU's
buffers as ``graph0.tensor7`` (of KV caches and their scales the rows that were written), memory of the host as
``host0``, and buffers that methods share as ``buffer.NAME``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from ..closing import Closing
from ..errors import ClosedError, InvalidInputError, UnsupportedProgramError
from ..gpu.locked import locked
from ..graph.executor import Executor, GraphMemory
from ..graph.lowering.instructions import Cell
from ..portable.shared_buffers import SharedBuffers
from .host_state import HostState
from .state_file import FORMAT, TOKENS, About, Progress, checked_about, damaged, read_arrays, write_arrays


@dataclass(frozen=True)
class StateSource:
    """What all states of one loaded method have in common; not for users."""

    method: str
    executors: Sequence[Executor]
    host: HostState
    kv_cache_dtype: str  # as ``Program.load_method`` was asked for it
    fingerprint: Callable[[], str]  # of the program
    initial_shared: Mapping[str, np.ndarray]  # the bytes with which the buffers of all methods begin
    lock: RLock  # the method's


class State(Closing):
    """Everything that one sequence of calls of a method leaves: KV caches, and any other mutable memory.

    ``Method.new_state`` makes one; it costs the bytes of the mutable memory only, since weights, pipelines and plans
    are the method's. A context manager that frees them.
    Threads may share it, though not to good purpose: calls run one after another, in the order in which they come.

    Buffers that several methods of the program know are one in all states that share them: in the methods' own states,
    and in those that ``new_state`` was asked to make with the buffers of another.
    """

    def __init__(self, source: StateSource, graphs: Sequence[GraphMemory], buffers: SharedBuffers) -> None:
        self._source = source
        self._lock = source.lock
        self._graphs = graphs  # new ones, one for each executor
        self._host: dict[Cell, Any] = dict(source.host.initial)
        self._buffers = buffers  # which other states may hold too
        self._progress = Progress()
        self._written: set[int] = set()  # the ends of the writes of the step that runs
        self._closed = False

    @property
    def length(self) -> int:
        """Tokens that it holds: the row of the KV caches after the last one that the last step wrote; 0 when new.

        Always 0 when the program has no KV caches, however much other state it has.
        """
        self._check_open()
        return self._progress.length

    @property
    def can_rewind(self) -> bool:
        """Whether it keeps KV caches only, all with as many rows."""
        only_caches = all(executor.keeps_only_caches for executor in self._source.executors)
        return only_caches and not self._host and not self._source.host.shared and self._progress.even

    @locked
    def rewind(self, length: int) -> None:
        """Keep the first ``length`` tokens and forget the rest: its rows are as if they had never been written.

        Raises InvalidInputError when there are fewer tokens, UnsupportedProgramError when the program keeps anything
        but KV caches, or does not write them all at the same rows, since that cannot be taken back.
        """
        self._check_open()
        if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 0:
            raise InvalidInputError(f"a state is rewound to a number of tokens, not to {length!r}")
        if not self.can_rewind:
            raise UnsupportedProgramError(
                f"method {self._source.method!r} keeps more than KV caches with one length, so its state cannot be "
                "rewound; reset it, or load a saved state"
            )
        if length > self._progress.length:
            raise InvalidInputError(f"the state holds {self._progress.length} tokens, so it cannot keep {length}")
        self._clear_rows(int(length))
        self._progress = Progress(int(length), int(length))

    @locked
    def reset(self) -> None:
        """Put everything back to what the program states, the buffers that it shares with other states included."""
        self._check_open()
        for graph in self._graphs:
            graph.reset()
        self._host = dict(self._source.host.initial)
        self._buffers.take(self._source.initial_shared, self._source.host.shared)
        self._progress = Progress()

    def save(self, path: str | Path) -> None:
        """Write the state to a file, which appears, or replaces an older one, when it is complete.

        Raises OSError when the file cannot be written.
        """
        self._check_open()
        path = Path(path)
        source = self._source
        fingerprint = source.fingerprint()  # may read the whole file, so not with the lock
        progress, arrays = self._contents()
        about = About(FORMAT, source.method, fingerprint, source.kv_cache_dtype, progress)
        write_arrays(path, about, arrays)

    def load(self, path: str | Path) -> None:
        """Take the contents of a file that ``save`` wrote, for the same method of the same program.

        Raises InvalidInputError, and changes nothing, when the file cannot be read, is damaged, or was saved for
        another method, program or dtype of the KV caches.
        """
        self._check_open()
        arrays, source = read_arrays(Path(path)), self._source
        like = About(FORMAT, source.method, source.fingerprint(), source.kv_cache_dtype, Progress())
        about = checked_about(arrays, path, like)
        arrays.pop(TOKENS, None)
        self._take(arrays, about.progress, path)

    @locked
    def _contents(self) -> tuple[Progress, dict[str, np.ndarray]]:
        """What ``save`` writes."""
        self._check_open()
        arrays = {
            f"graph{i}.tensor{id}": array
            for i, graph in enumerate(self._graphs)
            for id, array in graph.read(self._progress.extent).items()
        }
        arrays |= self._host_arrays()
        return self._progress, arrays

    @locked
    def _take(self, arrays: Mapping[str, np.ndarray], progress: Progress, path: str | Path) -> None:
        """Hold what ``_contents`` gave, as it was read from ``path``."""
        self._check_open()
        self._check_contents(arrays, progress.extent, path)
        for i, graph in enumerate(self._graphs):
            graph.write({id: arrays[f"graph{i}.tensor{id}"] for id in graph.layout(0)})
        self._host = {cell: arrays[f"host{i}"] for i, cell in enumerate(self._host)}
        shared = self._source.host.shared
        self._buffers.take({name: arrays[f"buffer.{name}"] for name in shared}, shared)
        self._progress = progress

    @locked
    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""
        self._closed = True
        for graph in self._graphs:
            graph.close()
        self._host = {}

    def graph_of(self, executor: Executor) -> Any:
        """What one graph of the method keeps here. Raises ClosedError, and InvalidInputError if it is another's."""
        self._check_open()
        if executor not in self._source.executors:
            raise _of_another_method()
        return self._graphs[self._source.executors.index(executor)]

    # -- one step, for Method -----------------------------------------------------------------------------------------

    def _begin(self, source: StateSource) -> dict[Cell, Any]:
        """Check that a method may run on this state. Returns the cells that a call begins with."""
        self._check_open()
        if self._source is not source:
            raise _of_another_method()
        self._written = set()
        return source.host.begin(self._host, self._buffers.contents)

    def _execute(self, graph: int, inputs: Sequence[Any], stay: frozenset[int]) -> list[Any]:
        executor = self._source.executors[graph]
        results = executor.execute(inputs, self._graphs[graph], stay)
        self._written |= executor.cache_ends
        return results

    def _commit(self, cells: Mapping[Cell, Any]) -> None:
        """The step has succeeded, and leaves these cells."""
        self._host, shared = self._source.host.end(cells)
        self._buffers.take(shared, shared)
        self._progress = self._progress.after(self._written)

    def _take_back(self) -> None:
        """The step was refused after some graph had run: forget the rows that it has appended."""
        before, after = self._progress, self._progress.after(self._written)
        if after.extent > before.extent:
            self._clear_rows(before.extent)

    # -- steps that run ahead, for DecodeLoop -------------------------------------------------------------------------

    def ran_ahead(self, ends: set[int]) -> None:
        """A step was submitted that writes caches up to these rows, which do not count yet."""
        self._progress = self._progress.after(ends).kept(self._progress.length)

    def keep(self, length: int) -> None:
        """The first ``length`` rows count, if there are rows."""
        self._progress = self._progress.kept(min(length, self._progress.extent))

    def drop_ahead(self) -> None:
        """Rows that do not count are as if they had never been written."""
        length = self._progress.length
        self._clear_rows(length)
        self._progress = replace(self._progress, extent=length)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _clear_rows(self, first: int) -> None:
        for graph in self._graphs:
            graph.clear_rows(first)

    def _host_arrays(self) -> dict[str, np.ndarray]:
        """What is not in graphs, by the names of saved states."""
        host = self._source.host
        arrays = {f"host{i}": host.on_host(cell, held) for i, (cell, held) in enumerate(self._host.items())}
        return arrays | {f"buffer.{name}": self._buffers.contents[name] for name in host.shared}

    def _check_contents(self, arrays: Mapping[str, np.ndarray], rows: int, path: str | Path) -> None:
        wanted = {
            f"graph{i}.tensor{id}": described
            for i, graph in enumerate(self._graphs)
            for id, described in graph.layout(rows).items()
        }
        wanted |= {name: (array.shape, array.dtype) for name, array in self._host_arrays().items()}
        if {name: (array.shape, array.dtype) for name, array in arrays.items()} != wanted:
            raise damaged(path)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this state is closed; make a new one with the method's new_state")


def _of_another_method() -> InvalidInputError:
    return InvalidInputError("the state belongs to another loaded method; make one with this method's new_state")

"""A loaded graph without a device: steps run by references, on states like those of a device."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import numpy as np

from ..errors import ClosedError, InvalidInputError
from ..gpu.capabilities import Features, Limits
from ..gpu.trace import spanned
from ..ops.attention.reference import int8_scales
from ..ops.plan import Planning
from ..ops.values import SymInt, Tensor
from .build import Graph
from .execute import plan_graph
from .memory import plan_memory
from .reference import References, execute
from .state import Mutable, cache_writes, mutable_storages
from .timing import CallTime

_ALL_ROWS = 2**62
_NO_LIMITS = replace(
    Limits.floor(), max_buffer_bytes=2**62, max_binding_bytes=2**62, max_workgroups=2**62, max_storage_buffers=2**16
)


class ReferenceMemory:
    """What a graph writes and keeps, as its references take it: float64, integers and bools, by root tensor id."""

    def __init__(self, references: References, mutable: Sequence[Mutable]) -> None:
        self._references = references
        self._mutable = mutable
        # The scales of an int8 KV cache follow from what its codes stand for.
        self._scales = {m.tensor.scales.id: m.tensor for m in mutable if m.tensor.scales is not None}
        self.values: dict[int, np.ndarray] = {}
        self.closed = False
        self.reset()

    def reset(self) -> None:
        """Put everything back to its first contents."""
        self._check_open()
        self.values = {m.tensor.id: self._first(m) for m in self._mutable if m.tensor.id not in self._scales}

    def clear_rows(self, first: int) -> None:
        """Put the rows of all KV caches from ``first`` on back to their first contents."""
        self._check_open()
        for memory in self._mutable:
            if memory.row_bytes is not None and memory.tensor.id in self.values:
                self.values[memory.tensor.id][:, first:] = self._first(memory)[:, first:]

    def read(self, rows: int) -> dict[int, np.ndarray]:
        """The contents as a device has them; of KV caches the first ``rows`` rows."""
        return {m.tensor.id: np.ascontiguousarray(self._rows(m, self._raw(m.tensor), rows)) for m in self._mutable}

    def layout(self, rows: int) -> dict[int, tuple[tuple[int, ...], np.dtype]]:
        """Dims and dtype of what ``read`` gives and ``write`` takes."""
        return {m.tensor.id: (m.dims(rows), m.tensor.element.numpy) for m in self._mutable}

    def write(self, contents: Mapping[int, np.ndarray]) -> None:
        """Take contents that ``read`` gave; other rows of KV caches get their first contents."""
        self.reset()
        for memory in self._mutable:
            tensor = memory.tensor
            if tensor.id in self._scales:
                continue
            given = contents[tensor.id]
            if tensor.scales is not None:
                wide = given.astype(np.float64) * contents[tensor.scales.id][..., None]
            else:
                wide = self._references.wide(given, tensor)
            self._rows(memory, self.values[tensor.id], given.shape[1] if given.ndim > 1 else 0)[...] = wide

    def take(self, values: dict[int, np.ndarray]) -> None:
        """What a step has left, rounded like a device's, so that a state that was saved goes on in the same way."""
        self.values = values
        self.write(self.read(_ALL_ROWS))

    def close(self) -> None:
        """Forget everything. Closing twice is allowed."""
        self.closed = True
        self.values = {}

    def _first(self, memory: Mutable) -> np.ndarray:
        tensor = memory.tensor
        if memory.initial is None:
            return self._references.wide(np.zeros(tensor.max_dims, tensor.element.numpy), tensor)
        return self._references.wide(memory.initial, tensor).copy()

    def _raw(self, tensor: Tensor) -> np.ndarray:
        """The elements as they lie in a buffer."""
        with np.errstate(all="ignore"):
            if (cache := self._scales.get(tensor.id)) is not None:
                return int8_scales(self.values[cache.id])[..., 0].astype(np.float32)
            values = self.values[tensor.id]
            if tensor.scales is not None:
                steps = int8_scales(values)
                values = np.rint(np.divide(values, steps, out=np.zeros_like(values), where=steps > 0))
            return values.astype(tensor.element.numpy)

    @staticmethod
    def _rows(memory: Mutable, array: np.ndarray, rows: int) -> np.ndarray:
        return array if memory.row_bytes is None else array[:, :rows]

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("this state is closed; make a new one with the method's new_state")


class HostExecutor:
    """Runs one graph by its references, in the place of a ``GraphExecutor``; needs no adapter.

    Calls are planned as for a device of any size, so a step refuses what a device would. Integers have 64 bits.
    A step that is refused, be it half-way, changes nothing.
    """

    def __init__(self, graph: Graph, unseen: Collection[int] = ()) -> None:
        self.graph = graph
        self.plans = plan_graph(graph, Planning(Features.none(), _NO_LIMITS), unseen)
        self._references = References(graph, lambda call, array: None)
        writes = cache_writes(graph)
        memory = plan_memory(graph, self.plans.plans)
        mutable = mutable_storages(graph, memory, writes)
        self._mutable = tuple(mutable.values())
        self._writes = [w for w in writes if memory.storage_of[w.cache.id] in mutable]
        kept = {m.tensor.id for m in self._mutable}
        read = {t.id: t for call in graph.calls for t in call.inputs if t.constant is not None and t.id not in kept}
        self._constants = {
            id: self._references.wide(graph.constants[id].array(tensor), tensor) for id, tensor in read.items()
        }
        self._states: WeakSet[ReferenceMemory] = WeakSet()
        self._closed = False
        self.state = self.new_state()

    @property
    def profiling(self) -> bool:
        return False

    @property
    def times(self) -> dict[tuple[str, str | None], CallTime]:
        return {}

    @property
    def keeps_only_caches(self) -> bool:
        """Whether all memory that lasts is KV caches, written by rows."""
        return all(memory.row_bytes is not None for memory in self._mutable)

    @property
    def cache_ends(self) -> set[int]:
        """Rows of its KV caches up to where the last step wrote: one number, if it wrote them all alike."""
        plans = self.plans
        return {plans.value(w.position) + plans.tensor(w.rows).dims[1] for w in self._writes}

    def new_state(self) -> ReferenceMemory:
        """Memory for another sequence of steps, with its first contents."""
        self._check_open()
        state = ReferenceMemory(self._references, self._mutable)
        self._states.add(state)
        return state

    @spanned("reference graph")
    def execute(
        self, inputs: Sequence[Any], state: ReferenceMemory | None = None, stay: Collection[int] = ()
    ) -> list[Any]:
        """Run one step; see ``Executor``. Results are float64, integers of 64 bits, bools and ints.

        Raises InvalidInputError, also where a reference refuses a value that no plan has seen.
        """
        self._check_open()
        state = self.state if state is None else state
        for value, given in zip(self.graph.inputs, inputs, strict=True):
            self._take(value, given)
        self.plans.update()
        kept = {id: array.copy() for id, array in state.values.items()}
        with np.errstate(all="ignore"):
            results = execute(self.graph, self._references, {**self._constants, **kept}, inputs)
        state.take(kept)
        return results

    def close(self) -> None:
        """Forget everything, states included. Closing twice is allowed."""
        self._closed = True
        for state in list(self._states):
            state.close()
        self._constants = {}

    def _take(self, value: Tensor | SymInt, given: Any) -> None:
        if isinstance(value, SymInt):
            self.plans.set_symint(value, int(given))
            return
        fits = len(given.shape) == value.rank and all(d <= m for d, m in zip(given.shape, value.max_dims, strict=True))
        if not fits:
            raise InvalidInputError(
                f"an input has shape {list(given.shape)}, but the program takes at most {list(value.max_dims)}"
            )
        self.plans.set_dims(value, given.shape)
        if value.id in self.plans.host_inputs:
            self.plans.set_host(value, given)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this method is closed; load it again")

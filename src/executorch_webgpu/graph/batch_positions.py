"""What a graph of one sequence computes from the position alone: masks, angles, places in caches.

It is computed here, on the host and in float64, for whatever position is asked for. So nothing needs to know how a
program writes down a mask or a table of angles, only what comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..ops.values import SymInt, Tensor
from .build import Graph, GraphValue, OpCall
from .fusion.dataflow import Dataflow
from .reference import REFUSALS, References

_MOST_RUNS = 4096  # calls of the graph that a table may take
_MOST_BYTES = 1 << 28  # of a table
_SAMPLES = 4  # ways to split a text that must agree with its table


class Positions:
    """Values that follow from ``input_pos`` and the number of tokens, as calls make them, in their order."""

    def __init__(self, graph: Graph, tokens: Tensor, input_pos: Tensor, context_len: int) -> None:
        self._references, self._flow = References(graph), Dataflow(graph)
        self._graph, self._tokens, self._input_pos = graph, tokens, input_pos
        self._context_len = context_len
        self._calls: list[OpCall] = []
        self._makers: dict[int, OpCall] = {}
        self._known: set[int] = {input_pos.id}
        self._fixed: set[int] = set()  # what no position changes
        self.counts: set[int] = set()  # live integers that are the number of tokens
        self._tables: dict[int, np.ndarray | None] = {}
        self._constants: dict[int, np.ndarray] = {}

    @property
    def most(self) -> int:
        """Tokens of one call."""
        return self._tokens.max_dims[1]

    def take(self, call: OpCall) -> bool:
        """Whether the results of a call follow from the position, which is noted. Constants do, too."""
        reads = {value.id: value for value in (*call.reads, *call.inputs)}.values()
        if call.mutated or not all(self.is_known(v) or v.id in self._fixed or self._is_constant(v) for v in reads):
            return False
        self._calls.append(call)
        self._makers.update((value.id, call) for value in call.writes)
        known = any(self.is_known(value) for value in reads)
        (self._known if known else self._fixed).update(value.id for value in call.writes)
        return known

    def maker(self, value: GraphValue) -> OpCall | None:
        """The call that made a known value, or a constant one that is none of the program."""
        return self._makers.get(value.id)

    def is_known(self, value: GraphValue) -> bool:
        """Whether a value follows from the position or the number of tokens, and is no constant."""
        return value.id in self._known or value.id in self.counts

    def is_made(self, value: GraphValue) -> bool:
        """Whether ``evaluate`` can tell a value."""
        return self.is_known(value) or value.id in self._makers

    def evaluate(self, wanted: Iterable[int], start: int, count: int) -> dict[int, Any]:
        """Values by id, for ``count`` tokens from position ``start`` on, with all that they were made of."""
        rows = np.arange(start, start + count) if self._input_pos.max_dims == (self.most,) else np.array([start])
        values: dict[int, Any] = {self._input_pos.id: rows.astype(np.int32), **dict.fromkeys(self.counts, count)}
        needed, calls = set(wanted), []
        for call in reversed(self._calls):
            if any(value.id in needed for value in call.writes):
                needed.update(value.id for value in (*call.reads, *call.inputs))
                calls.append(call)
        self.run(calls[::-1], values)
        return values

    def run(self, calls: Sequence[OpCall], values: dict[int, Any]) -> None:
        """The results of ``calls`` are put among the ``values`` that they read. Constants need not be there."""
        for call in calls:
            for tensor in call.inputs:
                if tensor.id not in values and self._is_constant(tensor):
                    values[tensor.id] = self._constant(tensor)
            for value, result in zip(call.writes, self._references.results(call, values), strict=True):
                values[value.id] = result

    def number(self, symint: SymInt) -> str | None:
        """What a live integer is: "start", "end" (the position after the last token), "count", or something else."""
        found: set[str] | None = None
        for start, count in self._samples():
            value = self.evaluate([symint.id], start, count)[symint.id]
            roles = {"start": start, "end": start + count, "count": count}
            fitting = {role for role, wanted in roles.items() if value == wanted}
            found = fitting if found is None else found & fitting
        return next(iter(found)) if found and len(found) == 1 else None

    def axis(self, tensor: Tensor) -> int | None:
        """Along which dimension of a known tensor the tokens lie; of programs of one token the last that may be it."""
        if self.most == 1:
            ones = [axis for axis, n in enumerate(tensor.max_dims) if n == 1]
            return ones[-1] if ones and tensor.max_dims[-1] != 1 else 0 if tensor.max_dims == (1,) else None
        few, more = (self.evaluate([tensor.id], 0, n)[tensor.id].shape for n in (1, 2))
        changed = [axis for axis, (a, b) in enumerate(zip(few, more, strict=True)) if a != b]
        return changed[0] if len(changed) == 1 else None

    def table(self, tensor: Tensor, axis: int) -> np.ndarray | None:
        """A known tensor's rows at all positions [context_len, …], if a row depends on its own position only.

        None where it does not, or where that would take too long to find out.
        """
        if tensor.id not in self._tables:
            try:
                self._tables[tensor.id] = self._table(tensor, axis)
            except (InvalidInputError, *REFUSALS):
                self._tables[tensor.id] = None
        return self._tables[tensor.id]

    def is_position(self, tensor: Tensor) -> bool:
        """Whether every row of a known tensor is its own position."""
        axis = self.axis(tensor)
        table = None if axis is None or tensor.element.integer_limits is None else self.table(tensor, axis)
        if table is None or table[0].size != 1:
            return False
        return bool(np.array_equal(table.reshape(-1), np.arange(self._context_len)))

    def gives_last(self, call: OpCall, x: Tensor, axis: int) -> bool:
        """Whether the result of a call is the last slice of ``x`` along ``axis``, however many tokens there are."""
        random = np.random.default_rng(0)
        read = {v.id: v for v in (*call.reads, *call.inputs)}.values()
        try:
            for start, count in self._samples():
                rows = random.standard_normal((*x.max_dims[:axis], count, *x.max_dims[axis + 1 :]))
                values = {**self.evaluate([v.id for v in read if self.is_made(v)], start, count), x.id: rows}
                self.run([call], values)
                result = values[call.writes[0].id]
                if not np.array_equal(np.ravel(result), np.ravel(np.take(rows, -1, axis))):
                    return False
        except (InvalidInputError, KeyError, *REFUSALS):
            return False
        return True

    def _table(self, tensor: Tensor, axis: int) -> np.ndarray | None:
        length, most = self._context_len, min(self.most, self._context_len)
        row_bytes = tensor.max_nbytes // max(self.most, 1)
        if -(-length // most) > _MOST_RUNS or length * row_bytes > _MOST_BYTES:
            return None

        def rows(start: int, count: int) -> np.ndarray:
            return np.moveaxis(self.evaluate([tensor.id], start, count)[tensor.id], axis, 0)

        chunks = [(start, min(most, length - start)) for start in range(0, length, most)]
        table = np.concatenate([rows(*chunk) for chunk in chunks])
        agree = all(np.array_equal(rows(s, n), table[s : s + n], equal_nan=True) for s, n in self._samples())
        return table if agree and len(table) == length else None

    def _samples(self) -> list[tuple[int, int]]:
        """Starts and numbers of tokens, of which no role of a number is alike in all."""
        most = min(self.most, self._context_len)
        random = np.random.default_rng(0)
        counts = [1, most, *random.integers(1, most + 1, _SAMPLES)]
        last = [self._context_len - n for n in counts]
        starts = [last[0], 0, *(int(random.integers(0, n + 1)) for n in last[2:])]
        return [(int(start), int(count)) for start, count in zip(starts, counts, strict=True)]

    def _is_constant(self, value: GraphValue) -> bool:
        return isinstance(value, Tensor) and self._flow.is_constant(value)

    def _constant(self, tensor: Tensor) -> np.ndarray:
        root = self._flow.root(tensor)
        if root.id not in self._constants:
            array = self._graph.constants[root.id].array(root)
            self._constants[root.id] = self._references.wide(array, root)
        return self._constants[root.id]


def reached(calls: Iterable[OpCall], out: Tensor, among: Collection[int], given: Collection[int]) -> list[OpCall]:
    """The calls that make ``out`` of anything ``among``, in order; not those that make what is ``given``."""
    needed, found = {out.id}, []
    for call in reversed(list(calls)):
        if any(value.id in needed for value in call.writes) and any(t.id in among for t in call.inputs):
            needed.update(t.id for t in call.inputs if t.id not in given)
            found.append(call)
    return found[::-1]


def without_unread_state(graph: Graph) -> Mapping[int, OpCall]:
    """Calls that do nothing but overwrite memory which nothing reads, by index."""
    read = {t.id for call in graph.calls for t in call.inputs} - {
        t.id for call in graph.calls for t in call.mutated if t not in call.reads
    }
    return {c.index: c for c in graph.calls if c.mutated and not any(t.id in read for t in c.mutated)}

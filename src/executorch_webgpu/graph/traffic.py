"""What one decode step must read from memory, whatever kernels do it: the bytes of a roofline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..ops.values import Tensor
from .build import PREPACK, ConstantKey, Graph, OpCall
from .state import cache_writes


@dataclass(frozen=True)
class StepBytes:
    """Bytes that one new token takes: ``weights`` once, and ``cache_row`` for each row of the KV caches that it sees.

    Activations, and the row that it writes, are left out: they are some thousand bytes.
    """

    weights: int
    cache_row: int

    def at(self, rows: float) -> float:
        """Bytes of a step that sees ``rows`` rows, on average if it stands for several."""
        return self.weights + rows * self.cache_row


def step_bytes(graphs: Sequence[Graph]) -> StepBytes:
    """The traffic of a method's delegates together.

    A constant that a call reads as a whole counts once, however many calls read it; of a table that is read by rows
    one row counts, unless it is read as a whole somewhere else, as an embedding is that is the head too.
    """
    whole: dict[ConstantKey, int] = {}
    rows: dict[ConstantKey, int] = {}
    cache_row = 0
    for graph in graphs:
        packed = graph.prepacked
        written = {packed.get(t.id, t).id for call in graph.calls for t in call.mutated}
        for call in graph.calls:
            tables = [table for name in call.op.reads_rows_of if (table := call.named[name]) is not None]
            table_rows = max(1, *tables[0].max_dims[:1]) if tables else 1
            for used, tensor in [] if call.name == PREPACK else _constants(call, packed, written):
                key = graph.constants[tensor.id].key
                if used in tables:
                    rows[key] = tensor.max_nbytes // table_rows
                else:
                    whole[key] = tensor.max_nbytes
        caches = {t.id: t for write in cache_writes(graph) for t in (write.cache, write.cache.scales) if t is not None}
        cache_row += sum(cache.max_nbytes // max(1, cache.max_dims[1]) for cache in caches.values())
    weights = sum(whole.values()) + sum(nbytes for key, nbytes in rows.items() if key not in whole)
    return StepBytes(weights, cache_row)


def _constants(call: OpCall, packed: dict[int, Tensor], written: set[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """What a call reads that the file holds and nothing writes: the tensor that it takes, and the constant that is."""
    for tensor in call.inputs:
        constant = packed.get(tensor.id, tensor)
        if constant.constant is not None and constant.id not in written:
            yield tensor, constant

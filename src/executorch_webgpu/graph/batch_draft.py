"""A batch while it is made: the calls so far, and what each tensor of the one-sequence graph is in it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from ..errors import UnsupportedProgramError
from ..ops.values import SymInt, Tensor
from .build import Constant, Graph, OpCall, make_call
from .casts import cast_call
from .fusion.dataflow import Dataflow, new_ids, sizes_of, substituted

GATHER, SELECT, VIEW = "aten.index_select.default", "aten.select_copy.int", "aten.view_copy.default"
PERMUTE = "aten.permute_copy.default"


@dataclass(frozen=True)
class BatchSizes:
    """The most that one step of a batch takes, and the pool.

    ``rows``: of all sequences together; ``wanted``: rows whose logits are asked for; ``sequences``: rows of the block
    tables. A sequence has up to ``context_len`` rows, in pages of ``page_rows``, a power of two; there are ``pages``
    pages. ``dtype``: of the pool, "float32", "float16" or "int8".
    """

    rows: int
    wanted: int
    sequences: int
    context_len: int
    page_rows: int
    pages: int
    dtype: str = "float32"

    @property
    def table_width(self) -> int:
        """Pages that a sequence may have."""
        return -(-self.context_len // self.page_rows)


class Rows(Enum):
    """What the rows of a tensor are."""

    ALL = "all"
    WANTED = "wanted"


@dataclass(frozen=True)
class Cut:
    """Rows lie along ``axis``."""

    rows: Rows
    axis: int


class Draft:
    """``cuts``: by id of a tensor of the graph, where it has rows; ``new``: what it is in the batch, if it differs."""

    def __init__(self, graph: Graph, tokens: Tensor, sizes: BatchSizes) -> None:
        self.graph, self.sizes, self.tokens = graph, sizes, tokens
        self.flow, self.symbols, self.ids = Dataflow(graph), sizes_of(graph), new_ids(graph)
        self.cuts: dict[int, Cut] = {}
        self.new: dict[int, Tensor] = {}
        self.calls: list[OpCall] = []
        self.constants: dict[int, Constant] = {}
        self.places = Tensor(next(self.ids), "int32", (sizes.rows, 2))
        self.tables = Tensor(next(self.ids), "int32", (sizes.sequences, sizes.table_width))
        self.wanted = Tensor(next(self.ids), "int32", (sizes.wanted,))
        self._positions: Tensor | None = None
        self._tables: dict[tuple[object, ...], Tensor] = {}

    @property
    def single(self) -> bool:
        """Whether the graph takes exactly one token, so that rows lie along a dimension of size 1."""
        return self.tokens.max_dims[1] == 1

    @property
    def positions(self) -> Tensor:
        """The position of every row, int32 [T]."""
        if self._positions is None:
            self._positions = self.add(SELECT, (self.places, 1, 0), "int32", (self.sizes.rows,))
        return self._positions

    def add(self, name: str, args: tuple[Any, ...], dtype: str, dims: Sequence[int]) -> Tensor:
        """A further call; returns its result, which the graph of one sequence does not have."""
        out = Tensor(next(self.ids), dtype, tuple(dims))
        self.calls.append(make_call(name, (*args, out)))
        return out

    def cut(self, tensor: Tensor, cut: Cut) -> Tensor:
        """A tensor of the graph has rows. Returns what it is in the batch."""
        rows = self.sizes.rows if cut.rows is Rows.ALL else self.sizes.wanted
        dims = (*tensor.max_dims[: cut.axis], rows, *tensor.max_dims[cut.axis + 1 :])
        self.cuts[tensor.id] = cut
        self.new[tensor.id] = Tensor(tensor.id, tensor.dtype, dims, tensor.constant, tensor.scales)
        return self.new[tensor.id]

    def stands_for(self, tensor: Tensor, made: Tensor, cut: Cut) -> None:
        """A tensor of the graph is what other calls have ``made``."""
        self.cuts[tensor.id], self.new[tensor.id] = cut, made

    def alias(self, tensor: Tensor, made: Tensor, axis: int) -> Tensor:
        """Another name for a tensor of the graph, with all rows along ``axis``, as ``made``."""
        other = Tensor(next(self.ids), tensor.dtype, tensor.max_dims)
        self.stands_for(other, made, Cut(Rows.ALL, axis))
        return other

    def substituted(self, call: OpCall) -> OpCall:
        return make_call(call.name, tuple(substituted(arg, self.new) for arg in call.args))

    def numbers(self, call: OpCall) -> set[int]:
        """Ids of the live integers that a call reads."""
        return {value.id for value in call.reads if isinstance(value, SymInt)}

    def float32(self, x: Tensor) -> Tensor:
        """A tensor of the batch as float32."""
        if x.dtype == "float32":
            return x
        out = Tensor(next(self.ids), "float32", x.max_dims)
        self.calls.append(cast_call(x, out))
        return out

    def by_row(self, x: Tensor, axis: int) -> Tensor:
        """A tensor of the batch with its dimension ``axis`` moved to the front."""
        if all(n == 1 for n in x.max_dims[:axis]):
            return x
        order = [axis, *(i for i in range(x.rank) if i != axis)]
        return self.add(PERMUTE, (x, order), x.dtype, [x.max_dims[i] for i in order])

    def back(self, rows: Tensor, dims: Sequence[int], axis: int) -> Tensor:
        """``rows`` [T, …], in any dims, as a tensor of ``dims`` whose rows lie along ``axis``."""
        others = [n for i, n in enumerate(dims) if i != axis]
        count = self.sizes.rows
        if math.prod(dims[:axis]) == 1:
            full = [*dims[:axis], -1, *dims[axis + 1 :]]
            return self.add(VIEW, (rows, full), rows.dtype, [count if n == -1 else n for n in full])
        flat = self.add(VIEW, (rows, [-1, *others]), rows.dtype, [count, *others])
        order = [*range(1, axis + 1), 0, *range(axis + 1, len(dims))]
        return self.add(PERMUTE, (flat, order), rows.dtype, [*dims[:axis], count, *dims[axis + 1 :]])

    def table(self, array: np.ndarray, like: Tensor) -> Tensor:
        """A constant with these elements and the dtype of ``like``; equal ones are one."""
        stored = np.ascontiguousarray(array, np.bool_ if like.dtype == "bool" else like.element.numpy)
        key = ("positions", hashlib.sha256(stored.tobytes()).digest(), stored.shape, like.dtype)
        if key not in self._tables:
            id = next(self.ids)
            self._tables[key] = Tensor(id, like.dtype, stored.shape, id)
            self.constants[id] = Constant(key, memoryview(stored.tobytes()), stored.dtype)
        return self._tables[key]

    def rows_of(self, table: Tensor) -> Tensor:
        """The rows of a constant table [rows, …] at the positions of all rows: [T, …]."""
        dims = (self.sizes.rows, *table.max_dims[1:])
        return self.add(GATHER, (table, 0, self.positions), table.dtype, dims)

    def check_length(self, tensor: Tensor, rows: int) -> None:
        if rows < (length := self.sizes.context_len):
            raise UnsupportedProgramError(f"the program's context is {length} tokens, but {tensor} has {rows} rows")


def refused(call: OpCall, why: str = "does not compute each token's row for itself") -> UnsupportedProgramError:
    return UnsupportedProgramError(
        f"the program cannot run several sequences at once: call {call.index} ({call.name}) {why}"
    )


def is_view(call: OpCall) -> bool:
    return call.op.view and "size" in call.named


def opened(call: OpCall, axes: Mapping[int, int]) -> OpCall:
    """A view or repetition of a single row, whose sizes leave open how many rows there are."""
    named = call.named
    x, out = call.args[0], call.args[-1]
    if "size" not in named or not isinstance(x, Tensor) or x.id not in axes:
        return call
    axis, sizes = axes[x.id], list(named["size"])
    if call.op.view:
        before, dims = math.prod(x.max_dims[:axis]), out.max_dims
        places = [i for i, n in enumerate(dims) if n == 1 and math.prod(dims[:i]) == before]
        if not places:
            return call
        sizes = [*dims[: places[-1]], -1, *dims[places[-1] + 1 :]]
    elif len(sizes) == out.rank and sizes[axis + out.rank - x.rank] == 1:
        sizes[axis + out.rank - x.rank] = -1
    parameters = call.op.parameters
    args = tuple(sizes if name == "size" else arg for name, arg in zip(parameters, call.args, strict=True))
    return make_call(call.name, args, call.index)

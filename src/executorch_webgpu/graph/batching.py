"""A graph of one sequence becomes a graph of the rows of many.

``tokens [1, S], input_pos -> logits`` computes S rows of one text, one after the other. Most operators treat rows alone
(the trait ``rows``), so they take rows of any texts as they stand. Four kinds of calls do not, and are replaced:

* attention over a KV cache attends over pages, in which every row has a place of its own;
* a slice of a table from ``input_pos`` on, such as angles of rotary embedding, gathers the rows of all positions;
* an operator that reads rows of a table from ``input_pos`` on gets gathered rows, from row 0 on;
* the choice of the last row is a gather of the rows that are wanted.

Anything else that mixes rows, or computes with ``input_pos``, is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from ..errors import UnsupportedProgramError
from ..ops.shapes import normalize_dim
from ..ops.values import SymInt, Tensor
from .build import PREPACK, Constant, Graph, OpCall, make_call
from .fusion.dataflow import Dataflow, new_ids, sizes_of, substituted, with_calls

PAGED_SDPA = "et_webgpu.paged_sdpa.default"
_GATHER, _SELECT, _VIEW = "aten.index_select.default", "aten.select_copy.int", "aten.view_copy.default"
_PERMUTE = "aten.permute_copy.default"
_SUM = "add"


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


@dataclass(frozen=True)
class Batch:
    """The graph, whose inputs are these, in this order, and what it gives.

    ``tokens`` [1, T]; ``places`` [T, 2]: position and sequence of each row; ``block_tables`` [sequences, table_width];
    ``wanted`` [R]: rows whose ``logits`` [R, V] or [1, R, V] are asked for. ``pools``: memory that the graph writes.
    """

    graph: Graph
    tokens: Tensor
    places: Tensor
    block_tables: Tensor
    wanted: Tensor
    logits: Tensor
    pools: tuple[Tensor, ...]


def batched(graph: Graph, tokens: Tensor, input_pos: Tensor, sizes: BatchSizes) -> Batch:
    """The batch of a graph whose inputs are ``tokens`` [1, S] and ``input_pos`` [1], and whose output is logits.

    The graph is as it was built or lowered, before fusion. Raises UnsupportedProgramError for the first call whose rows
    are not independent, and for a graph of exactly one token.
    """
    if tokens.max_dims[1] == 1:
        raise UnsupportedProgramError(
            "the program takes one token at a time, not several sequences; export it with a dynamic sequence length"
        )
    return _Batcher(graph, tokens, input_pos, sizes).batch()


class _Rows(Enum):
    """What the rows of a tensor are."""

    ALL = "all"
    WANTED = "wanted"


@dataclass(frozen=True)
class _Cut:
    """Rows lie along ``axis``."""

    rows: _Rows
    axis: int


class _Batcher:
    def __init__(self, graph: Graph, tokens: Tensor, input_pos: Tensor, sizes: BatchSizes) -> None:
        self._graph, self._sizes = graph, sizes
        self._flow, self._symbols, self._ids = Dataflow(graph), sizes_of(graph), new_ids(graph)
        self._tokens, self._input_pos = tokens, input_pos
        self._cuts: dict[int, _Cut] = {tokens.id: _Cut(_Rows.ALL, 1)}
        self._counts: set[int] = set()  # SymInts that hold the number of rows
        self._starts: set[int] = set()  # SymInts that are the position
        self._ends: set[int] = set()  # ... and the position after the last row
        self._others: set[int] = set()  # ... and what is computed of these in another way
        self._new: dict[int, Tensor] = {}  # what tensors are in the batch, where their dims differ
        self._calls: list[OpCall] = []
        self._stored: dict[int, Tensor] = {}  # this step's rows of a cache that a call wrote, by the cache's id
        self._turned: dict[int, tuple[Tensor, tuple[int, ...]]] = {}  # caches whose dims are in another order, by id
        self._gathered: dict[int, Tensor] = {}  # rows of tables for all positions, by the table's id
        self._constants: dict[int, Constant] = {}
        self._places = Tensor(next(self._ids), "int32", (sizes.rows, 2))
        self._tables = Tensor(next(self._ids), "int32", (sizes.sequences, sizes.table_width))
        self._wanted = Tensor(next(self._ids), "int32", (sizes.wanted,))
        self._positions: Tensor | None = None
        self._pools: dict[int, Tensor] = {}  # by the id of the cache whose place they take

    def batch(self) -> Batch:
        self._new[self._tokens.id] = self._resized(self._tokens, self._cuts[self._tokens.id])
        for call in self._graph.calls:
            self._take(call)
        (output,) = self._graph.outputs
        assert isinstance(output, Tensor)
        logits = self._rows_wanted(output)
        tokens = self._new[self._tokens.id]
        inputs = (tokens, self._places, self._tables, self._wanted)
        constants = {**self._graph.constants, **self._constants}
        made = with_calls(replace(self._graph, inputs=inputs, outputs=(logits,), constants=constants), self._calls)
        made = _needed(made)
        live = tuple(v for call in made.calls for v in call.writes if isinstance(v, SymInt))
        used = {t.id for call in made.calls for t in call.inputs}
        constants = {id: constant for id, constant in made.constants.items() if id in used}
        graph = replace(made, symints=live, constants=constants)
        return Batch(graph, tokens, self._places, self._tables, self._wanted, logits, tuple(self._pools.values()))

    # -- calls ------------------------------------------------------------------------------------------------------

    def _take(self, call: OpCall) -> None:
        out = call.args[-1]
        if isinstance(out, SymInt):
            self._number(call, out)
        elif call.name == PREPACK:
            self._calls.append(call)
        elif call.op.caches:
            self._write(call)
        elif any(t.id in self._turned or self._flow.root(t).id in self._stored for t in call.inputs):
            self._read(call, out)
        elif self._input_pos in call.inputs or call.mutated:
            raise self._refusal(call)
        elif self._numbers(call) & (self._starts | self._ends | self._others):
            self._from_position(call)
        elif not self._numbers(call) & self._counts and not any(t.id in self._cuts for t in call.inputs):
            self._calls.append(call)
        elif self._is_last_row(call):
            cut = self._cuts[call.inputs[0].id]
            self._new[out.id], self._cuts[out.id] = self._wanted_of(call.inputs[0], cut.axis, out)
        else:
            self._by_rows(call)

    def _number(self, call: OpCall, out: SymInt) -> None:
        """A live integer: the number of rows, a position, or something that nothing may read."""
        numbers = self._numbers(call)
        tokens = self._symbols.of(self._tokens)[1]
        if self._input_pos in call.reads:
            self._starts.add(out.id)
        elif not isinstance(tokens, int) and self._symbols.value(out) == tokens:
            self._counts.add(out.id)
            self._calls.append(self._substituted(call))
        elif call.name == _SUM and len(numbers & self._starts) == len(numbers & self._counts) == 1 == len(numbers) - 1:
            self._ends.add(out.id)
        elif numbers or any(t.id in self._cuts for t in call.inputs):
            self._others.add(out.id)
        else:
            self._calls.append(call)

    def _by_rows(self, call: OpCall) -> None:
        """A call that takes any rows as it stands."""
        cuts = {t.id: self._cuts[t.id] for t in call.inputs if t.id in self._cuts}
        kinds = {cut.rows for cut in cuts.values()} or {_Rows.ALL}
        call = _open(call, cuts) if kinds == {_Rows.WANTED} and _is_view(call) else call
        counts = self._numbers(call) & self._counts
        axes = call.op.row_axes(call.args, {id: cut.axis for id, cut in cuts.items()}, counts)
        if axes is None or len(kinds) > 1 or any(isinstance(v, SymInt) for v in call.writes):
            raise self._refusal(call)
        (rows,) = kinds
        for value, axis in zip(call.writes, axes, strict=True):
            if axis is not None:
                assert isinstance(value, Tensor)
                self._cuts[value.id] = _Cut(rows, axis)
                self._new[value.id] = self._resized(value, self._cuts[value.id])
        made = self._substituted(call)
        if _is_view(call):  # one of the sizes may follow from the others
            (axis,) = axes
            sizes = list(made.args[1])
            if axis is not None and isinstance(sizes[axis], int):
                sizes = [n if size == -1 else size for size, n in zip(sizes, made.args[-1].max_dims, strict=True)]
                sizes[axis] = -1
                made = make_call(made.name, (made.args[0], sizes, *made.args[2:]))
        self._calls.append(made)

    def _is_last_row(self, call: OpCall) -> bool:
        if call.op.selects is None:
            return False
        x, cut = call.inputs[0], self._cuts.get(call.inputs[0].id)
        given = call.named
        if cut is None or cut.rows is not _Rows.ALL or normalize_dim(given[call.op.selects], x.rank) != cut.axis:
            return False
        if "index" in given:
            return bool(given["index"] == -1)
        end = given["end"]
        return bool(given["start"] == -1 and given["step"] == 1 and (end is None or end >= x.max_dims[cut.axis]))

    # -- positions --------------------------------------------------------------------------------------------------

    def _from_position(self, call: OpCall) -> None:
        """Rows of constant tables from the position on: each row of the batch takes that of its own position."""
        numbers, out = self._numbers(call), call.args[-1]
        tables = [t for name in call.op.reads_rows_of if (t := call.named[name]) is not None]
        if not tables or numbers & self._others or not all(map(self._flow.is_constant, tables)):
            raise self._refusal(call)
        if call.op.selects is not None:
            named = call.named
            whole = isinstance(named["start"], SymInt) and isinstance(named["end"], SymInt) and named["step"] == 1
            if not whole or normalize_dim(named["dim"], tables[0].rank) != 0 or numbers & self._counts:
                raise self._refusal(call)
            if named["start"].id not in self._starts or named["end"].id not in self._ends:
                raise self._refusal(call)
            self._new[out.id] = self._new[self._rows_of(tables[0]).id]
            self._cuts[out.id] = _Cut(_Rows.ALL, 0)
            return
        if numbers & self._ends:
            raise self._refusal(call)
        # From row 0 of the gathered rows on, which lie along the rows of the batch.
        gathered = {t.id: self._rows_of(t) for t in tables}
        made = make_call(
            call.name,
            tuple(
                0 if isinstance(arg, SymInt) and arg.id in self._starts else substituted(arg, gathered)
                for arg in call.args
            ),
        )
        self._by_rows(made)

    def _rows_of(self, table: Tensor) -> Tensor:
        """The rows of a constant table [rows, …] at all positions, as the graph of one sequence has them: [S, …]."""
        root = self._flow.root(table)
        self._check_length(table, table.max_dims[0])
        if root.id not in self._gathered:
            if self._positions is None:
                self._positions = Tensor(next(self._ids), "int32", (self._sizes.rows,))
                self._calls.append(make_call(_SELECT, (self._places, 1, 0, self._positions)))
            rows = Tensor(next(self._ids), table.dtype, (self._tokens.max_dims[1], *table.max_dims[1:]))
            self._cuts[rows.id] = _Cut(_Rows.ALL, 0)
            self._new[rows.id] = self._resized(rows, self._cuts[rows.id])
            self._calls.append(make_call(_GATHER, (table, 0, self._positions, self._new[rows.id])))
            self._gathered[root.id] = rows
        return self._gathered[root.id]

    # -- attention --------------------------------------------------------------------------------------------------

    def _write(self, call: OpCall) -> None:
        """Rows that are written to caches; attention over them too, where the same call does that."""
        given = call.named
        assert call.op.position is not None
        position = given[call.op.position]
        if not isinstance(position, SymInt) or position.id not in self._starts:
            raise self._refusal(call)
        rows = {self._flow.root(given[cache]).id: given[name] for cache, name in call.op.caches.items()}
        if "q" in given:
            self._attend(call, *rows.values())
        else:
            self._stored |= rows

    def _read(self, call: OpCall, out: Tensor) -> None:
        """What reads caches that this step has written: attention, or another order of their dims, and back."""
        given = call.named
        if call.name == _PERMUTE:
            x = call.inputs[0]
            cache, order = self._turned.get(x.id, (self._flow.root(x), tuple(range(x.rank))))
            self._turned[out.id] = cache, tuple(order[normalize_dim(dim, x.rank)] for dim in given["order"])
            return
        start = given.get("start_pos")
        if not {"k_cache", "v_cache"} <= given.keys() or not isinstance(start, SymInt) or start.id not in self._starts:
            raise self._refusal(call)
        self._attend(call, *(self._stored.get(self._cache(given[name]).id) for name in ("k_cache", "v_cache")))

    def _cache(self, x: Tensor) -> Tensor:
        """The cache that a tensor is."""
        cache, order = self._turned.get(x.id, (self._flow.root(x), ()))
        return x if order != tuple(sorted(order)) else cache

    def _attend(self, call: OpCall, k: Tensor | None, v: Tensor | None) -> None:
        given, out = call.named, call.args[-1]
        plain = given.get("attn_mask") is None and given.get("is_causal", True) and not given.get("dropout_p")
        if k is None or v is None or not plain or not isinstance(out, Tensor):
            raise self._refusal(call)
        q = given["q"]
        if any(self._cuts.get(t.id) != _Cut(_Rows.ALL, 1) for t in (q, k, v)):
            raise self._refusal(call)
        self._cuts[out.id] = _Cut(_Rows.ALL, 1)
        self._new[out.id] = self._resized(out, self._cuts[out.id])
        pools = [self._pool(given[name]) for name in ("k_cache", "v_cache")]
        rows = [self._new[t.id] for t in (q, k, v)]
        where = (self._places, self._tables, given.get("scale"))
        self._calls.append(make_call(PAGED_SDPA, (*rows, *pools, *where, self._new[out.id])))

    def _pool(self, cache: Tensor) -> Tensor:
        """The pool in the place of a cache [1, C, heads, D]."""
        root = self._cache(cache)
        self._check_length(root, root.max_dims[1])
        if root.id not in self._pools:
            dims = (self._sizes.pages, self._sizes.page_rows, *root.max_dims[2:])
            scales = None
            if self._sizes.dtype == "int8":
                id = next(self._ids)
                scales = Tensor(id, "float32", dims[:3], id)
                self._constants[id] = Constant.zeros(scales)
            id = next(self._ids)
            pool = Tensor(id, self._sizes.dtype, dims, id, scales)
            self._constants[id] = Constant.zeros(pool)
            self._pools[root.id] = pool
        return self._pools[root.id]

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def _wanted_of(self, x: Tensor, axis: int, out: Tensor) -> tuple[Tensor, _Cut]:
        """The wanted rows of ``x``, in the place of ``out``, which is one row of it, with or without its dimension."""
        source = self._new[x.id]
        dims = (*source.max_dims[:axis], self._sizes.wanted, *source.max_dims[axis + 1 :])
        if out.rank == x.rank:
            rows = Tensor(out.id, out.dtype, dims)
            self._calls.append(make_call(_GATHER, (source, axis, self._wanted, rows)))
            return rows, _Cut(_Rows.WANTED, axis)
        if any(n != 1 for n in dims[:axis]) or axis == 0:
            raise UnsupportedProgramError(f"the program chooses the last row of {x}, which is a batch already")
        rows = Tensor(next(self._ids), out.dtype, dims)
        self._calls.append(make_call(_GATHER, (source, axis, self._wanted, rows)))
        view = Tensor(out.id, out.dtype, (self._sizes.wanted, *out.max_dims[1:]))
        self._calls.append(make_call(_VIEW, (rows, [-1, *out.max_dims[1:]], view)))
        return view, _Cut(_Rows.WANTED, 0)

    def _rows_wanted(self, output: Tensor) -> Tensor:
        """The graph's output: of the wanted rows."""
        cut = self._cuts.get(output.id)
        if cut is None:
            raise UnsupportedProgramError("the program's output does not follow from its tokens, row by row")
        if cut.rows is _Rows.WANTED:
            return self._new[output.id]
        return self._wanted_of(output, cut.axis, Tensor(next(self._ids), output.dtype, output.max_dims))[0]

    # -- pieces -----------------------------------------------------------------------------------------------------

    def _resized(self, tensor: Tensor, cut: _Cut) -> Tensor:
        rows = self._sizes.rows if cut.rows is _Rows.ALL else self._sizes.wanted
        dims = (*tensor.max_dims[: cut.axis], rows, *tensor.max_dims[cut.axis + 1 :])
        return Tensor(tensor.id, tensor.dtype, dims, tensor.constant, tensor.scales)

    def _substituted(self, call: OpCall) -> OpCall:
        return make_call(call.name, tuple(substituted(arg, self._new) for arg in call.args))

    def _numbers(self, call: OpCall) -> set[int]:
        return {value.id for value in call.reads if isinstance(value, SymInt)}

    def _check_length(self, tensor: Tensor, rows: int) -> None:
        if rows < (length := self._sizes.context_len):
            raise UnsupportedProgramError(f"the program's context is {length} tokens, but {tensor} has {rows} rows")

    def _refusal(self, call: OpCall) -> UnsupportedProgramError:
        return UnsupportedProgramError(
            f"the program cannot run several sequences at once: call {call.index} ({call.name}) does not compute each "
            "token's row for itself"
        )


def _is_view(call: OpCall) -> bool:
    return call.op.view and "size" in call.named


def _open(call: OpCall, cuts: Mapping[int, _Cut]) -> OpCall:
    """A view of one row, whose sizes leave open how many rows there are."""
    x, _, out = call.args
    before, dims = math.prod(x.max_dims[: cuts[x.id].axis]), out.max_dims
    places = [i for i, n in enumerate(dims) if n == 1 and math.prod(dims[:i]) == before]
    return make_call(call.name, (x, [*dims[: places[-1]], -1, *dims[places[-1] + 1 :]], out)) if places else call


def _needed(graph: Graph) -> Graph:
    """The graph without calls of which nothing is read, and which write no memory that lasts."""
    read = {value.id for value in graph.outputs}
    kept: list[OpCall] = []
    for call in reversed(graph.calls):
        if call.mutated or any(value.id in read for value in call.writes):
            read.update(value.id for value in call.reads)
            kept.append(call)
    return with_calls(graph, reversed(kept))

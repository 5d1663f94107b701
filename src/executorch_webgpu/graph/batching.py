"""A graph of one sequence becomes a graph of the rows of many.

``tokens [1, S], input_pos -> logits`` computes S rows of one text, one after the other. Most operators treat rows alone
(the trait ``rows``), so they take rows of any texts as they stand. Four kinds of calls do not, and are replaced:

* attention over a KV cache attends over pages, in which every row has a place of its own (``batch_caches``);
* what follows from the position alone, such as angles of rotary embedding, is gathered from a table of all positions;
* an operator that reads rows of a table from ``input_pos`` on gets gathered rows, from row 0 on;
* the choice of the last row is a gather of the rows that are wanted.

Anything else that mixes rows is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import UnsupportedProgramError
from ..ops.shapes import normalize_dim
from ..ops.values import SymInt, Tensor
from .batch_caches import Caches
from .batch_draft import GATHER, VIEW, BatchSizes, Cut, Draft, Rows, is_view, opened, refused
from .batch_positions import Positions, without_unread_state
from .build import PREPACK, Graph, OpCall, make_call
from .fusion.dataflow import substituted, with_calls

__all__ = ["Batch", "BatchSizes", "batched"]


@dataclass(frozen=True)
class Batch:
    """The graph, whose inputs are these, in this order, and what it gives.

    ``tokens`` [1, T]; ``places`` [T, 2]: position and sequence of each row; ``block_tables`` [sequences, table_width];
    ``wanted`` [R]: rows whose float32 ``logits`` [R, V] or [1, R, V] are asked for. ``pools``: memory that the graph
    writes, by the id of the cache whose place each one takes.
    """

    graph: Graph
    tokens: Tensor
    places: Tensor
    block_tables: Tensor
    wanted: Tensor
    logits: Tensor
    caches: dict[int, Tensor]

    @property
    def pools(self) -> tuple[Tensor, ...]:
        return tuple(self.caches.values())


def batched(graph: Graph, tokens: Tensor, input_pos: Tensor, sizes: BatchSizes) -> Batch:
    """The batch of a graph whose inputs are ``tokens`` [1, S] and ``input_pos`` [1] or [S], and whose output is logits.

    ``input_pos`` is the position of the first token, or of each. The graph is as it was built or lowered, before
    fusion. Raises UnsupportedProgramError for the first call whose rows are not independent.
    """
    return _Batcher(_needed(graph), tokens, input_pos, sizes).batch()


class _Batcher:
    def __init__(self, graph: Graph, tokens: Tensor, input_pos: Tensor, sizes: BatchSizes) -> None:
        self._graph, self._tokens = graph, tokens
        self._draft = Draft(graph, tokens, sizes)
        self._positions = Positions(graph, tokens, input_pos, sizes.context_len)
        self._starts: set[int] = set()  # SymInts that are the position
        self._ends: set[int] = set()  # ... and the position after the last row
        self._others: set[int] = set()  # ... and what is computed of these in another way
        self._gathered: dict[int, Tensor] = {}  # rows of tables for all positions, by the table's id
        self._made: dict[tuple[int, int], Tensor] = {}  # names of known tensors by row, by id and axis
        self._caches = Caches(self._draft, self._positions, self._starts)

    def batch(self) -> Batch:
        draft = self._draft
        tokens = draft.cut(self._tokens, Cut(Rows.ALL, 1))
        for call in self._graph.calls:
            self._take(call)
        (output,) = self._graph.outputs
        assert isinstance(output, Tensor)
        logits = draft.float32(self._rows_wanted(output))
        inputs = (tokens, draft.places, draft.tables, draft.wanted)
        constants = {**self._graph.constants, **draft.constants}
        made = with_calls(replace(self._graph, inputs=inputs, outputs=(logits,), constants=constants), draft.calls)
        made = _needed(made)
        live = tuple(v for call in made.calls for v in call.writes if isinstance(v, SymInt))
        used = {t.id for call in made.calls for t in call.inputs}
        constants = {id: constant for id, constant in made.constants.items() if id in used}
        graph = replace(made, symints=live, constants=constants)
        return Batch(graph, tokens, draft.places, draft.tables, draft.wanted, logits, self._caches.pools)

    # -- calls ------------------------------------------------------------------------------------------------------

    def _take(self, call: OpCall) -> None:
        out, draft = call.args[-1], self._draft
        if isinstance(out, SymInt):
            self._number(call, out)
        elif call.name == PREPACK:
            draft.calls.append(call)
        elif self._caches.touches(call):
            self._caches.take(call, self._axes(call))
        elif self._positions.take(call):
            pass  # until something reads it by row
        elif call.mutated:
            raise refused(call)
        elif draft.numbers(call) & (self._starts | self._ends | self._others):
            if not self._picks_last(call):
                self._from_position(call)
        elif not self._depends(call):
            draft.calls.append(call)
        elif self._is_last_row(call):
            cut = draft.cuts[call.inputs[0].id]
            self._want(call.inputs[0], cut.axis, out)
        else:
            self._by_rows(call)

    def _depends(self, call: OpCall) -> bool:
        """Whether a call reads rows, the position, or the number of tokens."""
        return any(v.id in self._draft.cuts or self._positions.is_known(v) for v in (*call.reads, *call.inputs))

    def _axes(self, call: OpCall) -> dict[int, int]:
        return {t.id: self._draft.cuts[t.id].axis for t in call.inputs if t.id in self._draft.cuts}

    def _number(self, call: OpCall, out: SymInt) -> None:
        """A live integer: the number of rows, a position, or something that nothing may read."""
        tokens = self._draft.symbols.of(self._tokens)[1]
        if not isinstance(tokens, int) and self._draft.symbols.value(out) == tokens:
            self._positions.counts.add(out.id)
            self._draft.calls.append(self._draft.substituted(call))
        elif self._positions.take(call):
            role = self._positions.number(out)
            {"start": self._starts, "end": self._ends}.get(str(role), self._others).add(out.id)
        elif any(t.id in self._draft.cuts for t in call.inputs):
            self._others.add(out.id)
        else:
            self._draft.calls.append(call)

    def _by_rows(self, call: OpCall) -> None:
        """A call that takes any rows as it stands."""
        draft = self._draft
        call = self._with_known(call)
        cuts = {t.id: draft.cuts[t.id] for t in call.inputs if t.id in draft.cuts}
        kinds = {cut.rows for cut in cuts.values()} or {Rows.ALL}
        axes = {id: cut.axis for id, cut in cuts.items()}
        if kinds == {Rows.WANTED} or draft.single:
            call = opened(_as_view(call), axes)
        found = call.op.row_axes(call.args, axes, draft.numbers(call) & self._positions.counts)
        if found is None or len(kinds) > 1 or any(isinstance(v, SymInt) for v in call.writes):
            if self._picks_last(call):
                return
            raise refused(call)
        (rows,) = kinds
        for value, axis in zip(call.writes, found, strict=True):
            if axis is not None:
                assert isinstance(value, Tensor)
                draft.cut(value, Cut(rows, axis))
        made = draft.substituted(call)
        if is_view(call):  # one of the sizes may follow from the others
            (axis,) = found
            sizes = list(made.args[1])
            if axis is not None and isinstance(sizes[axis], int):
                sizes = [n if size == -1 else size for size, n in zip(sizes, made.args[-1].max_dims, strict=True)]
                sizes[axis] = -1
                made = make_call(made.name, (made.args[0], sizes, *made.args[2:]))
        draft.calls.append(made)

    def _is_last_row(self, call: OpCall) -> bool:
        if call.op.selects is None:
            return False
        x, cut = call.inputs[0], self._draft.cuts.get(call.inputs[0].id)
        given = call.named
        if cut is None or cut.rows is not Rows.ALL or normalize_dim(given[call.op.selects], x.rank) != cut.axis:
            return False
        length = x.max_dims[cut.axis]
        if "index" in given:
            return bool(given["index"] == -1 or given["index"] == 0 == length - 1)
        end = given["end"]
        if length == 1 and (given["start"] or 0) == 0:
            return bool(end is None or end >= 1)
        return bool(given["start"] == -1 and given["step"] == 1 and (end is None or end >= length))

    def _picks_last(self, call: OpCall) -> bool:
        """Whether a call gives the last row of its only input with rows, which is what is wanted then."""
        rows, out = self._axes(call), call.args[-1]
        inputs = {t.id: t for t in call.inputs if t.id in rows}
        if len(inputs) != 1 or not isinstance(out, Tensor) or self._draft.cuts[next(iter(rows))].rows is not Rows.ALL:
            return False
        (x,), (axis,) = inputs.values(), rows.values()
        if out.numel * x.max_dims[axis] != x.numel or not self._positions.gives_last(call, x, axis):
            return False
        self._want(x, axis, out)
        return True

    # -- positions --------------------------------------------------------------------------------------------------

    def _with_known(self, call: OpCall) -> OpCall:
        """A call whose tensors that follow from the position are by row."""
        known = [t for t in {t.id: t for t in call.inputs}.values() if self._positions.is_known(t)]
        if not known:
            return call
        alias = {t.id: self._known_by_row(call, t, self._axis_for(call, t)) for t in known}
        return make_call(call.name, tuple(substituted(arg, alias) for arg in call.args), call.index)

    def _axis_for(self, call: OpCall, tensor: Tensor) -> int | None:
        """Along which dimension of a known tensor the rows must lie."""
        axes, out = self._axes(call), call.args[-1]
        if self._draft.single and call.op.elementwise and axes and isinstance(out, Tensor):
            ranks = {t.id: t.rank for t in call.inputs}
            places = {axis - ranks[id] + tensor.rank for id, axis in axes.items()}
            place = places.pop() if len(places) == 1 else -1
            return place if place >= 0 and tensor.max_dims[place] == 1 else None
        return self._positions.axis(tensor)

    def _known_by_row(self, call: OpCall, tensor: Tensor, axis: int | None) -> Tensor:
        """A name for a known tensor whose rows lie along ``axis``, gathered by position."""
        if axis is None:
            raise self._not_by_row(call, tensor)
        key = tensor.id, axis
        if key not in self._made:
            draft = self._draft
            if self._positions.is_position(tensor):
                made = draft.back(draft.positions, tensor.max_dims, axis)
            elif (looked_up := self._looked_up(tensor)) is not None:
                made = looked_up
                self._made[key] = draft.alias(tensor, made, axis)
                if draft.cuts[tensor.id].axis != axis:
                    raise refused(call)
                return self._made[key]
            else:
                table = self._positions.table(tensor, axis)
                if table is None:
                    raise self._not_by_row(call, tensor)
                made = draft.back(draft.rows_of(draft.table(table, tensor)), tensor.max_dims, axis)
            self._made[key] = draft.alias(tensor, made, axis)
        return self._made[key]

    def _not_by_row(self, call: OpCall, tensor: Tensor) -> UnsupportedProgramError:
        maker = self._positions.maker(tensor)
        what = "input_pos" if maker is None else f"what call {maker.index} ({maker.name}) makes of the position"
        return refused(call, f"reads {what}, which gives no row for every token that follows from its own position")

    def _looked_up(self, tensor: Tensor) -> Tensor | None:
        """Rows of a constant table of the program itself, which need no table of their own."""
        call = self._positions.maker(tensor)
        if call is None or not call.op.reads_rows_of:
            return None
        try:
            if call.op.selects is not None:
                self._from_position(call)
            else:
                self._by_rows(call)
        except UnsupportedProgramError:
            return None
        return self._draft.new[tensor.id]

    def _from_position(self, call: OpCall) -> None:
        """Rows of constant tables from the position on: each row of the batch takes that of its own position."""
        draft, out = self._draft, call.args[-1]
        numbers = draft.numbers(call)
        tables = [t for name in call.op.reads_rows_of if (t := call.named[name]) is not None]
        if not tables or numbers & self._others or not all(map(draft.flow.is_constant, tables)):
            raise refused(call)
        if call.op.selects is not None:
            named = call.named
            whole = isinstance(named["start"], SymInt) and isinstance(named["end"], SymInt) and named["step"] == 1
            if not whole or normalize_dim(named["dim"], tables[0].rank) != 0 or numbers & self._positions.counts:
                raise refused(call)
            if named["start"].id not in self._starts or named["end"].id not in self._ends:
                raise refused(call)
            draft.stands_for(out, draft.new[self._rows_of(tables[0]).id], Cut(Rows.ALL, 0))
            return
        if numbers & self._ends:
            raise refused(call)
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
        draft, root = self._draft, self._draft.flow.root(table)
        draft.check_length(table, table.max_dims[0])
        if root.id not in self._gathered:
            one = Tensor(next(draft.ids), table.dtype, (self._tokens.max_dims[1], *table.max_dims[1:]))
            self._gathered[root.id] = draft.alias(one, draft.rows_of(table), 0)
        return self._gathered[root.id]

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def _want(self, x: Tensor, axis: int, out: Tensor) -> Tensor:
        """The wanted rows of ``x``, in the place of ``out``, which is one row of it, with or without its dimension."""
        draft = self._draft
        source, count = draft.new[x.id], draft.sizes.wanted
        dims = (*source.max_dims[:axis], count, *source.max_dims[axis + 1 :])
        rows = draft.add(GATHER, (source, axis, draft.wanted), out.dtype, dims)
        if out.rank == x.rank:
            draft.stands_for(out, rows, Cut(Rows.WANTED, axis))
            return rows
        if any(n != 1 for n in dims[:axis]) or axis == 0:
            raise UnsupportedProgramError(f"the program chooses the last row of {x}, which is a batch already")
        view = draft.add(VIEW, (rows, [-1, *out.max_dims[1:]]), out.dtype, (count, *out.max_dims[1:]))
        draft.stands_for(out, view, Cut(Rows.WANTED, 0))
        return view

    def _rows_wanted(self, output: Tensor) -> Tensor:
        """The graph's output: of the wanted rows."""
        cut = self._draft.cuts.get(output.id)
        if cut is None:
            raise UnsupportedProgramError("the program's output does not follow from its tokens, row by row")
        if cut.rows is Rows.WANTED:
            return self._draft.new[output.id]
        return self._want(output, cut.axis, Tensor(next(self._draft.ids), output.dtype, output.max_dims))


def _as_view(call: OpCall) -> OpCall:
    """A squeeze and the like as a view, whose sizes can leave open how many rows there are."""
    x, out = call.args[0], call.args[-1]
    if not call.op.view or "size" in call.named or not isinstance(out, Tensor) or x.max_dims == out.max_dims:
        return call
    return make_call(VIEW, (x, list(out.max_dims), out), call.index)


def _needed(graph: Graph) -> Graph:
    """The graph without calls of which nothing is read, and which write no memory that lasts and is read."""
    while True:
        idle = without_unread_state(graph)
        read = {value.id for value in graph.outputs}
        kept: list[OpCall] = []
        for call in reversed(graph.calls):
            if (call.mutated and call.index not in idle) or any(value.id in read for value in call.writes):
                read.update(value.id for value in (*call.reads, *call.inputs))
                kept.append(call)
        if len(kept) == len(graph.calls):
            return graph
        graph = with_calls(graph, reversed(kept))

"""The KV caches of a graph of one sequence as pools of pages, and attention over them.

A cache is memory to which a call writes the rows of this step, from the position on. What is computed of caches alone
is followed until rows meet it, and on until the values do: these calls, if they are causal attention, become one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..ops.values import SymInt, Tensor
from .batch_attention import Region, WrittenRows, causal_scale, written_rows
from .batch_draft import VIEW, Cut, Draft, Rows, opened, refused
from .batch_positions import Positions, reached
from .build import Constant, OpCall, make_call
from .casts import cast_call

PAGED_SDPA = "et_webgpu.paged_sdpa.default"


class Caches:
    """Follows caches through the calls of ``draft``, in order. ``starts``: live integers that are the position."""

    def __init__(self, draft: Draft, positions: Positions, starts: set[int]) -> None:
        self._draft, self._positions, self._starts = draft, positions, starts
        self.pools: dict[int, Tensor] = {}  # by the id of the cache whose place they take
        self._written: dict[int, WrittenRows] = {}  # this step's rows, by the id of the cache
        self._names: dict[int, Tensor] = {}  # a cache after a write, by the id of what it is called then
        self._of: dict[int, frozenset[int]] = {}  # ids of the caches that a tensor was computed of, and nothing else
        self._scores: dict[int, tuple[frozenset[int], int]] = {}  # the same of what has rows too, with their axis
        self._calls: list[OpCall] = []  # those between caches and attention
        self._found: dict[object, Any] = {}  # what was found out of calls, by their structure
        self._shapes = _Shapes(draft, positions)

    def touches(self, call: OpCall) -> bool:
        """Whether a call reads or writes a cache, or what was computed of one."""
        return bool(call.op.caches) or any(self._is_cached(t) for t in call.inputs)

    def take(self, call: OpCall, axes: dict[int, int]) -> None:
        """Follow a call that touches caches. ``axes``: of the tensors that it reads and that have rows."""
        if self._takes_trait(call):
            return
        scores = [t for t in call.inputs if t.id in self._scores]
        caches = [t for t in call.inputs if self._is_cached(t) and t.id not in self._scores]
        if not scores and self._write(call, caches, axes):
            return
        if self._copies_back(call):
            return
        if call.mutated:
            raise refused(call, "changes memory in another way than writing the rows of a step from the position on")
        roots = [self._roots(call, t) for t in caches]
        if not scores and not axes and not any(map(self._positions.is_known, (*call.reads, *call.inputs))):
            self._of[self._only_output(call).id] = frozenset().union(*roots)
        else:
            self._score(call, scores, roots, axes)
        self._calls.append(call)

    # -- writes -----------------------------------------------------------------------------------------------------

    def _takes_trait(self, call: OpCall) -> bool:
        """A call whose traits say that it writes rows to caches; attention over them too, where it does that."""
        if not call.op.caches:
            return False
        given = call.named
        assert call.op.position is not None
        position = given[call.op.position]
        if not isinstance(position, SymInt) or position.id not in self._starts:
            raise refused(call, "writes to a cache at another place than the position of the first token")
        written = []
        for name, rows in call.op.caches.items():
            cache = self._root(given[name])
            written.append(WrittenRows(cache, given[rows], 1))
            self._written[cache.id] = written[-1]
            self._of[cache.id] = frozenset((cache.id,))
        if "q" in given:
            plain = given.get("attn_mask") is None and given.get("is_causal", True) and not given.get("dropout_p")
            if not plain:
                raise refused(call, "attends with a mask of its own")
            k, v = written
            self._attend(call, given["q"], call.args[-1], k, v, given.get("scale"))
        return True

    def _write(self, call: OpCall, caches: Sequence[Tensor], axes: dict[int, int]) -> bool:
        """Whether a call does nothing but write the rows of this step to a cache."""
        rows = [t for t in {t.id: t for t in call.inputs}.values() if t.id in axes and not self._positions.is_known(t)]
        cached = list({t.id: t for t in caches}.values())
        if len(cached) != 1 or len(rows) != 1 or len(call.writes) != 1:
            return False
        (cache,), (source,), out = cached, rows, call.writes[0]
        if not isinstance(out, Tensor) or out.max_dims != cache.max_dims:
            return False
        key = ("write", self._shapes.of_call(call, {cache.id: "cache", source.id: "rows"}))
        if key not in self._found:
            context_len = self._draft.sizes.context_len
            found = written_rows(call, cache, source, axes[source.id], self._positions, context_len)
            self._found[key] = None if found is None else found.axis
        axis = self._found[key]
        if axis is None:
            return False
        root = self._root(cache)
        self._written[root.id] = WrittenRows(root, source, axis)
        self._of[root.id] = frozenset((root.id,))
        if out.id != root.id:
            self._names[out.id] = root
        return True

    def _copies_back(self, call: OpCall) -> bool:
        """Whether a call stores in a cache what that cache became in this step, which the pool holds already."""
        out, held = call.writes[0], [t for t in call.reads if isinstance(t, Tensor)]
        if not call.op.view or len(held) != 1 or not isinstance(out, Tensor) or not self._draft.flow.is_state(out):
            return False
        return held[0].id in self._names and self._root(held[0]) is self._root(out)

    # -- attention --------------------------------------------------------------------------------------------------

    def _score(
        self, call: OpCall, scores: Sequence[Tensor], roots: Sequence[frozenset[int]], axes: dict[int, int]
    ) -> None:
        """A call in which rows meet caches: scores first, and attention as soon as the values come."""
        axes = {**axes, **{t.id: self._scores[t.id][1] for t in scores}}
        out = self._only_output(call)
        for tensor in call.inputs:  # masks
            if self._positions.is_known(tensor) and tensor.id not in axes:
                axis = self._mask_axis(call, tensor, axes)
                if axis is not None:
                    axes[tensor.id] = axis
        args = opened(call, axes).args if self._draft.single else call.args
        found = call.op.row_axes(args, axes, self._draft.numbers(call) & self._positions.counts)
        if found is None or found[0] is None:
            found = self._as_fused(call, axes)
        if found is None or found[0] is None:
            raise refused(call, "reads KV caches in a way that is not followed")
        of = frozenset().union(*roots, *(self._scores[t.id][0] for t in scores))
        if (scores and roots) or len(of) == 2:
            self._calls.append(call)
            self._replace(call, out, found[0], scores, roots)
        else:
            self._scores[out.id] = of, found[0]

    def _mask_axis(self, call: OpCall, mask: Tensor, axes: dict[int, int]) -> int | None:
        if self._draft.single and call.op.elementwise:
            out = self._only_output(call)
            given = {t.id: t for t in call.inputs}
            places = {axis + out.rank - given[id].rank for id, axis in axes.items() if id in given}
            place = places.pop() - out.rank + mask.rank if len(places) == 1 else -1
            return place if place >= 0 and mask.max_dims[place] == 1 else None
        return self._positions.axis(mask)

    def _as_fused(self, call: OpCall, axes: dict[int, int]) -> tuple[int | None] | None:
        """The rows of a call that is attention by itself: those of its first argument."""
        q, out = call.args[0], call.args[-1]
        alike = isinstance(q, Tensor) and isinstance(out, Tensor) and q.id in axes and q.max_dims == out.max_dims
        return (axes[q.id],) if alike else None

    def _replace(
        self, call: OpCall, out: Tensor, axis: int, scores: Sequence[Tensor], roots: Sequence[frozenset[int]]
    ) -> None:
        """Attention in the place of all calls from the caches to ``out``."""
        calls = reached(self._calls, out, {*self._of, *self._names, *self._scores}, set(self._written))
        inner = {value.id for each in calls for value in each.writes}
        read = {t.id: t for each in calls for t in each.inputs if t.id not in inner}
        queries = [t for t in read.values() if t.id in self._draft.cuts and not self._positions.is_known(t)]
        of_k = {id for t in scores for id in self._scores[t.id][0]} or set(roots[0])
        of_v = {id for each in roots for id in each} - (set() if scores else of_k) or of_k
        if len(queries) != 1 or len(of_k) != 1 or len(of_v) != 1:
            raise refused(call, "is part of attention over more than one cache of keys and one of values")
        (q,), (k,), (v,) = queries, of_k, of_v
        for written in (self._written[k], self._written[v]):
            self._draft.check_length(written.cache, written.cache.max_dims[written.axis])
        q_axis = self._draft.cuts[q.id].axis
        region = Region(calls, q, q_axis, out, axis, self._written[k], self._written[v])
        roles = {q.id: "q", **{t.id: f"cache {self._root(t).id == v}" for t in read.values() if self._is_cached(t)}}
        key = ("attention", q_axis, axis, self._shapes.of_value(out, calls, roles))
        if key not in self._found:
            self._found[key] = causal_scale(self._named(region), self._positions, self._draft.sizes.context_len)
        scale = self._found[key]
        if scale is None:
            raise refused(
                call, "attends in another way than causal attention over the whole context, as windows and sinks do"
            )
        self._attend(call, q, out, region.k, region.v, scale, axis)

    def _named(self, region: Region) -> Region:
        """A region that reads caches by the names that they have before they are written."""
        names = dict(self._names)
        names |= {t.id: self._draft.flow.root(t) for c in region.calls for t in c.inputs if self._is_cached(t)}
        names = {id: self._root(root) for id, root in names.items()}
        return Region(
            [make_call(c.name, tuple(_renamed(arg, names) for arg in c.args), c.index) for c in region.calls],
            region.q,
            region.q_axis,
            region.out,
            region.out_axis,
            region.k,
            region.v,
        )

    def _attend(
        self,
        call: OpCall,
        q: Tensor,
        out: Tensor,
        k: WrittenRows,
        v: WrittenRows,
        scale: float | None,
        out_axis: int = 1,
    ) -> None:
        draft, head_dim = self._draft, out.max_dims[-1]
        for tensor in (q, k.rows, v.rows):
            if draft.cuts.get(tensor.id, Cut(Rows.WANTED, 0)).rows is not Rows.ALL:
                raise refused(call)
        rows = [self._by_head(tensor, head_dim) for tensor in (q, k.rows, v.rows)]
        pools = [self._pool(written, head_dim) for written in (k, v)]
        args = (*rows, *pools, draft.places, draft.tables, scale)
        attended = draft.add(PAGED_SDPA, args, "float32", rows[0].max_dims)
        if out.dtype != "float32":
            half = Tensor(next(draft.ids), out.dtype, attended.max_dims)
            draft.calls.append(cast_call(attended, half))
            attended = half
        if not (out.rank == 4 and out_axis == 1 and out.max_dims[0] == 1):
            attended = draft.back(attended, out.max_dims, out_axis)
        draft.stands_for(out, attended, Cut(Rows.ALL, out_axis))

    def _by_head(self, tensor: Tensor, head_dim: int) -> Tensor:
        """Rows of the batch as float32 [1, T, heads, head_dim]."""
        draft, axis = self._draft, self._draft.cuts[tensor.id].axis
        x = draft.float32(draft.new[tensor.id])
        heads = math.prod(n for i, n in enumerate(tensor.max_dims) if i != axis) // head_dim
        dims = (1, draft.sizes.rows, heads, head_dim)
        if x.max_dims == dims and axis == 1:
            return x
        return draft.add(VIEW, (draft.by_row(x, axis), [1, -1, heads, head_dim]), "float32", dims)

    def _pool(self, written: WrittenRows, head_dim: int) -> Tensor:
        """The pool in the place of a cache."""
        draft, cache = self._draft, written.cache
        length = cache.max_dims[written.axis]
        draft.check_length(cache, length)
        if cache.id not in self.pools:
            heads = math.prod(cache.max_dims) // length // head_dim
            dims = (draft.sizes.pages, draft.sizes.page_rows, heads, head_dim)
            scales = None
            if draft.sizes.dtype == "int8":
                id = next(draft.ids)
                scales = Tensor(id, "float32", dims[:3], id)
                draft.constants[id] = Constant.zeros(scales)
            id = next(draft.ids)
            self.pools[cache.id] = Tensor(id, draft.sizes.dtype, dims, id, scales)
            draft.constants[id] = Constant.zeros(self.pools[cache.id])
        return self.pools[cache.id]

    # -- names ------------------------------------------------------------------------------------------------------

    def _is_cached(self, tensor: Tensor) -> bool:
        known = tensor.id in self._of or tensor.id in self._names or tensor.id in self._scores
        return known or self._draft.flow.is_state(tensor)

    def _root(self, tensor: Tensor) -> Tensor:
        """The cache that a tensor is, by whatever name."""
        return self._names.get(tensor.id) or self._draft.flow.root(tensor)

    def _roots(self, call: OpCall, tensor: Tensor) -> frozenset[int]:
        root = self._root(tensor)
        if root.id not in self._of:
            raise refused(call, "reads memory that keeps more than the rows of caches, or before it is written")
        return self._of[root.id]

    def _only_output(self, call: OpCall) -> Tensor:
        if len(call.writes) != 1 or not isinstance(call.writes[0], Tensor):
            raise refused(call, "reads KV caches in a way that is not followed")
        return call.writes[0]


class _Shapes:
    """What tells calls apart but for which tensors they read: equal ones of many layers are looked at once."""

    def __init__(self, draft: Draft, positions: Positions) -> None:
        self._draft, self._positions = draft, positions
        self._numbers: dict[object, int] = {}
        self._known: dict[int, int] = {}

    def of_call(self, call: OpCall, roles: dict[int, str]) -> int:
        return self._number((call.name, *(self._of(arg, {}, roles) for arg in call.args[:-1])))

    def of_value(self, out: Tensor, calls: Iterable[OpCall], roles: dict[int, str]) -> int:
        makers = {value.id: call for call in calls for value in call.writes}
        return self._of(out, makers, roles, {})

    def _of(
        self, arg: Any, makers: dict[int, OpCall], roles: dict[int, str], seen: dict[int, int] | None = None
    ) -> int:
        seen = {} if seen is None else seen
        if isinstance(arg, list):
            return self._number(("list", *(self._of(item, makers, roles, seen) for item in arg)))
        if not isinstance(arg, Tensor | SymInt):
            return self._number((type(arg).__name__, arg))
        if arg.id in seen:
            return seen[arg.id]
        if arg.id in self._known and arg.id not in roles and arg.id not in makers:
            return self._known[arg.id]
        maker = makers.get(arg.id) or self._positions.maker(arg)
        dims = (arg.dtype, arg.max_dims) if isinstance(arg, Tensor) else ()
        if arg.id in roles:
            found = self._number((roles[arg.id], *dims))
        elif maker is not None:
            made = tuple(self._of(each, makers, roles, seen) for each in maker.args[:-1])
            found = self._number((maker.name, maker.writes.index(arg), *dims, *made))
        elif isinstance(arg, Tensor) and self._draft.flow.is_constant(arg):
            root = self._draft.flow.root(arg)
            found = self._number((self._draft.graph.constants[root.id].key, *dims))
        else:
            found = self._number(("value", arg.id))
        seen[arg.id] = found
        if arg.id not in makers and arg.id not in roles:
            self._known[arg.id] = found
        return found

    def _number(self, key: object) -> int:
        return self._numbers.setdefault(key, len(self._numbers))


def _renamed(arg: Any, names: dict[int, Tensor]) -> Any:
    if isinstance(arg, list):
        return [_renamed(item, names) for item in arg]
    return names.get(arg.id, arg) if isinstance(arg, Tensor) else arg

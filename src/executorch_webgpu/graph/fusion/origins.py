"""Which calls of a graph the calls of its fused form were made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..build import Graph, OpCall
from . import FUSIONS

_Key = tuple[object, ...]


def fused_with_origins(
    graph: Graph, names: Iterable[str], then: Callable[[Graph], Graph] = lambda graph: graph
) -> tuple[Graph, tuple[tuple[int, ...], ...]]:
    """The graph after the passes of these names, and of each of its calls the indices of those that went into it.

    ``then``: a further pass.

    A call that a pass leaves has the origins that it had. One that it makes has those of the calls that are gone and
    that computed what it writes, from what it reads. What a pass drops, such as a view, is a part of what reads it.
    """
    origins: dict[_Key, frozenset[int]] = {_key(call): frozenset((call.index,)) for call in graph.calls}
    for change in (*(FUSIONS[name] for name in names), then):
        after = change(graph)
        origins = _after(graph, after, origins)
        graph = after
    return graph, tuple(tuple(sorted(origins.get(_key(call), ()))) for call in graph.calls)


def _key(call: OpCall) -> _Key:
    """The same for a call and for its copy in another graph."""
    return (call.name, *(value.id for value in (*call.writes, *call.reads)))


def _after(before: Graph, after: Graph, origins: Mapping[_Key, frozenset[int]]) -> dict[_Key, frozenset[int]]:
    left = {_key(call) for call in after.calls}
    there = {_key(call) for call in before.calls}
    gone = {value.id: call for call in before.calls if _key(call) not in left for value in call.writes}
    found: defaultdict[_Key, frozenset[int]] = defaultdict(frozenset)
    found.update({key: origins.get(key, frozenset()) for key in left & there})
    claimed: set[int] = set()
    made = [call for call in after.calls if _key(call) not in there]
    for call in made:
        reads = {value.id for value in call.reads}
        # One that only reads other values now: what lay between them was a view that went away.
        rewired = any(gone[v.id].name == call.name for v in call.writes if v.id in gone)
        waiting = [value.id for value in (*call.writes, *call.mutated)]
        seen: set[int] = set()
        while waiting:
            source = gone.get(waiting.pop())
            if source is None or source.index in seen or (rewired and seen and not source.op.view):
                continue
            seen.add(source.index)
            found[_key(call)] |= origins.get(_key(source), frozenset())
            waiting += [value.id for value in source.reads if value.id not in reads]
        claimed |= seen
    for source in gone.values():
        if source.index not in claimed and (nearest := _nearest(source, made, same_name=False)) is not None:
            found[_key(nearest)] |= origins.get(_key(source), frozenset())
    for call in made:  # one whose results have new names, and whose sources led to what is made of these
        if not found[_key(call)] and (nearest := _nearest(call, list(gone.values()), same_name=True)) is not None:
            found[_key(call)] |= origins.get(_key(nearest), frozenset())
    return dict(found)


def _nearest(call: OpCall, others: Sequence[OpCall], *, same_name: bool) -> OpCall | None:
    """The one that has the most values in common with a call, before that one of the same name if that counts."""
    mine = _values(call)

    def likeness(other: OpCall) -> tuple[bool, int]:
        return same_name and other.name == call.name, len(mine & _values(other))

    best = max(others, key=likeness, default=None)
    return best if best is not None and any(likeness(best)) else None


def _values(call: OpCall) -> set[int]:
    return {value.id for value in (*call.reads, *call.inputs, *call.writes)}

"""Which memory each tensor lives in.

Tensors joined by an alias share one *root*. Roots that only live between two calls share *slots*: a slot is free
again after the last call that touches its tensor, and the next root that fits takes it. Inputs, outputs, constants
and mutable buffers keep memory of their own. The exporter's ``mem_obj_id`` is not used: aliasing changes lifetimes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate

from ..ops.plan import OpPlan
from ..ops.values import Tensor
from .build import Graph


class Kind(Enum):
    INPUT = "input"
    CONSTANT = "constant"  # read only, uploaded once
    MUTABLE = "mutable"  # starts as a constant, written by the graph, kept across calls
    SHARED = "shared"  # a slot that several tensors use one after the other


@dataclass(frozen=True)
class Storage:
    """One GPU buffer. ``constant`` is the tensor whose data it starts with."""

    kind: Kind
    nbytes: int
    label: str
    constant: Tensor | None = None


@dataclass(frozen=True)
class MemoryPlan:
    """``storages`` and, by tensor id, which of them the tensor lies in.

    ``unshared_bytes``: what intermediates would take if each had memory of its own. ``peak_bytes``: the most that
    those take together which are alive at one call; no plan can do with less.
    """

    storages: tuple[Storage, ...]
    storage_of: Mapping[int, int]
    unshared_bytes: int
    peak_bytes: int

    @property
    def planned_bytes(self) -> int:
        """What intermediates take: all slots."""
        return self.bytes_of(Kind.SHARED)

    def bytes_of(self, kind: Kind) -> int:
        return sum(s.nbytes for s in self.storages if s.kind is kind)


def alias_roots(graph: Graph, plans: Sequence[OpPlan]) -> dict[int, Tensor]:
    """Tensor id -> the tensor whose memory it is."""
    roots: dict[int, Tensor] = {}
    for call, plan in zip(graph.calls, plans, strict=True):
        if plan.alias_of is not None:
            roots[call.outputs[0].id] = roots.get(plan.alias_of.id, plan.alias_of)
    return roots


def lifetimes(graph: Graph, roots: Mapping[int, Tensor]) -> tuple[dict[int, int], dict[int, int]]:
    """By root id, the first and the last call that touches a tensor; what is returned lives to the end.

    ``roots``: as ``alias_roots`` gives them.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for call in graph.calls:
        for tensor in call.inputs + call.outputs:
            root = roots.get(tensor.id, tensor).id
            first.setdefault(root, call.index)
            last[root] = call.index
    for value in graph.outputs:
        if isinstance(value, Tensor):
            last[roots.get(value.id, value).id] = len(graph.calls)
    return first, last


def unsafe_aliases(graph: Graph, plans: Sequence[OpPlan]) -> frozenset[int]:
    """Ids of aliasing outputs whose memory a later call mutates, or another step may: these must become copies."""
    roots = alias_roots(graph, plans)
    mutated = {roots.get(t.id, t).id: call.index for call in graph.calls for t in call.mutated}  # where it is last
    returned = {value.id for value in graph.outputs}
    return frozenset(
        call.outputs[0].id
        for call, plan in zip(graph.calls, plans, strict=True)
        if plan.alias_of is not None
        and not plan.adopted
        and (root := roots[call.outputs[0].id].id) in mutated
        and (mutated[root] >= call.index or call.outputs[0].id in returned)
    )


def plan_memory(graph: Graph, plans: Sequence[OpPlan]) -> MemoryPlan:
    """Assign every tensor that a call touches to a storage."""
    roots = alias_roots(graph, plans)

    def root(tensor: Tensor) -> Tensor:
        return roots.get(tensor.id, tensor)

    tensors = {t.id: t for call in graph.calls for t in call.inputs + call.outputs}
    tensors |= {v.id: v for v in graph.inputs + graph.outputs if isinstance(v, Tensor)}
    first, last = lifetimes(graph, roots)

    for call, plan in zip(graph.calls, plans, strict=True):
        for tensor in plan.held:
            last[root(tensor).id] = max(last[root(tensor).id], call.index)
    sizes = {tensor.id: tensor.max_nbytes for tensor in map(root, tensors.values())}
    for plan in plans:
        for tensor, nbytes in plan.past:
            sizes[root(tensor).id] = max(sizes[root(tensor).id], root(tensor).max_nbytes + nbytes)

    mutated = {root(t).id for call in graph.calls for t in call.mutated}
    inputs = {v.id for v in graph.inputs if isinstance(v, Tensor)}

    storages: list[Storage] = []
    by_root: dict[int, int] = {}
    shared: list[Tensor] = []
    for tensor in {t.id: t for t in map(root, tensors.values())}.values():
        if tensor.constant is not None:
            kind = Kind.MUTABLE if tensor.id in mutated else Kind.CONSTANT
        elif tensor.id in inputs:
            kind = Kind.INPUT
        else:
            shared.append(tensor)
            continue
        by_root[tensor.id] = len(storages)
        storages.append(Storage(kind, sizes[tensor.id], repr(tensor), tensor if tensor.constant is not None else None))

    offset = len(storages)
    slots = _share(shared, sizes, first, last)
    storages += [Storage(Kind.SHARED, nbytes, f"slot {i}") for i, nbytes in enumerate(slots.sizes)]
    by_root |= {id: offset + slot for id, slot in slots.slot_of.items()}
    return MemoryPlan(
        tuple(storages),
        {tensor.id: by_root[root(tensor).id] for tensor in tensors.values()},
        sum(sizes[t.id] for t in shared),
        _peak(shared, sizes, first, last),
    )


def _peak(
    tensors: Sequence[Tensor], sizes: Mapping[int, int], first: Mapping[int, int], last: Mapping[int, int]
) -> int:
    """The most bytes that are alive at one call."""
    change: Counter[int] = Counter()
    for tensor in tensors:
        begin = first.get(tensor.id, 0)
        change[begin] += sizes[tensor.id]
        change[last.get(tensor.id, begin) + 1] -= sizes[tensor.id]
    return max(accumulate(change[index] for index in sorted(change)), default=0)


@dataclass(frozen=True)
class _Slots:
    sizes: list[int]
    slot_of: dict[int, int]


def _share(
    tensors: list[Tensor], nbytes: Mapping[int, int], first: Mapping[int, int], last: Mapping[int, int]
) -> _Slots:
    """Give each tensor a slot that no tensor with an overlapping lifetime has: largest first, first fit."""
    sizes: list[int] = []
    busy: list[list[tuple[int, int]]] = []
    slot_of: dict[int, int] = {}
    for tensor in sorted(tensors, key=lambda t: -nbytes[t.id]):
        begin = first.get(tensor.id, 0)
        end = last.get(tensor.id, begin)
        free = (i for i, lifetimes in enumerate(busy) if all(end < b or e < begin for b, e in lifetimes))
        slot = next(free, len(sizes))
        if slot == len(sizes):
            sizes.append(nbytes[tensor.id])
            busy.append([])
        busy[slot].append((begin, end))
        slot_of[tensor.id] = slot
    return _Slots(sizes, slot_of)

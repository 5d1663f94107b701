"""Which host memory lasts from call to call.

A program does not mark its mutable buffers on the host: they lie in planned memory like any intermediate. What tells
them apart is that a call reads their bytes before it writes them. (Views have a place but no writer, so bytes count,
not values.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..format import program_schema as schema
from ..portable.memory import Place
from .metadata import kernel_values


def lasting_places(
    plan: schema.ExecutionPlan, delegate_inputs: Sequence[int], elsewhere: Collection[Place] = ()
) -> tuple[Place, ...]:
    """The bytes of planned memory that a call may read before it writes them.

    ``delegate_inputs``: how many of the arguments of a call of each delegate are inputs. ``elsewhere``: places of
    tensors whose contents are kept elsewhere.
    """
    pieces = _Pieces(plan)
    live = pieces.of(plan.outputs)
    for chain in reversed(plan.chains):
        live = _live_before(chain, live, [_effect(plan, i.call, delegate_inputs, pieces) for i in chain.instructions])
    return pieces.places(live & ~pieces.of(plan.inputs) & ~pieces.within(elsewhere))


def branch_results(plan: schema.ExecutionPlan) -> frozenset[int]:
    """The planned tensors that get their first value from a move: results of ``torch.cond``, at the end of each branch.

    Branches of all conditions share one range of memory, so a result that merely named a branch's tensor would change
    with the next condition, and views of the result, which the exporter drops, lie where the result is planned.
    """
    moved: set[int] = set()
    known = set(plan.inputs)  # before any move
    for chain in plan.chains:
        for instruction in chain.instructions:
            match instruction.call:
                case schema.MoveCall(target=target):
                    moved.add(target)
                case schema.KernelCall(args=args) | schema.DelegateCall(args=args):
                    known |= _with_items(plan, args) - moved
    return frozenset(index for index in moved - known if _place(plan.values[index].value) is not None)


def _with_items(plan: schema.ExecutionPlan, values: Iterable[int]) -> set[int]:
    """Values, and those in lists."""
    found = {index for index in values if index >= 0}
    for index in tuple(found):
        value = plan.values[index].value
        if isinstance(value, schema.TensorList | schema.OptionalTensorList):
            found |= _with_items(plan, value.items)
    return found


@dataclass(frozen=True)
class _Effect:
    """What an instruction reads and writes, as bits of pieces."""

    reads: int = 0
    writes: int = 0


def _live_before(chain: schema.Chain, after: int, effects: Sequence[_Effect]) -> int:
    """The pieces that are read from the start of a chain on, before they are written, on any way through its jumps."""
    live = [0] * len(effects) + [after]
    previous: list[int] = []
    while live != previous:  # again for backward jumps
        previous = list(live)
        for i in reversed(range(len(effects))):
            call = chain.instructions[i].call
            jumped = live[call.destination] if isinstance(call, schema.JumpFalseCall) else 0
            live[i] = (live[i + 1] | jumped) & ~effects[i].writes | effects[i].reads
    return live[0]


def _effect(plan: schema.ExecutionPlan, call: object, delegate_inputs: Sequence[int], pieces: _Pieces) -> _Effect:
    match call:
        case schema.DelegateCall():
            split = delegate_inputs[call.delegate_index]
            return _Effect(pieces.of(call.args[:split]), pieces.of(call.args[split:]))
        case schema.KernelCall():
            inputs, outputs = kernel_values(plan, call)
            return _Effect(pieces.of(inputs), pieces.of(outputs))
        case schema.MoveCall():
            return _Effect(pieces.of([call.source]), pieces.of([call.target]))
        case schema.JumpFalseCall():
            return _Effect(pieces.of([call.condition]))
    return _Effect()


class _Pieces:
    """Planned memory, cut wherever a tensor begins or ends; sets of pieces are the bits of an int."""

    def __init__(self, plan: schema.ExecutionPlan) -> None:
        self._plan = plan
        cuts: set[tuple[int, int]] = set()
        for boxed in plan.values:
            if (place := _place(boxed.value)) is not None:
                cuts |= {(place.arena, place.begin), (place.arena, place.end)}
        self._cuts = sorted(cuts)
        self._number = {cut: i for i, cut in enumerate(self._cuts)}  # piece i goes from cut i to cut i + 1

    def of(self, values: Iterable[int]) -> int:
        """The pieces of tensors, and of those in lists."""
        found = 0
        for index in values:
            if index < 0:
                continue
            value = self._plan.values[index].value
            if isinstance(value, schema.TensorList | schema.OptionalTensorList):
                found |= self.of(value.items)
            elif (place := _place(value)) is not None:
                found |= self.within([place])
        return found

    def within(self, places: Iterable[Place]) -> int:
        """The pieces of places of tensors."""
        found = 0
        for place in places:
            first, last = self._number[place.arena, place.begin], self._number[place.arena, place.end]
            found |= (1 << last) - (1 << first)
        return found

    def places(self, pieces: int) -> tuple[Place, ...]:
        """Those pieces, neighbours joined."""
        found: list[Place] = []
        for i, (arena, begin) in enumerate(self._cuts):
            if not pieces >> i & 1:
                continue
            end = self._cuts[i + 1][1]
            if found and (found[-1].arena, found[-1].end) == (arena, begin):
                begin = found.pop().begin
            found.append(Place(arena, begin, end))
        return tuple(found)


def _place(value: schema.ProgramValue) -> Place | None:
    if not isinstance(value, schema.Tensor) or value.allocation_info is None:
        return None
    where = value.allocation_info
    return Place(where.memory_id, where.offset, where.offset + value.nbytes)

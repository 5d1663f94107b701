"""Memory of the host that lasts: against a search of all ways through random programs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from executorch_webgpu.portable.memory import Place
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.values import Bool
from executorch_webgpu.runtime.host_state import branch_results, lasting_places

ARENA, SPLIT = 10, 2  # bytes; inputs of a delegate

Bytes = frozenset[tuple[int, int]]  # (arena, byte)


def tensor(arena: int, begin: int, size: int) -> schema.EValue:
    where = schema.AllocationDetails(arena, begin)
    return schema.EValue(schema.Tensor(schema.ScalarType.BYTE, sizes=(size,), dim_order=(0,), allocation_info=where))


@st.composite
def plans(draw: st.DrawFn) -> schema.ExecutionPlan:
    spans = st.tuples(st.integers(1, 2), st.integers(0, ARENA - 1), st.integers(0, 4))
    tensors = [tensor(a, b, min(n, ARENA - b)) for a, b, n in draw(st.lists(spans, min_size=3, max_size=6))]
    values = (*tensors, schema.EValue(Bool(True)))
    any_tensor = st.integers(0, len(tensors) - 1)
    chains = []
    for _ in range(draw(st.integers(1, 2))):
        count = draw(st.integers(0, 6))
        call = st.one_of(
            st.builds(schema.MoveCall, any_tensor, any_tensor),
            st.builds(schema.DelegateCall, st.just(0), st.tuples(any_tensor, any_tensor, any_tensor)),
            st.builds(schema.JumpFalseCall, st.just(len(tensors)), st.integers(0, count)),
            st.builds(schema.FreeCall, any_tensor),
        )
        instructions = draw(st.lists(call, min_size=count, max_size=count))
        chains.append(schema.Chain(instructions=tuple(schema.Instruction(c) for c in instructions)))
    few = st.lists(any_tensor, max_size=2).map(tuple)
    return schema.ExecutionPlan("forward", values=values, inputs=draw(few), outputs=draw(few), chains=tuple(chains))


def bytes_of(plan: schema.ExecutionPlan, ids: tuple[int, ...]) -> Bytes:
    found = set()
    for id in ids:
        described = plan.values[id].value
        if isinstance(described, schema.Tensor) and described.allocation_info is not None:
            where = described.allocation_info
            found |= {(where.memory_id, where.offset + i) for i in range(described.sizes[0])}
    return frozenset(found)


def read_before_written(plan: schema.ExecutionPlan) -> Bytes:
    """By taking every way, with every set of bytes that may be written by then."""
    lasting: set[tuple[int, int]] = set()
    waiting = [(0, 0, bytes_of(plan, plan.inputs))]  # chain, instruction, written
    seen = set(waiting)
    while waiting:
        chain, position, written = waiting.pop()
        if chain == len(plan.chains):
            lasting |= bytes_of(plan, plan.outputs) - written
            continue
        instructions = plan.chains[chain].instructions
        if position == len(instructions):
            following = [(chain + 1, 0, written)]
        else:
            reads: tuple[int, ...] = ()
            writes: tuple[int, ...] = ()
            following = []
            match instructions[position].call:
                case schema.MoveCall(source, target):
                    reads, writes = (source,), (target,)
                case schema.DelegateCall(args=args):
                    reads, writes = args[:SPLIT], args[SPLIT:]
                case schema.JumpFalseCall(destination=destination):
                    following = [(chain, destination, written)]
            lasting |= bytes_of(plan, reads) - written
            following.append((chain, position + 1, written | bytes_of(plan, writes)))
        waiting += [step for step in following if step not in seen]
        seen.update(following)
    return frozenset(lasting)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(plan=plans())
def test_what_lasts_is_what_some_way_reads_before_it_writes(plan: schema.ExecutionPlan) -> None:
    places = lasting_places(plan, [SPLIT])
    assert {(p.arena, byte) for p in places for byte in range(p.begin, p.end)} == read_before_written(plan)
    assert all(a.arena != b.arena or a.end < b.begin for a, b in pairwise(places))


def test_a_buffer_that_one_branch_only_writes_lasts() -> None:
    """``if x: buffer = x`` before ``return buffer``; the intermediate at byte 8 does not last."""
    values = (tensor(1, 0, 4), tensor(1, 4, 4), tensor(1, 8, 4), schema.EValue(Bool(True)))
    calls = (schema.JumpFalseCall(3, 2), schema.MoveCall(0, 1), schema.MoveCall(1, 2))
    chain = schema.Chain(instructions=tuple(schema.Instruction(call) for call in calls))
    plan = schema.ExecutionPlan("forward", values=values, inputs=(0,), outputs=(2,), chains=(chain,))
    assert lasting_places(plan, []) == (Place(1, 4, 8),)


def test_results_of_branches_are_what_moves_write_first() -> None:
    """A value that a loop carries has one before; an input has one from the start; a number has no memory."""
    values = (*(tensor(1, 4 * i, 4) for i in range(5)), schema.EValue(Bool(True)), schema.EValue(Bool(True)))
    calls = (
        schema.DelegateCall(0, (0, 0, 2)),
        schema.JumpFalseCall(5, 3),
        schema.MoveCall(0, 1),
        schema.MoveCall(3, 2),
        schema.MoveCall(5, 6),
        schema.DelegateCall(0, (1, 2, 3)),
        schema.MoveCall(1, 0),
    )
    chain = schema.Chain(instructions=tuple(schema.Instruction(call) for call in calls))
    plan = schema.ExecutionPlan("forward", values=values, inputs=(0, 4), outputs=(1,), chains=(chain,))
    assert branch_results(plan) == {1}

"""What lasts from call to call, against a search of all ways through random programs; places in memory as values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.values import Bool, Int
from executorch_webgpu.graph.lowering.delegates import DelegateArguments
from executorch_webgpu.graph.lowering.instructions import Value, read_flow

ARENA, SPLIT = 10, 2  # bytes; inputs of a delegate
SIZES = (0, ARENA, ARENA)
DELEGATE = DelegateArguments(SPLIT, (0, 1), (0,))

Bytes = frozenset[tuple[int, int]]  # (arena, byte)


def tensor(arena: int, begin: int, size: int) -> schema.EValue:
    where = schema.AllocationDetails(arena, begin)
    return schema.EValue(schema.Tensor(schema.ScalarType.BYTE, sizes=(size,), dim_order=(0,), allocation_info=where))


@st.composite
def plans(draw: st.DrawFn) -> schema.ExecutionPlan:
    spans = st.sampled_from([(arena, begin) for arena in (1, 2) for begin in range(0, ARENA, 2)])
    tensors = [tensor(arena, begin, 2) for arena, begin in draw(st.lists(spans, min_size=3, max_size=6))]
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
    return schema.ExecutionPlan(
        "forward",
        values=values,
        inputs=draw(few),
        outputs=draw(few),
        chains=tuple(chains),
        non_const_buffer_sizes=SIZES,
    )


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
    state = read_flow(plan, [DELEGATE]).state
    places = [cell for cell in state if isinstance(cell, tuple)]
    assert {(arena, byte) for arena, begin, end in places for byte in range(begin, end)} == read_before_written(plan)


def plan_of(
    values: tuple[schema.EValue, ...],
    calls: tuple[schema.Call, ...],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
) -> schema.ExecutionPlan:
    chain = schema.Chain(instructions=tuple(schema.Instruction(call) for call in calls))
    return schema.ExecutionPlan(
        "forward", values=values, inputs=inputs, outputs=outputs, chains=(chain,), non_const_buffer_sizes=(0, 64)
    )


def test_a_buffer_that_one_branch_only_writes_lasts() -> None:
    """``if x: buffer = x`` before ``return buffer``; the intermediate at byte 8 does not last."""
    values = (tensor(1, 0, 4), tensor(1, 4, 4), tensor(1, 8, 4), schema.EValue(Bool(True)))
    calls = (schema.JumpFalseCall(3, 2), schema.MoveCall(0, 1), schema.MoveCall(1, 2))
    flow = read_flow(plan_of(values, calls, (0,), (2,)), [])
    assert list(flow.state) == [(1, 4, 8)]
    (_, second, last) = flow.blocks
    assert list(second.exit) == [(1, 4, 8)] and last.outputs == list(last.entry.values())


def test_a_number_that_a_loop_counts_begins_anew_with_each_call() -> None:
    values = (schema.EValue(Int(3)), schema.EValue(Int(1)), schema.EValue(Bool(False)))
    calls = (schema.KernelCall(0, (0, 1, 0)), schema.JumpFalseCall(2, 0))
    plan = plan_of(values, calls, (), (0,))
    plan = schema.ExecutionPlan(
        "forward", values=values, outputs=(0,), chains=plan.chains, operators=(schema.Operator("executorch_prim::add"),)
    )
    flow = read_flow(plan, [])
    assert flow.numbers == {0: 3} and not flow.state
    assert flow.blocks[0].otherwise == 0 and list(flow.blocks[0].exit) == [0]


def test_a_view_that_the_exporter_dropped_is_one_again() -> None:
    square = schema.Tensor(
        schema.ScalarType.BYTE, sizes=(2, 2), dim_order=(0, 1), allocation_info=schema.AllocationDetails(1, 0)
    )
    values = (tensor(1, 0, 4), schema.EValue(square), tensor(1, 8, 4))
    calls = (schema.DelegateCall(0, (0, 1, 2)),)
    (block,) = read_flow(plan_of(values, calls, (0,), (2,)), [DELEGATE]).blocks
    view, delegate = block.operations
    assert str(view) == "aten::view_copy.out" and view.inputs == tuple(block.entry.values())
    assert delegate.args == (view.inputs[0], view.outputs[0])
    assert isinstance(view.outputs[0], Value) and view.outputs[0].tensor is square


@pytest.mark.parametrize("size", [3, 6])
def test_memory_that_is_overwritten_in_part_is_refused(size: int) -> None:
    values = (tensor(1, 0, 4), tensor(1, 2, size), tensor(1, 16, 4))
    calls = (schema.MoveCall(2, 1), schema.MoveCall(0, 2))
    with pytest.raises(UnsupportedProgramError, match="overwritten a part"):
        read_flow(plan_of(values, calls, (0, 2), (2,)), [])

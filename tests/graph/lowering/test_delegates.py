"""Arguments of a delegate's call against its graph: for every way in which the exporter drops or adds outputs."""

from __future__ import annotations

import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from executorch_webgpu import Runtime, UnsupportedProgramError
from executorch_webgpu.errors import InvalidProgramError
from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.values import Bool
from executorch_webgpu.graph.build import Graph, make_call
from executorch_webgpu.graph.lowering.delegates import DelegateArguments, matched
from executorch_webgpu.ops.values import Tensor

SIZES = ((2,), (3,), (2, 2))


def plan_of(inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]]) -> schema.ExecutionPlan:
    """A method that is one delegate call."""
    tensors = [
        schema.EValue(schema.Tensor(schema.ScalarType.FLOAT, sizes=dims, dim_order=tuple(range(len(dims)))))
        for dims in (*inputs, *outputs)
    ]
    args = tuple(range(len(tensors)))
    return schema.ExecutionPlan(
        "forward",
        values=tuple(tensors),
        inputs=args[: len(inputs)],
        outputs=args[len(inputs) :],
        chains=(schema.Chain(instructions=(schema.Instruction(schema.DelegateCall(0, args)),)),),
        delegates=(
            schema.BackendDelegate("VulkanBackend", schema.BackendDelegateDataReference(schema.DataLocation(0), 0)),
        ),
    )


def graph_of(inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]]) -> Graph:
    """Outputs without anything that computes them: what they are called is all that counts."""
    values = [Tensor(i, "float32", dims) for i, dims in enumerate((*inputs, *outputs))]
    return Graph((), tuple(values[: len(inputs)]), tuple(values[len(inputs) :]), (), {})


@settings(deadline=None, max_examples=400)
@given(
    tensors=st.lists(st.sampled_from(SIZES), min_size=1, max_size=4),
    listed=st.lists(st.integers(0, 3), min_size=1, max_size=6),
)
def test_outputs_that_repeat_are_found_or_refused(tensors: list[tuple[int, ...]], listed: list[int]) -> None:
    listed = [i % len(tensors) for i in listed]
    once = list(dict.fromkeys(listed))  # as the exporter lists the tensors of the graph
    graph = graph_of([(5,)], [tensors[i] for i in once])
    wanted = [tensors[i] for i in listed]
    try:
        _, (arguments,) = matched(plan_of([(5,)], wanted), [graph])
    except UnsupportedProgramError as error:
        assert "which of them repeat" in str(error)
        assert len(set(wanted)) < len(once) + (len(listed) > len(once))  # dims alone cannot tell
        return
    assert [once[i] for i in arguments.outputs] == listed


@settings(deadline=None, max_examples=200)
@given(
    dims=st.lists(st.sampled_from(SIZES), min_size=1, max_size=4), read=st.lists(st.booleans(), min_size=4, max_size=4)
)
def test_inputs_that_nothing_reads_are_found_or_refused(dims: list[tuple[int, ...]], read: list[bool]) -> None:
    kept = [i for i in range(len(dims)) if read[i]]
    graph = graph_of([dims[i] for i in kept], [(7,)])
    try:
        _, (arguments,) = matched(plan_of(dims, [(7,)]), [graph])
    except UnsupportedProgramError:
        assert len(set(dims)) < len(dims)
        return
    assert arguments == DelegateArguments(len(dims), tuple(kept), (0,))


def test_outputs_of_other_dims_or_dtypes_are_refused() -> None:
    with pytest.raises(InvalidProgramError, match=r"has the outputs %1:float32\[3\], which cannot be .* float32\[2\]"):
        matched(plan_of([(5,)], [(2,)]), [graph_of([(5,)], [(3,)])])
    integers = Graph((), (Tensor(0, "float32", (5,)),), (Tensor(1, "int32", (2,)),), (), {})
    with pytest.raises(InvalidProgramError, match="outputs"):
        matched(plan_of([(5,)], [(2,)]), [integers])


def test_a_repeat_and_a_buffer_that_cancel_in_number_are_not_shifted() -> None:
    """As many outputs as the program wants, one of them a buffer's new value: found by its dims."""
    buffer, x = Tensor(0, "float32", (2,), 0), Tensor(1, "float32", (3,))
    new, result = Tensor(2, "float32", (2,)), Tensor(3, "float32", (3,))
    calls = (
        make_call("aten.abs.default", (buffer, new), 0),
        make_call("aten.abs.default", (x, result), 1),
    )
    graph = Graph(calls, (x,), (new, result), (), {})
    (stored,), (arguments,) = matched(plan_of([(3,)], [(3,), (3,)]), [graph])
    assert arguments.outputs == (0, 0)
    assert stored.outputs == (result,)
    assert stored.calls[-1].args == (new, None, buffer)
    assert stored.calls[-1].mutated == (buffer,)


class Averages(nn.Module):
    """Buffers of different dims that every call writes, without being asked to in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 4))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        before = self.mean * 1.0
        self.mean.mul_(0.9).add_(x * 0.1)
        self.seen.add_(1)
        return before, self.mean + 1.0, self.seen * 2


class Ambiguous(nn.Module):
    """Two buffers of the same dims, only one of which is written."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(3, 4))
        self.register_buffer("b", torch.ones(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.a.copy_(self.b * 0.5 + self.a * x)
        return self.a * 2.0


def lowered(module: nn.Module, *example: torch.Tensor) -> bytes:
    exported = torch.export.export(module, example)
    return to_edge_transform_and_lower(exported, partitioner=[VulkanPartitioner()]).to_executorch().buffer


def test_buffers_whose_new_values_are_outputs_last() -> None:
    module = Averages()
    with Runtime.get().load_program(lowered(Averages(), torch.ones(3, 4))) as program:
        method = program.load_method("forward")
        other = method.new_state()
        xs = [torch.randn(3, 4) for _ in range(3)]
        expected = [module(x) for x in xs]
        for _ in range(2):
            for x, wanted in zip(xs, expected, strict=True):
                for got, value in zip(method.execute([x]), wanted, strict=True):
                    torch.testing.assert_close(got, value)
            method.reset()
        torch.testing.assert_close(method.execute([xs[0]], other)[1], expected[0][1])


def test_buffers_that_cannot_be_told_apart_are_refused() -> None:
    with (
        Runtime.get().load_program(lowered(Ambiguous(), torch.ones(3, 4))) as program,
        pytest.raises(UnsupportedProgramError, match="alias_buffer_mutations=True"),
    ):
        program.load_method("forward")


class Clones(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.relu(x)
        return y, y.clone(), y.sum(-1), torch.dropout(y, 0.5, False)


def test_clones_that_the_exporter_drops_come_back() -> None:
    x = torch.randn(3, 4)
    with Runtime.get().load_program(lowered(Clones(), x)) as program:
        for got, wanted in zip(program.load_method("forward").execute([x]), Clones()(x), strict=True):
            torch.testing.assert_close(got, wanted)


def test_the_value_of_a_condition_is_no_input_of_a_delegate() -> None:
    plan = plan_of([(2,)], [(2,)])
    odd = schema.ExecutionPlan(
        "forward",
        values=(schema.EValue(Bool(True)), *plan.values[1:]),
        inputs=plan.inputs,
        outputs=plan.outputs,
        chains=plan.chains,
        delegates=plan.delegates,
    )
    with pytest.raises(InvalidProgramError, match="inputs"):
        matched(odd, [graph_of([(2,)], [(2,)])])


class FirstAgain(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, z = x + 1, x * 2
        return y, z, y.clone()


class SecondAgain(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, z = x + 1, x * 2
        return y, z, z.clone()


def test_the_file_does_not_say_which_of_equal_outputs_a_clone_repeats() -> None:
    """Two models that answer differently and are one program, byte by byte: no runtime can run both right."""
    first, second = (
        bytes(
            to_edge_transform_and_lower(
                torch.export.export(model, (torch.ones(3),)),
                partitioner=[VulkanPartitioner({"alias_buffer_mutations": True})],
            )
            .to_executorch()
            .buffer
        )
        for model in (FirstAgain(), SecondAgain())
    )
    assert first == second
    with (
        Runtime.get().load_program(first) as program,
        pytest.raises(UnsupportedProgramError, match="does not say which of them repeat"),
    ):
        program.load_method("forward")

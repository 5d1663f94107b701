"""How methods are split between the device and the host, and that values stay where they should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.dialects._ops import ops as exir_ops
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from torch import nn

from executorch_webgpu import InvalidInputError, Runtime
from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.pte import ProgramFile
from executorch_webgpu.graph.build import Constant, Graph, make_call
from executorch_webgpu.graph.lowering.delegates import DelegateArguments
from executorch_webgpu.graph.lowering.segments import DeviceSegment, HostSegment, lower_method
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.ops.values import Tensor
from executorch_webgpu.runtime import Program

BIG = 2**33


def export(module: nn.Module, *example: Any, delegated: bool = False, blocked: Sequence[Any] = ()) -> bytes:
    partitioner = [VulkanPartitioner(operator_blocklist=list(blocked))] if delegated else None
    exported = torch.export.export(module.eval(), example)
    return bytes(to_edge_transform_and_lower(exported, partitioner=partitioner).to_executorch().buffer)


def segments(program: Program, lower: str = "all") -> list[str]:
    """The segments of ``forward``: "device", or the names of what the host runs."""
    with program.load_method("forward", lower=lower) as method:
        found = [s for block in method._lowered.blocks for s in block.segments]
    return [
        "device" if isinstance(s, DeviceSegment) else " ".join(o.stem for o in s.operations)
        for s in found
        if isinstance(s, DeviceSegment | HostSegment)
    ]


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(12, 20), nn.Linear(20, 7), nn.LayerNorm(20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.second(self.norm(torch.relu(self.first(x)))), -1)


@pytest.mark.parametrize("how", ["undelegated", "partly", "fully"])
def test_what_is_not_delegated_joins_the_delegates_in_one_graph(how: str) -> None:
    torch.manual_seed(0)
    module, x = Layers(), torch.randn(5, 12)
    blocked = [exir_ops.edge.aten.relu.default, exir_ops.edge.aten.native_layer_norm.default] if how == "partly" else []
    data = export(module, x, delegated=how != "undelegated", blocked=blocked)
    with Runtime.get().load_program(data) as program:
        assert segments(program) == ["device"]
        with program.load_method("forward") as method:
            torch.testing.assert_close(method.execute([x])[0], module(x), rtol=1e-4, atol=1e-5)
        with program.load_method("forward", lower="delegates") as method:
            torch.testing.assert_close(method.execute([x])[0], module(x), rtol=1e-4, atol=1e-5)
        assert (segments(program, "delegates") == ["device"]) == (how == "fully")


def test_partial_delegation_dispatches_what_full_delegation_does() -> None:
    torch.manual_seed(0)
    module, x = Layers(), torch.randn(5, 12)
    counts = []
    for blocked in ([], [exir_ops.edge.aten.relu.default], [exir_ops.edge.aten.linear.default]):
        data = export(module, x, delegated=True, blocked=blocked)
        with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
            method.execute([x])
            counts.append(sum(use.dispatches for use in method.kernels()))
    full, without_relu, without_linear = counts
    assert without_relu == full
    assert without_linear >= full  # addmm takes its weights transposed


class HostInTheMiddle(nn.Module):
    """The product may need more than 32 bits, so the host computes it, of what the device has found."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.exp(x)
        wide = torch.argmax(y, dim=-1) * BIG
        return y * 2, wide // BIG + 1


def test_what_only_the_host_can_do_splits_the_graph_and_nothing_else_waits() -> None:
    module, x = HostInTheMiddle(), torch.randn(3, 11)
    with Runtime.get().load_program(export(module, x)) as program:
        first, second, *_ = found = segments(program)
        assert first == "device" and second.startswith("mul") and found.count("device") == 1
        with program.load_method("forward") as method:
            for given in (x, -x):
                for got, wanted in zip(method.execute([given]), module(given), strict=True):
                    torch.testing.assert_close(got, wanted)
        report = program.inspect().methods[0].operators
        (why,) = {o.why for o in report if o.where == "host" and o.name.startswith("aten::mul")}
        assert "more than 32 bits" in why


class HostFirst(nn.Module):
    """Positions of tokens are computed from what the caller gives, so the host needs nothing of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table((tokens * 7 + 1) % 10) * 2


def test_what_the_host_can_do_at_once_it_does_before_all_graphs() -> None:
    module, tokens = HostFirst(), torch.tensor([[3, 2**40, -5]])
    with Runtime.get().load_program(export(module, tokens)) as program:
        host, device = segments(program)
        assert host == "mul add remainder" and device == "device"
        with program.load_method("forward") as method:
            torch.testing.assert_close(method.execute([tokens])[0], module(tokens))


class StaysOnDevice(nn.Module):
    """A graph on each side of the host's work, and a float tensor that only the device needs."""

    def forward(self, x: torch.Tensor, pick: torch.Tensor) -> torch.Tensor:
        y = torch.sin(x)
        rows = torch.argmax(y, dim=1) * BIG // BIG
        return torch.cos(y)[rows] + pick


def test_tensors_stay_on_the_device_across_segments() -> None:
    module, args = StaysOnDevice(), (torch.randn(6, 5), torch.randn(6, 5))
    with Runtime.get().load_program(export(module, *args)) as program, program.load_method("forward") as method:
        devices = method._lowered.device_segments
        assert len(devices) == 2
        (first, second) = devices
        stays = [v for v in first.outputs if v not in first.fetched]
        assert [str(v) for v in first.fetched] == ["int64[6]"] and [str(v) for v in stays] == ["float32[6, 5]"]
        assert set(stays) <= set(second.inputs)
        for _ in range(2):
            torch.testing.assert_close(method.execute(args)[0], module(*args))


class Keeps(nn.Module):
    """Buffers: one of the device alone, one that the host counts in, one that two graphs read."""

    total: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3, 4))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        before = self.total * 2
        self.total.add_(x)
        self.count.add_(BIG)
        return before + self.total, self.count + 1


def test_buffers_live_where_they_are_used() -> None:
    module = Keeps()
    with (
        Runtime.get().load_program(export(module, torch.ones(3, 4))) as program,
        program.load_method("forward") as method,
    ):
        assert len(method._lowered.state) == 1  # the counter
        (segment,) = method._lowered.device_segments
        assert sum(bool(call.mutated) for call in segment.graph.calls) == 1
        xs = [torch.randn(3, 4) for _ in range(3)]
        expected = [[t.clone() for t in module(x)] for x in xs]
        other = method.new_state()
        for _ in range(2):
            for x, wanted in zip(xs, expected, strict=True):
                for got, right in zip(method.execute([x]), wanted, strict=True):
                    torch.testing.assert_close(got, right)
            method.reset()
        torch.testing.assert_close(method.execute([xs[0]], other)[0], expected[0][0])


def test_integers_beyond_32_bits_are_refused_before_anything_runs() -> None:
    module = nn.Embedding(10, 6)
    data = export(module, torch.tensor([[3]]))
    with (
        Runtime.get().load_program(data) as program,
        program.load_method("forward") as method,
        pytest.raises(InvalidInputError, match="32 bits cannot hold"),
    ):
        method.execute([np.array([[BIG]])])


def test_a_delegate_that_is_called_twice_is_in_one_graph_twice() -> None:
    """Both calls add to one buffer."""
    x, out, total = Tensor(0, "float32", (3,)), Tensor(1, "float32", (3,)), Tensor(2, "float32", (3,), 0)
    added = make_call("aten.add.Tensor", (total, x, 1, out), 0)
    kept = make_call("aten.clone.default", (out, None, total), 1)
    graph = Graph((added, replace(kept, mutated=(total,))), (x,), (out,), (), {2: Constant.zeros(total)})
    values = tuple(schema.EValue(schema.Tensor(schema.ScalarType.FLOAT, sizes=(3,), dim_order=(0,))) for _ in "abc")
    calls = (schema.DelegateCall(0, (0, 1)), schema.DelegateCall(0, (1, 2)))
    chain = schema.Chain(instructions=tuple(schema.Instruction(call) for call in calls))
    plan = schema.ExecutionPlan("forward", values=values, inputs=(0,), outputs=(1, 2), chains=(chain,))
    file = ProgramFile(schema.Program(execution_plan=(plan,)), (), {})
    lowered = lower_method(file, plan, [graph], [DelegateArguments(1, (0,), (0,))], "all")
    (segment,) = lowered.device_segments
    reference = ReferenceExecutor(segment.graph)
    for step in (1, 2):
        first, second = reference.execute([np.full(3, 1.0)])
        np.testing.assert_array_equal(first, np.full(3, {1: 1.0, 2: 3.0}[step]))
        np.testing.assert_array_equal(second, first * 2)


class Scattered(nn.Module):
    """Numbers of more than 53 bits in a buffer of which the host writes a part in place."""

    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(6, dtype=torch.int64))

    def forward(self, index: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        self.table.index_put_((index,), x * 2**61 + 1)
        return self.table + 0


def test_the_host_writes_integers_of_64_bits_in_place() -> None:
    module, args = Scattered(), (torch.tensor([1, 4]), torch.tensor([1, -2]))
    config = ExecutorchBackendConfig(run_reinplace_pass=True)
    data = bytes(to_edge_transform_and_lower(torch.export.export(module, args)).to_executorch(config).buffer)
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
        for _ in range(2):
            assert torch.equal(method.execute(args)[0], module(*args))


class Last(nn.Module):
    """Doubles, which the host keeps as it is given them."""

    last: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(3, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.last * 1
        self.last.copy_(x)
        return before


def test_a_buffer_does_not_change_with_the_array_that_it_was_given() -> None:
    x = np.array([1.0, 2.0, 3.0])
    with Runtime.get().load_program(export(Last(), torch.zeros(3, dtype=torch.float64))) as program:
        method = program.load_method("forward")
        method.execute([x])
        x[:] = 9
        np.testing.assert_array_equal(method.execute([x])[0], [1, 2, 3])


class Branches(nn.Module):
    """Jumps on what is computed with a live size, by operators of sizes that only the host has."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[0]
        small = torch.sym_not(n > 4) if self.how == "not" else torch.sym_float(n) / 2 <= 2.0
        result: torch.Tensor = torch.cond(small, lambda x: x * 2, lambda x: x - 1, (x,))
        return result


@pytest.mark.parametrize("how", ["not", "quotient"])
def test_branches_on_live_sizes(how: str) -> None:
    module = Branches(how)
    dynamic = ({0: torch.export.Dim("n", min=2, max=12)},)
    exported = torch.export.export(module, (torch.randn(7),), dynamic_shapes=dynamic)
    # With its checks on, the exporter turns some operators of sizes into what it then cannot write.
    unchecked = EdgeCompileConfig(_check_ir_validity=False)
    config = ExecutorchBackendConfig(passes=[InitializedMutableBufferPass([""])])
    lowered = to_edge_transform_and_lower(exported, compile_config=unchecked)
    data = bytes(lowered.to_executorch(config).buffer)
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
        for n in (7, 2, 4, 5, 6, 12):
            x = torch.randn(n)
            torch.testing.assert_close(torch.as_tensor(method.execute([x])[0]), module(x))


class BesideBytes(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x < -1, x >= -1, x == -1, torch.clamp(x, max=200)


def test_a_negative_number_beside_bytes_wraps_as_in_torch() -> None:
    module, x = BesideBytes(), torch.tensor([0, 1, 7, 254, 255], dtype=torch.uint8)
    with Runtime.get().load_program(export(module, x)) as program:
        for lower in ("all", "delegates"):
            with program.load_method("forward", lower=lower) as method:
                for got, wanted in zip(method.execute([x]), module(x), strict=True):
                    torch.testing.assert_close(got, wanted)

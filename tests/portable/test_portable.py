"""Programs, or parts of them, that were not delegated: exported by executorch, run by the host kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge, to_edge_transform_and_lower
from torch import nn

from executorch_webgpu import Runtime, UnsupportedProgramError


def export(module: nn.Module, *example: torch.Tensor) -> bytes:
    """A program without any delegate."""
    return to_edge(torch.export.export(module.eval(), example)).to_executorch().buffer


class Mixed(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.relu(x * 2 + y) - torch.sigmoid(y)
        return torch.softmax(z, -1), z.reshape(-1)[1:5]


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x))


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x[0] > 0, lambda v: v + 1, lambda v: v - 1, (x,))


class Counter(nn.Module):
    """Host state: a buffer that every call adds to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return self.total * 1.0


class Normalized(nn.Module):
    """Kernels with several outputs and with an overload of another name; a view that the exporter turns into none."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.div(self.norm(x).reshape(-1, 3), 0.3, rounding_mode="floor")


class InPlace(nn.Module):
    """State that ordinary operators write, in place and from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(3, 4))
        self.register_buffer("last", torch.ones(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x * self.last
        self.sum.add_(x)
        self.last.copy_(torch.tanh(x))
        return before + self.sum


class Sorted(nn.Module):
    """The middle cannot be delegated, so this is delegate, host, delegate."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.bitwise_xor((torch.relu(x) * 8).int(), torch.ones_like(x).int()).float())


@pytest.mark.parametrize("module", [Mixed(), Linear()], ids=["mixed", "linear"])
def test_host_kernels_agree_with_torch(module: nn.Module) -> None:
    inputs = [torch.randn(4, 7) for _ in range(2 if isinstance(module, Mixed) else 1)]  # one tensor twice is one input
    with Runtime.get().load_program(export(module, *inputs)) as program, program.load_method("forward") as method:
        inputs = [torch.randn(4, 7) for _ in inputs]
        expected = module(*inputs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for got, wanted in zip(method.execute(inputs), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_kernels_with_several_outputs() -> None:
    module = Normalized()
    with Runtime.get().load_program(export(module, torch.randn(4, 6))) as program:
        x = torch.randn(4, 6)
        torch.testing.assert_close(program.load_method("forward").execute([x])[0], module(x))


def test_buffers_that_delegated_operators_write() -> None:
    module = InPlace()
    lowered = to_edge_transform_and_lower(
        torch.export.export(module, (torch.ones(3, 4),)),
        partitioner=[VulkanPartitioner({"alias_buffer_mutations": True})],
    ).to_executorch()
    with Runtime.get().load_program(lowered.buffer) as program:
        method, other = program.load_method("forward"), program.load_method("forward")
        xs = [torch.randn(3, 4) for _ in range(3)]
        expected = [module(x) for x in xs]
        for _ in range(2):
            for x, wanted in zip(xs, expected, strict=True):
                torch.testing.assert_close(method.execute([x])[0], wanted)
            method.reset()
        torch.testing.assert_close(other.execute([xs[0]])[0], expected[0])


def test_what_the_host_computes_needs_no_adapter() -> None:
    data = export(Linear(), torch.randn(2, 7))
    with Runtime.get(adapter="no such adapter").load_program(data) as program:
        (got,) = program.load_method("forward", lower="delegates").execute([np.zeros((2, 7), np.float32)])
        assert got.shape == (2, 5)


def test_both_branches_of_a_condition() -> None:
    with Runtime.get().load_program(export(Branch(), torch.ones(3))) as program:
        method = program.load_method("forward")
        np.testing.assert_array_equal(method.execute([np.full(3, 2, np.float32)])[0], np.full(3, 3))
        np.testing.assert_array_equal(method.execute([np.full(3, -2, np.float32)])[0], np.full(3, -3))


def test_host_state_lasts_until_reset() -> None:
    with Runtime.get().load_program(export(Counter(), torch.ones(3))) as program:
        one, two = program.load_method("forward"), program.load_method("forward")
        ones = np.ones(3, np.float32)
        assert [float(one.execute([ones])[0][0]) for _ in range(3)] == [1, 2, 3]
        assert float(two.execute([ones])[0][0]) == 1
        one.reset()
        assert float(one.execute([ones])[0][0]) == 1


def test_what_neither_side_runs_is_named() -> None:
    class Unknown(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand(3, 2) + torch.randn(3, 2)

    program = Runtime.get().load_program(export(Unknown(), torch.ones(3, 2)))
    with pytest.raises(UnsupportedProgramError) as error:
        program.load_method("forward")
    assert error.value.operators == {"aten::rand.out": 1, "aten::randn.out": 1}


def test_delegates_and_host_kernels_in_one_method() -> None:
    module = Sorted()
    lowered = to_edge_transform_and_lower(
        torch.export.export(module, (torch.ones(4, 6),)), partitioner=[VulkanPartitioner()]
    ).to_executorch()
    with Runtime.get().load_program(lowered.buffer) as program:
        operators = [o for m in program.inspect().methods for o in m.operators]
        missing = {o.name for o in operators if not o.supported}
        x = torch.randn(4, 6)
        if missing:
            with pytest.raises(UnsupportedProgramError) as error:
                program.load_method("forward")
            assert set(error.value.operators) == missing
        else:
            torch.testing.assert_close(program.load_method("forward").execute([x])[0], module(x))


class Masked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(x > 0.5, -1.0).mean() + torch.where(x < 0, x, 2.0)


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)


@pytest.mark.parametrize(
    ("module", "dims"),
    [
        (Masked(), (4, 6)),
        (Attention(), (1, 2, 5, 8)),
        (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (2, 5, 16)),
        (nn.Sequential(nn.RMSNorm(16), nn.Linear(16, 8), nn.SiLU()), (3, 16)),
    ],
    ids=["masked", "attention", "encoder", "rms_norm"],
)
def test_ordinary_modules_through_the_partitioner(module: nn.Module, dims: tuple[int, ...]) -> None:
    module = module.eval()
    exported = torch.export.export(module, (torch.randn(dims),))
    lowered = to_edge_transform_and_lower(exported, partitioner=[VulkanPartitioner()]).to_executorch()
    with Runtime.get().load_program(lowered.buffer) as program, program.load_method("forward") as method:
        x = torch.randn(dims)
        with torch.no_grad():
            torch.testing.assert_close(method.execute([x])[0], module(x), rtol=1e-4, atol=1e-5)


class TwoBranches(nn.Module):
    """Two conditions in a row, and a view of a result, which is written: the exporter drops the view."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.cond(x[0] > 0, lambda v: v + 1, lambda v: v * 2, (x,))
        second = torch.cond(y.sum() > 0, lambda v: v - 0.5, lambda v: v.neg(), (x + y,))
        rows = second.view(2, 2)
        return first, second, rows + 1, first * second


@pytest.mark.parametrize("delegated", [False, True])
def test_results_of_conditions_stay_what_they_are(delegated: bool) -> None:
    """As torch has them: the stock runtime gives back memory that the second condition has written."""
    module, example = TwoBranches(), (torch.ones(4), torch.ones(4))
    lowered = to_edge_transform_and_lower(
        torch.export.export(module, example), partitioner=[VulkanPartitioner()] if delegated else None
    )
    with Runtime.get().load_program(lowered.to_executorch().buffer) as program:
        method = program.load_method("forward")
        for _ in range(4):
            inputs = (torch.randn(4), torch.randn(4))
            torch.testing.assert_close(method.execute(inputs), list(module(*inputs)))

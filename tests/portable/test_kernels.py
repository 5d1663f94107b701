"""Host kernels against torch, in one program: what in-place writes, indices and comparisons become."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from executorch.exir import EdgeCompileConfig, to_edge
from torch import nn

from executorch_webgpu import InvalidInputError, Runtime


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(4, 6))

    def forward(self, x: torch.Tensor, i: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second = x.split([2, 4], 1)
        self.kept[1:3] = x[1:3]
        self.kept[:, 2] = 1.5
        self.kept[i] = 2.0
        y = x.clone()
        y[0] = 5
        y[::2, 1:3] += 1
        y[mask] = 0
        z = torch.index_put(x, (i, i), torch.tensor(1.0), accumulate=True)
        rows = (x[i], x[i, 1], x[:, i], x.index_select(1, i), torch.gather(x, 1, i.reshape(1, -1)), x.roll(1, 0))
        parts = (first, second, x.chunk(3, 1)[1], x.unbind(0)[2], y, z, self.kept + 1)
        remainders = (x % 0.3, torch.remainder(x, -2), torch.fmod(x, 0.7), torch.remainder(i - 3, 2), (i - 5) // 2)
        rounded = (x.floor(), x.ceil(), torch.trunc(x), x.sign(), torch.erf(x), x.cumsum(0), i.cumsum(0))
        chosen = ((x > 0).any(), (x > 0).all(1), x.max(), x.min(), *x.max(1), *x.min(0, keepdim=True), x.var(1))
        return (*rows, *parts, *remainders, *rounded, *chosen, torch.isnan(x / x), torch.isinf(x / 0))


class Mapped(nn.Module):
    def forward(self, xs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops.map import map as torch_map

        return torch_map(lambda x, y: torch.relu(x) * y, xs, y)


class Divided(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.div(a, b, rounding_mode="trunc"), a % b


def export(module: nn.Module, *example: torch.Tensor) -> bytes:
    # The exporter's own check refuses tensors of several dtypes in one call, which it then lowers all the same.
    edge = to_edge(torch.export.export(module, example), compile_config=EdgeCompileConfig(_check_ir_validity=False))
    return edge.to_executorch().buffer


def test_host_kernels_agree_with_torch_over_several_calls() -> None:
    module = Everything()
    example = (torch.randn(4, 6), torch.tensor([0, 2]), torch.rand(4, 6) > 0.5)
    with Runtime.get().load_program(export(Everything(), *example)) as program:
        method = program.load_method("forward")
        for _ in range(3):
            inputs = (torch.randn(4, 6), torch.randint(0, 4, (2,)), torch.rand(4, 6) > 0.5)
            for got, wanted in zip(method.execute(inputs), module(*inputs), strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_a_map_collects_its_results() -> None:
    with Runtime.get().load_program(export(Mapped(), torch.ones(5, 3), torch.ones(3))) as program:
        method = program.load_method("forward")
        for _ in range(2):
            xs, y = torch.randn(5, 3), torch.randn(3)
            torch.testing.assert_close(method.execute([xs, y])[0], torch.relu(xs) * y)


def test_integers_divide_as_in_torch_and_zero_is_refused(tmp_path: Path) -> None:
    example = (torch.tensor([7, -7, 7, -7]), torch.tensor([2, 2, -2, -2]))
    with Runtime.get().load_program(export(Divided(), *example)) as program:
        method = program.load_method("forward", lower="delegates")
        large = torch.tensor([2**62 + 1, -(2**62) - 1, 9, -9])
        for a in (example[0], large):
            for got, wanted in zip(method.execute([a, example[1]]), Divided()(a, example[1]), strict=True):
                torch.testing.assert_close(got, wanted)
        with pytest.raises(InvalidInputError, match="divided by 0"):
            method.execute([example[0], torch.tensor([1, 0, 1, 1])])


class Joined(nn.Module):
    def forward(self, x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, ...]:
        half = x.to(torch.bfloat16)
        return torch.stack([i, half], -1), torch.cat([half, x], 0), torch.cat([i > 0, half], 1)


def test_tensors_of_several_dtypes_are_joined_as_torch_does() -> None:
    inputs = torch.randn(2, 3), torch.randint(-9, 9, (2, 3))
    with Runtime.get().load_program(export(Joined(), *inputs)) as program:
        got = program.load_method("forward").execute(inputs)
    torch.testing.assert_close(got, list(Joined()(*inputs)), rtol=0, atol=0)

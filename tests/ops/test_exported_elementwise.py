"""Elementwise programs of several dtypes as the stock exporter writes them, without a partitioner, against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from executorch.exir import to_edge
from torch import nn
from torch.nn import functional

from executorch_webgpu import Runtime


class OfFloats(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> Any:
        return (
            functional.softplus(x, 2.0, 3.0),
            functional.glu(torch.erf(x)),
            x % y,
            x // 0.5,
            torch.clamp(x, y - 1, y),
            torch.where(b, x, 1.0),
            torch.addcdiv(x, x, y, value=2),
            2**x,
            torch.atan2(x, y),
            (x * 3).to(torch.int8),
            x.bool() & b,
        )


class OfIntegers(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, b: torch.Tensor) -> Any:
        return (
            x * y + x * 100,
            x // y,
            torch.fmod(x, y),
            x / 3,
            (x & 3) ^ ~y,
            x**2,
            torch.where(b, x, y),
            x < 2.5,
            b * x,
            torch.sqrt(x),
            x.clamp(2, 5).to(torch.float16),
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int16", "uint8"])
def test_programs_of_a_dtype_agree_with_torch(dtype: str) -> None:
    torch.manual_seed(0)
    kind: torch.dtype = getattr(torch, dtype)
    module = OfFloats() if kind.is_floating_point else OfIntegers()
    x, y = torch.rand(3, 4) * 3 + 0.3, torch.rand(1, 4) + 0.5
    if not kind.is_floating_point:
        x, y = x * 60 + 1, y * 9 + 1
    inputs = (x.to(kind), y.to(kind), torch.rand(3, 1) < 0.5)
    with torch.no_grad():
        wanted = module(*inputs)
    data = to_edge(torch.export.export(module, inputs)).to_executorch().buffer
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
        for got, right in zip(method.execute(inputs), wanted, strict=True):
            near = {torch.bfloat16: 1.6e-2, torch.float16: 2e-3}.get(right.dtype, 1e-5)
            torch.testing.assert_close(got, right, rtol=near, atol=near)

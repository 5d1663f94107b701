"""Host kernels whose results are as large as their values say, against torch; and a program whose sizes follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from executorch.exir import EdgeCompileConfig, to_edge
from torch import nn

from executorch_webgpu import Runtime
from executorch_webgpu.portable.selections import SELECTIONS

A = torch.ops.aten
X = torch.tensor([[3, 0, 3], [1, 1, 0], [1, 1, 0], [3, 0, 3]])
RUNS = torch.tensor([2, 2, 5, 5, 5, 2, 7])
CASES: list[tuple[str, str, Any, tuple[Any, ...]]] = [
    ("nonzero", "out", A.nonzero, (X,)),
    ("nonzero", "out", A.nonzero, (torch.tensor(4.0),)),
    ("nonzero", "out", A.nonzero, (torch.zeros(2, 3),)),
    ("masked_select", "out", A.masked_select, (X, torch.tensor([True, False, True]))),
    ("repeat_interleave", "Tensor_out", lambda n, size: A.repeat_interleave.Tensor(n), (torch.tensor([2, 0, 3]), 5)),
    *(("tril_indices", "out", A.tril_indices.default, (3, 5, offset)) for offset in (-1, 0, 2)),
    *(("triu_indices", "out", A.triu_indices.default, (5, 3, offset)) for offset in (-1, 0, 2)),
    ("_unique2", "out", A._unique2, (X, True, True, True)),
    ("unique_dim", "out", A.unique_dim, (X, 0, True, True, True)),
    ("unique_dim", "out", A.unique_dim, (X, 1, True, True, True)),
    ("unique_consecutive", "out", A.unique_consecutive, (RUNS, True, True, None)),
    ("unique_consecutive", "out", A.unique_consecutive, (X, True, True, 0)),
]


@pytest.mark.parametrize(("name", "overload", "torch_op", "args"), CASES)
def test_selections_are_those_of_torch(name: str, overload: str, torch_op: Any, args: tuple[Any, ...]) -> None:
    wanted = torch_op(*args)
    given = [a.numpy() if isinstance(a, torch.Tensor) else a for a in args]
    got = SELECTIONS["aten::" + name, overload](*given)
    pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]
    for found, expected in pairs:
        assert np.shape(found) == tuple(expected.shape)
        np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize(("repeats", "size"), [([1, -1], None), ([[1]], None), ([1, 2], 4)])
def test_repeats_that_torch_refuses(repeats: Any, size: int | None) -> None:
    with pytest.raises(ValueError, match="repeats"):
        SELECTIONS["aten::repeat_interleave", "Tensor_out"](np.array(repeats), size)


class Selecting(nn.Module):
    def forward(self, x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, ...]:
        chosen = x[x > 0]
        rows = x[x[:, 0] > 0]
        return chosen * 2, rows + 1, x.nonzero(), torch.unique(i), i.nonzero().sum(0)


def test_sizes_follow_what_is_selected() -> None:
    example = torch.randn(4, 6), torch.randint(0, 4, (7,))
    exported = torch.export.export(Selecting(), example)
    edge = to_edge(exported, compile_config=EdgeCompileConfig(_check_ir_validity=False))
    with Runtime.get().load_program(edge.to_executorch().buffer) as program:
        method = program.load_method("forward")
        for scale in (1, 0, -1, 1):  # few, none, and many again
            inputs = torch.randn(4, 6).abs() * scale, torch.randint(0, 4, (7,))
            for got, wanted in zip(method.execute(inputs), Selecting()(*inputs), strict=True):
                torch.testing.assert_close(got, wanted)

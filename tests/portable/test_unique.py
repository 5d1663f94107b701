"""Operators on the host whose results are as large as the data says: different elements, and runs of equal ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from executorch_webgpu.portable import host_kernel

Call = Callable[[torch.Tensor], Sequence[torch.Tensor]]


@pytest.mark.parametrize(
    ("name", "args", "by_torch"),
    [
        ("_unique2", (True, True, True), lambda x: torch.unique(x, return_inverse=True, return_counts=True)),
        ("_unique2", (True, False, True), lambda x: torch.ops.aten._unique2(x, True, False, True)),
        ("unique_dim", (0, True, True, True), lambda x: torch.ops.aten.unique_dim(x, 0, True, True, True)),
        ("unique_dim", (1, True, False, True), lambda x: torch.ops.aten.unique_dim(x, 1, True, False, True)),
        ("unique_consecutive", (True, True, None), lambda x: torch.ops.aten.unique_consecutive(x, True, True)),
        ("unique_consecutive", (False, False, None), lambda x: torch.ops.aten.unique_consecutive(x, False, False)),
        ("unique_consecutive", (False, False, 0), lambda x: torch.ops.aten.unique_consecutive(x, False, False, 0)),
        ("unique_consecutive", (True, True, 1), lambda x: torch.ops.aten.unique_consecutive(x, True, True, 1)),
    ],
)
def test_against_torch(name: str, args: tuple[Any, ...], by_torch: Call) -> None:
    kernel = host_kernel(f"aten::{name}", "out", len(args) + 1)
    assert kernel is not None
    with_nan = torch.tensor([[1.0, torch.nan, 1.0], [torch.nan, 2.0, 2.0]])
    for x in (torch.randint(0, 3, (5, 4)), torch.zeros(2, 3, dtype=torch.bool), torch.ones(1, 1), with_nan):
        if name == "unique_dim" and x is with_nan:
            continue  # torch's order of rows with NaN is none
        for got, wanted in zip(kernel([x.numpy(), *args], None), by_torch(x), strict=True):
            found = torch.from_numpy(got.copy()).to(wanted.dtype)
            if not wanted.numel() or (name == "unique_dim" and x is with_nan):  # what is not asked for has no size
                continue
            torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)

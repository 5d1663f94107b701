"""Distances between rows: against torch, with NaN and infinity, and as many pairs as there are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device

from .harness import In, OpProgram, Out
from .torch_checks import check_device, check_reference

ORDERS = (0.0, 1.0, 2.0, 3.0, 0.5, math.inf)


@pytest.mark.parametrize("p", ORDERS)
def test_distances_are_those_of_torch(device: Device, p: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 5)).astype(np.float32), rng.normal(size=(2, 4, 5)).astype(np.float32)
    a[0, 1, 2], a[1, 3, 4], b[0, 2, 2], a[0, 0] = np.nan, -np.inf, np.inf, b[0, 0]
    for check in (check_reference, lambda *args: check_device(device, *args)):
        check("aten._cdist_forward.default", a, b, p, None)
        check("aten._pdist_forward.default", a[0], p)


@pytest.mark.parametrize("rows", [2, 3, 400])
def test_every_pair_is_found(device: Device, rows: int) -> None:
    x = np.arange(rows, dtype=np.float32)[:, None] ** 2 % 1009
    check_device(device, "aten._pdist_forward.default", x, 1.0)


def test_live_sizes(device: Device) -> None:
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    with OpProgram(device, "aten._pdist_forward.default", [In((9, 3)), 2.0], Out((36,))) as program:
        for rows in (9, 1, 0, 2, 9):
            program.check([x[:rows]])

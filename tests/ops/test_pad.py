"""Padding: against torch over random amounts, negative ones too, values of all kinds, and live sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.device import Device

from .harness import In, OpProgram, Out, Sym
from .torch_checks import check_device, check_reference

DTYPES = (np.float32, np.int64, np.bool_, np.uint8, np.float64, np.int16)


@pytest.mark.parametrize("seed", range(30))
def test_references_are_torch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 1 + seed % 3
    x = rng.integers(0, 9, (2, 3, *rng.integers(4, 8, n))).astype(DTYPES[seed % len(DTYPES)])
    count = 2 * int(rng.integers(0, x.ndim + 1))
    check_reference("aten.constant_pad_nd.default", x, rng.integers(-1, 4, count).tolist(), [0, 2.5, True][seed % 3])
    for mode in ("reflection", "replication") if x.dtype != bool else ():
        check_reference(f"aten.{mode}_pad{n}d.default", x, rng.integers(-1, 4, 2 * n).tolist())


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(np.float32, float("-inf")), (np.float32, float("nan")), (np.float16, 1.5), (np.bool_, 2), (np.int64, -7.9)],
)
def test_values(device: Device, dtype: Any, value: float) -> None:
    x = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(dtype)
    for pads in ([2, 1], [-1, 3, 1, -2], [-2, -3], []):
        check_device(device, "aten.constant_pad_nd.default", x, pads, value)


def test_live_sizes_and_live_pads(device: Device) -> None:
    x = np.arange(35, dtype=np.float32).reshape(5, 7)
    with OpProgram(device, "aten.constant_pad_nd.default", [In((5, 7)), [Sym(), 1], 3.0], Out((5, 13))) as program:
        for rows, columns, front in ((5, 7, 5), (1, 2, 0), (5, 7, -7), (0, 7, 2), (3, 7, 5)):
            assert program.check([x[:rows, :columns], front]).shape == (rows, columns + front + 1)
        with pytest.raises(InvalidInputError, match="take more"):
            program.run([x, -9])


def test_reflections_end_within_the_dimension(device: Device) -> None:
    args = [In((1, 4, 5)), [3, 0]]
    with OpProgram(device, "aten.reflection_pad1d.default", args, Out((1, 4, 8))) as program:
        program.check([np.random.default_rng(0).normal(size=(1, 4, 5)).astype(np.float32)])
        with pytest.raises(InvalidInputError, match="reflect more"):
            program.run([np.zeros((1, 4, 3), np.float32)])
    with pytest.raises(UnsupportedProgramError, match="elements around"):
        OpProgram(device, "aten.reflection_pad2d.default", [In((1, 4, 5)), [1, 1]], Out((1, 4, 7)))


@pytest.mark.parametrize(("size", "pads"), [(0, [-1, 3]), (1, [-2, 3]), (3, [3, -4]), (3, [-2, -2])])
def test_what_is_taken_away_must_be_there(device: Device, size: int, pads: list[int]) -> None:
    """Even where more is added at the other side, as torch has it."""
    x = torch.ones(size, 4)
    with pytest.raises(RuntimeError):
        torch.constant_pad_nd(x, [0, 0, *pads])
    args = [In((5, 4)), [0, 0, *pads], 1.0]
    with (
        OpProgram(device, "aten.constant_pad_nd.default", args, Out((5 + max(0, sum(pads)), 4))) as program,
        pytest.raises(InvalidInputError, match="take more than dimension 0"),
    ):
        program.run([x.numpy()])

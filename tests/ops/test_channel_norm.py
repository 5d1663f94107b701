"""Batch, instance and group norm: against torch, rows in one part and in many, far from zero, and live sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.gpu.device import Device

from .harness import Const, In, OpProgram, Out, assert_close
from .torch_checks import by_torch, check_device, check_reference

DIMS = [(2, 6, 5, 7), (3, 4), (1, 6, 13), (2, 2, 3, 2, 5), (1, 2, 101, 89), (3, 2, 48, 64)]


def normal(*dims: int, center: float = 0) -> np.ndarray:
    return (np.random.default_rng(sum(dims)).normal(size=dims) + center).astype(np.float32)


@pytest.mark.parametrize("dims", DIMS)
def test_channels_are_normalized_as_torch_does(device: Device, dims: tuple[int, ...]) -> None:
    n, channels, *sizes = dims
    x, weight, bias = normal(*dims), normal(channels), normal(channels, center=1)
    given = [x, weight, bias, normal(channels), np.abs(normal(channels, center=2)), 0.1, 1e-3]
    own: list[Any] = [x, weight, None, True, 0.1, 1e-3]
    groups: list[Any] = [x, None, bias, n, channels, int(np.prod(sizes)), 2, 1e-3]
    for name, args in (
        ("aten._native_batch_norm_legit_no_training.default", given),
        ("aten._native_batch_norm_legit.no_stats", own),
        ("aten.native_group_norm.default", groups),
    ):
        check_reference(name, *args)
        check_device(device, name, *args)


def test_far_from_zero(device: Device) -> None:
    """A mean of 1000 standard deviations, in rows of several parts."""
    x = normal(2, 2, 110, 100, center=1000)
    check_device(device, "aten._native_batch_norm_legit.no_stats", x, None, None, True, 0.1, 1e-5, absolute=2e-3)
    check_device(device, "aten.native_group_norm.default", x, None, None, 2, 2, 11000, 1, 1e-5, absolute=2e-3)


def test_live_sizes(device: Device) -> None:
    """Rows become short and few, parts become many."""
    args = [In((3, 4, 64, 65)), None, None, 3, 4, 64 * 65, 2, 1e-5]
    outs = [Out((3, 4, 64, 65)), Out((3, 2)), Out((3, 2))]
    with OpProgram(device, "aten.native_group_norm.default", args, outs) as program:
        for dims in ((3, 4, 64, 65), (1, 4, 64, 64), (0, 4, 3, 3), (2, 4, 1, 3), (3, 4, 64, 65)):
            program.check([normal(*dims)])


def test_nan_and_infinity_stay_in_their_rows(device: Device) -> None:
    x = normal(2, 4, 3, 3)
    x[0, 1, 0, 0], x[1, 3, 2, 2] = np.nan, np.inf
    args = [None, None, 2, 4, 9, 2, 1e-5]
    outs = [Out((2, 4, 3, 3)), Out((2, 2)), Out((2, 2))]
    with OpProgram(device, "aten.native_group_norm.default", [In(x.shape), *args], outs) as program:
        out = program.run([x])[0]
    assert_close(out, by_torch("aten.native_group_norm.default", x, *args)[0])
    assert np.isnan(out).reshape(2, 2, 18).all(axis=-1).tolist() == [[True, False], [False, True]]


def test_training_is_refused(device: Device) -> None:
    stats = [Const(np.ones(4, np.float32))] * 2
    args = [In((2, 4, 3)), None, None, *stats, True, 0.1, 1e-5]
    with pytest.raises(UnsupportedProgramError, match="eval mode"):
        OpProgram(device, "aten._native_batch_norm_legit.default", args, [Out((2, 4, 3)), Out((0,)), Out((0,))])

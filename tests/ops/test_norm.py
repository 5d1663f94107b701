"""RMSNorm and LayerNorm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops import norm

from .harness import Const, In, OpProgram, Out

RNG = np.random.default_rng(0)


def normal(*dims: int) -> np.ndarray:
    return RNG.standard_normal(dims, dtype=np.float32)


def rms(device: Device, dims: tuple[int, ...], weight: np.ndarray, eps: float = 1e-5) -> OpProgram:
    return OpProgram(device, "et_vk.rms_norm.default", [In(dims), Const(weight), eps], Out(dims))


def layer(device: Device, dims: tuple[int, ...], last: int, weight: bool = True, bias: bool = True) -> OpProgram:
    """LayerNorm over the ``last`` dimensions."""
    shape, stats = dims[-last:], (*dims[:-last], *(1,) * last)
    args = [
        In(dims),
        list(shape),
        Const(normal(*shape)) if weight else None,
        Const(normal(*shape)) if bias else None,
    ]
    outs = [Out(dims), Out(stats), Out(stats)]
    return OpProgram(device, "aten.native_layer_norm.default", [*args, 1e-5], outs)


def test_references_by_hand() -> None:
    x, weight = np.array([[3.0, -4.0, 0.0, 0.0]]), np.array([1.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(norm.rms_norm_reference(x, weight, 0.0), [[1.2, -1.6, 0.0, 0.0]])
    out, mean, rstd = norm.layer_norm_reference(np.array([[1.0, 3.0]]), [2], np.array([2.0, 2.0]), None, 0.0)
    np.testing.assert_allclose(out, [[-2.0, 2.0]])
    assert (mean.item(), rstd.item()) == (2.0, 1.0)


@settings(max_examples=15, deadline=None)
@given(lead=st.lists(st.integers(1, 5), max_size=3), width=st.integers(1, 200))
def test_rms_norm(device: Device, lead: list[int], width: int) -> None:
    dims = (*lead, width)
    with rms(device, dims, normal(width)) as program:
        program.check([normal(*dims)])


@pytest.mark.parametrize("width", [1, 63, 64, 65, 130, 576, 8192])
def test_rms_norm_widths(device: Device, width: int) -> None:
    with rms(device, (1, 3, width), normal(width)) as program:
        program.check([normal(1, 3, width)])


def test_rms_norm_live_rows(device: Device) -> None:
    with rms(device, (1, 31, 67), normal(67)) as program:
        for rows in (31, 1, 1, 17, 30):
            program.check([normal(1, rows, 67)])


def test_rms_norm_of_small_and_large_rows(device: Device) -> None:
    """eps matters for rows near 0; zero rows stay 0; squares of 1e15 still fit."""
    scale = np.array([0.0, 1e-3, 1.0, 1e15], np.float32)[:, None]
    with rms(device, (4, 576), normal(576), eps=1e-6) as program:
        out = program.check([normal(4, 576) * scale])
        assert not out[0].any()


def test_more_rows_than_workgroups_in_one_dimension(device: Device) -> None:
    rows = device.limits.max_workgroups + 3
    with rms(device, (rows, 2), normal(2)) as program:
        program.check([normal(rows, 2)])


def test_rms_norm_bad_weight(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="weight"):
        rms(device, (3, 8), normal(7))


@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize(("dims", "last"), [((3, 5, 70), 1), ((2, 3, 4, 5), 2), ((7, 1), 1), ((300,), 1)])
def test_layer_norm(device: Device, dims: tuple[int, ...], last: int, weight: bool, bias: bool) -> None:
    with layer(device, dims, last, weight, bias) as program:
        program.check([normal(*dims)])


def test_layer_norm_far_from_zero(device: Device) -> None:
    """A mean of 1000 standard deviations: the mean of squares minus the squared mean would be noise."""
    with layer(device, (3, 257), 1) as program:
        program.check([normal(3, 257) + np.float32(1000)], absolute=2e-3)


def test_layer_norm_live_rows(device: Device) -> None:
    with layer(device, (11, 40), 1) as program:
        for rows in (11, 2, 2, 7):
            program.check([normal(rows, 40)])
        with pytest.raises(InvalidInputError, match="normalized shape"):
            program.run([normal(3, 39)])


@pytest.mark.parametrize(
    ("width", "kernel"),
    [(3, "kept"), (1023, "kept"), (1025, "kept"), (4096, "kept"), (4097, "norm"), (16384, "kept"), (16388, "norm")],
)
def test_rows_are_kept_as_far_as_they_fit(device: Device, width: int, kernel: str) -> None:
    """Widths around what invocations keep, of one element or four a unit, and one that they do not."""
    rows = 131 if width < 10 else 3
    with layer(device, (rows, width), 1) as program:
        assert program.executor.plans.plans[-1].dispatches[0].kernel == f"norm/{kernel}"
        program.check([normal(rows, width) + np.float32(3)])
    with rms(device, (rows, width), normal(width)) as program:
        program.check([normal(rows, width)])


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_kernels_compile(engine: str) -> None:
    plain = {"center": False, "weight": True, "bias": False}
    compile_check(engine, "norm/norm", plain)
    compile_check(engine, "norm/kept", {**plain, "unit": 1, "kept": 4})
    for weight in (False, True):
        how = {"center": True, "weight": weight, "bias": weight}
        compile_check(engine, "norm/norm", how)
        compile_check(engine, "norm/kept", {**how, "unit": 4, "kept": 16})


def test_squares_that_overflow_give_nan_and_not_zeros(device: Device) -> None:
    x = np.array([[1, 2, 3, 4], [1e30, 0, 0, 0], [1, np.inf, 0, 0], [0, -1e30, 1, np.nan]], np.float32)
    args = [In((4, 4)), [4], None, None, 1e-5]
    with OpProgram(device, "aten.native_layer_norm.default", args, [Out((4, 4)), Out((4, 1)), Out((4, 1))]) as program:
        got = program.run([x])[0]
    wanted = torch.nn.functional.layer_norm(torch.from_numpy(x), (4,)).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-5)

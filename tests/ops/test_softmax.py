"""Softmax and log-softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops import softmax

from .harness import In, OpProgram, Out

NAMES = ("aten._softmax.default", "aten._log_softmax.default")
RNG = np.random.default_rng(0)


def normal(*dims: int) -> np.ndarray:
    return RNG.standard_normal(dims, dtype=np.float32)


def program(device: Device, name: str, dims: tuple[int, ...], dim: int, **options: object) -> OpProgram:
    return OpProgram(device, name, [In(dims), dim, False], Out(dims), **options)


def test_references_by_hand() -> None:
    x = np.log(np.array([[1.0, 3.0], [4.0, 4.0]]))
    np.testing.assert_allclose(softmax.softmax_reference(x, 1), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(softmax.softmax_reference(x, 0), [[0.2, 3 / 7], [0.8, 4 / 7]])
    np.testing.assert_allclose(np.exp(softmax.log_softmax_reference(x, 1)), [[0.25, 0.75], [0.5, 0.5]])


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    dims=st.lists(st.integers(1, 13), min_size=1, max_size=5),
    data=st.data(),
)
def test_any_dimension(device: Device, name: str, dims: list[int], data: st.DataObject) -> None:
    dim = data.draw(st.integers(-len(dims), len(dims) - 1))
    with program(device, name, tuple(dims), dim) as loaded:
        loaded.check([normal(*dims)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1031])
def test_row_lengths(device: Device, name: str, length: int) -> None:
    with program(device, name, (3, length), -1) as loaded:
        loaded.check([normal(3, length) * 10])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_live_dims(device: Device, name: str, dim: int) -> None:
    with program(device, name, (5, 7, 67), dim) as loaded:
        for dims in ((5, 7, 67), (1, 7, 67), (5, 1, 3), (5, 1, 3), (2, 5, 66), (5, 7, 67)):
            loaded.check([normal(*dims)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [0, 1])
def test_large_logits(device: Device, name: str, dim: int) -> None:
    with program(device, name, (9, 11), dim) as loaded:
        for offset in (0.0, 1e4, -1e4):
            loaded.check([normal(9, 11) * 100 + np.float32(offset)])


@pytest.mark.parametrize("dim", [0, 1])
def test_masked_elements(device: Device, dim: int) -> None:
    """-inf gets no weight; a row of nothing else is NaN, as in torch, and so is one with NaN or +inf."""
    x = normal(8, 8)
    x[range(8), range(8)] = -np.inf
    with program(device, NAMES[0], (8, 8), dim) as loaded:
        assert np.isfinite(loaded.check([x])).all()
        x[2, :] = x[:, 2] = -np.inf
        x[4, 5], x[6, 7] = np.nan, np.inf
        assert np.isnan(loaded.check([x])).any()


def test_more_rows_than_workgroups_in_one_dimension(device: Device) -> None:
    rows = device.limits.max_workgroups + 3
    with program(device, NAMES[0], (rows, 2), -1) as loaded:
        loaded.check([normal(rows, 2)])


def test_forced_routes_agree(device: Device) -> None:
    x = normal(5, 130)
    with program(device, NAMES[0], x.shape, -1, routes={"softmax": "invocation_row"}) as loaded:
        loaded.check([x])
        assert loaded.executor.plans.plans[-1].route == "invocation_row"


def test_a_dimension_that_is_not_there(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="no dimension 2"):
        program(device, NAMES[0], (3, 4), 2)


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("log", [False, True])
def test_kernels_compile(engine: str, log: bool) -> None:
    compile_check(engine, "softmax/workgroup_row", {"log": log})
    compile_check(engine, "softmax/invocation_row", {"log": log})

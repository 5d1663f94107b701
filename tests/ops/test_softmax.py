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

from .against_torch import check as check_against_torch
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
    with program(device, NAMES[0], x.shape, -1, routes={"softmax": "two_passes"}) as loaded:
        loaded.check([x])
        assert loaded.executor.plans.plans[-1].route == "two_passes"


def test_a_dimension_that_is_not_there(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="no dimension 2"):
        program(device, NAMES[0], (3, 4), 2)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("name", [*NAMES, "aten._safe_softmax.default"])
def test_against_torch(device: Device, name: str, dtype: str) -> None:
    """Rows with masked elements, of all lengths that rows are kept in, and longer ones."""
    for shape, dim in (((5, 12), -1), ((3, 7), 1), ((12, 3, 5), 0), ((2, 70, 3), 1), ((1, 4099), 1), ((600, 4), 0)):
        x = (4 * RNG.standard_normal(shape)).astype(dtype)
        x.reshape(-1)[::5] = -np.inf
        check_against_torch(device, name, x, dim, False if "safe" not in name else None)


@pytest.mark.parametrize("name", [*NAMES, "aten._safe_softmax.default"])
def test_not_finite_rows(device: Device, name: str) -> None:
    x = normal(8, 8)
    x[0, 3] = x[1] = -np.inf
    x[2, 5] = x[3, 0] = x[3, 1] = np.inf
    x[4, 7] = np.nan
    x[5], x[6, ::2] = 3e38, -3e38
    for dim in (0, 1):
        given = np.ascontiguousarray(x if dim else x.T)
        check_against_torch(device, name, given, dim, False if "safe" not in name else None)


def test_long_columns_as_gpus_keep_them(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "ACROSS", (*softmax.ACROSS, *softmax.ACROSS_LONG))
    monkeypatch.setattr(softmax, "WIDE", (*softmax.WIDE, *softmax.WIDE_LONG))
    for length in (513, 2049, 4096):
        for width in (9, 12):
            with program(device, NAMES[0], (2, length, width), 1) as loaded:
                loaded.check([normal(2, length, width)])
                assert loaded.executor.plans.plans[-1].route == "kept"


@pytest.mark.parametrize("name", [*NAMES, "aten._safe_softmax.default"])
def test_four_columns_an_invocation(device: Device, name: str) -> None:
    """Columns by quads, of all lengths that are kept in other ways, and live ones that are no quads."""
    dims = (2, 513, 24)
    args = [In(dims), 1, False if "safe" not in name else None]
    with OpProgram(device, name, args, Out(dims)) as loaded:
        for live in (dims, (2, 257, 20), (1, 65, 24), (2, 3, 4), (2, 70, 23), (2, 513, 24)):
            x = 4 * normal(*live)
            x[:, ::3, 1::5] = -np.inf
            x[0, :, 2] = -np.inf
            x[0, 1, 3] = np.nan
            loaded.check([x])


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("result", ["softmax", "log", "safe"])
def test_kernels_compile(engine: str, result: str) -> None:
    template = {"result": result, "x": "float16", "out": "float16"}
    compile_check(engine, "softmax/apply", template)
    for width, across in ((4, False), (4, True), (1, False), (1, True)):
        out = "float16" if width == 4 else "float32"
        each = {**template, "width": width, "across": across, "out": out, "kept": 4}
        compile_check(engine, "softmax/kept", each, {"wg_size": softmax.WORKGROUP})

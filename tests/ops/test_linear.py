"""Matrix products in float32: linear layers by every route, mm, addmm and bmm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.linear import TUNING
from executorch_webgpu.ops.matmul.gemm import Tile, Tuning

from .harness import Const, In, OpProgram, Out

ROUTES = ("columns", "gemv", "gemm")
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def linear(
    device: Device,
    max_rows: int,
    n: int,
    k: int,
    bias: bool = False,
    route: str | None = None,
    dtype: str = "float32",
) -> OpProgram:
    args = [In((max_rows, k)), Const(floats(n, k).astype(dtype)), Const(floats(n)) if bias else None]
    routes = {"linear": route} if route else {}
    return OpProgram(device, "aten.linear.default", args, Out((max_rows, n)), routes=routes)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 9),
    n=st.sampled_from([1, 3, 4, 13, 64, 67, 131]),
    k=st.sampled_from([1, 4, 7, 31, 32, 37, 64, 127]),
    bias=st.booleans(),
    route=st.sampled_from([None, *ROUTES]),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_linear_of_any_size(device: Device, m: int, n: int, k: int, bias: bool, route: str | None, dtype: str) -> None:
    with linear(device, m, n, k, bias, route, dtype) as program:
        program.check([floats(m, k)])


@pytest.mark.parametrize("route", ROUTES)
def test_more_than_one_tile_both_ways(device: Device, route: str) -> None:
    with linear(device, 67, 131, 70, True, route) as program:
        program.check([floats(67, 70)])


@pytest.mark.parametrize("route", [None, *ROUTES])
def test_live_rows_shrink_and_grow_on_one_program(device: Device, route: str | None) -> None:
    with linear(device, 70, 37, 20, True, route) as program:
        for m in (70, 1, 1, 2, 8, 9, 1, 65, 3, 5, 70):
            assert program.check([floats(m, 20)]).shape == (m, 37)


def test_leading_dimensions_stay(device: Device) -> None:
    args = [In((2, 3, 8)), Const(floats(5, 8)), None]
    with OpProgram(device, "aten.linear.default", args, Out((2, 3, 5))) as program:
        program.check([floats(2, 3, 8)])
        program.check([floats(1, 2, 8)])


@pytest.mark.parametrize(("route", "m", "n"), [("gemv", 1, 4 * 65535 + 9), ("columns", 4 * 65535 + 9, 3)])
def test_more_workgroups_than_one_grid_dimension(device: Device, route: str, m: int, n: int) -> None:
    with linear(device, m, n, 4, route=route) as program:
        program.check([floats(m, 4)])


@settings(max_examples=12, deadline=None)
@given(
    m=st.sampled_from([1, 2, 13, 64, 67]),
    n=st.sampled_from([1, 3, 13, 64, 129]),
    k=st.sampled_from([1, 7, 32, 37, 65]),
)
def test_mm_of_any_size(device: Device, m: int, n: int, k: int) -> None:
    with OpProgram(device, "aten.mm.default", [In((m, k)), In((k, n))], Out((m, n))) as program:
        program.check([floats(m, k), floats(k, n)])


def test_mm_with_live_sizes_in_all_three_places(device: Device) -> None:
    with OpProgram(device, "aten.mm.default", [In((70, 40)), In((40, 70))], Out((70, 70))) as program:
        for m, k, n in ((70, 40, 70), (1, 40, 1), (13, 7, 67), (67, 33, 13), (70, 40, 70)):
            assert program.check([floats(m, k), floats(k, n)]).shape == (m, n)


@pytest.mark.parametrize("tile", TUNING.tiles, ids=str)
def test_every_tile_of_gemm_is_right(device: Device, tile: Tile) -> None:
    args, options = [In((2, 135, 37)), In((2, 37, 131))], {"tunings": {"linear/gemm": Tuning((tile,))}}
    with OpProgram(device, "aten.bmm.default", args, Out((2, 135, 131)), **options) as program:
        for m, k, n in ((135, 37, 131), (5, 16, 3), (129, 33, 64)):
            program.check([floats(2, m, k), floats(2, k, n)])


def test_bmm(device: Device) -> None:
    with OpProgram(device, "aten.bmm.default", [In((5, 67, 37)), In((5, 37, 13))], Out((5, 67, 13))) as program:
        for b, m, k, n in ((5, 67, 37, 13), (1, 2, 3, 4), (3, 65, 1, 13)):
            assert program.check([floats(b, m, k), floats(b, k, n)]).shape == (b, m, n)


def test_more_batches_than_one_grid_dimension(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "limits", replace(device.limits, max_workgroups=3))
    with OpProgram(device, "aten.bmm.default", [In((7, 67, 5)), In((7, 5, 131))], Out((7, 67, 131))) as program:
        program.check([floats(7, 67, 5), floats(7, 5, 131)])


@pytest.mark.parametrize("bias_dims", [(13,), (1,), (67, 1), (1, 13), (67, 13)])
def test_addmm_broadcasts_its_bias(device: Device, bias_dims: tuple[int, ...]) -> None:
    args = [In(bias_dims), In((67, 37)), In((37, 13)), 0.5, -2.0]
    with OpProgram(device, "aten.addmm.default", args, Out((67, 13))) as program:
        program.check([floats(*bias_dims), floats(67, 37), floats(37, 13)])


def test_addmm_with_beta_zero_does_not_read_its_bias(device: Device) -> None:
    args = [In((13,)), In((5, 7)), In((7, 13)), 0.0, 1.0]
    with OpProgram(device, "aten.addmm.default", args, Out((5, 13))) as program:
        program.check([np.full(13, np.nan, np.float32), floats(5, 7), floats(7, 13)])


@pytest.mark.parametrize(
    ("op", "args", "out", "message"),
    [
        ("linear", [In((2, 8)), Const(floats(5, 7)), None], (2, 5), "must be that of the matrix"),
        ("linear", [In((2, 8)), Const(floats(5, 8)), Const(floats(4))], (2, 5), "must hold 5 elements"),
        ("mm", [In((2, 8)), In((7, 3))], (2, 3), "must be matrices"),
        ("bmm", [In((2, 2, 8)), In((3, 8, 3))], (2, 2, 3), r"must be \[B, M, K\]"),
        ("addmm", [In((4,)), In((2, 8)), In((8, 3)), 1.0, 1.0], (2, 3), "does not broadcast"),
        ("mm", [In((2, 8), "int32"), In((8, 3), "int32")], (2, 3), "takes float32"),
    ],
)
def test_bad_calls_are_refused_at_load(
    device: Device, op: str, args: list[object], out: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UnsupportedProgramError, match=message):
        OpProgram(device, f"aten.{op}.default", args, Out(out))

"""Sums, means, extremes and their positions over any set of dimensions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.reduce import reference as means
from executorch_webgpu.ops.reduce.passes import PARTIAL_BYTES, WORKGROUP
from executorch_webgpu.ops.registry import find

from .harness import Const, In, OpProgram, Out

SUMS = ("aten.sum.dim_IntList", "aten.mean.dim")
EXTREMES = ("aten.amax.default", "aten.amin.default")
POSITIONS = ("aten.argmax.default", "aten.argmin.default")
RNG = np.random.default_rng(0)


def normal(*dims: int) -> np.ndarray:
    return RNG.standard_normal(dims, dtype=np.float32)


def reduced(shape: tuple[int, ...], dims: list[int] | None, keepdim: bool) -> tuple[int, ...]:
    return np.zeros(shape).sum(axis=tuple(dims) if dims else None, keepdims=keepdim).shape


def program(
    device: Device, name: str, shape: tuple[int, ...], dims: list[int] | None, keepdim: bool = False
) -> OpProgram:
    """A reduction over ``dims``; a position has one dimension, or None."""
    if name in POSITIONS:
        args: list[Any] = [dims[0] if dims else None, keepdim]
        return OpProgram(device, name, [In(shape), *args], Out(reduced(shape, dims, keepdim), "int32"))
    args = [dims, keepdim, *([None] if name in SUMS else [])]
    return OpProgram(device, name, [In(shape), *args], Out(reduced(shape, dims, keepdim)))


def reference_of(name: str) -> Any:
    operator = find(name)
    assert operator is not None
    return operator.reference


def test_references_by_hand() -> None:
    x = np.array([[1.0, 5.0, 5.0], [4.0, -2.0, np.nan]])
    np.testing.assert_array_equal(means.sum_reference(x, [0], True), [[5, 3, np.nan]])
    np.testing.assert_array_equal(means.mean_reference(x, [-1], False), [11 / 3, np.nan])
    assert np.isnan(means.mean_reference(np.zeros((0, 3)), None, False))
    np.testing.assert_array_equal(means.amax_reference(x, [1], False), [5, np.nan])
    np.testing.assert_array_equal(means.amin_reference(x[:1], [], False), 1)
    for name, expected in zip(POSITIONS, ([1, 2], [0, 2]), strict=True):
        np.testing.assert_array_equal(reference_of(name)(x, 1, False), expected)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(SUMS + EXTREMES), keepdim=st.booleans(), data=st.data())
def test_any_set_of_dimensions(device: Device, name: str, keepdim: bool, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=5)))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    dims = [a - len(shape) if data.draw(st.booleans()) else a for a in axes]
    with program(device, name, shape, dims, keepdim) as loaded:
        loaded.check([normal(*shape)])


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(POSITIONS), keepdim=st.booleans(), data=st.data())
def test_positions_of_extremes(device: Device, name: str, keepdim: bool, data: st.DataObject) -> None:
    """Of a few different numbers, so that most rows have ties."""
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    dim = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    with program(device, name, shape, None if dim is None else [dim], keepdim) as loaded:
        loaded.check([RNG.integers(-2, 2, shape).astype(np.float32)])


@pytest.mark.parametrize("name", SUMS + EXTREMES + POSITIONS)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 255, 257, 1024, 1025, 4099])
def test_row_lengths(device: Device, name: str, length: int) -> None:
    for shape, dim in (((3, length), -1), ((length, 3), 0)):
        with program(device, name, shape, [dim]) as loaded:
            loaded.check([normal(*shape) + 1])


@pytest.mark.parametrize("name", SUMS + EXTREMES + POSITIONS)
def test_live_dims(device: Device, name: str) -> None:
    """Rows are shared by 1, 32 or 256 invocations, as live dims say."""
    for dim in (0, 1, 2):
        with program(device, name, (5, 3, 1031), [dim], keepdim=True) as loaded:
            for dims in ((5, 3, 1031), (1, 3, 1031), (5, 1, 3), (5, 1, 3), (2, 3, 1030), (5, 3, 1031)):
                loaded.check([normal(*dims)])


@pytest.mark.parametrize("name", SUMS + EXTREMES)
def test_eight_dimensions(device: Device, name: str) -> None:
    shape = (2, 3, 1, 2, 2, 3, 2, 2)
    for dims in ([0, 2, 4, 6], [1, 3, 5, 7], [-1, -3, 1]):
        with program(device, name, shape, dims) as loaded:
            loaded.check([normal(*shape)])


HARD = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, 1e-38, -1e-38], np.float32)


@pytest.mark.parametrize("name", EXTREMES + POSITIONS)
def test_hard_values(device: Device, name: str) -> None:
    """All pairs and, by index, all triples: NaN wins wherever it stands, infinities count, zeros are equal."""
    rows = np.array(list(itertools.product(HARD, repeat=3)), np.float32)
    for x, dim in ((rows, 1), (np.ascontiguousarray(rows.T), 0)):
        with program(device, name, x.shape, [dim]) as loaded:
            loaded.check([x])


def test_denormals_are_told_apart(device: Device) -> None:
    x = np.array([[1e-45, 3e-45, 0.0], [-1e-45, -3e-45, 0.0]], np.float32)
    for name in EXTREMES + POSITIONS:
        with program(device, name, (2, 3), [1]) as loaded:
            loaded.check([x], absolute=0, relative=0)


@pytest.mark.parametrize("name", SUMS)
def test_nan_and_infinity_spread_through_sums(device: Device, name: str) -> None:
    x = normal(5, 67)
    x[1, 3], x[2, 5], x[3, 7], x[4, 9], x[4, 11] = np.nan, np.inf, -np.inf, np.inf, -np.inf
    with program(device, name, x.shape, [1]) as loaded, np.errstate(invalid="ignore"):
        got = loaded.check([x])
    np.testing.assert_array_equal(np.isfinite(got), [True, False, False, False, False])


def test_a_long_sum_stays_accurate(device: Device) -> None:
    x = RNG.uniform(0, 1, (1, 300_007)).astype(np.float32)
    with program(device, "aten.sum.dim_IntList", x.shape, None) as loaded:
        loaded.check([x], absolute=0, relative=1e-6)


def test_scalars_and_empty_tensors(device: Device) -> None:
    for name in SUMS + EXTREMES + POSITIONS:
        for dims in ([0], [-1], []):
            out = Out((), "int32" if name in POSITIONS else "float32")
            args = [(dims[0] if dims else None) if name in POSITIONS else dims, False]
            args += [None] if name in SUMS else []
            with OpProgram(device, name, [Const(np.array(-3.5, np.float32)), *args], out) as loaded:
                loaded.check([])
    for name in SUMS:
        with program(device, name, (3, 5), [0]) as loaded, np.errstate(invalid="ignore"):
            loaded.check([normal(0, 5)])
    for name in EXTREMES + POSITIONS:
        with program(device, name, (3, 5), [0]) as loaded:
            with pytest.raises(InvalidInputError, match="no elements to choose from"):
                loaded.run([normal(0, 5)])
            loaded.check([normal(3, 0)])
            loaded.check([normal(2, 5)])


@pytest.mark.slow
def test_more_rows_than_workgroups_in_one_dimension(device: Device) -> None:
    rows = device.limits.max_workgroups * 8 + 3
    with program(device, "aten.argmax.default", (rows, 2), [1]) as loaded:
        loaded.check([normal(rows, 2)])


@pytest.mark.parametrize("dims", [[2], [-3], [0, 0], [0, -2]])
def test_dimensions_that_cannot_be(device: Device, dims: list[int]) -> None:
    with pytest.raises(UnsupportedProgramError, match=r"no dimension among|appears twice"):
        OpProgram(device, "aten.amax.default", [In((3, 4)), dims, True], Out((1, 1)))


def test_other_dtypes_are_refused(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match="gives the dtype"):
        OpProgram(device, "aten.amax.default", [In((3, 4), "int32"), [1], False], Out((3,)))
    with pytest.raises(UnsupportedProgramError, match="int32"):
        OpProgram(device, "aten.argmax.default", [In((3, 4)), 1, False], Out((3,)))
    with pytest.raises(UnsupportedProgramError, match="floats"):
        OpProgram(device, "aten.var.correction", [In((3, 4), "int32"), [1], None, False], Out((3,)))


KINDS = (*PARTIAL_BYTES, "max", "min", "sum", "product", "any", "all")


@pytest.mark.parametrize("name", ["aten.amax.default", "aten.argmin.default", "aten.sum.dim_IntList"])
def test_columns_by_fours(device: Device, name: str) -> None:
    """Columns in fours and not, in chunks and not, with NaN and zeros of both signs."""
    with program(device, name, (2, 1031, 68), [1]) as loaded:
        for dims in ((2, 1031, 68), (1, 1030, 68), (2, 3, 4), (2, 131, 67), (1, 1, 12), (2, 1031, 68)):
            x = RNG.integers(-50, 50, dims).astype(np.float32)
            x[:, 0, ::3] = -0.0
            if "sum" not in name:
                x[0, -1, -1] = np.nan
            loaded.check([x])


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_compile(engine: str, kind: str) -> None:
    template: dict[str, object] = {
        "kind": kind,
        "compute": "f32",
        "of": "v",
        "finish": "v",
        "results": "first",
        "second": "int32",
    }
    out = "bool" if kind in ("any", "all") else "float32"
    for x, final, wide in (("float16", False, False), ("partial", True, False), ("float16", False, True)):
        each = {**template, "x": x, "across": wide, "wide": wide, "final": final, "out": out}
        compile_check(engine, "reduce/reduce", each, {"wg_size": WORKGROUP})
    del template["of"]
    compile_check(engine, "reduce/finish", {**template, "out": out}, {"wg_size": 64})

"""Linear layers with 4-bit weights, by every route."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device

from .harness import Const, In, OpProgram, Out

OP = "et_vk.linear_q4gsw.default"
ROUTES = ("columns", "gemv", "gemm")
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Layer:
    """The arguments of one call, as the exporter lays them out."""

    weights: np.ndarray  # [n, ceil(k to 8) / 2] uint8
    scales: np.ndarray  # [ceil(k / group_size), n to 4] float32
    group_size: int
    bias: np.ndarray | None  # [n to 4]
    k: int

    @classmethod
    def random(cls, n: int, k: int, group_size: int, bias: bool = False) -> Layer:
        padded = -(-n // 4) * 4
        weights = RNG.integers(0, 256, (n, -(-k // 8) * 4), dtype=np.uint8)
        scales = RNG.uniform(0.01, 0.2, (-(-k // group_size), padded)).astype(np.float32)
        scales[:, n:] = np.nan  # nobody may use the padding
        return cls(weights, scales, group_size, RNG.standard_normal(padded, np.float32) if bias else None, k)

    def program(self, device: Device, max_rows: int, route: str | None = None) -> OpProgram:
        bias = None if self.bias is None else Const(self.bias)
        args = [In((max_rows, self.k)), Const(self.weights), Const(self.scales), self.group_size, bias]
        routes = {"linear_q4gsw": route} if route else {}
        return OpProgram(device, OP, args, Out((max_rows, len(self.weights))), routes=routes)


def rows(m: int, k: int) -> np.ndarray:
    return RNG.standard_normal((m, k), np.float32)


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 9),
    n=st.sampled_from([1, 2, 3, 4, 5, 13, 31, 64, 67, 131]),
    k=st.sampled_from([1, 4, 7, 8, 31, 32, 36, 37, 64, 100, 127, 160]),
    group_size=st.sampled_from([8, 16, 24, 32, 64, 256]),
    bias=st.booleans(),
    route=st.sampled_from([None, *ROUTES]),
)
def test_any_size(device: Device, m: int, n: int, k: int, group_size: int, bias: bool, route: str | None) -> None:
    with Layer.random(n, k, group_size, bias).program(device, m, route) as program:
        program.check([rows(m, k)])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("n", "k"), [(576, 576), (192, 576), (67, 1536)])
def test_sizes_of_a_model(device: Device, n: int, k: int, route: str) -> None:
    with Layer.random(n, k, 32).program(device, 1, route) as program:
        program.check([rows(1, k)])


@pytest.mark.parametrize("route", ROUTES)
def test_more_than_one_tile_both_ways(device: Device, route: str) -> None:
    with Layer.random(131, 72, 16, bias=True).program(device, 67, route) as program:
        program.check([rows(67, 72)])


def test_a_group_may_be_a_whole_row_of_any_length(device: Device) -> None:
    for route in ROUTES:
        with Layer.random(13, 37, 37).program(device, 3, route) as program:
            program.check([rows(3, 37)])


@pytest.mark.parametrize("route", [None, *ROUTES])
def test_live_rows_shrink_and_grow_on_one_program(device: Device, route: str | None) -> None:
    """Decode and prefill take turns; the routes meet between 1, 4 and 5 rows."""
    with Layer.random(37, 40, 8, bias=True).program(device, 70, route) as program:
        for m in (70, 1, 1, 4, 5, 1, 65, 3, 70):
            out = program.check([rows(m, 40)])
            assert out.shape == (m, 37)


def test_leading_dimensions_stay(device: Device) -> None:
    layer = Layer.random(13, 32, 32)
    args = [In((2, 3, 32)), Const(layer.weights), Const(layer.scales), 32, None]
    with OpProgram(device, OP, args, Out((2, 3, 13))) as program:
        program.check([RNG.standard_normal((2, 3, 32), np.float32)])
        program.check([RNG.standard_normal((1, 3, 32), np.float32)])


@pytest.mark.parametrize("route", ROUTES)
def test_nothing_leaks_between_rows(device: Device, route: str) -> None:
    """K is not a multiple of a word: NaN and infinity in one row must stay in that row."""
    with Layer.random(13, 36, 16).program(device, 5, route) as program:
        x = rows(5, 36)
        x[2, 0] = np.nan
        out = program.run([x])
        assert np.isnan(out[2]).all()
        assert np.isfinite(out[[0, 1, 3, 4]]).all()


@pytest.mark.parametrize("route", ROUTES)
def test_large_values(device: Device, route: str) -> None:
    """Large inputs that all point one way, so that the terms of a sum cancel or pile up."""
    with Layer.random(31, 256, 32).program(device, 2, route) as program:
        program.check([1e4 * (1 + 0.01 * rows(2, 256))])


@pytest.mark.parametrize("route", ROUTES)
def test_extreme_weights(device: Device, route: str) -> None:
    layer = Layer.random(8, 64, 32)
    for byte in (0x00, 0xFF, 0x0F, 0x88):
        with replace(layer, weights=np.full_like(layer.weights, byte)).program(device, 1, route) as program:
            out = program.check([rows(1, 64)])
            assert byte != 0x88 or not out.any()


@pytest.mark.parametrize(("route", "m", "n"), [("gemv", 1, 4 * 65535 + 9), ("columns", 4 * 65535 + 9, 3)])
def test_more_workgroups_than_one_grid_dimension(device: Device, route: str, m: int, n: int) -> None:
    with Layer.random(n, 8, 8).program(device, m, route) as program:
        program.check([rows(m, 8)])


def test_the_route_follows_the_live_rows(device: Device) -> None:
    with Layer.random(13, 32, 32).program(device, 70) as program:
        taken = []
        for m in (70, 4, 1):
            program.run([rows(m, 32)])
            taken.append(program.executor.plans.plans[0].route)
    assert taken == (["columns"] * 3 if device.features.cpu else ["gemm", "gemv", "gemv"])


def test_bad_calls_are_refused_at_load(device: Device) -> None:
    good = Layer.random(13, 32, 16)
    cases = {
        "group size": replace(good, group_size=12),
        "must be whole 4-byte words": replace(good, weights=good.weights[:, :14].copy()),
        "hold the 40 features": replace(good, k=40),
        r"scales .* must be \[2, 13\]": replace(good, scales=good.scales[:1].copy()),
        "padded to a multiple of 4": replace(good, scales=good.scales[:, :13].copy()),
        "must hold 13 elements": replace(good, bias=np.zeros(12, np.float32)),
        "takes uint8 weights": replace(good, weights=good.weights.astype(np.float32)),
    }
    for message, layer in cases.items():
        with pytest.raises(UnsupportedProgramError, match=message):
            layer.program(device, 1)


def test_a_longer_input_is_refused(device: Device) -> None:
    with Layer.random(5, 8, 8).program(device, 3) as program:
        with pytest.raises(InvalidInputError, match="at most"):
            program.run([rows(4, 8)])
        program.check([rows(3, 8)])


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_every_variant_compiles(engine: str) -> None:
    wide = {"columns": (1, 4), "gemv": (1, 4), "gemm": (1,)}
    tiles = [{"rows": r, "columns": c} for r, c in product((1, 4), (16, 32))]
    for kernel, words in wide.items():
        for word, quads, guarded, bias in product(words, (True, False), (True, False), (True, False)):
            template = {"words": word, "quads": quads, "guarded": guarded, "bias": bias}
            for tile in tiles if kernel == "columns" else ({},):
                compile_check(engine, f"linear_q4/{kernel}", template | tile)

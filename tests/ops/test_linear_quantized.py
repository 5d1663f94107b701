"""Linear layers with quantized weights, in every format and by every route."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Q
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.matmul.formats import Q4GAW, Q4GSW, Q8CSW, Q8GSW, WeightFormat

from .harness import ABSOLUTE, Const, In, OpProgram, Out, assert_close

INT8 = "aten._weight_int8pack_mm.default"
GROUPED = {
    "et_vk.linear_q4gsw.default": Q4GSW,
    "et_webgpu.linear_q4gaw.default": Q4GAW,
    "et_webgpu.linear_q8gsw.default": Q8GSW,
}
FORMATS = GROUPED | {INT8: Q8CSW}
Q4 = "et_vk.linear_q4gsw.default"
ROUTES = ("columns", "gemv", "gemm")
RNG = np.random.default_rng(0)

every_op = pytest.mark.parametrize("op", FORMATS)
every_grouped_op = pytest.mark.parametrize("op", GROUPED)
every_route = pytest.mark.parametrize("route", ROUTES)


def family(op: str) -> str:
    return op.split(".")[1].removeprefix("_")


@dataclass(frozen=True)
class Layer:
    """The constants of one call. Its padding, of rows of weights and of scales, holds what nobody may use."""

    op: str
    weights: np.ndarray  # [n, bytes of a row]
    scales: np.ndarray  # [groups, n to 4] or [groups, n to 4, 2]; of _weight_int8pack_mm [n]
    group_size: int
    bias: np.ndarray | None  # [n to 4]
    k: int

    @classmethod
    def random(cls, op: str, n: int, k: int, group_size: int = 32, bias: bool = False, spare_words: int = 0) -> Layer:
        padded = -(-n // 4) * 4
        bias_array = RNG.standard_normal(padded, np.float32) if bias else None
        if op == INT8:
            return cls(op, codes(Q8CSW, n, k), RNG.uniform(0.01, 0.2, n).astype(np.float32), k, None, k)
        weight_format = GROUPED[op]
        tail = (2,) if weight_format.mins else ()
        scales = RNG.uniform(-0.2, 0.2, (-(-k // group_size), padded, *tail)).astype(weight_format.scales_dtype)
        scales[:, n:] = np.nan
        words = -(-k // weight_format.per_word) + spare_words
        return cls(op, codes(weight_format, n, words * 4), scales, group_size, bias_array, k)

    def program(self, device: Device, max_rows: int, route: str | None = None, **options: Any) -> OpProgram:
        bias = None if self.bias is None else Const(self.bias)
        rest = [] if self.op == INT8 else [self.group_size, bias]
        args = [In((max_rows, self.k)), Const(self.weights), Const(self.scales), *rest]
        routes = {family(self.op): route} if route else {}
        return OpProgram(device, self.op, args, Out((max_rows, len(self.weights))), routes=routes, **options)


def codes(weight_format: WeightFormat, n: int, row_bytes: int) -> np.ndarray:
    kind = np.iinfo(weight_format.dtype)
    return RNG.integers(kind.min, kind.max, (n, row_bytes), dtype=weight_format.dtype, endpoint=True)


def rows(m: int, k: int) -> np.ndarray:
    return RNG.standard_normal((m, k), np.float32)


def check(program: OpProgram, x: np.ndarray) -> np.ndarray:
    """Within the tolerance, or what float32 is off by where terms cancel; see ``rounding``."""
    return program.check([x], absolute=max(ABSOLUTE, rounding(program, x)))


def rounding(program: OpProgram, x: np.ndarray) -> float:
    """What sums of float32 may be off by: 1e-7 of the magnitudes of their terms, the largest of all results."""
    columns = program.reference([np.eye(x.shape[-1])]) - program.reference([np.zeros_like(x[:1])])
    return 1e-7 * float((np.abs(x.astype(np.float64)) @ np.abs(columns)).max(initial=0))


@settings(max_examples=60, deadline=None)
@given(
    op=st.sampled_from(list(FORMATS)),
    m=st.one_of(st.integers(1, 9), st.sampled_from([63, 64, 65, 70])),
    n=st.sampled_from([1, 2, 3, 4, 5, 13, 31, 64, 67, 131]),
    k=st.sampled_from([1, 2, 3, 4, 5, 7, 8, 13, 31, 32, 36, 37, 64, 67, 96, 100, 127, 160]),
    group_size=st.sampled_from([8, 16, 24, 32, 64, 256]),
    bias=st.booleans(),
    spare_words=st.integers(0, 9),
    route=st.sampled_from([None, *ROUTES]),
)
def test_any_size(
    device: Device,
    op: str,
    m: int,
    n: int,
    k: int,
    group_size: int,
    bias: bool,
    spare_words: int,
    route: str | None,
) -> None:
    with Layer.random(op, n, k, group_size, bias, spare_words).program(device, m, route) as program:
        check(program, rows(m, k))


@every_op
@every_route
@pytest.mark.parametrize(("n", "k"), [(576, 576), (67, 1536)])
def test_sizes_of_a_model(device: Device, op: str, n: int, k: int, route: str) -> None:
    with Layer.random(op, n, k).program(device, 1, route) as program:
        check(program, rows(1, k))


@every_op
@every_route
def test_more_than_one_tile_both_ways(device: Device, op: str, route: str) -> None:
    with Layer.random(op, 131, 72, 16, bias=True).program(device, 67, route) as program:
        check(program, rows(67, 72))


@every_grouped_op
def test_a_group_may_be_a_whole_row_of_any_length(device: Device, op: str) -> None:
    for route in ROUTES:
        with Layer.random(op, 13, 37, 37).program(device, 3, route) as program:
            check(program, rows(3, 37))


@every_route
@pytest.mark.parametrize("k", [1, 2, 3, 5, 6, 7, 37, 66, 101])
def test_rows_of_bytes_may_begin_anywhere_in_a_word(device: Device, k: int, route: str) -> None:
    """The last row ends with the last byte, or within the last word, of the weights."""
    for n in (1, 3, 4, 16, 17):
        with Layer.random(INT8, n, k).program(device, 5, route) as program:
            check(program, rows(5, k))


@every_op
@pytest.mark.parametrize("route", [None, *ROUTES])
def test_live_rows_shrink_and_grow_on_one_program(device: Device, op: str, route: str | None) -> None:
    """Decode and prefill take turns; the routes meet between 8 and 9 rows."""
    with Layer.random(op, 37, 40, 8, bias=True).program(device, 70, route) as program:
        for m in (70, 1, 1, 2, 8, 9, 1, 65, 3, 5, 70):
            out = check(program, rows(m, 40))
            assert out.shape == (m, 37)


@every_op
def test_leading_dimensions_stay(device: Device, op: str) -> None:
    layer = Layer.random(op, 13, 32)
    rest = [] if op == INT8 else [32, None]
    args = [In((2, 3, 32)), Const(layer.weights), Const(layer.scales), *rest]
    with OpProgram(device, op, args, Out((2, 3, 13))) as program:
        program.check([RNG.standard_normal((2, 3, 32), np.float32)])
        program.check([RNG.standard_normal((1, 3, 32), np.float32)])


@every_op
@every_route
def test_nothing_leaks_between_rows(device: Device, op: str, route: str) -> None:
    """K is not a multiple of a block: NaN in one row must stay in that row."""
    for k in (36, 37):
        with Layer.random(op, 13, k, 16).program(device, 5, route) as program:
            x = rows(5, k)
            x[2, 0] = np.nan
            out = program.run([x])
            assert np.isnan(out[2]).all()
            assert np.isfinite(out[[0, 1, 3, 4]]).all()


@every_op
@every_route
def test_large_values(device: Device, op: str, route: str) -> None:
    """Large inputs that all point one way, so that the terms of a sum cancel or pile up."""
    with Layer.random(op, 31, 256).program(device, 2, route) as program:
        check(program, 1e4 * (1 + 0.01 * rows(2, 256)))


@every_op
@every_route
def test_extreme_codes(device: Device, op: str, route: str) -> None:
    layer = Layer.random(op, 8, 64)
    zeros = {Q4GSW: 0x88, Q8GSW: 0, Q8CSW: 0}.get(FORMATS[op])
    for byte in (0x00, 0x7F, 0x80, 0x88, 0xFF, 0x0F, 0xF0):
        weights = np.full(layer.weights.shape, byte, np.uint8).view(layer.weights.dtype)
        with replace(layer, weights=weights).program(device, 1, route) as program:
            out = program.check([rows(1, 64)])
            assert byte != zeros or not out.any()


@every_route
@pytest.mark.parametrize("op", [op for op, weight_format in GROUPED.items() if weight_format.scales_dtype == "float16"])
def test_extreme_scales(device: Device, op: str, route: str) -> None:
    """Subnormal float16 scales are not zero, and the largest not infinite."""
    layer = Layer.random(op, 13, 64)
    for bits in (0x0001, 0x8001, 0x03FF, 0x0400, 0x83FF, 0x7BFF, 0xFBFF):
        scales = np.full(layer.scales.shape, bits, np.uint16).view(np.float16)
        if layer.scales.ndim == 3:
            scales[..., 1] = -scales[..., 1]
        with replace(layer, scales=scales).program(device, 2, route) as program:
            x = 1 + rows(2, 64) ** 2
            relative = 1e-4 if op.endswith("q4gaw.default") else 1e-3
            program.check([x], absolute=rounding(program, x), relative=relative)


def test_int8_is_what_torch_means(device: Device) -> None:
    layer, x = Layer.random(INT8, 13, 37), rows(3, 37)
    expected = torch._weight_int8pack_mm(*map(torch.from_numpy, (x, layer.weights, layer.scales)))
    with layer.program(device, 3) as program:
        assert_close(program.run([x]), expected.numpy())


# -- blocks of GGUF files -------------------------------------------------------------------------------------------


def gguf_layer(blocks: np.ndarray, kind: Q, k: int) -> Layer:
    """Rows of 32-element blocks, each a float16 scale, for Q4_1 a minimum, and codes."""
    n = len(blocks)
    padding = [(0, 0), (0, -n % 4)]
    if kind == Q.Q8_0:
        parts = blocks.reshape(n, k // 32, 34)
        scales = parts[..., :2].copy().view(np.float16)[..., 0]
        weights = parts[..., 2:].reshape(n, k).view(np.int8)
        return Layer("et_webgpu.linear_q8gsw.default", weights, np.pad(scales.T, padding), 32, None, k)
    parts = blocks.reshape(n, k // 32, -1)
    scale = parts[..., :2].copy().view(np.float16)[..., 0]
    minimum = parts[..., 2:4].copy().view(np.float16)[..., 0] if kind == Q.Q4_1 else scale * np.float16(-8)
    halves = parts[..., -16:]  # element j in the low nibble of byte j, and j + 16 in the high one
    elements = np.concatenate([halves & 15, halves >> 4], axis=-1).reshape(n, k)
    both = np.pad(np.stack([scale.T, minimum.T], axis=-1), [*padding, (0, 0)])
    return Layer("et_webgpu.linear_q4gaw.default", elements[:, ::2] | elements[:, 1::2] << 4, both, 32, None, k)


@every_route
@pytest.mark.parametrize("kind", [Q.Q4_0, Q.Q4_1, Q.Q8_0])
def test_gguf_blocks_keep_their_values(device: Device, kind: Q, route: str) -> None:
    n, k = 67, 288
    blocks = gguf.quantize(0.05 * RNG.standard_normal((n, k), np.float32), kind)
    dequantized = gguf.dequantize(blocks, kind).astype(np.float64)
    for m in (1, 5):
        x = rows(m, k)
        expected = x @ dequantized.T
        with gguf_layer(blocks, kind, k).program(device, m, route) as program:
            scale = np.abs(x).astype(np.float64) @ np.abs(dequantized).T  # of the terms of each sum
            assert (np.abs(program.run([x]) - expected) <= 1e-6 * scale).all()
            assert_close(program.run([x]), expected, absolute=1e-5, relative=1e-5)


# -- grids, routes, refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "m", "n"), [("gemv", 1, 4 * 65535 + 9), ("columns", 4 * 65535 + 9, 3)])
def test_more_workgroups_than_one_grid_dimension(device: Device, route: str, m: int, n: int) -> None:
    with Layer.random(Q4, n, 8, 8).program(device, m, route) as program:
        program.check([rows(m, 8)])


@every_op
def test_the_route_follows_the_live_rows(device: Device, op: str) -> None:
    with Layer.random(op, 13, 32).program(device, 70) as program:
        taken = []
        for m in (70, 9, 8, 1):
            program.run([rows(m, 32)])
            taken.append(program.executor.plans.plans[0].route)
    on_cpus = "quads" if device.features.subgroup_size else "columns"
    many = ["matrix", "few"] if device.features.subgroup_matrix else ["gemm", "gemm"]
    assert taken == ([on_cpus] * 4 if device.features.cpu else [*many, "gemv", "gemv"])


@every_grouped_op
def test_bad_calls_are_refused_at_load(device: Device, op: str) -> None:
    good = Layer.random(op, 13, 32, 16)
    cases = {
        "group size": replace(good, group_size=10),
        "group size 0": replace(good, group_size=0),
        "must be whole 4-byte words": replace(good, weights=good.weights[:, :14].copy()),
        "hold 40 weights": replace(good, k=40),
        r"scales .* must be \[2, 13": replace(good, scales=good.scales[:1].copy()),
        "padded to a multiple of 4": replace(good, scales=good.scales[:, :13].copy()),
        "padded to a multiple": replace(good, scales=good.scales[:, :12].copy()),
        "must be a matrix": replace(good, weights=good.weights[0].copy()),
        "dimensions": replace(good, scales=good.scales[0].copy()),
        "must hold 13 elements": replace(good, bias=np.zeros(12, np.float32)),
        f"takes {good.weights.dtype} weights": replace(good, weights=good.weights.astype(np.float32)),
        f"and {good.scales.dtype} scales": replace(good, scales=np.zeros(good.scales.shape, np.int32)),
    }
    for message, layer in cases.items():
        with pytest.raises(UnsupportedProgramError, match=message):
            layer.program(device, 1)


def test_bad_calls_of_the_stock_8_bit_operator_are_refused_at_load(device: Device) -> None:
    good = Layer.random(INT8, 13, 32)
    cases = {
        "for an input of 33 features": replace(good, k=33),
        r"and .* \[N\]": replace(good, scales=good.scales[:12].copy()),
        "takes int8 weights": replace(good, weights=good.weights.view(np.uint8)),
        "and float32 scales": replace(good, scales=good.scales.astype(np.float16)),
    }
    for message, layer in cases.items():
        with pytest.raises(UnsupportedProgramError, match=message):
            layer.program(device, 1)


def test_a_longer_input_is_refused(device: Device) -> None:
    with Layer.random(Q4, 5, 8, 8).program(device, 3) as program:
        with pytest.raises(InvalidInputError, match="at most"):
            program.run([rows(4, 8)])
        program.check([rows(3, 8)])

"""Linear layers read int8 constants that the program dequantizes for them, and nothing that only looks like these."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from tests.graph_builder import GraphBuilder, Ref

from .graphs import FUSED_LINEAR, Model, check, is_unchanged, names, normal

PER_CHANNEL, AFFINE = "quantized_decomposed.dequantize_per_channel.default", "torchao.dequantize_affine.default"
random = np.random.default_rng(3)


def codes(*dims: int) -> np.ndarray:
    return random.integers(-127, 128, dims).astype(np.int8)


def scales(*dims: int) -> np.ndarray:
    return random.uniform(0.001, 0.02, dims).astype(np.float32)


def dequantized(build: GraphBuilder, form: str, n: int, k: int, zero: int = 0) -> Ref:
    """A matrix [n, k] that the program dequantizes."""
    out = build.tensor((n, k))
    if form == "channel":
        zeros = np.full(n, zero, np.int32)
        return build.call(PER_CHANNEL, codes(n, k), scales(n), zeros, 0, -127, 127, None, None, out)
    zeros = np.full((n, 1), zero, np.int8)
    return build.call(AFFINE, codes(n, k), [1, k], scales(n, 1), zeros, None, -128, 127, None, out)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", ["channel", "affine"])
def test_linear(device: Device, form: str, bias: bool) -> None:
    build = Model(width=33)
    weight = dequantized(build, form, 13, 33)
    build.output(build.call("aten.linear.default", build.x, weight, normal(13) if bias else None, build.rows(13)))
    graph = check(device, build, ["quantized_weights"], build.steps(7, 1, 3))
    assert names(graph) == {"sym_size.int": 1, FUSED_LINEAR: 1}


@pytest.mark.parametrize("name", ["aten.mm.default", "aten.addmm.default"])
@pytest.mark.parametrize("turn", ["aten.permute_copy.default", "aten.t_copy.default"])
def test_products_with_a_transpose(device: Device, name: str, turn: str) -> None:
    build = GraphBuilder()
    x, weight = build.input((7, 12)), dequantized(build, "channel", 8, 12)
    order = [[1, 0]] if "permute" in turn else []
    columns = build.call(turn, weight, *order, build.tensor((12, 8)))
    before, after = ([normal(8)], [1, 1]) if "add" in name else ([], [])
    build.output(build.call(name, *before, x, columns, *after, build.tensor((7, 8))))
    graph = check(device, build, ["quantized_weights"], [[normal(7, 12)], [normal(2, 12)]])
    assert names(graph) == {FUSED_LINEAR: 1}


def test_several_layers_then_become_one(device: Device) -> None:
    build = Model(width=32)
    weights = [dequantized(build, "affine", n, 32) for n in (16, 8)]
    outs = [build.rows(n) for n in (16, 8)]
    build.output(*(build.call("aten.linear.default", build.x, w, None, o) for w, o in zip(weights, outs, strict=True)))
    assert names(check(device, build, ["quantized_weights", "norm_linear"], build.steps(7, 1)))[FUSED_LINEAR] == 1


def test_a_matrix_that_others_read_is_still_made(device: Device) -> None:
    build = Model(width=32)
    weight = dequantized(build, "channel", 8, 32)
    build.output(build.call("aten.linear.default", build.x, weight, None, build.rows(8)), weight)
    graph = check(device, build, ["quantized_weights"], build.steps(7))
    assert names(graph)[FUSED_LINEAR] == 1 and names(graph)[PER_CHANNEL] == 1


def _zero_points(build: Model) -> Ref:
    return dequantized(build, "channel", 8, 32, zero=1)


def _other_axis(build: Model) -> Ref:
    args = [codes(8, 32), scales(32), None, 1, -127, 127, None, None]
    return build.call(PER_CHANNEL, *args, build.tensor((8, 32)))


def _groups(build: Model) -> Ref:
    args = [codes(8, 32), [1, 16], scales(8, 2), None, None, -128, 127, None]
    return build.call(AFFINE, *args, build.tensor((8, 32)))


def _inputs(build: Model) -> Ref:
    args = [build.input((8, 32), "int8"), scales(8), None, 0, -127, 127, None, None]
    return build.call(PER_CHANNEL, *args, build.tensor((8, 32)))


def _bytes(build: Model) -> Ref:
    args: list[Any] = [codes(8, 32).view(np.uint8), scales(8), None, 0, 0, 255, None, None]
    return build.call(PER_CHANNEL, *args, build.tensor((8, 32)))


@pytest.mark.parametrize("other", [_zero_points, _other_axis, _groups, _inputs, _bytes])
def test_what_the_layer_cannot_read_stays(other: Any) -> None:
    build = Model(width=32)
    build.output(build.call("aten.linear.default", build.x, other(build), None, build.rows(8)))
    assert is_unchanged(build, "quantized_weights")

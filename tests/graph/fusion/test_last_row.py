"""Rows are selected before norms and layers, where nobody wants the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from tests.graph_builder import GraphBuilder, Ref

from .graphs import Model, check, fused, is_unchanged, normal

SELECT, SLICE = "aten.select_copy.int", "aten.slice_copy.Tensor"
LINEAR, NORM = "aten.linear.default", "et_vk.rms_norm.default"


def head(build: Model) -> Ref:
    """Logits of all positions."""
    return build.linear(build.norm(build.sigmoid(build.x)), 24)


def select(build: Model, x: Ref, dim: int = 1, index: Any = -1) -> Ref:
    return build.call(SELECT, x, dim, index, build.tensor((1, 24)))


def order(build: GraphBuilder) -> list[str]:
    return [call.name for call in fused(build, "last_row").calls][-3:]


@pytest.mark.parametrize(("dim", "index"), [(1, -1), (-2, -1), (1, 0)])
def test_logits_of_the_last_position(device: Device, dim: int, index: int) -> None:
    build = Model()
    build.output(select(build, head(build), dim, index))
    graph = check(device, build, ["last_row"], build.steps(7, 1, 4))
    assert [call.name for call in graph.calls][-3:] == [SELECT, NORM, LINEAR]
    assert graph.calls[-2].outputs[0].max_dims == (1, 16)


def test_a_live_index(device: Device) -> None:
    build = Model()
    build.output(select(build, head(build), 1, build.live()))
    steps = [[normal(1, n, 16), np.array([i], np.int32)] for n, i in ((7, 6), (3, 0), (5, 2))]
    graph = check(device, build, ["last_row"], steps)
    assert [call.name for call in graph.calls][-3:] == [SELECT, NORM, LINEAR]


def test_a_slice(device: Device) -> None:
    build = Model()
    build.output(build.call(SLICE, head(build), 1, -2, None, 1, build.tensor((1, 2, 24))))
    graph = check(device, build, ["last_row"], build.steps(7, 2, 4))
    assert [call.name for call in graph.calls][-3:] == [SLICE, NORM, LINEAR]
    assert graph.calls[-2].outputs[0].max_dims == (1, 2, 16)


@pytest.mark.parametrize("form", ["linear_q4gsw", "linear_q8csw"])
def test_quantized_heads(device: Device, form: str) -> None:
    build = Model(width=32)
    x, out = build.norm(build.x), build.rows(24)
    codes = np.random.default_rng(0).integers(0, 256, (24, 16), np.uint8)
    if form == "linear_q4gsw":
        scales = np.abs(normal(1, 24)) / 16
        logits = build.call("et_vk.linear_q4gsw.default", x, codes, scales, 32, None, out)
    else:
        weights = codes.view(np.int8).repeat(2, axis=1)
        logits = build.call("aten._weight_int8pack_mm.default", x, weights, np.abs(normal(24)) / 128, out)
    build.output(select(build, logits))
    graph = check(device, build, ["last_row"], build.steps(7, 1))
    assert [call.name for call in graph.calls][-3:-1] == [SELECT, NORM]


def test_an_output_of_all_positions_blocks_it() -> None:
    build = Model()
    logits = head(build)
    build.output(select(build, logits), logits)
    assert is_unchanged(build, "last_row")


def test_another_reader_blocks_it() -> None:
    build = Model()
    logits = head(build)
    largest = build.call("aten.amax.default", logits, [1], False, build.tensor((1, 24)))
    build.output(select(build, logits), largest)
    assert is_unchanged(build, "last_row")


def test_another_reader_further_up_stops_it_there(device: Device) -> None:
    build = Model()
    normed = build.norm(build.x)
    build.output(select(build, build.linear(normed, 24)), build.sigmoid(normed))
    graph = check(device, build, ["last_row"], build.steps(7, 3))
    assert [call.name for call in graph.calls if call.name in (SELECT, NORM, LINEAR)] == [NORM, SELECT, LINEAR]


def test_a_selection_of_features_stays() -> None:
    build = Model()
    build.output(build.call(SELECT, head(build), 2, 3, build.tensor((1, 7))))
    assert is_unchanged(build, "last_row")


def test_memory_that_is_written_blocks_it(device: Device) -> None:
    """The layer reads the rows that were there before the write."""
    build = GraphBuilder()
    value, cache = build.input((1, 2, 1, 16)), build.constant(normal(1, 8, 1, 16))
    layer = build.call(LINEAR, cache, normal(5, 16), None, build.tensor((1, 8, 1, 5)))
    build.call("update_cache.default", value, cache, 3, build.tensor((1,)))
    build.output(build.call(SELECT, layer, 1, 3, build.tensor((1, 1, 5))))
    assert is_unchanged(build, "last_row")
    check(device, build, ["last_row"], [[normal(1, 2, 1, 16)] for _ in range(2)])

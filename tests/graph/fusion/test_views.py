"""Views that change nothing go away, and only those."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from tests.graph_builder import GraphBuilder

from .graphs import Model, check, fused, is_unchanged, names, normal

VIEW, CLONE = "aten.view_copy.default", "aten.clone.default"


def test_a_view_of_the_same_sizes(device: Device) -> None:
    build = Model()
    same = build.view(build.linear(build.x), 1, build.length, 16)
    build.output(build.sigmoid(same))
    graph = check(device, build, ["views"], build.steps(7, 1, 3))
    assert names(graph)[VIEW] == 0


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (CLONE, [None]),
        ("aten.alias_copy.default", []),
        ("dim_order_ops._clone_dim_order.default", [False, [0, 1, 2]]),
        ("aten._to_copy.default", [None] * 6),
    ],
)
def test_copies(device: Device, op: str, args: list) -> None:
    build = Model()
    build.output(build.sigmoid(build.call(op, build.x, *args, build.rows())))
    assert names(check(device, build, ["views"], build.steps(7, 2)))[op] == 0


def test_a_view_of_a_view(device: Device) -> None:
    """There and back is nothing, and through a shape in between is one view."""
    build = Model()
    heads = build.view(build.linear(build.x), 1, build.length, 4, 4)
    back = build.view(heads, 1, build.length, 16)
    pairs = build.view(build.view(build.x, build.length, 16), build.length, 8, 2)
    build.output(build.sigmoid(back), build.call("aten.neg.default", pairs, build.tensor((7, 8, 2))))
    graph = check(device, build, ["views"], build.steps(7, 1, 4))
    assert names(graph)[VIEW] == 1


@pytest.mark.parametrize("bias", [False, True])
def test_layers_move_before_views_of_their_rows(device: Device, bias: bool) -> None:
    """As exporters write that know matrices only: view, layer, view."""
    build = Model()
    flat = build.tensor((7, 16))
    x = build.norm(build.view(build.x, build.length, 16), out=flat)
    layer = build.linear(x, 24, bias, out=build.tensor((7, 24)))
    build.output(build.call("aten.neg.default", build.view(layer, 1, build.length, 24), build.rows(24)))
    graph = check(device, build, ["views"], build.steps(7, 1, 4))
    assert names(graph)[VIEW] == 0


def test_layers_move_behind_views_of_their_results(device: Device) -> None:
    """The first view merges heads and does not keep rows; the second one undoes what it does beside that."""
    build = Model()
    heads = build.call("aten.neg.default", build.view(build.x, 1, build.length, 4, 4), build.tensor((1, 7, 4, 4)))
    flat = build.view(heads, build.length, 16)
    layer = build.linear(flat, 24, True, out=build.tensor((7, 24)))
    build.output(build.call("aten.neg.default", build.view(layer, 1, build.length, 24), build.rows(24)))
    graph = check(device, build, ["views"], build.steps(7, 1, 4))
    assert names(graph)[VIEW] == 2 and graph.calls[-2].name == "aten.linear.default"


@pytest.mark.parametrize("asked", [False, True])
def test_layers_whose_results_are_read_as_they_are_stay(asked: bool) -> None:
    build = Model()
    heads = build.call("aten.neg.default", build.view(build.x, 1, build.length, 4, 4), build.tensor((1, 7, 4, 4)))
    layer = build.linear(build.view(heads, build.length, 16), 24, out=build.tensor((7, 24)))
    view = build.call("aten.neg.default", build.view(layer, 1, build.length, 24), build.rows(24))
    build.output(view, layer if asked else build.call("aten.neg.default", layer, build.tensor((7, 24))))
    assert is_unchanged(build, "views")


def test_squeezes_are_views(device: Device) -> None:
    """As exports of fixed sizes have them around layers; the last one has two open sizes, and stays."""
    build = Model()
    thin = build.call("aten.squeeze_copy.dims", build.norm(build.x), [0], build.tensor((7, 16)))
    layer = build.linear(thin, 24, out=build.tensor((7, 24)))
    wide = build.call("aten.unsqueeze_copy.default", layer, 0, build.rows(24))
    other = build.call("aten.squeeze_copy.dim", build.input((1, 3, 5)), 0, build.tensor((3, 5)))
    outputs = [(wide, (1, 7, 24)), (other, (3, 5))]
    build.output(*(build.call("aten.neg.default", x, build.tensor(dims)) for x, dims in outputs))
    steps = [[normal(1, n, 16), normal(1, 2, m)] for n, m in ((7, 5), (1, 3))]
    graph = check(device, build, ["views"], steps)
    assert names(graph)[VIEW] == names(graph)["aten.unsqueeze_copy.default"] == 0
    assert names(graph)["aten.squeeze_copy.dim"] == names(graph)["aten.squeeze_copy.dims"] + 1 == 1


def test_a_program_of_fixed_sizes(device: Device) -> None:
    """What its layers and views say about the input is not forgotten when they move."""
    build = Model()
    thin = build.call("aten.squeeze_copy.dims", build.x, [0], build.tensor((7, 16)))
    layer = build.linear(thin, 24, out=build.tensor((7, 24)))
    build.output(build.call("aten.neg.default", build.view(layer, 1, 7, 24), build.rows(24)))
    graph = check(device, build, ["views"], build.steps(7))
    assert [call.name for call in graph.calls[1:]] == ["aten.linear.default", "aten.neg.default"]


def test_layers_stay_behind_views_that_change_rows(device: Device) -> None:
    build = Model()
    halves = build.view(build.view(build.x, 1, build.length, 16), -1, 8, dims=(14, 8))
    build.output(build.call("aten.linear.default", halves, normal(5, 8), None, build.tensor((14, 5))))
    graph = check(device, build, ["views"], build.steps(7, 1, 4))
    assert graph.calls[-1].name == "aten.linear.default"


def test_an_output_stays() -> None:
    build = Model()
    build.output(build.view(build.x, 1, build.length, 16))
    assert is_unchanged(build, "views")


def test_a_size_that_may_differ_stays() -> None:
    """The view asks for a length of its own, and would refuse others."""
    build = Model()
    build.output(build.sigmoid(build.view(build.x, 1, build.live(), 16, dims=(1, 7, 16))))
    assert is_unchanged(build, "views")


def test_another_dtype_stays(device: Device) -> None:
    build = Model()
    half = build.call("aten._to_copy.default", build.x, *[None] * 6, build.rows(dtype="float16"))
    build.output(build.call("aten.abs.default", half, build.rows(dtype="float16")))
    assert is_unchanged(build, "views")


def test_a_copy_of_memory_that_is_written_stays(device: Device) -> None:
    """It holds what was there before the write."""
    build = GraphBuilder()
    value, cache = build.input((1, 2, 1, 4)), build.constant(np.ones((1, 8, 1, 4), np.float32))
    before = build.call(CLONE, cache, None, build.tensor((1, 8, 1, 4)))
    build.call("update_cache.default", value, cache, 3, build.tensor((1,)))
    build.output(build.call("aten.sub.Tensor", cache, before, 1, build.tensor((1, 8, 1, 4))))
    graph = check(device, build, ["views"], [[normal(1, 2, 1, 4)] for _ in range(2)])
    assert names(graph)[CLONE] == 1


def test_a_copy_into_memory_that_is_written_stays(device: Device) -> None:
    """The call that counts in place was taken apart; its copy is what writes."""
    build = GraphBuilder()
    x, total = build.input((5,)), build.constant(np.zeros(5, np.float32))
    build.call("aten.add.Tensor", total, x, 1, total)
    build.output(build.call("aten.neg.default", total, build.tensor((5,))))
    graph = check(device, build, ["views"], [[normal(5)] for _ in range(3)])
    assert names(graph)[CLONE] == names(build_graph(build.build()))[CLONE] == 1


def test_a_view_that_nobody_reads_is_the_programs_business() -> None:
    build = Model()
    build.view(build.x, build.length, 16)
    build.output(build.sigmoid(build.x))
    assert is_unchanged(build, "views")


def test_calls_are_numbered_anew() -> None:
    build = Model()
    build.output(build.sigmoid(build.view(build.x, 1, build.length, 16)))
    assert [call.index for call in fused(build, "views").calls] == [0, 1]

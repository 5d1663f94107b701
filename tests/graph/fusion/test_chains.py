"""Elementwise operators that only each other read become one kernel. And what does not join them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.gpu.device import Device
from tests.graph_builder import GraphBuilder, Ref

from .graphs import Model, check, fused, is_unchanged, names, normal

CHAIN = "et_webgpu.elementwise_chain.default"


class Chains(Model):
    """A model whose rows come from a layer, so that their sizes are known."""

    def __init__(self) -> None:
        super().__init__()
        self.start = self.linear(self.x)

    def neg(self, x: Ref) -> Ref:
        return self.call("aten.neg.default", x, self.rows())


def test_a_chain(device: Device) -> None:
    build = Chains()
    x = build.start
    y = build.call("aten.clamp.default", build.mul(x, build.sigmoid(x)), -0.5, 2.0, build.rows())
    build.output(build.add(y, x, 0.5))
    graph = check(device, build, ["elementwise"], build.steps(7, 1, 3))
    assert [call.name for call in graph.calls[-2:]] == ["aten.linear.default", CHAIN]


def test_numbers_for_all_elements(device: Device) -> None:
    build = Chains()
    factor = build.constant(np.array([[[0.25]]], np.float32))
    build.output(build.neg(build.mul(build.start, factor)))
    assert names(check(device, build, ["elementwise"], build.steps(7, 1)))[CHAIN] == 1


def test_a_lone_operator_stays() -> None:
    build = Chains()
    build.output(build.neg(build.start))
    assert is_unchanged(build, "elementwise")


def test_an_output_ends_a_chain(device: Device) -> None:
    build = Chains()
    inside = build.neg(build.sigmoid(build.start))
    build.output(build.sigmoid(build.neg(inside)), inside)
    assert names(check(device, build, ["elementwise"], build.steps(7, 2)))[CHAIN] == 2


def test_another_reader_ends_a_chain(device: Device) -> None:
    build = Chains()
    inside = build.neg(build.sigmoid(build.start))
    build.output(build.sigmoid(build.neg(inside)), build.linear(inside))
    assert names(check(device, build, ["elementwise"], build.steps(7, 2)))[CHAIN] == 2


def test_a_value_over_itself_stays_what_it_is(device: Device) -> None:
    """Compilers of drivers make 1 of it, and torch NaN of a NaN, or of an infinite one."""
    build = Chains()
    inside = build.neg(build.call("aten.relu.default", build.start, build.rows()))
    whole = build.call("aten.div.Tensor", inside, inside, build.rows())
    build.output(build.call("aten.addcdiv.default", whole, inside, inside, 1.5, build.rows()))
    graph = check(device, build, ["elementwise"], build.steps(7, 2))
    assert names(graph)[CHAIN] == 1 and not names(graph)["aten.div.Tensor"]


def test_another_dtype_ends_a_chain(device: Device) -> None:
    build = Chains()
    larger = build.call("aten.gt.Tensor", build.neg(build.start), build.start, build.rows(dtype="bool"))
    build.output(build.call("aten.logical_not.default", larger, build.rows(dtype="bool")))
    assert is_unchanged(build, "elementwise")


def test_a_row_for_all_tokens_ends_a_chain(device: Device) -> None:
    build = Chains()
    row = build.constant(normal(16))
    other = build.input((1, 7, 16))  # which may have a single row in a step
    build.output(build.mul(build.neg(build.start), row), build.mul(build.neg(build.start), other))
    assert is_unchanged(build, "elementwise")
    check(device, build, ["elementwise"], [[normal(1, n, 16), normal(1, m, 16)] for n, m in ((7, 7), (5, 1))])


def test_what_is_made_small_does_not_join_what_is_large(device: Device) -> None:
    """A product of two numbers is computed once, not for every element."""
    build = Chains()
    one = build.linear(build.x, 1)
    last = build.call("aten.select_copy.int", one, 1, -1, build.tensor((1, 1)))
    number = build.call("aten.neg.default", last, build.tensor((1, 1)))
    build.output(build.neg(build.mul(build.start, number)))
    graph = check(device, build, ["elementwise"], build.steps(7, 1))
    assert names(graph)["aten.neg.default"] == names(graph)[CHAIN] == 1


def test_no_more_inputs_than_a_kernel_binds(device: Device) -> None:
    build = Chains()
    total = build.start
    for _ in range(9):
        total = build.add(total, build.linear(build.x))
    build.output(total)
    graph = check(device, build, ["elementwise"], build.steps(7, 1))
    assert [len(call.args[0]) for call in graph.calls if call.name == CHAIN] == [4, 7]


def test_long_chains_are_cut(device: Device) -> None:
    build = Chains()
    x = build.start
    for _ in range(40):
        x = build.neg(x)
    build.output(x)
    graph = check(device, build, ["elementwise"], build.steps(7, 1))
    assert [len(call.args[1]) for call in graph.calls if call.name == CHAIN] == [8, 32]


def test_memory_that_is_written_ends_a_chain(device: Device) -> None:
    build = GraphBuilder()
    x, total = build.input((5,)), build.constant(normal(5))
    before = build.call("aten.neg.default", total, build.tensor((5,)))
    build.call("aten.add.Tensor", total, x, 1, total)
    build.output(build.call("aten.neg.default", before, build.tensor((5,))))
    assert is_unchanged(build, "elementwise")
    check(device, build, ["elementwise"], [[normal(5)] for _ in range(3)])


UNARY = ("aten.sigmoid.default", "aten.neg.default", "aten.tanh.default")
BINARY = {"aten.mul.Tensor": [], "aten.add.Tensor": [0.5], "aten.maximum.default": []}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_graph_of_elementwise_operators(device: Device, data: st.DataObject) -> None:
    """Whatever reads what, and whatever the host asks for."""
    build = Chains()
    values = [build.start, build.neg(build.start)]
    for _ in range(data.draw(st.integers(1, 14))):
        a, b = (data.draw(st.sampled_from(values[-5:])) for _ in "ab")
        op = data.draw(st.sampled_from([*UNARY, *BINARY]))
        values.append(build.call(op, a, *([b, *BINARY[op]] if op in BINARY else []), build.rows()))
    build.output(values[-1], *data.draw(st.lists(st.sampled_from(values[1:-1]), max_size=2, unique=True)))
    check(device, build, ["elementwise"], build.steps(7, 1, 4))
    assert len(fused(build, "elementwise").calls) <= len(build.chain)

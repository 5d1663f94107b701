"""Chains of elementwise operators as one generated kernel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.elementwise.chain import Link, link
from executorch_webgpu.ops.registry import find

from .harness import Const, In, OpProgram, Out

NAME = "et_webgpu.elementwise_chain.default"
# Operators whose results stay small numbers, with what they take behind their tensors.
SMALL = {
    "aten.sigmoid.default": (1, []),
    "aten.tanh.default": (1, []),
    "aten.neg.default": (1, []),
    "aten.relu.default": (1, []),
    "aten.gelu.default": (1, ["none"]),
    "aten.clamp.default": (1, [-1.5, None]),
    "aten.mul.Scalar": (1, [0.5]),
    "aten.add.Scalar": (1, [3, 0.25]),
    "aten.add.Tensor": (2, [0.5]),
    "aten.sub.Tensor": (2, [1]),
    "aten.minimum.default": (2, []),
    "aten.maximum.default": (2, []),
}


@st.composite
def chains(draw: st.DrawFn, inputs: int) -> list[list]:
    """Steps whose operands are any of the inputs and of the results before."""
    steps = []
    for done in range(draw(st.integers(1, 9))):
        name = draw(st.sampled_from(sorted(SMALL)))
        count, scalars = SMALL[name]
        places = [draw(st.integers(0, inputs + done - 1)) for _ in range(count)]
        steps.append([name, places, scalars])
    return steps


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(data=st.data(), inputs=st.integers(1, 7), seed=st.integers(0, 2**32 - 1))
def test_any_chain(device: Device, data: st.DataObject, inputs: int, seed: int) -> None:
    """Of whole tensors and of single numbers among the inputs, at changing sizes."""
    random = np.random.default_rng(seed)
    single = [False, *(data.draw(st.booleans()) for _ in range(inputs - 1))]
    steps = data.draw(chains(inputs))
    given = [In((1,)) if one else In((11, 13)) for one in single]
    with OpProgram(device, NAME, [given, steps], Out((11, 13))) as program:
        for rows in (11, 1, 7, 11):
            program.check([random.normal(size=(1,) if one else (rows, 13)).astype(np.float32) for one in single])


@pytest.mark.slow
def test_many_elements(device: Device) -> None:
    """More workgroups than one dimension of a grid may have."""
    n = 4 * 64 * device.limits.max_workgroups + 5
    steps = [["aten.neg.default", [0], []], ["aten.add.Scalar", [1], [1, 1]]]
    with OpProgram(device, NAME, [[In((n,))], steps], Out((n,))) as program:
        x = np.arange(n, dtype=np.float32) % 97
        np.testing.assert_array_equal(program.run([x]), 1 - x)


def test_infinities_and_nans_pass_through(device: Device) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e38], np.float32)
    steps = [["aten.clamp.default", [0], [None, np.inf]], ["aten.maximum.default", [1, 0], []]]
    with OpProgram(device, NAME, [[In((6,))], steps], Out((6,))) as program:
        program.check([x])


@pytest.mark.parametrize(
    "steps",
    [
        [],
        ["aten.sigmoid.default"],
        [["aten.sigmoid.default", [0]]],
        [["aten.bitwise_not.default", [0], []]],
        [["aten.sigmoid.default", [1], []]],
        [["aten.sigmoid.default", [-1], []]],
        [["aten.sigmoid.default", [0, 0], []]],
        [["aten.sigmoid.default", [0], [1]]],
        [["aten.add.Tensor", [0, 0], []]],
        [["aten.gelu.default", [0], ["sometimes"]]],
    ],
)
def test_steps_that_are_none(device: Device, steps: list) -> None:
    with pytest.raises(UnsupportedProgramError):
        OpProgram(device, NAME, [[In((5,))], steps], Out((5,)))


@pytest.mark.parametrize(
    ("inputs", "out"),
    [
        ([], Out((5,))),
        ([In((5,))] * 8, Out((5,))),
        ([In((5,)), In((6,))], Out((5,))),
        ([In((5,)), Const(np.zeros(5, np.int32))], Out((5,))),
        ([In((5,))], Out((5,), "int32")),
    ],
)
def test_inputs_that_do_not_go_together(device: Device, inputs: list, out: Out) -> None:
    with pytest.raises(UnsupportedProgramError):
        OpProgram(device, NAME, [inputs, [["aten.neg.default", [0], []]]], out)


def test_every_link_is_described_by_the_operator_itself() -> None:
    def described(name: str, *scalars: object) -> Link:
        found = link(find(name), scalars)
        assert found is not None
        return found

    assert described("aten.sigmoid.default").expression == "sigmoid(x)"
    assert described("aten.add.Tensor", 2).scalars == (("p", 2.0),)
    assert described("aten.clamp.default", None, 3).scalars == (("p", -np.inf), ("q", 3.0), ("r", 0.0))
    assert described("aten.mul.Tensor").operands == ("a", "b")


@pytest.mark.parametrize(
    ("name", "scalars"),
    [
        ("aten.where.self", []),  # a kernel of its own
        ("aten.bitwise_not.default", []),  # no floats
        ("aten.clone.default", [None]),  # no expression
        ("aten.linear.default", []),
        ("aten.gelu.default", ["sometimes"]),
        ("no.such.operator", []),
    ],
)
def test_what_can_be_no_link(name: str, scalars: list) -> None:
    assert link(find(name), scalars) is None

"""What holds for every operator: it has samples, agrees with its reference, and refuses garbage with our errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import executorch_webgpu.ops  # noqa: F401, registers the operators
from executorch_webgpu.errors import Error
from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import render
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.memory import plan_memory
from executorch_webgpu.ops.plan import Dispatch, Planning, Repacked
from executorch_webgpu.ops.registry import names
from executorch_webgpu.ops.values import Scratch, SymInt, Tensor

from .harness import Const, In, Mutable, OpProgram, Out, Sym, assert_close
from .samples import SAMPLES, Sample, call_graph, flat

OPS = sorted({s.op for s in SAMPLES})


def test_every_operator_has_a_sample() -> None:
    assert sorted(set(names()) - set(OPS)) == [], "add these operators to tests/ops/samples.py"


def test_operators_with_a_dynamic_dimension_are_sampled_at_two_sizes() -> None:
    static = {s.op for s in SAMPLES} - {s.op for s in SAMPLES if s.dynamic}
    assert static == {"et_vk.prepack.default", "et_vk.select_as_symint.default"}


@pytest.mark.parametrize("op", OPS)
def test_device_agrees_with_the_reference(device: Device, op: str) -> None:
    """At maximum dims, at smaller ones, and back."""
    for sample in (s for s in SAMPLES if s.op == op):
        with OpProgram(device, op, sample.args, sample.out, **sample.options) as program:
            for seed, live in enumerate((False, True, False) if sample.dynamic else (False,)):
                check(program, sample, sample.inputs(live, seed))
            for i in range(sum(isinstance(a, Mutable) for a in sample.args)):
                assert_close(program.mutable(i), program._reference_state[i])


def check(program: OpProgram, sample: Sample, inputs: Sequence[Any]) -> None:
    if isinstance(sample.out, Out) and sample.out.dtype == "bool":  # a reference need not know that it casts to bool
        program.poison()
        assert_close(program.run(inputs), np.asarray(program.reference(inputs)) != 0)
    else:
        program.check(inputs, **sample.tolerance)


# -- garbage --------------------------------------------------------------------------------------------------------

INTEGERS = st.one_of(
    st.integers(-3, 9), st.sampled_from([2**31 - 1, 2**31, -(2**31), 2**32, 2**62, -(2**62)])
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    st.sampled_from([0.0, 0.5, -1.5, 1e300, float("inf"), float("nan")]),
    st.sampled_from(["", "floor", "nonsense"]),
)
DIMS = st.lists(st.sampled_from([0, 1, 2, 3, 4, 7, 8, 13, 64, 70_000]), max_size=6).map(tuple)
DTYPES = st.sampled_from(["float32", "float16", "int32", "uint8", "int8", "bool"])
TENSORS = st.builds(In, DIMS, DTYPES)
SMALL = st.sampled_from([(), (0,), (1,), (5,), (3, 4), (1, 2, 3), (1, 2, 3, 4), (2, 1, 2, 1, 2)])
CONSTANTS = st.builds(lambda dims, dtype: Const(np.zeros(dims, dtype)), SMALL, DTYPES)
VALUES = st.one_of(SCALARS, TENSORS, CONSTANTS, st.builds(Sym))
LISTS = st.one_of(
    st.lists(INTEGERS, max_size=5),
    st.lists(st.booleans(), max_size=3),
    st.lists(st.floats(), max_size=3),
    st.lists(VALUES, max_size=4),
)
GARBAGE = st.one_of(VALUES, LISTS)
OUTPUTS = st.one_of(GARBAGE, st.builds(Out, DIMS, st.one_of(DTYPES, st.just("symint"))))


@st.composite
def damaged_calls(draw: st.DrawFn) -> tuple[str, list[Any], Any]:
    """An operator's sample with one or two arguments, or the output, replaced."""
    op = draw(st.sampled_from(OPS))
    sample: Sample = draw(st.sampled_from([s for s in SAMPLES if s.op == op]))
    args, out = list(sample.args), sample.out
    places = draw(st.lists(st.integers(0, len(args)), min_size=1, max_size=2, unique=True))
    for place in places:
        if place == len(args):
            out = draw(OUTPUTS)
        else:
            args[place] = draw(GARBAGE)
    return op, args, out


@settings(max_examples=600, deadline=None)
@given(damaged_calls())
def test_garbage_is_refused_with_our_errors(call: tuple[str, list[Any], Any]) -> None:
    """Planning, at load and at smaller dims: what does not raise an error of ours can be recorded."""
    try:
        plan_at_two_sizes(call_graph(*call))
    except Error:
        pass


def plan_at_two_sizes(described: vk.VkGraph) -> None:
    planning = Planning(Features.none(), Limits.floor())
    graph = build_graph(described)
    plans = plan_graph(graph, planning)
    storage_of = plan_memory(graph, plans.plans).storage_of
    for divisor in (1, 2):
        for value in graph.inputs:
            if isinstance(value, Tensor):
                dims = [max(1, d // divisor) if d else 0 for d in value.max_dims]
                plans.set_dims(value, dims)
                if value.dtype == "int32":
                    plans.set_host(value, np.zeros(dims, np.int32))
        plans.update()
        for dispatch in (d for plan in plans.plans for d in plan.dispatches):
            check_recordable(dispatch, storage_of)


def check_recordable(dispatch: Dispatch, storage_of: Any) -> None:
    """The kernel renders and takes what the plan gives it."""
    source = render(dispatch.kernel, dispatch.template, "wgpu", Features.none())
    source.check_names("binding", {b.name for b in source.bindings} - {"params"}, dispatch.bindings)
    source.pack_params(dispatch.params)
    source.resolve_overrides(dispatch.overrides)
    assert all(type(n) is int for n in dispatch.grid), dispatch
    for value in dispatch.bindings.values():
        assert isinstance(value, Tensor | Scratch | SymInt | Repacked | int), dispatch
        if isinstance(value, Tensor):
            assert value.id in storage_of, dispatch
        elif isinstance(value, int):
            SymInt(-1).set(value)


def test_samples_are_right_by_themselves() -> None:
    """So the test above starts from calls that work."""
    for sample in SAMPLES:
        plan_at_two_sizes_of_its_own(sample)


def plan_at_two_sizes_of_its_own(sample: Sample) -> None:
    graph = build_graph(sample.graph())
    plans = plan_graph(graph, Planning(Features.none(), Limits.floor(), **sample.options))
    arrays = [np.asarray([v], np.int32) if isinstance(v, int) else v for v in sample.inputs(live=True)]
    assert len(list(flat(sample.args))) >= len(arrays)
    for value, array in zip(graph.inputs, arrays, strict=True):
        assert isinstance(value, Tensor)
        plans.set_dims(value, array.shape)
        if value.dtype == "int32":
            plans.set_host(value, array)
    plans.update()

"""What holds for every operator: it has samples, agrees with its reference, and refuses garbage with our errors."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import executorch_webgpu.ops  # noqa: F401, registers the operators
from executorch_webgpu.errors import Error, InvalidProgramError
from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import DEFAULT_ROOTS, Kernels, render
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.fusion.dataflow import sizes_of
from executorch_webgpu.graph.memory import plan_memory
from executorch_webgpu.ops.plan import Dispatch, Planning
from executorch_webgpu.ops.registry import names
from executorch_webgpu.ops.values import ELEMENT_TYPES, LiveSymInt, Repacked, Scratch, SymInt, Tensor

from .harness import Const, In, Mutable, OpProgram, Out, Sym, assert_close, call_graph
from .samples import SAMPLES, Sample

OPS = sorted({s.op for s in SAMPLES})
ROOTS = DEFAULT_ROOTS


def test_every_operator_has_a_sample() -> None:
    assert sorted(set(names()) - set(OPS)) == [], "add these operators to tests/ops/samples.py"


def test_operators_with_a_dynamic_dimension_are_sampled_at_two_sizes() -> None:
    static = {s.op for s in SAMPLES} - {s.op for s in SAMPLES if s.dynamic}
    of_one_number = {"aten.bucketize.Scalar", "aten.searchsorted.Scalar"}
    # Rows have a place each, or words that are no random numbers: fewer rows are in files of their own.
    of_rows = {"et_webgpu.paged_sdpa.default", "et_webgpu.rope_paged_sdpa.default", "et_webgpu.sample_rows.default"}
    assert static == {"et_vk.prepack.default", "et_vk.select_as_symint.default"} | of_one_number | of_rows


@pytest.mark.parametrize("op", OPS)
def test_device_agrees_with_the_reference(device: Device, op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At maximum dims, at smaller ones, and back; no step compiles anything that load did not."""
    for sample in (s for s in SAMPLES if s.op == op):
        # A device of its own for its kernels: another sample must not have made the pipeline before.
        monkeypatch.setattr(device, "kernels", Kernels(device, ROOTS))
        with OpProgram(device, op, sample.args, sample.out, **sample.options) as program:
            compiled = device.kernels.stats()
            for seed, live in enumerate((False, True, False) if sample.dynamic else (False,)):
                check(program, sample, sample.inputs(live, seed))
            assert device.kernels.stats() == compiled, sample
            for i in range(sum(isinstance(a, Mutable) for a in sample.args)):
                assert_close(program.mutable(i), program._reference_state[i])


def check(program: OpProgram, sample: Sample, inputs: Sequence[Any]) -> None:
    if isinstance(sample.out, Out) and sample.out.dtype == "bool":  # a reference need not know that it casts to bool
        program.poison()
        assert_close(program.run(inputs), np.asarray(program.reference(inputs)) != 0)
    else:
        program.check(inputs, **sample.tolerance)


# -- garbage --------------------------------------------------------------------------------------------------------

INTEGERS = st.one_of(st.integers(-3, 9), st.sampled_from([2**31 - 1, 2**31, -(2**31), 2**32, 2**62, -(2**62)]))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    st.sampled_from([0.0, 0.5, -1.5, 1e300, float("inf"), float("nan")]),
    st.sampled_from(["", "floor", "nonsense"]),
)
SIZES = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 13, 64, 70_000])
DIMS = st.lists(SIZES, max_size=6).map(tuple).filter(lambda dims: math.prod(dims) < 2**22)
DTYPES = st.sampled_from(list(ELEMENT_TYPES))
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
def near_misses(draw: st.DrawFn, arg: Any) -> Any:
    """An argument of the same kind, with one thing changed."""
    match arg:
        case In() | Out() if arg.dtype != "symint":
            if draw(st.booleans()):
                return replace(arg, dtype=draw(DTYPES))
            return replace(arg, max_dims=draw(near_dims(tuple(arg.max_dims))))
        case Const() | Mutable():
            return type(arg)(np.zeros(draw(near_dims(arg.array.shape)), arg.array.dtype))
        case list() if arg:
            place = draw(st.integers(0, len(arg) - 1))
            middle = draw(st.sampled_from([[], [arg[place]] * 2, [draw(near_misses(arg[place]))]]))
            return [*arg[:place], *middle, *arg[place + 1 :]]
        case bool():
            return not arg
        case int():
            return draw(INTEGERS)
        case float():
            return draw(st.floats())
    return draw(GARBAGE)


@st.composite
def near_dims(draw: st.DrawFn, dims: tuple[int, ...]) -> tuple[int, ...]:
    place = draw(st.integers(0, len(dims)))
    middle = draw(st.sampled_from([(), (1,), (draw(st.sampled_from([0, 1, 2, 3, 4, 8, 24])),)]))
    return (*dims[:place], *middle, *dims[place + draw(st.integers(0, 1)) :])


@st.composite
def damaged_calls(draw: st.DrawFn, ops: Sequence[str] = OPS) -> tuple[str, list[Any], Any]:
    """An operator's sample with one or two arguments, or the output, replaced."""
    op = draw(st.sampled_from(ops))
    sample: Sample = draw(st.sampled_from([s for s in SAMPLES if s.op == op]))
    args, out = list(sample.args), sample.out
    places = draw(st.lists(st.integers(0, len(args)), min_size=1, max_size=2, unique=True))
    for place in places:
        near = draw(st.booleans())
        if place == len(args):
            out = draw(near_misses(out) if near else OUTPUTS)
        else:
            args[place] = draw(near_misses(args[place]) if near else GARBAGE)
    return op, args, out


@pytest.mark.parametrize(
    ("op", "args", "out"),
    [
        ("update_cache.default", [In((1, 2, 1, 4)), Mutable(np.zeros((1, 8, 1, 4), np.float32)), math.nan], Out((1,))),
        ("et_vk.select_as_symint.default", [In((2,), "int32"), 0, 0.5], Out(dtype="symint")),
        ("aten.view_copy.default", [In((8, 6)), [4.5, 12.0]], Out((4, 12))),
        ("et_vk.rms_norm.default", [In((8, 6)), Const(np.ones(6, np.float32)), None], Out((8, 6))),
        ("floordiv", [Sym(), Sym()], Out((3,))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_of_a_wrong_kind_are_the_fault_of_the_program(op: str, args: list[Any], out: Out) -> None:
    with pytest.raises(InvalidProgramError, match=re.escape(op)):
        plan_graph(build_graph(call_graph(op, args, out)), Planning(Features.none(), Limits.floor()))


@pytest.mark.parametrize("op", OPS)
def test_dtypes_that_a_kernel_does_not_take_are_refused(op: str) -> None:
    sample = next(s for s in SAMPLES if s.op == op)
    outs = sample.out if isinstance(sample.out, list) else [sample.out]
    values = [*sample.args, *outs]
    places = [i for i, v in enumerate(values) if isinstance(v, In | Out) and v.dtype != "symint"]
    for place, dtype in product(places, ELEMENT_TYPES):
        changed = [*values[:place], replace(values[place], dtype=dtype), *values[place + 1 :]]
        args, results = changed[: len(sample.args)], changed[len(sample.args) :]
        with suppress(Error):
            plan_at_two_sizes(call_graph(op, args, results if isinstance(sample.out, list) else results[0]))


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(damaged_calls())
def test_garbage_is_refused_with_our_errors(call: tuple[str, list[Any], Any]) -> None:
    """Planning, at load and at smaller dims: what does not raise an error of ours can be recorded."""
    with suppress(Error):
        plan_at_two_sizes(call_graph(*call))


def plan_at_two_sizes(described: vk.VkGraph) -> None:
    planning = Planning(Features.none(), Limits.floor())
    graph = build_graph(described)
    ask_rules(graph)
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
        for tensor in (t for call in graph.calls for t in call.outputs):
            assert all(type(d) is int for d in tensor.dims), f"{tensor} has dims that are no integers"
        for dispatch in (d for plan in plans.plans for d in plan.dispatches):
            check_recordable(dispatch, storage_of)


def ask_rules(graph: Graph) -> None:
    """Rules of sizes and rows answer for calls that no plan has checked, too."""
    sizes_of(graph)
    for call in graph.calls:
        counts = [value.id for value in call.reads if isinstance(value, SymInt)]
        for tensor, number in product(call.inputs, [[], counts]):
            for axis in range(tensor.rank):
                found = call.op.row_axes(call.args, {tensor.id: axis}, number)
                assert found is None or isinstance(found, tuple), f"{call.name} states {found}"


def check_recordable(dispatch: Dispatch, storage_of: Any) -> None:
    """The kernel renders and takes what the plan gives it."""
    source = render(dispatch.kernel, dispatch.template, "wgpu", Features.none(), ROOTS)
    source.check_names("binding", {b.name for b in source.bindings} - {"params"}, dispatch.bindings)
    source.pack_params(dispatch.params)
    source.resolve_overrides(dispatch.overrides)
    assert all(type(n) is int for n in dispatch.grid), dispatch
    elements = {b.name: re.match(r"array<(?:vec[234]<)?(f32|i32)\b", b.type) for b in source.bindings}
    for name, value in dispatch.bindings.items():
        assert isinstance(value, Tensor | Scratch | Repacked | SymInt | int), dispatch
        if isinstance(value, Tensor):
            assert value.id in storage_of, dispatch
            element = elements[name]
            assert element is None or value.wgsl == element[1], f"{dispatch.kernel} takes {value} as {element[1]}"
        elif isinstance(value, Repacked):
            sources = [np.zeros(t.max_dims, t.element.numpy) for t in value.sources]
            assert value.pack(*sources).nbytes == value.nbytes, dispatch
        elif isinstance(value, int):
            LiveSymInt(SymInt(-1)).set(value)

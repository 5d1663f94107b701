"""Live values: who is planned again, when, and what a refused step leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.resize import LivePlans
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.values import INT32_MAX, INT32_MIN, LiveSymInt, SymInt, Tensor, packed_uniform
from tests.graph_builder import GraphBuilder

PLANNING = Planning(Features.none(), Limits.floor())


def live_slice() -> LivePlans:
    """y = x[p : p + n] + 0 with live p and n, each from an input of its own; x is a [64, 4] input."""
    build = GraphBuilder()
    x = build.input((64, 4))
    start, length = build.live(), build.live()
    end = build.call("add", start, length, build.symint())
    part = build.call("aten.slice_copy.Tensor", x, 0, start, end, 1, build.tensor((64, 4)))
    build.output(build.call("aten.add.Tensor", part, part, 1, build.tensor((64, 4))))
    return plan_graph(build_graph(build.build()), PLANNING)


def set_hosts(plans: LivePlans, *values: int) -> None:
    tensors = [v for v in plans.graph.inputs if isinstance(v, Tensor) and v.dtype == "int32"]
    for tensor, value in zip(tensors, values, strict=True):
        plans.set_host(tensor, np.array([value], np.int32))


def planned(plans: LivePlans) -> list[str]:
    """What an update plans again; ``changed`` says of it what dispatches, or did."""
    before = list(plans.plans)
    plans.changed.clear()
    plans.update()
    again = [i for i, plan in enumerate(before) if plans.plans[i] is not plan]
    assert plans.changed == {i for i in again if plans.plans[i].dispatches or before[i].dispatches}
    return [plans.graph.calls[i].name for i in again]


def result_dims(plans: LivePlans) -> tuple[int, ...]:
    (out,) = plans.graph.outputs
    assert isinstance(out, Tensor)
    return plans.tensor(out).dims


def test_symint_keeps_its_value_when_a_new_one_is_out_of_range() -> None:
    symint = LiveSymInt(SymInt(0))
    for value in (INT32_MIN, INT32_MAX, 0, -1):
        symint.set(value)
        assert symint.value == value
        assert np.frombuffer(packed_uniform(symint.value), np.int32)[0] == value
    for value in (INT32_MIN - 1, INT32_MAX + 1, 2**40):
        with pytest.raises(InvalidInputError):
            symint.set(value)
        assert symint.value == -1
    assert len(packed_uniform(symint.value)) == 16


def test_only_a_different_value_counts_as_a_change() -> None:
    symint = LiveSymInt(SymInt(0, 5))
    symint.dirty = False
    assert not symint.set(5)
    assert not symint.dirty
    assert symint.set(6)
    assert symint.dirty


def test_a_change_is_planned_once_and_only_where_it_reaches() -> None:
    plans = live_slice()
    set_hosts(plans, 3, 8)
    assert planned(plans)[-2:] == ["aten.slice_copy.Tensor", "aten.add.Tensor"]
    assert planned(plans) == []
    set_hosts(plans, 3, 8)
    assert planned(plans) == []


def test_a_moved_start_replans_no_kernel() -> None:
    plans = live_slice()
    set_hosts(plans, 3, 8)
    plans.update()
    set_hosts(plans, 4, 8)
    assert planned(plans) == ["add"]
    assert result_dims(plans) == (8, 4)


def test_a_refused_value_stays_marked() -> None:
    build = GraphBuilder()
    x, y = build.input((8, 4)), build.input((8, 4))
    build.output(build.call("aten.add.Tensor", x, y, 1, build.tensor((8, 4))))
    plans = plan_graph(build_graph(build.build()), PLANNING)
    a, b = plans.graph.inputs
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    plans.set_dims(a, (5, 4))
    plans.set_dims(b, (3, 4))
    for _ in range(2):  # nothing was set in between, and it is still refused
        with pytest.raises(InvalidInputError):
            plans.update()
    plans.set_dims(b, (5, 4))
    assert planned(plans) == ["aten.add.Tensor"]
    assert result_dims(plans) == (5, 4)


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(1, 64)), min_size=1, max_size=8))
def test_dims_follow_every_step(steps: list[tuple[int, int]]) -> None:
    plans = live_slice()
    for start, length in steps:
        set_hosts(plans, start, length)
        plans.update()
        assert result_dims(plans) == (len(range(64)[start : start + length]), 4)


def test_two_loads_of_one_graph_keep_their_values_apart() -> None:
    first = live_slice()
    second = plan_graph(first.graph, PLANNING)
    set_hosts(first, 3, 8)
    set_hosts(second, 60, 2)
    first.update()
    second.update()
    assert (result_dims(first), result_dims(second)) == ((8, 4), (2, 4))
    for value in (*first.graph.inputs, *first.graph.outputs):
        with pytest.raises(FrozenInstanceError):
            value.id = 0


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("aten.add.Tensor", lambda b: (None, b.input((4,)), 1, b.tensor((4,)))),
        ("aten.add.Tensor", lambda b: (b.input((4,)), b.input((5,)), 1, b.tensor((4,)))),
        ("aten.view_copy.default", lambda b: (b.input((4,)), [3], b.tensor((3,)))),
        ("aten.view_copy.default", lambda b: (b.input((4,)), None, b.tensor((4,)))),
        ("aten.select_copy.int", lambda b: (b.input((4, 3)), 7, 0, b.tensor((3,)))),
        ("sym_size.int", lambda b: (b.input((4, 3)), 2, b.symint())),
        ("aten.add.Tensor", lambda b: (b.input((4,)), b.tensor((4,)))),
        ("aten.add.Tensor", lambda b: (b.input((4,)), b.input((4,)), 1, None)),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_load(op: str, args: Callable[[GraphBuilder], tuple]) -> None:
    build = GraphBuilder()
    build.call(op, *args(build))
    with pytest.raises((InvalidProgramError, UnsupportedProgramError, InvalidInputError)):
        plan_graph(build_graph(build.build()), PLANNING)


def test_whole_floats_are_integers_where_the_operator_takes_those() -> None:
    """The exporter keeps equal numbers once, so a dim may be the 1.0 of an earlier call; 1.5 is none."""
    for dim, fits in ((1.0, True), (1.5, False)):
        build = GraphBuilder()
        x = build.input((4, 3))
        build.output(build.call("aten.slice_copy.Tensor", x, dim, 0.0, 2.0, 1, build.tensor((4, 2))))
        if fits:
            assert result_dims(plan_graph(build_graph(build.build()), PLANNING)) == (4, 2)
        else:
            with pytest.raises(InvalidProgramError, match="dim cannot be 1.5"):
                build_graph(build.build())


def test_values_are_written_once_and_before_they_are_read() -> None:
    def twice(b: GraphBuilder) -> None:
        x, out = b.input((4,)), b.tensor((4,))
        b.call("aten.view_copy.default", x, [4], out)
        b.call("aten.sigmoid.default", x, out)

    def unwritten(b: GraphBuilder) -> None:
        b.call("aten.sigmoid.default", b.tensor((4,)), b.tensor((4,)))

    def output_of_nobody(b: GraphBuilder) -> None:
        b.call("aten.sigmoid.default", b.input((4,)), b.tensor((4,)))
        b.output(b.tensor((4,)))

    def into_an_input(b: GraphBuilder) -> None:
        x = b.input((4,))
        b.call("aten.sigmoid.default", x, x)

    def unset_symint(b: GraphBuilder) -> None:
        b.call("add", b.symint(), 1, b.symint())

    for make in (twice, unwritten, output_of_nobody, into_an_input, unset_symint):
        build = GraphBuilder()
        make(build)
        with pytest.raises(InvalidProgramError):
            build_graph(build.build())


def test_a_first_step_with_the_values_that_load_assumed_is_planned_with_them() -> None:
    """Load takes a live 0 for a number that is not known yet, and everything as large as it may become."""
    build = GraphBuilder()
    end = build.live()
    arange = build.call("aten.arange.start_step", 0, end, 1, None, None, None, None, build.tensor((7,), "int32"))
    build.output(arange)
    plans = plan_graph(build_graph(build.build()), PLANNING)
    assert result_dims(plans) == (7,)
    set_hosts(plans, 0)
    plans.update()
    assert result_dims(plans) == (0,)


def test_a_route_of_nothing_is_refused() -> None:
    build = GraphBuilder()
    build.output(build.call("aten.sigmoid.default", build.input((4,)), build.tensor((4,))))
    with pytest.raises(InvalidInputError, match="nonsense"):
        plan_graph(build_graph(build.build()), replace(PLANNING, routes={"nonsense": "fast"}))


def test_all_unsupported_operators_are_listed() -> None:
    build = GraphBuilder()
    x = build.input((4,))
    for name in ("aten.nothing.default", "et_vk.void.default", "aten.nothing.default"):
        x = build.call(name, x, build.tensor((4,)))
    with pytest.raises(
        UnsupportedProgramError, match=r"aten\.nothing\.default \(2×\), et_vk\.void\.default \(1×\)"
    ) as e:
        build_graph(build.build())
    assert e.value.operators == {"aten.nothing.default": 2, "et_vk.void.default": 1}


def watchers() -> LivePlans:
    """Slices and narrows of two inputs of live length, all from one live start and length on, in turns."""
    build = GraphBuilder()
    inputs = [build.input((24, 4)), build.input((24, 4))]
    start, length = build.live(), build.live()
    end = build.call("add", start, length, build.symint())
    for x in inputs * 3:
        build.output(build.call("aten.slice_copy.Tensor", x, 0, start, end, 1, build.tensor((24, 4))))
        build.output(build.call("aten.narrow_copy.default", x, 0, start, length, build.tensor((24, 4))))
    return plan_graph(build_graph(build.build()), PLANNING)


def take_step(plans: LivePlans, sizes: tuple[int, int], start: int, length: int) -> list[object] | str:
    """What all calls do then, or why the step is refused."""
    first, second = (v for v in plans.graph.inputs if isinstance(v, Tensor) and v.dtype == "float32")
    plans.set_dims(first, (sizes[0], 4))
    plans.set_dims(second, (sizes[1], 4))
    set_hosts(plans, start, length)
    try:
        plans.update()
    except InvalidInputError as error:
        return str(error)
    done: list[object] = [plans.tensor(out).dims for out in plans.graph.outputs if isinstance(out, Tensor)]
    return done + [(d.kernel, d.grid, d.params, d.overrides) for plan in plans.plans for d in plan.dispatches]


SIZES = st.sampled_from([1, 5, 6, 12, 24])
STEPS = st.lists(st.tuples(st.tuples(SIZES, SIZES), st.integers(0, 12), st.integers(0, 6)), min_size=2, max_size=12)


@given(STEPS)
@example([((12, 12), 6, 6), ((12, 12), 12, 0)])  # past the bounds of the step before
def test_calls_that_watch_the_same_are_planned_as_if_each_was_alone(
    steps: list[tuple[tuple[int, int], int, int]],
) -> None:
    """Whatever steps came before, with refused ones among them, plans are those of a graph that is just loaded."""
    plans = watchers()
    for sizes, start, length in steps:
        fresh = take_step(plan_graph(plans.graph, PLANNING), sizes, start, length)
        assert take_step(plans, sizes, start, length) == fresh


def test_what_is_not_watched_any_more_is_forgotten() -> None:
    plans = watchers()
    take_step(plans, (24, 24), 0, 1)
    watched = len(plans._watches)
    for size in range(1, 25):
        take_step(plans, (size, size), 0, 1)
    assert len(plans._watches) == watched
    assert all(watch.calls for watch in plans._watches.values())

"""Traits of operators: those that name nothing are refused, and sizes follow as the plans say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import Error, KernelError
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.fusion.dataflow import sizes_of
from executorch_webgpu.graph.resize import LivePlans
from executorch_webgpu.ops import registry, rows, sizes
from executorch_webgpu.ops.plan import Planner, Planning
from executorch_webgpu.ops.registry import Linear, find, names, op
from executorch_webgpu.ops.sizes import Size, Sizes, unknown
from executorch_webgpu.ops.values import ELEMENT_TYPES, SymInt, Tensor
from tests.graph_builder import GraphBuilder

from .harness import Const, In, Mutable, Out, as_float64
from .samples import SAMPLES, Input, Position, Sample

PLANNING = Planning(Features.none(), Limits.floor())
OPS = sorted({s.op for s in SAMPLES})
# Whose sizes or values follow from nothing: arithmetic on live integers, and how many numbers lie between two.
RANGES = {f"aten.arange.{overload}" for overload in ("default", "start", "start_step")}
WITHOUT_SIZES = {"add", "sub", "mul", "floordiv", "mod", "neg", "sym_max", "sym_min", *RANGES}
WITHOUT_SIZES |= {"aten._pdist_forward.default"}  # of the pairs of rows


# -- registration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"mutates": ("y",)}, r"states traits of \['y'\]"),
        ({"promoted": ("x", "y")}, r"states traits of \['y'\]"),
        ({"caches": {"x": "rows"}, "position": "n"}, r"states traits of \['rows'\]"),
        ({"caches": {"x": "x"}, "position": "start"}, r"states traits of \['start'\]"),
        ({"caches": {"x": "x"}}, r"writes the caches \['x'\], but states no position"),
        ({"reads_rows_of": ("table",)}, r"states traits of \['table'\]"),
        ({"selects": "dim"}, r"states traits of \['dim'\]"),
        ({"linear": Linear("f32", "x", bias="bias")}, r"states traits of \['bias'\]"),
        ({"sizes": lambda s, x: s.of(x)}, "has a rule of sizes for other arguments"),
        ({"rows": lambda cut, x, n, dim, out: None}, "has a rule of rows for other arguments"),
    ],
)
def test_traits_of_what_an_operator_does_not_take_are_refused(traits: dict[str, Any], message: str) -> None:
    def plan(planner: Planner, x: Tensor, n: int, out: Tensor) -> None: ...

    known = names()
    with pytest.raises(KernelError, match=f"operator tests.toy {message}"):
        op("tests.toy", reference=lambda x, n: x, **traits)(plan)
    assert names() == known, "a refused operator is registered"


def test_what_follows_from_other_traits() -> None:
    sigmoid, attention = find("aten.sigmoid.default"), find("sdpa_with_kv_cache.default")
    assert sigmoid is not None and attention is not None
    assert (sigmoid.sizes, sigmoid.rows) == (sizes.broadcast, rows.broadcast)
    assert attention.mutates == ("k_cache", "v_cache")


# -- views ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_views_are_what_keeps_the_order_of_elements(op: str) -> None:
    """By the reference: the elements of the first argument, wherever the dtypes are the same."""
    found = find(op)
    assert found is not None
    same = []
    for sample in (s for s in SAMPLES if s.op == op):
        x, *rest = sample.args
        if isinstance(x, Input) and isinstance(sample.out, Out) and x.dtype == sample.out.dtype:
            array = as_float64(sample.inputs(live=False)[0])
            with np.errstate(all="ignore"):
                result = found.reference(array, *(resolved(a) for a in rest))
            same.append(np.array_equal(np.ravel(result), array.ravel()))
    assert found.view == (bool(same) and all(same))


def resolved(arg: Any) -> Any:
    """An argument after the first one, as the reference takes it."""
    match arg:
        case Const() | Mutable():
            return as_float64(arg.array)
        case In():
            floats = ELEMENT_TYPES[arg.dtype].is_float
            return np.full(arg.max_dims, 1.25) if floats else np.full(arg.max_dims, 2)
        case Position():
            return arg.full
        case list():
            return [resolved(item) for item in arg]
    return arg


# -- sizes ------------------------------------------------------------------------------------------------------------


def check_sizes(graph: Graph, plans: LivePlans) -> None:
    """Known sizes are those of the plans, and equal symbols stand for equal ones."""
    known = sizes_of(graph)
    seen: dict[Size, int] = {}
    call = graph.calls[-1]
    live = [(known.of(t), plans.tensor(t).dims) for t in (*call.inputs, *call.outputs)]
    live += [((known.value(n),), (plans.value(n),)) for n in (*call.reads, *call.writes) if isinstance(n, SymInt)]
    for found, now in live:
        for size, n in zip(found, now, strict=True):
            assert seen.setdefault(size, n) == n, f"{call.name}: {found} is {now}, but {size} was {seen[size]}"
            assert not isinstance(size, int) or size == n, f"{call.name}: {found} is {now}"


def stepped(sample: Sample, inputs: list[np.ndarray | int]) -> tuple[Graph, LivePlans]:
    """The call as it is planned for these inputs."""
    graph = build_graph(sample.graph())
    plans = plan_graph(graph, PLANNING)
    for value, given_ in zip(graph.inputs, inputs, strict=True):
        assert isinstance(value, Tensor)
        array = np.atleast_1d(given_) if isinstance(given_, int) else given_
        plans.set_dims(value, array.shape)
        if value.dtype == "int32":
            plans.set_host(value, array)
    plans.update()
    return graph, plans


@pytest.mark.parametrize("op", OPS)
def test_sizes_follow_as_the_plan_says(op: str) -> None:
    for sample in (s for s in SAMPLES if s.op == op and not s.options):
        for live in (False, True):
            check_sizes(*stepped(sample, sample.inputs(live)))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_sizes_follow_at_any_dims(data: st.DataObject) -> None:
    """Every size that is more than 1 is drawn anew, equal ones alike or each for itself."""
    sample = data.draw(st.sampled_from([s for s in SAMPLES if not s.options]))
    given_ = sample.inputs(live=False)
    alike = data.draw(st.booleans())
    drawn: dict[Any, int] = {}

    def size(n: int, place: Any) -> int:
        return drawn.setdefault(n if alike else place, data.draw(st.integers(1, n)) if n > 1 else n)

    shrunk = [
        value if isinstance(value, int) else value[tuple(slice(size(n, (i, a))) for a, n in enumerate(value.shape))]
        for i, value in enumerate(given_)
    ]
    try:
        graph, plans = stepped(sample, shrunk)
    except Error:
        assume(False)
    check_sizes(graph, plans)


@pytest.mark.parametrize("op", OPS)
def test_every_operator_says_how_its_sizes_follow(op: str) -> None:
    """If equal sizes of inputs are one, every result has a size that follows from them, or is empty of such."""
    found = find(op)
    assert found is not None
    assert (found.sizes is None) == (op in WITHOUT_SIZES)
    for sample in (s for s in SAMPLES if s.op == op and found.sizes is not None):
        graph, alike = build_graph(sample.graph()), Sizes()
        for tensor in graph.calls[-1].inputs:
            for size, n in zip(unknown(tensor), tensor.max_dims, strict=True):
                alike.equate([size], [(-n,)] if n > 1 and tensor.constant is None else [size])
        known = sizes_of(graph, alike)
        for out in graph.calls[-1].outputs:
            assert known.of(out) != unknown(out) or all(n == 1 for n in out.max_dims), f"{sample}: {out}"


@pytest.mark.parametrize("rule", [None, lambda s, x, n, out: (*s.of(x)[1:], None), lambda s, x, n, out: None])
def test_sizes_that_no_rule_states_are_a_mistake_of_the_operator(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_OPS", dict(registry._OPS))

    @op("tests.toy", reference=lambda x, n: x, sizes=rule)
    def plan(planner: Planner, x: Tensor, n: int, out: Tensor) -> None:
        planner.resize(out)

    build = GraphBuilder()
    build.output(build.call("tests.toy", build.input((2, 3)), 1, build.tensor((2, 3))))
    graph = build_graph(build.build())
    with pytest.raises(KernelError, match=r"do not follow from the sizes of tests\.toy"):
        plan_graph(graph, PLANNING)


def test_a_live_size_is_watched_once() -> None:
    """Though the plan function and the rule of sizes both read it."""
    build = GraphBuilder()
    x = build.input((4, 3))
    length = build.size_of(x, 0)
    build.output(build.call("aten.view_copy.default", x, [length, -1], build.tensor((4, 3))))
    plans = plan_graph(build_graph(build.build()), PLANNING)
    assert len(plans.plans[-1].derived) == 1


def test_inputs_of_samples_are_dynamic() -> None:
    """So that the tests above see sizes change."""
    assert sum(any(isinstance(a, Input) and a.live for a in s.args) for s in SAMPLES) > len(SAMPLES) / 2

"""Dimensions that are turned and turned back: the same elements from fewer calls."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.graph.batch_order import without_turns
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.fusion.dataflow import without_unread
from executorch_webgpu.graph.reference import ReferenceExecutor
from tests.graph_builder import GraphBuilder, Ref

ROWS = 5
PERMUTE, VIEW, EXPAND = "aten.permute_copy.default", "aten.view_copy.default", "aten.expand_copy.default"
Steps = list[tuple[str, list[int], int]]


def chain(steps: Steps) -> Graph:
    """A tensor [1, S, 3, 5] that is turned, repeated to its own size, and loses or gains dimensions of 1."""
    build = GraphBuilder()
    dims: tuple[int, ...] = (1, ROWS, 3, 5)
    x = build.input(dims)
    count: Ref = build.size_of(x, 1)
    x = build.call(VIEW, x, [1, count, 3, 5], build.tensor(dims))  # all but S is known
    live = 1  # along which dimension S lies; another one is as long at most
    for kind, order, place in steps:
        if kind == "turn":
            axes = sorted(range(len(dims)), key=lambda axis, order=order: (order[axis], axis))
            dims, live = tuple(dims[axis] for axis in axes), axes.index(live)
            x = build.call(PERMUTE, x, axes, build.tensor(dims))
        elif kind == "repeat":
            x = build.call(
                EXPAND, x, [count if i == live else n for i, n in enumerate(dims)], False, build.tensor(dims)
            )
        elif kind == "gain" and len(dims) < 6:
            at = place % (len(dims) + 1)
            dims, live = (*dims[:at], 1, *dims[at:]), live + (at <= live)
            x = build.call("aten.unsqueeze_copy.default", x, at, build.tensor(dims))
        elif kind == "lose" and len(ones := [i for i, n in enumerate(dims) if n == 1]) > 0:
            at = ones[place % len(ones)]
            dims, live = (*dims[:at], *dims[at + 1 :]), live - (at < live)
            sizes = [count if i == live else n for i, n in enumerate(dims)]
            x = build.call(VIEW, x, sizes, build.tensor(dims))
    build.output(build.call("aten.neg.default", x, build.tensor(dims)))
    return build_graph(build.build())


def names(graph: Graph) -> list[str]:
    made = without_turns(graph)
    return [call.name for call in without_unread(made, graph, lambda call: True).calls]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["turn", "turn", "repeat", "gain", "lose"]),
            st.lists(st.integers(0, 5), min_size=6, max_size=6),
            st.integers(0, 5),
        ),
        max_size=7,
    ),
    st.integers(1, ROWS),
)
def test_elements_stay_where_they_are(steps: Steps, rows: int) -> None:
    graph = chain(steps)
    x = np.random.default_rng(0).standard_normal((1, rows, 3, 5)).astype(np.float32)
    (wanted,), (got,) = (ReferenceExecutor(g).execute([x]) for g in (graph, without_turns(graph)))
    np.testing.assert_array_equal(got, wanted)


def test_what_is_turned_back_costs_nothing() -> None:
    back = [("turn", [0, 2, 1, 3, 0, 0], 0), ("lose", [0] * 6, 0), ("turn", [1, 0, 2, 0, 0, 0], 0)]
    assert PERMUTE not in names(chain(back))
    assert EXPAND not in names(chain([("repeat", [0] * 6, 0)]))
    assert names(chain([("turn", [0, 2, 1, 3, 0, 0], 0)])).count(PERMUTE) == 1

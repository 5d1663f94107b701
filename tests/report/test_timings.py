"""What spans add up to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executorch_webgpu import Runtime, trace
from executorch_webgpu.gpu.trace import DISPATCH, ENCODE, HOST, STEP, SUBMIT, WAIT, Span, Trace, Track
from executorch_webgpu.report.repeats import repeats
from executorch_webgpu.report.timings import Distribution, timings

HOST_TRACK, QUEUE = Track(HOST, "main"), Track("A GPU", "queue")


def step(start: int, number: int, name: str = "decode") -> list[Span]:
    """A step of 100: 10 of encoding, 5 of submission, 50 of waiting, 35 of its own; two dispatches of 20 and 15."""
    first = {"submission": number, "kernel": "a", "bytes": 700}
    return [
        Span(HOST_TRACK, name, STEP, start, start + 100),
        Span(HOST_TRACK, "inner", STEP, start + 1, start + 99),  # a step in a step is none of its own
        Span(HOST_TRACK, "encode", ENCODE, start + 5, start + 15),
        Span(HOST_TRACK, "submit", SUBMIT, start + 15, start + 20, {"submission": number}, number),
        Span(HOST_TRACK, "readback", WAIT, start + 30, start + 80),
        Span(QUEUE, "add", DISPATCH, start + 25, start + 45, first, number),
        Span(QUEUE, "mul", DISPATCH, start + 50, start + 65, {"submission": number, "kernel": "b", "bytes": 0}),
    ]


def test_steps_operators_and_host_time() -> None:
    made = Trace()
    made.spans += [*step(1000, 1, "prefill"), *step(2000, 2), *step(2200, 3), *step(2500, 4)]
    found = timings(made)
    assert found.step_names == ("prefill", "decode") and len(found.steps) == 4
    for each in found.steps:
        assert (each.host, each.encode, each.wait, each.gpu, each.gpu_span) == (50, 15, 50, 35, 40)
        assert (each.dispatches, each.bytes) == (2, 700)
    assert [each.interval for each in found.steps] == [None, 200, 300, None]
    assert [(row.names, row.calls, row.gpu, row.bytes) for row in found.by_operator] == [
        (("add", ""), 4, 80, 2800),
        (("mul", ""), 4, 60, 0),
    ]
    assert [row.names for row in found.by_kernel] == [("a", "", "add"), ("b", "", "mul")]
    assert found.gpu == 140
    assert found.host == {
        "plan, record and encode": 40,
        "submit": 20,
        "wait for the GPU": 200,
        "other work in steps": 140,
    }


def test_an_empty_trace() -> None:
    found = timings(Trace())
    assert (found.steps, found.by_operator, found.host, found.gpu) == ((), (), {}, 0)


def test_a_distribution() -> None:
    found = Distribution.of([10, 20, 30, 40])
    assert (found.count, found.total, found.p50, found.worst) == (4, 100, 25, 40)
    assert found.p50 <= found.p90 <= found.p99 <= found.worst


@pytest.mark.slow
def test_sums_of_a_run_are_those_of_its_spans() -> None:
    path = Path(__file__).parents[1] / "data" / "engine" / "llama_quantized.pte"
    with Runtime.get().load_program(path) as program, program.load_method("forward") as method:
        kinds = [np.dtype(tensor.dtype) for tensor in method.metadata.inputs]
        with trace() as recorded:
            for position in range(3):
                method.execute([np.ones((1, 1), kinds[0]), np.array([position], kinds[1])])
    found = timings(recorded)
    spans = [span for span in recorded.spans if span.kind == DISPATCH]
    assert len(found.steps) == 3 and sum(each.dispatches for each in found.steps) == len(spans)
    assert sum(each.gpu or 0 for each in found.steps) == found.gpu == sum(span.duration for span in spans)
    assert sum(row.gpu for row in found.by_kernel) == found.gpu
    for each in found.steps:
        assert each.host + each.wait == each.end - each.start and each.encode <= each.host


# -- layers that are alike --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("abcdefgh", []),
        ("aaa", []),  # to fold so few hides nothing
        ("aaaaaa", [(0, 1, 6)]),
        ("xyabcabcabcz", [(2, 3, 3)]),
        ("abcabcabcab", [(0, 3, 3)]),  # the rest is not a whole layer
        ("x" + "abcd" * 4 + "y" + "ef" * 5 + "z", [(1, 4, 4), (18, 2, 5)]),
        ("aab" * 10, [(0, 3, 10)]),
    ],
)
def test_repeats(text: str, found: list[tuple[int, int, int]]) -> None:
    assert [(each.start, each.period, each.count) for each in repeats(text)] == found


def test_runs_that_do_not_count_give_way_to_others() -> None:
    labels = "ab" * 8
    assert [(each.period, each.count) for each in repeats(labels)] == [(2, 8)]
    assert [(each.period, each.count) for each in repeats(labels, lambda each: each.period > 2)] == [(4, 4)]
    assert repeats(labels, lambda _: False) == ()


@given(st.lists(st.integers(0, 3), max_size=60))
def test_repeats_are_alike_and_apart(labels: list[int]) -> None:
    end = 0
    for each in repeats(labels):
        assert each.start >= end and each.end <= len(labels) and each.count > 1
        end = each.end
        layers = [labels[each.start + i * each.period :][: each.period] for i in range(each.count)]
        assert all(layer == layers[0] for layer in layers)

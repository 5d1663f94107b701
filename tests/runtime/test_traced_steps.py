"""Traces of programs: a span for each dispatch of the plan, with its name, and the same results as without one."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_webgpu import Method, Runtime, trace
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.gpu.clock import _MOST_DRIFT
from executorch_webgpu.gpu.trace import DISPATCH, ENCODE, STEP, SUBMIT, WAIT, Span, Trace, active
from executorch_webgpu.graph.execute import GraphExecutor
from tests.gpu.trace_events import checked_events

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
# A chain of casts, host operators between graphs, a graph that runs many times in a loop, buffers, float16.
PROGRAMS = ["r12230_cross", "a09h_qwen3_host", "r_map", "l_mut_dup_2", "r_fp16_force", "r21877_symint_in"]


def dispatches(recorded: Trace) -> list[Span]:
    return sorted((span for span in recorded.spans if span.kind == DISPATCH), key=lambda span: span.start)


def planned(method: Method) -> list[tuple[str, int, str, str | None, tuple[int, ...]]]:
    """Name, call, kernel, route and workgroups of each dispatch of the last step, as the graphs have them."""
    found: list[tuple[str, int, str, str | None, tuple[int, ...]]] = []
    for executor in method._executors:
        assert isinstance(executor, GraphExecutor)
        for call, plan in zip(executor.graph.calls, executor.plans.plans, strict=True):
            found += [(call.name, call.index, d.kernel, plan.route, d.grid) for d in plan.dispatches]
    return found


def told(spans: list[Span]) -> list[tuple[str, int, str, str | None, tuple[int, ...]]]:
    return [(s.name, s.args["node"], s.args["kernel"], s.args.get("route"), tuple(s.args["workgroups"])) for s in spans]


def inputs_of(name: str) -> list[Any]:
    with np.load(DATA / "programs" / f"{name}.npz") as saved:
        return [saved[key] for key in sorted(saved.files) if key.startswith("in0_")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_saved_programs(name: str, tmp_path: Path) -> None:
    with (
        Runtime.get().load_program(DATA / "programs" / f"{name}.pte") as program,
        program.load_method("forward") as method,
    ):
        given = inputs_of(name) or [np.zeros(t.max_dims, t.dtype) for t in method.metadata.inputs]
        given = given[: len(method.metadata.inputs)]
        with program.load_method("forward") as other:
            expected = other.execute(given)
        with trace() as recorded:
            results = method.execute(given)
        for result, right in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, right)
        spans = dispatches(recorded)
        if name == "r_map":  # whose graphs run once for each row
            assert Counter(told(spans)).keys() == Counter(planned(method)).keys() and len(spans) > len(planned(method))
        else:
            assert told(spans) == planned(method)
    recorded.save(tmp_path / "trace.json")
    whole = json.loads((tmp_path / "trace.json").read_text())
    named = checked_events(whole["traceEvents"])
    (queue,) = (events for (_, thread), events in named.items() if thread == "queue")
    assert [event["name"] for event in queue] == [span.name for span in spans]
    assert {span.kind for span in recorded.spans} >= {STEP, ENCODE, SUBMIT, WAIT, DISPATCH}


@pytest.fixture
def llama() -> Any:
    with Runtime.get().load_program(DATA / "engine" / "llama_quantized.pte") as program:
        yield program


def step(method: Method, tokens: int, position: int) -> Any:
    kinds = [np.dtype(t.dtype) for t in method.metadata.inputs]
    return method.execute([np.ones((1, tokens), kinds[0]), np.array([position], kinds[1])])


def test_live_shapes(llama: Any) -> None:
    """Each step is told as it was planned, at its sizes, though later ones change the plans."""
    with llama.load_method("forward") as method:
        plans, shapes = [], []
        with trace() as recorded:
            for tokens, position in ((5, 0), (1, 5), (3, 6), (5, 0)):
                step(method, tokens, position)
                plans.append(planned(method))
                shapes.append(tokens)
        spans = dispatches(recorded)
    assert told(spans) == [each for plan in plans for each in plan]
    by_submission: dict[int, list[Span]] = {}
    for span in spans:
        by_submission.setdefault(span.args["submission"], []).append(span)
    assert [len(of_step) for of_step in by_submission.values()] == [len(plan) for plan in plans]
    for tokens, of_step in zip(shapes, by_submission.values(), strict=True):
        embedding = next(span for span in of_step if "embedding" in span.name)
        assert embedding.args["shapes"][0][:2] == [1, tokens]


def test_bytes_grow_with_what_a_step_reads(llama: Any) -> None:
    with llama.load_method("forward") as method:
        with trace() as recorded:
            for position, tokens in ((0, 5), (5, 1), (6, 1)):
                step(method, tokens, position)
        sums: Counter[int] = Counter()
        for span in dispatches(recorded):
            sums[span.args["submission"]] += span.args.get("bytes", 0)
        least = llama.step_bytes("forward")
    first, *decodes = (sums[number] for number in sorted(sums))
    assert first > decodes[0] >= least.weights
    if least.cache_row:
        assert decodes[1] - decodes[0] == least.cache_row


def test_spans_of_one_queue_do_not_overlap_and_follow_their_submission(llama: Any) -> None:
    with llama.load_method("forward") as method:
        step(method, 4, 0)
        with trace(method._executors[0].device) as recorded:
            for position in range(4, 8):
                step(method, 1, position)
    spans = dispatches(recorded)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    submits = {span.flow: span for span in recorded.spans if span.kind == SUBMIT and span.flow}
    first = {span.flow: span for span in spans if span.flow}
    assert first.keys() == submits.keys() and len(first) == 4
    off = int(float(next(note for note in recorded.notes if " us: " in note).split(" us")[0].split()[-1]) * 1000) + 1
    assert all(submits[flow].start <= first[flow].start + 2 * off for flow in first)


def test_a_profile_counts_the_same_in_a_trace(llama: Any) -> None:
    with llama.load_method("forward", profile=True) as method, llama.load_method("forward", profile=True) as other:
        step(other, 4, 0)
        with trace() as recorded:
            step(method, 4, 0)
        rows, expected = method.profile(), other.profile()
    assert {(r.op, r.route, r.calls, r.dispatches) for r in rows} == {
        (r.op, r.route, r.calls, r.dispatches) for r in expected
    }
    spans = dispatches(recorded)
    total = sum(span.duration for span in spans) / 1e6
    measured = sum(row.gpu_ms or 0 for row in rows)
    # Time that two passes share counts once in the trace, whose clock may drift, and has whole nanoseconds.
    assert 0 < total <= measured * (1 + _MOST_DRIFT) + 1e-6 * len(spans)


def test_checked_steps_and_host_steps_have_no_dispatches(llama: Any) -> None:
    with llama.load_method("forward", check=True) as method, trace() as recorded:
        step(method, 2, 0)
    assert not dispatches(recorded)
    with (
        Runtime.get(adapter="reference").load_program(DATA / "engine" / "llama_quantized.pte") as program,
        program.load_method("forward") as method,
        trace() as recorded,
    ):
        step(method, 2, 0)
    assert {span.name for span in recorded.spans} == {"forward", "reference graph"} and not recorded.notes


def test_without_timestamps_the_host_is_shown(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Runtime.get().device
    monkeypatch.setattr(device, "features", dataclasses.replace(device.features, timestamps=False))
    with llama.load_method("forward") as method:
        expected = step(method, 3, 0)
        with trace() as recorded:
            (result,) = step(method, 3, 0)
    np.testing.assert_array_equal(result, expected[0])
    assert {span.kind for span in recorded.spans} == {STEP, ENCODE, SUBMIT, WAIT}
    assert len(recorded.notes) == 1 and "no timestamps" in recorded.notes[0]


def test_a_refused_step_leaves_nothing_behind(llama: Any) -> None:
    with llama.load_method("forward") as method:
        with trace() as recorded:
            step(method, 2, 0)
            with pytest.raises(InvalidInputError):
                step(method, 2, 10_000)
            with pytest.raises(InvalidInputError):
                method.execute([])
            with pytest.raises(InvalidInputError):
                method.execute(5)
            step(method, 1, 2)
        assert active() is None
        names = [(span.name, span.args.get("error")) for span in recorded.spans if span.kind == STEP]
        assert [error for _, error in names] == [None, *["InvalidInputError"] * 3, None]
        submissions = {span.args["submission"] for span in dispatches(recorded)}
        assert len(submissions) == 2
        live = Runtime.get().device.memory.live_buffers
        for _ in range(3):
            with pytest.raises(InvalidInputError), trace():
                step(method, 2, 10_000)
        assert Runtime.get().device.memory.live_buffers == live, "timestamps are freed with their trace"


def test_a_trace_holds_on_to_no_method(llama: Any) -> None:
    with trace() as recorded, llama.load_method("forward") as method:
        step(method, 2, 0)
    assert dispatches(recorded), "times are read after the method is closed"


def test_a_program_may_be_closed_in_a_trace() -> None:
    with trace() as recorded, Runtime.get().load_program(DATA / "engine" / "llama_quantized.pte") as program:
        step(program.load_method("forward"), 2, 0)
    assert dispatches(recorded)


def test_a_full_trace_times_no_further_steps(llama: Any) -> None:
    with llama.load_method("forward") as method:
        with trace() as whole:
            step(method, 2, 0)
        with trace(most_spans=len(whole.spans) + 2) as recorded:
            for position in range(0, 8, 2):
                step(method, 2, position)
    # A step that has begun is timed as a whole, and what it did on the host may find no room any more.
    assert len(dispatches(whole)) <= len(dispatches(recorded)) <= 2 * len(dispatches(whole))
    assert recorded.left_out and f"{recorded.left_out} spans were left out" in recorded.notes[-1]

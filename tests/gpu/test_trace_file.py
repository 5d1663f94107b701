"""Traces as files: events that Perfetto and chrome://tracing load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from executorch_webgpu.gpu.trace import DISPATCH, HOST, REQUESTS, SUBMIT, Counter, Span, Trace, Track
from executorch_webgpu.gpu.trace_file import tracks_of
from tests.gpu.trace_events import checked_events


def small_trace() -> Trace:
    made = Trace()
    made.begin = 1_000
    host, queue, request = Track(HOST, "main", 7), Track("A GPU", "queue"), Track(REQUESTS, "request 1", 1)
    made.spans += [
        Span(queue, "aten.add", DISPATCH, 5_000, 6_000, {"kernel": "k", "submission": 1}, 1),
        Span(queue, "aten.mul", DISPATCH, 6_000, 6_000, {"kernel": "k", "submission": 1}),
        Span(request, "finish: eos", "finish", 9_000, 9_000),
        Span(host, "step", "step", 2_000, 8_000, {"tokens": np.int64(1), "inputs": [[np.int32(2)]], "path": Path("p")}),
        Span(host, "submit", SUBMIT, 3_000, 3_500, {"submission": 1}, 1),
        Span(host, "submit", SUBMIT, 7_000, 7_500, {}, 2),  # nothing arrived
    ]
    made.counters.append(Counter("texts", 2_500, {"queued": 1, "running": 2}))
    made.notes.append('with "quotes" and \u2028')
    return made


def test_events(tmp_path: Path) -> None:
    small_trace().save(tmp_path / "t.json")
    whole = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert whole["otherData"]["notes"] == ['with "quotes" and \u2028']
    named = checked_events(whole["traceEvents"])
    assert set(named) == {("host", "main"), ("A GPU", "queue"), ("requests", "request 1")}
    (add, mul) = named["A GPU", "queue"]
    assert (add["ts"], add["dur"], mul["dur"]) == (4.0, 1.0, 0)
    (step,) = (event for event in named["host", "main"] if event["name"] == "step")
    assert step["args"] == {"tokens": 1, "inputs": [[2]], "path": "p"}
    flows = [(event["ph"], event["id"], event["ts"]) for event in whole["traceEvents"] if event["ph"] in "sf"]
    assert flows == [("s", 1, 2.0), ("f", 1, 4.0)]
    (counter,) = (event for event in whole["traceEvents"] if event["ph"] == "C")
    assert counter["args"] == {"queued": 1, "running": 2}


def test_threads_come_first_and_requests_last() -> None:
    assert [track.group for track in tracks_of(small_trace())] == [HOST, "A GPU", REQUESTS]


def test_an_empty_trace(tmp_path: Path) -> None:
    Trace().save(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"] == []

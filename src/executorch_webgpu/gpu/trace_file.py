"""A trace as JSON in the Trace Event Format, which ui.perfetto.dev and chrome://tracing load.

Every span is a complete event ("X") with ``ts`` and ``dur`` in microseconds from the trace's begin; an instant is "i",
a counter "C". Groups of tracks are processes and tracks are threads, both named. An arrow ("s" to "f") goes from each
submission to the first dispatch that it brought to the GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .trace import DISPATCH, HOST, REQUESTS, SUBMIT, Span, Trace, Track

_COUNTERS = "counters"


def write_trace(trace: Trace, path: str | Path) -> None:
    """Write a trace that has ended. Raises OSError."""
    with Path(path).open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","otherData":')
        json.dump({"notes": trace.notes, "left_out": trace.left_out}, file)
        file.write(',"traceEvents":[\n')
        for number, event in enumerate(events(trace)):
            file.write(",\n" if number else "")
            json.dump(event, file, separators=(",", ":"), default=_plain)
        file.write("\n]}\n")


def events(trace: Trace) -> Iterator[dict[str, Any]]:
    """The events of a trace, names of processes and threads first, the rest by time."""
    tracks = tracks_of(trace)
    groups = list(dict.fromkeys(track.group for track in tracks))
    places = {track: (groups.index(track.group) + 1, number) for number, track in enumerate(tracks, 1)}
    for pid, group in enumerate(groups, 1):
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": group}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
    for track, (pid, tid) in places.items():
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": track.name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}
    arrived = {span.flow for span in trace.spans if span.kind == DISPATCH}
    made = [event for span in trace.spans for event in _of_span(span, *places[span.track], trace.begin, arrived)]
    pid = len(groups) + 1
    if trace.counters:
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": _COUNTERS}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": 0}}
    for counter in trace.counters:
        ts = _microseconds(counter.time - trace.begin)
        made.append({"ph": "C", "name": counter.name, "pid": pid, "tid": 0, "ts": ts, "args": dict(counter.values)})
    yield from sorted(made, key=lambda event: (event["ts"], -event.get("dur", 0)))


def tracks_of(trace: Trace) -> list[Track]:
    """All tracks: threads of the host first, then GPUs, then requests, each in the order of their first spans."""
    first: dict[Track, int] = {}
    for span in trace.spans:
        first[span.track] = min(span.start, first.get(span.track, span.start))
    order = {HOST: 0, REQUESTS: 2}
    return sorted(first, key=lambda track: (order.get(track.group, 1), track.group, first[track], track.key))


def _of_span(span: Span, pid: int, tid: int, begin: int, arrived: set[int | None]) -> Iterator[dict[str, Any]]:
    place = {"cat": span.kind, "pid": pid, "tid": tid}
    ts, duration = _microseconds(span.start - begin), span.duration
    if duration:
        length = {"ph": "X", "ts": ts, "dur": _microseconds(duration)}
        yield {"name": span.name, **place, **length, "args": dict(span.args)}
    elif span.kind == DISPATCH:  # a pass that took less than a tick
        yield {"name": span.name, **place, "ph": "X", "ts": ts, "dur": 0, "args": dict(span.args)}
    else:
        yield {"name": span.name, **place, "ph": "i", "s": "t", "ts": ts, "args": dict(span.args)}
    if span.flow is None or span.flow not in arrived:
        return
    arrow = {"name": "submission", **place, "cat": "flow", "id": span.flow}
    if span.kind == SUBMIT:
        yield {**arrow, "ph": "s", "ts": ts}
    elif span.kind == DISPATCH:
        yield {**arrow, "ph": "f", "bp": "e", "ts": ts}


def _plain(value: Any) -> Any:
    """An argument that JSON does not know: a number of NumPy as a number, anything else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _microseconds(nanoseconds: int) -> float:
    return nanoseconds / 1000

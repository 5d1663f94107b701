"""What must hold of the events of any trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

_SLACK = 1e-3  # microseconds: times are written as floats


def checked_events(events: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The complete events and instants by names of process and thread, after checks of form, names, nesting, arrows."""
    processes = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    found: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    arrows: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    last = 0.0
    for event in events:
        assert isinstance(event["name"], str) and event["name"] and isinstance(event["pid"], int), event
        if event["ph"] == "M":
            continue
        assert event["ph"] in "XiCsf", event
        assert event["pid"] in processes, "each process has a name"
        assert event["ts"] >= last - _SLACK, "events come by time"
        last = event["ts"]
        if event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
            continue
        assert (event["pid"], event["tid"]) in threads, "each track has a name"
        if event["ph"] in "sf":
            arrows[event["id"]].append(event)
            continue
        assert event["ph"] == "i" or event["dur"] >= 0
        found[event["pid"], event["tid"]].append(event)
    for place, of_track in found.items():
        _check_nesting(of_track, threads[place])
    for pair in arrows.values():
        assert sorted(event["ph"] for event in pair) == ["f", "s"], "each arrow has a begin and an end"
        for event in pair:  # which lie on something
            assert any(
                e["ts"] - _SLACK <= event["ts"] <= e["ts"] + e.get("dur", 0) + _SLACK
                for e in found[event["pid"], event["tid"]]
            )
    return {(processes[pid], threads[pid, tid]): of_track for (pid, tid), of_track in found.items()}


def _check_nesting(events: Sequence[dict[str, Any]], name: str) -> None:
    """Spans of one track lie in one another or apart."""
    open_ends: list[float] = []
    for event in events:
        begin, end = event["ts"], event["ts"] + event.get("dur", 0)
        while open_ends and open_ends[-1] <= begin + _SLACK:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1] + _SLACK, f"{event['name']} reaches out of its parent ({name})"
        open_ends.append(end)

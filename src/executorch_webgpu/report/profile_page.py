"""A profile as one HTML file: a timeline that can be zoomed, plots, and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..gpu.trace import DISPATCH, STEP, Span
from ..gpu.trace_file import tracks_of
from .page import digits, render, size, write_page
from .plots import Plot, histogram, step_bars
from .profile import ProfileReport
from .timings import StepTime, called

MOST_SPANS, MOST_TRACKS = 40_000, 160  # that a page shows; a JSON trace has all


def write_profile_page(report: ProfileReport, path: str | Path) -> None:
    """Write the page. Raises OSError."""
    write_page(path, profile_page(report))


def profile_page(report: ProfileReport) -> str:
    """The whole page."""
    found = report.timings
    spans = sorted(report.trace.spans, key=lambda span: (span.start, -span.end))
    tracks = tracks_of(report.trace)
    drawn = set(tracks[:MOST_TRACKS])
    shown = [span for span in spans if span.track in drawn][:MOST_SPANS]
    cut = f"{len(shown):,} of {len(spans):,} spans" if len(shown) < len(spans) else ""
    if len(drawn) < len(tracks):
        cut = f"{len(drawn)} of {len(tracks)} tracks, and of these {cut}"
    values = {
        "title": f"Profile of {report.source}",
        "report": report,
        "timings": found,
        "cards": _cards(report),
        "cut": cut,
        "plots": [plot for name in found.step_names for plot in _plots(report, name)],
        "all_gpu": max(1, found.gpu),
        "widest": max((row.gpu for row in found.by_operator), default=0) or 1,
        "widest_kernel": max((row.gpu for row in found.by_kernel), default=0) or 1,
    }
    return render("profile.html.jinja", "timeline.js", _timeline(report, shown), values)


def _cards(report: ProfileReport) -> list[tuple[str, str]]:
    found = report.timings
    cards: list[tuple[str, str]] = []
    for name in found.step_names:
        steps = [step for step in found.steps if step.name == name]
        intervals = [step.interval for step in steps if step.interval is not None]
        if intervals:
            middle = median(intervals)
            cards.append((_time(middle), f"from one {called(name)} to the next, median"))
        gpu = [step.gpu for step in steps if step.gpu is not None]
        if gpu:
            cards.append((_time(median(gpu)), f"GPU busy in one {called(name)}, median of {len(gpu)}"))
        cards.append((_time(median(step.host for step in steps)), f"work of the host in one {called(name)}, median"))
        cards += _traffic(report, name, steps)
    span = max((s.end for s in report.trace.spans), default=0) - min((s.start for s in report.trace.spans), default=0)
    if found.gpu and span:
        cards.append((f"{found.gpu / span:.0%}", f"of {span / 1e6:,.1f} ms the GPU was busy"))
    return cards


def _traffic(report: ProfileReport, name: str, steps: Sequence[StepTime]) -> list[tuple[str, str]]:
    rates = [rate for step in steps if step.bytes and (rate := report.bytes_rate(step)) is not None]
    if not rates:
        return []
    nbytes = size(median(step.bytes for step in steps if step.bytes))
    share = f", {median(rates) / report.read_rate:.0%} of the roofline" if report.read_rate else ""
    return [(f"{median(rates) / 1e9:.3g} GB/s", f"in one {called(name)}: {nbytes} at least{share}")]


def _plots(report: ProfileReport, name: str) -> list[Plot]:
    steps = [step for step in report.timings.steps if step.name == name]
    plots = [step_bars(name, steps)]
    intervals = [step.interval for step in steps if step.interval is not None]
    times = intervals or [step.end - step.start for step in steps]
    if len(times) > 1:
        what = f"From one {called(name)} to the next" if intervals else f"Length of each {called(name)}"
        plots.append(histogram(f"{what}: {len(times)} times", times))
    return plots


def _time(nanoseconds: float) -> str:
    return f"{digits(nanoseconds / 1e6)} ms" if nanoseconds >= 1e6 else f"{digits(nanoseconds / 1e3)} µs"


def _timeline(report: ProfileReport, spans: Sequence[Span]) -> dict[str, Any]:
    """What the script draws. Spans are [track, name, kind, begin, duration, arguments, flow], times in ns."""
    tracks = tracks_of(report.trace)[:MOST_TRACKS]
    places = {track: number for number, track in enumerate(tracks)}
    names: dict[str, int] = {}
    kinds: dict[str, int] = {}
    said: dict[str, int] = {}
    begin = report.trace.begin
    rows = []
    for span in spans:
        args = {key: value for key, value in span.args.items() if key != "submission"} if span.args else {}
        text = json.dumps(args, sort_keys=True, default=str)
        rows.append(
            [
                places[span.track],
                names.setdefault(span.name, len(names)),
                kinds.setdefault(span.kind, len(kinds)),
                span.start - begin,
                span.duration,
                said.setdefault(text, len(said)),
                span.flow or 0,
            ]
        )
    end = max((row[3] + row[4] for row in rows), default=1)
    counters: dict[str, list[list[Any]]] = {}
    for counter in report.trace.counters:
        if counter.time - begin <= end:
            for key, value in counter.values.items():
                name = f"{counter.name}: {key}" if len(counter.values) > 1 else counter.name
                points = counters.setdefault(name, [])
                points.append([counter.time - begin, value])
    return {
        "tracks": [[track.group, track.name] for track in tracks],
        "names": list(names),
        "kinds": list(kinds),
        "args": [json.loads(text) for text in said],
        "spans": rows,
        "counters": [[name, points] for name, points in counters.items()],
        "step": STEP,
        "dispatch": DISPATCH,
    }

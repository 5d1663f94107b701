"""What the spans of a trace add up to: by step, by operator, by kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..gpu.trace import DISPATCH, ENCODE, HOST, STEP, SUBMIT, WAIT, Span, Trace

PERCENTILES = (50, 90, 99)


def called(name: str) -> str:
    """What a step of this name is called in a sentence."""
    return name if name.endswith("step") else f"{name} step"


@dataclass(frozen=True)
class Distribution:
    """Nanoseconds: how many times there are, their sum, the 50th, 90th and 99th percentile, and the longest."""

    count: int
    total: int
    p50: float
    p90: float
    p99: float
    worst: float

    @classmethod
    def of(cls, times: Sequence[int]) -> Distribution:
        """Of at least one time."""
        p50, p90, p99 = np.percentile(times, PERCENTILES)
        return cls(len(times), sum(times), float(p50), float(p90), float(p99), float(max(times)))


@dataclass(frozen=True)
class StepTime:
    """One step; all in nanoseconds, and None where no GPU tells times.

    ``host``: what its thread did in it but wait, ``encode`` of it to plan, record, encode and submit. ``wait``: for a
    GPU. ``gpu``: how long dispatches ran, ``gpu_span``: from the first one's begin to the last one's end.
    ``interval``: from when it begins, on the GPU if that tells times,
    to when the next step of its name does; None for the last one. ``bytes``: that its calls move at least.
    """

    name: str
    number: int
    start: int
    end: int
    host: int
    encode: int
    wait: int
    gpu: int | None
    gpu_span: int | None
    gpu_start: int | None
    interval: int | None
    dispatches: int
    bytes: int


@dataclass
class Row:
    """What the dispatches of one operator, or of one kernel, add up to."""

    names: tuple[str, ...]
    calls: int = 0
    bytes: int = 0
    times: list[int] = field(default_factory=list)

    @property
    def gpu(self) -> int:
        """Nanoseconds."""
        return sum(self.times)

    @property
    def distribution(self) -> Distribution:
        return Distribution.of(self.times)


@dataclass(frozen=True)
class Timings:
    """``by_operator``: names are operator and route; ``by_kernel``: kernel, variant, and operator. Longest first.

    ``host``: nanoseconds of the host's threads by what they did, waiting among them.
    """

    steps: tuple[StepTime, ...]
    by_operator: tuple[Row, ...]
    by_kernel: tuple[Row, ...]
    host: dict[str, int]

    @property
    def gpu(self) -> int:
        """Nanoseconds of all dispatches."""
        return sum(row.gpu for row in self.by_operator)

    @property
    def step_names(self) -> tuple[str, ...]:
        """The names of steps, in the order in which they first came."""
        return tuple(dict.fromkeys(step.name for step in self.steps))

    def distributions(self, of: Callable[[StepTime], int | None]) -> dict[str, Distribution]:
        """Of some time of the steps, by their names; those that have none are left out."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for step in self.steps:
            if (value := of(step)) is not None:
                found[step.name].append(value)
        return {name: Distribution.of(times) for name, times in found.items()}


def timings(trace: Trace) -> Timings:
    """Add up a trace that has ended."""
    dispatches = sorted((s for s in trace.spans if s.kind == DISPATCH), key=lambda span: (span.start, span.end))
    by_operator = _rows(dispatches, lambda s: (s.name, str(s.args.get("route", ""))))
    by_kernel = _rows(dispatches, lambda s: (str(s.args["kernel"]), str(s.args.get("variant", "")), s.name))
    steps = _steps(trace, dispatches)
    return Timings(steps, by_operator, by_kernel, _host(trace, steps))


def _rows(dispatches: Iterable[Span], names_of: Callable[[Span], tuple[str, ...]]) -> tuple[Row, ...]:
    rows: dict[tuple[str, ...], Row] = {}
    for span in dispatches:
        names = names_of(span)
        row = rows.setdefault(names, Row(names))
        row.times.append(span.duration)
        if "bytes" in span.args:  # the first dispatch of a call
            row.calls += 1
            row.bytes += span.args["bytes"]
    return tuple(sorted(rows.values(), key=lambda row: (-row.gpu, row.names)))


def _steps(trace: Trace, dispatches: Iterable[Span]) -> tuple[StepTime, ...]:
    of_submission: defaultdict[int, list[Span]] = defaultdict(list)
    for span in dispatches:
        of_submission[span.args["submission"]].append(span)
    threads: defaultdict[object, list[Span]] = defaultdict(list)
    for span in trace.spans:
        if span.track.group == HOST:
            threads[span.track].append(span)
    steps: list[StepTime] = []
    for spans in threads.values():
        outer = _outermost(span for span in spans if span.kind == STEP)
        others = sorted((span for span in spans if span.kind in (ENCODE, SUBMIT, WAIT)), key=lambda span: span.start)
        at = 0
        for step in outer:
            while at < len(others) and others[at].start < step.start:
                at += 1
            end = at
            while end < len(others) and others[end].start <= step.end:
                end += 1
            steps.append(_step(step, others[at:end], of_submission))
            at = end
    return _with_intervals(sorted(steps, key=lambda step: step.start))


def _outermost(spans: Iterable[Span]) -> list[Span]:
    """Spans of one thread that are in no other one."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if not found or span.start >= found[-1].end:
            found.append(span)
    return found


def _step(step: Span, inside: Sequence[Span], of_submission: dict[int, list[Span]]) -> StepTime:
    waits = _outermost(span for span in inside if span.kind == WAIT)
    submissions = [span.args.get("submission") for span in inside if span.kind == SUBMIT]
    ran = [span for number in submissions if number is not None for span in of_submission.get(number, ())]
    wait = sum(span.duration for span in waits)
    encode = sum(span.duration for span in inside if span.kind in (ENCODE, SUBMIT))
    return StepTime(
        step.name,
        0,
        step.start,
        step.end,
        step.duration - wait,
        encode,
        wait,
        sum(span.duration for span in ran) if ran else None,
        max(span.end for span in ran) - min(span.start for span in ran) if ran else None,
        min(span.start for span in ran) if ran else None,
        None,
        len(ran),
        sum(span.args.get("bytes", 0) for span in ran),
    )


def _with_intervals(steps: Sequence[StepTime]) -> tuple[StepTime, ...]:
    found: list[StepTime] = []
    last: dict[str, int] = {}
    for number, step in enumerate(steps):
        found.append(replace(step, number=number))
        before = last.get(step.name)
        if before is not None:
            first = found[before]
            on_gpu = step.gpu_start is not None and first.gpu_start is not None
            begin, next_begin = (first.gpu_start, step.gpu_start) if on_gpu else (first.start, step.start)
            assert begin is not None and next_begin is not None
            if before == number - 1:  # nothing else came in between
                found[before] = replace(first, interval=next_begin - begin)
        last[step.name] = number
    return tuple(found)


def _host(trace: Trace, steps: Sequence[StepTime]) -> dict[str, int]:
    """By what it did; the rest of steps is what is in none of the others."""
    names = {ENCODE: "plan, record and encode", SUBMIT: "submit", WAIT: "wait for the GPU"}
    threads: defaultdict[tuple[object, str], list[Span]] = defaultdict(list)
    for span in trace.spans:
        if span.track.group == HOST and span.kind in names:
            threads[span.track, span.kind].append(span)
    found = dict.fromkeys(names.values(), 0)
    for (_, kind), spans in threads.items():
        found[names[kind]] += sum(span.duration for span in _outermost(spans))
    found["other work in steps"] = sum(step.host - step.encode for step in steps)
    return {name: time for name, time in found.items() if time}

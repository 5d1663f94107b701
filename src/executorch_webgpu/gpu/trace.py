"""What a process does while a trace is on: work of the host, of GPUs, requests and counters, on one clock.

A trace holds *spans*, each on a track: a thread of the host, the queue of a GPU, or a request of an engine. Times are
nanoseconds of ``time.perf_counter_ns``; ``gpu/clock.py`` says how those of a GPU are brought to it. Without a trace,
each place that would record does one comparison.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors import Error, InvalidInputError

if TYPE_CHECKING:
    from .device import Device
    from .device_times import DeviceTimes

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Described = tuple[str, Mapping[str, Any]]  # name and arguments of a span

HOST, REQUESTS = "host", "requests"  # groups of tracks; a GPU's is its adapter's name
# Kinds of spans that reports look for.
STEP, ENCODE, SUBMIT, WAIT, DISPATCH = "step", "encode", "submit", "wait", "dispatch"
MOST_SPANS = 1_000_000


@dataclass(frozen=True)
class Track:
    """A line of a timeline; ``key`` tells apart those of one name."""

    group: str
    name: str
    key: int = 0


@dataclass(frozen=True)
class Span:
    """Something that took from ``start`` to ``end``, in nanoseconds of the host's clock; equal for an instant.

    ``kind`` is one of this module's for what reports look for, and else says what sort of work it is.
    ``flow``: the number of the submission that a "submit" span begins, or that a dispatch is the first one of.
    """

    track: Track
    name: str
    kind: str
    start: int
    end: int
    args: Mapping[str, Any] = field(default_factory=dict)
    flow: int | None = None

    @property
    def duration(self) -> int:
        """Nanoseconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Counter:
    """Values at a time, which hold until the next counter of this name."""

    name: str
    time: int
    values: Mapping[str, int]


class Trace:
    """What was recorded: ``spans`` in no particular order, ``counters``, and ``notes``, what is to be known of it.

    ``begin`` and ``end``: nanoseconds of the host's clock. ``left_out``: how many spans there was no room for.
    It is complete once its ``with`` block has ended, also by an exception.
    """

    def __init__(self, most_spans: int = MOST_SPANS) -> None:
        self.begin = self.end = perf_counter_ns()
        self.spans: list[Span] = []
        self.counters: list[Counter] = []
        self.notes: list[str] = []
        self.left_out = 0
        self.expected = 0  # spans of dispatches whose times are not read yet
        self._most = most_spans
        self._lock = threading.RLock()
        self._ended = False  # nothing new begins to be timed,
        self._complete = False  # and nothing is added any more
        self._flows = 0
        self._devices: dict[Device, DeviceTimes] = {}
        self._last: list[Callable[[], None]] = []
        self._numbers: dict[int, tuple[int, object]] = {}
        self._companions: dict[Any, Any] = {}

    @property
    def full(self) -> bool:
        """Whether there is no room for further spans, those that are expected included."""
        return len(self.spans) + self.expected >= self._most

    def add(self, span: Span) -> None:
        """Record a span, from any thread. One that ends when the trace is complete is no part of it."""
        if self._complete:
            return
        if self.full:
            self.left_out += 1
        else:
            self.spans.append(span)

    def count(self, name: str, values: Mapping[str, int]) -> None:
        """Record the present values of a counter."""
        if not self.full and not self._complete:
            self.counters.append(Counter(name, perf_counter_ns(), values))

    def note(self, text: str) -> None:
        """Something to be known of this trace, said once."""
        if text not in self.notes:
            self.notes.append(text)

    def next_flow(self) -> int:
        """A number for a submission."""
        with self._lock:
            self._flows += 1
            return self._flows

    def number_of(self, thing: object) -> int:
        """A small number for an object, the same whenever it is asked for: which graph a dispatch is of."""
        with self._lock:
            return self._numbers.setdefault(id(thing), (len(self._numbers), thing))[0]  # held, so the id stays its own

    def companion(self, make: Callable[[Trace], Result]) -> Result:
        """What ``make`` gave when it was first called for this trace: an owner of what a layer above records."""
        with self._lock:
            if make not in self._companions:
                self._companions[make] = make(self)
            found: Result = self._companions[make]
            return found

    def times_of(self, device: Device) -> DeviceTimes | None:
        """What times the submissions to a device; None where nothing does. The caller holds the device's lock."""
        from .device_times import DeviceTimes

        if not device.features.timestamps:
            self.note(f"{device.info.name} has no timestamps, so what it does is not shown: only the host's side is")
            return None
        with self._lock:
            times = self._devices.get(device)
            if self._ended or self.full:
                return None
            if times is None:
                times = self._devices[device] = DeviceTimes(self, device)
        return None if times.closed else times

    def at_end(self, function: Callable[[], None]) -> None:
        """Have a function called when the trace ends, to add what is still open."""
        with self._lock:
            if not self._ended:
                self._last.append(function)

    def finish(self) -> None:
        """Bring in what GPUs have yet to tell. Raises nothing: what fails is noted, and what was recorded stays."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self.end = perf_counter_ns()
            devices, last = list(self._devices.values()), self._last
        for function in last:
            function()
        for times in devices:
            try:
                times.close()
            except Error as error:
                self.note(f"GPU times are incomplete: {error}")
        self._devices.clear()
        self._last = []
        self._numbers.clear()
        if self.left_out:
            self.note(f"{self.left_out} spans were left out: a trace holds {self._most}")
        self._complete = True

    def save(self, path: str | Path) -> None:
        """Write it as JSON for ui.perfetto.dev and chrome://tracing. Raises OSError."""
        from .trace_file import write_trace

        write_trace(self, path)


_active: Trace | None = None
_starting = threading.Lock()


def active() -> Trace | None:
    """The trace that is being made, if one is."""
    return _active


@contextmanager
def trace(device: Device | None = None, *, most_spans: int = MOST_SPANS) -> Generator[Trace]:
    """Record all that this process does in the ``with`` block, in whatever thread.

        with trace() as recorded:
            forward.execute(inputs)
        recorded.save("trace.json")

    Each dispatch gets a compute pass of its own, between two timestamps, which makes steps slower; it changes no
    result. ``device``: one whose clock is to be measured before the block begins, and not in its first step there.
    ``most_spans``: how many are kept, which bounds memory to some hundred bytes each.
    Raises InvalidInputError where another trace is being made.
    """
    global _active
    recorded = Trace(most_spans)
    if device is not None and _active is None:
        with device.lock:
            recorded.times_of(device)
        recorded.begin = perf_counter_ns()
    with _starting:
        if _active is not None:
            raise InvalidInputError("a trace is being made already: end its with block first")
        _active = recorded
    try:
        yield recorded
    finally:
        _active = None
        recorded.finish()


def host_track() -> Track:
    """The track of the thread that asks."""
    thread = threading.current_thread()
    return Track(HOST, thread.name, thread.ident or 0)


def spanned(
    name: str, kind: str = "host", describe: Callable[..., Described] | None = None
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A function whose calls are spans while a trace is on.

    ``describe``: the name and the arguments of a call's span, of what the call is given; by default ``name`` alone.
    """

    def wrapped(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def call(*args: Arguments.args, **options: Arguments.kwargs) -> Result:
            recording = _active
            if recording is None:
                return function(*args, **options)
            begun = perf_counter_ns()
            said = describe(*args, **options) if describe is not None else (name, {})
            try:
                return function(*args, **options)
            except BaseException as error:
                said = said[0], {**said[1], "error": type(error).__name__}
                raise
            finally:
                recording.add(Span(host_track(), said[0], kind, begun, perf_counter_ns(), said[1]))

        return call

    return wrapped

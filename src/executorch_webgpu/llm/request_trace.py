"""The requests of an engine in a trace: one track a request, from when it came to its end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from time import perf_counter_ns
from typing import Any

from ..gpu.trace import REQUESTS, Span, Trace, Track
from .request import Request
from .scheduler import Scheduler, Text, Work

QUEUED, PREFILL, DECODE = "queued", "prefill", "token"


@dataclass
class _Open:
    """A request whose track has not ended: the phase that it is in, since when, and the tokens that it has got."""

    track: Track
    phase: str
    since: int
    tokens: int = 0


class RequestTracks:
    """Follows requests from one phase to the next; the loop of an engine calls all but ``close``."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._open: dict[Request, _Open] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()  # the trace ends in another thread than the engine's
        self._closed = False
        trace.at_end(self.close)

    def step(self, works: Iterable[Work], requests: Mapping[Text, Request], scheduler: Scheduler) -> None:
        """A step is planned that computes these rows; all others wait."""
        now = perf_counter_ns()
        rows = {work.text: work.rows for work in works}
        with self._lock:
            for text, request in requests.items():
                track = self._track(request)
                if track is None:
                    continue
                if text.slot is None and track.phase != QUEUED:  # it has given its pages back
                    self._close_phase(track, now, {"interrupted": True})
                    track.phase = QUEUED
                elif track.phase == QUEUED and text in rows:
                    self._close_phase(track, now, {})
                    track.phase = PREFILL
        running = len(scheduler.running)
        self._trace.count("texts", {"queued": len(scheduler) - running, "running": running})

    def tokens(self, request: Request, tokens: Iterable[int]) -> None:
        """Tokens have come; the first one ends the prefill."""
        now = perf_counter_ns()
        with self._lock:
            track = self._track(request)
            for token in tokens if track is not None else ():
                assert track is not None
                self._close_phase(track, now, {"token": token, "number": track.tokens})
                track.phase = DECODE
                track.tokens += 1

    def end(self, request: Request, reason: str) -> None:
        """A request is over."""
        now = perf_counter_ns()
        with self._lock:
            track = self._track(request)
            if track is not None:
                self._finish(track, now, reason)
                del self._open[request]

    def close(self) -> None:
        """The trace ends: what goes on is cut there."""
        now = perf_counter_ns()
        with self._lock:
            self._closed = True
            for track in self._open.values():
                self._close_phase(track, now, {"unfinished": True})
            self._open.clear()

    def _track(self, request: Request) -> _Open | None:
        if self._closed:
            return None
        if request not in self._open:
            number = next(self._numbers)
            since = max(self._trace.begin, round(request.mailbox.times.submitted * 1e9))
            running = request.text.slot is not None and bool(request.new_tokens)
            phase = DECODE if running else QUEUED  # one that was there before the trace
            self._open[request] = _Open(Track(REQUESTS, f"request {number}", number), phase, since)
        return self._open[request]

    def _close_phase(self, track: _Open, now: int, args: Mapping[str, Any]) -> None:
        name = f"token {track.tokens}" if track.phase == DECODE else track.phase
        now = max(now, track.since)
        self._trace.add(Span(track.track, name, track.phase, track.since, now, args))
        track.since = now

    def _finish(self, track: _Open, now: int, reason: str) -> None:
        if track.phase != DECODE:  # else the last token ended its own phase
            self._close_phase(track, now, {"ended": reason})
        end = max(now, track.since)
        self._trace.add(Span(track.track, f"finish: {reason}", "finish", end, end, {"tokens": track.tokens}))

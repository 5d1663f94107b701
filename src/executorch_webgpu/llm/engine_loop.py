"""The thread of an engine: it takes texts in, makes steps, and hands out tokens, until it is stopped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy
from typing import Any

import numpy as np

from ..errors import ClosedError, Error, InvalidInputError
from ..gpu.trace import STEP, active, spanned
from ..runtime.batch import BatchMethod, Draw
from .request import Request
from .request_trace import RequestTracks
from .scheduler import Scheduler, Text, Work
from .speculation import Drafter, accepted
from .stream import StreamEnd

_IDLE_SECONDS = 60  # a collector that runs in the loop's own thread may stop it just before it waits


class EngineLoop:
    """Runs the texts that are submitted over ``batch``, which it closes at its end, and ``drafter``, too.

    Up to ``batch.in_flight`` steps are submitted and not read; one, where a text waits for each of its tokens. It does
    not know the engine, so an engine that nobody holds any more is collected, and stops it.
    """

    def __init__(self, batch: BatchMethod, scheduler: Scheduler, drafter: Drafter | None = None) -> None:
        self.computed_rows = self.guessed = self.guessed_right = 0
        self._batch, self._scheduler, self._drafter = batch, scheduler, drafter
        self._tables = np.zeros((batch.sizes.sequences, batch.sizes.table_width), np.int32)
        self._requests: dict[Text, Request] = {}
        self._flights: deque[list[Work]] = deque()  # what the steps that are not read have drawn
        self._rows_drawn: dict[Text, int] = {}  # the last row that each text drew in the step before
        self._changed = threading.Condition()  # of all that follows
        self._submitted: list[Request] = []
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._closing = False
        self._broken: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="executorch-webgpu engine", daemon=True)
        self.thread.start()

    def submit(self, request: Request) -> None:
        """A new text. Raises ClosedError, and what broke the loop."""
        with self._changed:
            self._check_open()
            self._submitted.append(request)
            self._changed.notify_all()

    def call(self, function: Callable[[], Any]) -> Any:
        """What a function gives that runs between steps. Raises what it raises, and as ``submit``."""
        if threading.current_thread() is self.thread:
            raise InvalidInputError("this cannot be called from inside of a step of the engine")
        future: Future[Any] = Future()
        with self._changed:
            self._check_open()
            self._calls.append((function, future))
            self._changed.notify_all()
        return future.result()

    def stop(self) -> None:
        """End all texts soon. Does not wait, so a collector may call it in any thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._broken is not None:
            raise copy(self._broken) from self._broken
        if self._closing:
            raise ClosedError("this engine is closed; make another one")

    def _run(self) -> None:
        error: BaseException = ClosedError("the engine was closed before this text ended")
        try:
            while self._wait():
                self._step()
        except BaseException as broken:  # a lost device, a program that is closed: nothing can go on
            error = broken
        finally:
            with self._changed:
                if not self._closing:
                    self._broken = error
                requests = [*self._requests.values(), *self._submitted]
                futures = [future for _, future in self._calls]
                for left in (self._requests, self._submitted, self._calls):
                    left.clear()
            for request in requests:
                _trace_end(request, type(error).__name__)
                request.mailbox.finish(None, copy(error))  # raised in threads of their own
            for future in futures:
                future.set_exception(copy(error))
            for owned in (self._batch, self._drafter):
                if owned is not None:
                    owned.close()

    def _wait(self) -> bool:
        """Take in what was submitted and give up what was cancelled, until there is work; False when closing."""
        while True:
            with self._changed:
                for request in self._submitted:
                    self._requests[request.text] = request
                    self._scheduler.add(request.text)
                self._submitted.clear()
                calls, self._calls = self._calls, []
                if self._closing:
                    self._calls = calls
                    return False
                if not calls and not self._flights and not len(self._scheduler):
                    self._changed.wait(_IDLE_SECONDS)
            for request in [r for r in self._requests.values() if r.mailbox.cancelled]:
                self._end(request, "cancelled")
            for call in calls:
                self._answer(*call)
            if self._flights or len(self._scheduler):
                return True

    def _answer(self, function: Callable[[], Any], future: Future[Any]) -> None:
        while self._flights:
            self._read()
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    @spanned("engine step", STEP)
    def _step(self) -> None:
        """Submit a step, unless all texts wait for tokens, and read one, unless more may be in flight."""
        self._draft()
        works = self._scheduler.plan()
        if (trace := active()) is not None:
            trace.companion(RequestTracks).step(works, self._requests, self._scheduler)
            trace.count("steps in flight", {"steps": len(self._flights)})
            trace.count("pages", {"held": self._scheduler.held_pages})
        if works:
            self._submit(works)
        waits = any(text.waits for text in self._scheduler.running)
        most = 1 if waits else self._batch.in_flight
        if self._flights and not works:
            self._read()
        while len(self._flights) >= most:
            self._read()

    # -- a step -----------------------------------------------------------------------------------------------------

    @spanned("submit rows", "engine", lambda _, works: ("submit rows", {"rows": sum(work.rows for work in works)}))
    def _submit(self, works: list[Work]) -> None:
        draws: list[Draw] = []
        failed: list[tuple[Request, Exception]] = []
        tokens: list[int] = []
        wanted: list[int] = []
        places: list[tuple[int, int]] = []
        rows_drawn: dict[Text, int] = {}
        for work in works:
            text = work.text
            slot = self._write_table(text)
            if work.fed:
                tokens.append(-1 - self._rows_drawn[text])
                places.append((work.start, slot))
            else:
                tokens += work.tokens
                places += [(position, slot) for position in range(work.start, work.start + len(work.tokens))]
            if work.draws:
                wanted += range(len(tokens) - work.draws, len(tokens))
                rows_drawn[text] = len(wanted) - 1
                start, request = work.start + work.rows - work.draws + 1, self._requests[text]
                try:
                    draws += request.draws(start, work.draws)
                except Exception as error:  # of what this text's caller gave, and of its text alone
                    draws += [Draw(start)] * work.draws
                    failed.append((request, error))
        self._batch.submit(tokens, places, self._tables, wanted, draws)
        self._rows_drawn = rows_drawn
        self._flights.append([work for work in works if work.draws])
        self.computed_rows += len(tokens)
        for request, cause in failed:
            self._end(request, None, cause)

    def _write_table(self, text: Text) -> int:
        """Bring the pages that a text has got to its row of the block tables, which is returned."""
        assert text.slot is not None
        pages = text.pages.pages
        if text.tabled < len(pages):
            self._tables[text.slot, text.tabled : len(pages)] = [page.number for page in pages[text.tabled :]]
            text.tabled = len(pages)
        return text.slot

    @spanned("read tokens", "engine")
    def _read(self) -> None:
        drawn = self._batch.read()
        place = 0
        for work in self._flights.popleft():
            request = self._requests.get(work.text)
            found = drawn[place : place + work.draws]
            place += work.draws
            if request is not None:
                drafts = work.tokens[len(work.tokens) - work.draws + 1 :] if work.draws > 1 else ()
                own = accepted(drafts, [each.token for each in found], request.ends)
                try:
                    tokens, end = request.take(found[: len(own)])
                except Error as error:  # of this text alone
                    self._end(request, None, error)
                    continue
                if (trace := active()) is not None:
                    trace.companion(RequestTracks).tokens(request, tokens)
                self._scheduler.read(work, tokens)
                if end is not None:
                    self._end(request, end)
                elif request.trust is not None:
                    request.trust.judge(len(drafts), len(own) - 1)
                    self.guessed += len(drafts)
                    self.guessed_right += len(own) - 1
                    self._expect(request)

    def _end(self, request: Request, end: StreamEnd | None, error: BaseException | None = None) -> None:
        self._scheduler.remove(request.text)
        del self._requests[request.text]
        if self._drafter is not None:
            self._drafter.forget(request)
        _trace_end(request, type(error).__name__ if error is not None else end or "ended")
        request.mailbox.finish(end, error)

    # -- guesses ----------------------------------------------------------------------------------------------------

    def _expect(self, request: Request) -> None:
        """A text of which there may be a guess waits until all its tokens are known."""
        assert self._drafter is not None and request.trust is not None
        request.text.waits = request.trust.most > 0 and self._drafter.expects(request)

    def _draft(self) -> None:
        if self._drafter is None:
            return
        ready = [t for t in self._scheduler.running if t.waits and t.known == 1 and not t.drawing]
        requests = [self._requests[text] for text in ready]
        for request in requests:
            request.text.drafts = []
        self._drafter.draft([request for request in requests if request.trust is not None])


def _trace_end(request: Request, reason: str) -> None:
    """Let a trace know that a request is over, and why."""
    if (trace := active()) is not None:
        trace.companion(RequestTracks).end(request, reason)

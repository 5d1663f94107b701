"""The thread of an engine: it takes texts in, makes steps, and hands out tokens, until it is stopped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ClosedError, InvalidInputError, copied
from ..gpu.trace import STEP, active, spanned
from ..runtime.batch import BatchMethod, Draw, Drawn
from .grammar_matcher import MaskRows
from .refusals import pays_to_draw_ahead
from .request import Request
from .request_trace import RequestTracks
from .scheduler import Scheduler, Text, Work
from .speculation import Drafter, accepted
from .stream import StreamEnd

_End = tuple[Request, StreamEnd | None, Exception | None]


@dataclass(frozen=True)
class _Drawing:
    """A draw of a step: whether it ``counts`` when it is sent, and whether it lacks the mask of its text's grammar."""

    work: Work
    counts: bool
    unmasked: bool = False


_PAUSE_SECONDS = 0.05  # after which an engine without work plans steps that may come
_IDLE_SECONDS = 60  # a collector that runs in the loop's own thread may stop it just before it waits


class EngineLoop:
    """Runs the texts that are submitted over ``batch``, which it closes at its end, and ``drafter``, too.

    Up to ``batch.in_flight`` steps are submitted and not read; one, where a text waits for each of its tokens. Where
    how a token is drawn depends on the one before, as under penalties and some grammars, a step is submitted without:
    while the device computes it, the host reads the tokens before, and then says how to draw. Most texts with a grammar
    are drawn ahead, without its mask: see ``refusals``. It does not know the engine, so an engine that nobody holds any
    more is collected, and stops it.

    ``draws_ahead``: whether they are; None where it pays.
    """

    draws_ahead: bool | None = None

    def __init__(self, batch: BatchMethod, scheduler: Scheduler, drafter: Drafter | None = None) -> None:
        self.computed_rows = self.guessed = self.guessed_right = self.unmasked = self.refused = 0
        self._batch, self._scheduler, self._drafter = batch, scheduler, drafter
        self._tables = np.zeros((batch.sizes.sequences, batch.sizes.table_width), np.int32)
        self._masks = MaskRows()
        self._requests: dict[Text, Request] = {}
        self._flights: deque[list[_Drawing]] = deque()  # draws of steps that are not read
        self._rows_drawn: dict[Text, int] = {}  # the last row that each text drew in the step before
        self._cold = list(batch.step_sizes)  # sizes of steps that are not planned yet
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

    @property
    def text_counts(self) -> tuple[int, int]:
        """Texts that have pages, and those that wait for some. Any thread may ask."""
        running = len(self._scheduler.running)
        return running, len(self._scheduler) - running + len(self._submitted)

    @property
    def broken(self) -> BaseException | None:
        """What ended the loop, but for ``stop``. It is known before any text ends of it."""
        return self._broken

    def stop(self) -> None:
        """End all texts soon. Does not wait, so a collector may call it in any thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._broken is not None:
            raise copied(self._broken) from self._broken
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
                request.mailbox.finish(None, copied(error))  # raised in threads of their own
            for future in futures:
                future.set_exception(copied(error))
            for owned in (self._batch, self._drafter):
                if owned is not None:
                    owned.close()

    def _wait(self) -> bool:
        """Take in what was submitted and give up what was cancelled, until there is work; False when closing."""
        while True:
            with self._changed:
                submitted, self._submitted = self._submitted, []
                if self._closing:
                    self._submitted = submitted
                    return False
                idle = not self._calls and not submitted and not self._flights and not len(self._scheduler)
                if idle and self._changed.wait(_PAUSE_SECONDS if self._cold else _IDLE_SECONDS):
                    continue
            if idle and self._cold:
                self._batch.warm_up(self._cold.pop(0))
            for request in submitted:
                self._begin(request)
            for request in [r for r in self._requests.values() if r.mailbox.cancelled]:
                self._end(request, "cancelled")
            for _ in range(len(self._calls)):
                self._answer(*self._calls[0])
                del self._calls[0]  # only now: one that the loop breaks at is told so with the rest
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
            waits = self._waits(works)
            self._submit(works, waits)
            if waits:
                while self._flights:
                    self._read()
                self._draw(works)
        most = 1 if any(text.waits for text in self._scheduler.running) else self._batch.in_flight
        if self._flights and not works:
            self._read()
        while len(self._flights) >= most:
            self._read()

    # -- a step -----------------------------------------------------------------------------------------------------

    @spanned("submit rows", "engine", lambda _, works, __: ("submit rows", {"rows": sum(work.rows for work in works)}))
    def _submit(self, works: list[Work], waits: bool) -> None:
        """Submit a step, and its draws, too, unless it ``waits`` for the tokens before it."""
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
        self._rows_drawn = rows_drawn
        self.computed_rows += len(tokens)
        if waits:
            self._batch.submit(tokens, places, self._tables, wanted, None)
            return
        draws, flight, ended = self._draws(works, ahead=True)
        self._batch.submit(tokens, places, self._tables, wanted, draws)
        self._sent(flight, ended)

    def _waits(self, works: list[Work]) -> bool:
        """Whether a step draws only when the tokens before it are read."""
        drawing = [(work, self._requests[work.text]) for work in works if work.draws and not work.scores]
        dependent = [request for work, request in drawing if work.fed and request.needs_tokens]
        if not dependent or any(request.refusals is None for request in dependent):
            return bool(dependent)
        if self.draws_ahead is not None:
            return not self.draws_ahead
        texts = [request.refusals for _, request in drawing if request.refusals is not None]
        return not pays_to_draw_ahead(texts, len(drawing) - len(texts))

    def _draw(self, works: list[Work]) -> None:
        """The draws of a step that was submitted without, now that the tokens before it are read."""
        draws, flight, ended = self._draws(works, ahead=False)
        self._batch.draw(draws)
        self._sent(flight, ended)

    def _draws(self, works: list[Work], ahead: bool) -> tuple[list[Draw], list[_Drawing], list[_End]]:
        """How a step draws, what of it counts, and texts that cannot go on, or need not.

        ``ahead``: tokens that are fed to it are not known, so that masks of what follows cannot be made.
        """
        drawing = [(work, None if work.stale else self._requests.get(work.text)) for work in works if work.draws]
        matchers = {
            request: request.matcher
            for work, request in drawing
            if request is not None and request.matcher is not None and not (ahead and work.fed) and not work.scores
        }
        allowed = dict(zip(matchers, self._masks.of([*matchers.values()]), strict=True))
        draws: list[Draw] = []
        flight: list[_Drawing] = []
        ended: list[_End] = []
        for work, request in drawing:
            start = work.start + work.rows - work.draws + 1
            own: list[Draw] = []
            if request is not None:
                try:
                    own = request.draws(start, work.draws, allowed.get(request))
                    if not own:
                        ended.append((request, "eos", None))
                except Exception as error:  # of what this text's caller gave, and of its text alone
                    ended.append((request, None, error))
            draws += own or [Draw(start)] * work.draws
            flight.append(_Drawing(work, request is not None, ahead and work.fed))
        return draws, flight, ended

    def _sent(self, flight: list[_Drawing], ended: list[_End]) -> None:
        self._flights.append(flight)
        for end in ended:
            self._end(*end)

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
        for drawing in self._flights.popleft():
            work = drawing.work
            request = self._requests.get(work.text) if drawing.counts and not work.stale else None
            found: Sequence[Drawn] = drawn[place : place + work.draws]
            place += work.draws
            if request is not None:
                try:
                    found = request.score(work.start + work.rows - work.draws + 1, found)
                    drafts = work.tokens[len(work.tokens) - len(found) + 1 :] if len(found) > 1 else ()
                    own = accepted(drafts, [each.token for each in found], request.ends) if found else ()
                    refused = self._refused(drawing, request, found)
                    in_flight = work.text.drawing - 1
                    tokens, end = request.take_forced() if refused else request.take(found[: len(own)], in_flight)
                except Exception as error:  # of this text alone, such as a library's about its grammar
                    self._end(request, None, error)
                    continue
                if (trace := active()) is not None:
                    trace.companion(RequestTracks).tokens(request, tokens)
                self._scheduler.read(work, tokens, refused)
                if end is not None:
                    self._end(request, end)
                elif request.trust is not None:
                    request.trust.judge(len(drafts), len(own) - 1)
                    self.guessed += len(drafts)
                    self.guessed_right += len(own) - 1
                    self._expect(request)

    def _refused(self, drawing: _Drawing, request: Request, found: Sequence[Drawn]) -> bool:
        """Whether a token was drawn without the mask of its grammar, which does not allow it. Keeps count of that."""
        if request.refusals is None or not drawing.work.fed:
            return False
        if not drawing.unmasked:
            request.refusals.waited()
            return False
        refused = request.refuses(found[0].token)
        request.refusals.drawn(refused, self._batch.in_flight)
        self.unmasked += 1
        self.refused += refused
        return refused

    def _begin(self, request: Request) -> None:
        """A text comes in. What its grammar begins with is a part of what is computed first."""
        try:
            end = request.begin()
        except Exception as error:
            _trace_end(request, type(error).__name__)
            request.mailbox.finish(None, error)
            return
        if end is not None:
            _trace_end(request, end)
            request.mailbox.finish(end)
            return
        self._requests[request.text] = request
        self._scheduler.add(request.text)

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

"""The thread of an engine: it takes texts in, makes steps, and draws tokens, until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..errors import ClosedError, Error
from ..runtime.batch import BatchMethod, Draw, Drawn
from .sample import SamplingParams, checked, draw_of
from .scheduler import Scheduler, Text
from .stream import Mailbox, StreamEnd
from .text_changes import TextChanges

_IDLE_SECONDS = 60  # a collector that runs in the loop's own thread may stop it just before it waits


@dataclass(eq=False)
class Request:
    """A text with how it is continued; ``most``: tokens that it may still get in all."""

    text: Text
    params: SamplingParams
    seed: int
    most: int
    end_tokens: Collection[int]
    mailbox: Mailbox
    changes: TextChanges
    drawn: int = 0

    def draw(self, vocab: int) -> Draw:
        """How the next token is drawn. Raises what ``draw_of`` does."""
        tokens = self.text.tokens
        new = tokens[len(tokens) - self.drawn :] if self.params.allowed_tokens is not None else []
        return draw_of(self.params, len(tokens), self.seed, self.changes, new, vocab)


class EngineLoop:
    """Runs the texts that are submitted over ``batch``, which it closes at its end.

    It does not know the engine, so an engine that nobody holds any more is collected, and stops it.
    """

    def __init__(self, batch: BatchMethod, scheduler: Scheduler) -> None:
        self.computed_rows = 0
        self._batch, self._scheduler = batch, scheduler
        self._tables = np.zeros((batch.sizes.sequences, batch.sizes.table_width), np.int32)
        self._requests: dict[Text, Request] = {}
        self._changed = threading.Condition()  # of all that follows
        self._submitted: list[Request] = []
        self._closing = False
        self._broken: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="executorch-webgpu engine", daemon=True)
        self.thread.start()

    def submit(self, request: Request) -> None:
        """A new text. Raises ClosedError, and what broke the loop."""
        with self._changed:
            if self._broken is not None:
                raise self._broken
            if self._closing:
                raise ClosedError("this engine is closed; make another one")
            self._submitted.append(request)
            self._changed.notify_all()

    def stop(self) -> None:
        """End all texts soon. Does not wait, so a collector may call it in any thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

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
                self._requests.clear()
                self._submitted.clear()
            for request in requests:
                request.mailbox.finish(None, error)
            self._batch.close()

    def _wait(self) -> bool:
        """Take in what was submitted and give up what was cancelled, until there is work; False when closing."""
        with self._changed:
            while True:
                for request in self._submitted:
                    self._requests[request.text] = request
                    self._scheduler.add(request.text)
                self._submitted.clear()
                for request in [r for r in self._requests.values() if r.mailbox.cancelled]:
                    self._end(request, "cancelled")
                if self._closing:
                    return False
                if len(self._scheduler):
                    return True
                self._changed.wait(_IDLE_SECONDS)

    def _step(self) -> None:
        works = self._scheduler.plan()
        tokens: list[int] = []
        places: list[tuple[int, int]] = []
        wanted: list[int] = []
        drawing: list[tuple[Request, Draw]] = []
        for work in works:
            slot, table = work.text.slot, work.text.pages.block_table
            assert slot is not None
            self._tables[slot, : len(table)] = table
            start = len(work.text.pages.tokens)
            tokens += work.tokens
            places += [(position, slot) for position in range(start, start + len(work.tokens))]
            if work.last:
                request = self._requests[work.text]
                try:
                    drawing.append((request, request.draw(self._batch.vocab_size)))
                    wanted.append(len(tokens) - 1)
                except Exception as error:  # of this text alone, whose rows are computed once more for nothing
                    self._end(request, None, error)
        self._batch.submit(tokens, places, self._tables, wanted, [draw for _, draw in drawing])
        found = self._batch.read()
        self.computed_rows += len(tokens)
        for work in works:
            if work.text in self._requests:
                self._scheduler.done(work)
        for (request, _), drawn in zip(drawing, found, strict=True):
            self._draw(request, drawn)

    def _draw(self, request: Request, drawn: Drawn) -> None:
        """The next token of a text, and whether the text ends there."""
        text = request.text
        try:
            token = checked(drawn.token)
        except Error as error:  # of this text alone
            self._end(request, None, error)
            return
        if token in request.end_tokens:
            self._end(request, "eos")
            return
        text.tokens.append(token)
        request.changes.add(token)
        request.drawn += 1
        request.mailbox.put(token)
        if request.drawn == request.most:
            self._end(request, "length" if request.most == request.params.max_new_tokens else "context")

    def _end(self, request: Request, end: StreamEnd | None, error: BaseException | None = None) -> None:
        self._scheduler.remove(request.text)
        del self._requests[request.text]
        request.mailbox.finish(end, error)

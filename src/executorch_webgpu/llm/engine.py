"""Many texts at once over one program that was exported for one."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from ..closing import Closing
from ..errors import ClosedError, Error, InvalidInputError
from ..graph.batching import BatchSizes
from ..graph.kv_pages import PagePool
from ..runtime import LoadOptions, Program
from .sample import SamplingParams, sample
from .scheduler import Scheduler, Text, Work
from .signature import Signature
from .stream import Mailbox, Stream, StreamEnd

MAX_ROWS, MAX_SEQUENCES, PAGE_ROWS = 256, 64, 16
_CONTEXTS = 4  # whole contexts that the pool holds by default


@dataclass(eq=False)
class _Request:
    """A text with how it is continued; ``most``: tokens that it may still get in all."""

    text: Text
    params: SamplingParams
    seed: int
    most: int
    end_tokens: frozenset[int]
    mailbox: Mailbox
    drawn: int = 0
    seen: set[int] = field(default_factory=set)


class Engine(Closing):
    """Continues many prompts at once, each as it would be alone, over one set of weights.

        with Engine(program, kv_cache_dtype="f16") as engine:
            streams = [engine.submit(tokens, SamplingParams(max_new_tokens=100)) for tokens in prompts]
            for stream in streams:
                print(list(stream))

    Steps mix the next tokens of all running texts with chunks of prompts, ``max_rows`` rows in all. KV caches are
    pages of ``page_rows`` rows in one pool of ``kv_pages`` pages; texts that begin alike share pages, and do not
    compute them twice. When pages run out, the youngest text gives back its own and is computed again later.
    ``max_sequences``: texts that run at once, by default 64 if there are as many rows; others wait in the order in
    which they came.
    ``options``, ``changes``: as ``Program.load_method`` takes them.
    Any thread, and any asyncio task, may call ``submit``. Raises UnsupportedProgramError for a program that is no
    language model, or whose tokens' rows are not independent of each other, and InvalidInputError for sizes.
    """

    def __init__(
        self,
        program: Program,
        options: LoadOptions | None = None,
        *,
        kv_pages: int | None = None,
        page_rows: int = PAGE_ROWS,
        max_rows: int = MAX_ROWS,
        max_sequences: int | None = None,
        **changes: Any,
    ) -> None:
        signature = Signature.of(program)
        max_sequences = min(MAX_SEQUENCES, max_rows) if max_sequences is None else max_sequences
        if min(max_rows, max_sequences) < 1 or max_sequences > max_rows:
            raise InvalidInputError(
                f"an engine of {max_sequences} sequences and {max_rows} rows a step cannot be: there must be at least "
                "one of each, and a row for every sequence"
            )
        self.context_len, self.vocab_size = signature.context_len, signature.vocab_size
        self.eos_ids = signature.eos_ids
        pages = kv_pages or _CONTEXTS * -(-signature.context_len // page_rows)
        self._pool = PagePool(pages, page_rows)
        sizes = BatchSizes(max_rows, max_sequences, max_sequences, signature.context_len, page_rows, pages)
        self._batch = program.load_batch("forward", sizes, options, **changes)
        self._tables = np.zeros((max_sequences, sizes.table_width), np.int32)
        self._scheduler = Scheduler(self._pool, max_rows, max_sequences)
        self._requests: dict[Text, _Request] = {}
        self._orders = count()
        self._computed_rows = 0
        self._changed = threading.Condition()  # of all that follows, and of the scheduler's texts
        self._submitted: list[_Request] = []
        self._closing = False
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="executorch-webgpu engine", daemon=True)
        self._thread.start()

    def submit(
        self, tokens: Sequence[int], params: SamplingParams | None = None, *, end_tokens: Collection[int] | None = None
    ) -> Stream:
        """Continue a prompt. Does not wait; the stream gives the tokens as they are drawn.

        They are those that the same prompt, parameters and seed give alone. ``end_tokens``: by default those that the
        program states.
        Raises InvalidInputError for a prompt that is empty or longer than the context, for tokens outside of the
        vocabulary, and for a text that the pool cannot hold; ClosedError; and what broke the engine.
        """
        params = params or SamplingParams()
        prompt = [int(token) for token in tokens]
        most = self._check(prompt, params)
        text = Text(prompt, next(self._orders))
        ends = frozenset(self.eos_ids if end_tokens is None else end_tokens)
        request = _Request(text, params, params.some_seed, most, ends, Mailbox(), seen=set(prompt))
        with self._changed:
            self._check_open()
            self._submitted.append(request)
            self._changed.notify_all()
        return Stream(request.mailbox)

    @property
    def idle_pages(self) -> int:
        """Pages of the pool that no text holds."""
        with self._changed:
            return self._pool.free

    @property
    def computed_rows(self) -> int:
        """Rows of all steps so far: tokens of prompts and of texts, each once unless its pages were given back."""
        return self._computed_rows

    def _check(self, prompt: list[int], params: SamplingParams) -> int:
        """How many tokens a text may get."""
        if params.stop:
            raise InvalidInputError("an engine gives tokens, not text, so it cannot look for stop strings")
        if not prompt:
            raise InvalidInputError("the prompt is empty: give at least one token")
        if len(prompt) > self.context_len:
            raise InvalidInputError(
                f"the prompt has {len(prompt)} tokens, but the context has room for {self.context_len}"
            )
        if bad := [token for token in prompt if not 0 <= token < self.vocab_size]:
            raise InvalidInputError(
                f"token {bad[0]} is not in the vocabulary of {self.vocab_size} tokens, 0 to {self.vocab_size - 1}"
            )
        most = min(params.max_new_tokens, self.context_len - len(prompt) + 1)
        rows = len(prompt) + most - 1  # the last token is drawn, and not computed
        if -(-rows // self._pool.page_rows) > self._pool.pages:
            raise InvalidInputError(
                f"the text may take {rows} rows, but the pool of KV cache pages holds "
                f"{self._pool.pages * self._pool.page_rows}: ask for fewer tokens, or give the engine more kv_pages"
            )
        return most

    def close(self) -> None:
        """End all texts, with a ClosedError where they are read, and free the GPU memory. Closing twice is allowed."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _check_open(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._closing:
            raise ClosedError("this engine is closed; make another one")

    # -- the engine's thread ------------------------------------------------------------------------------------------

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
                self._changed.wait()

    def _step(self) -> None:
        works = self._scheduler.plan()
        tokens: list[int] = []
        places: list[tuple[int, int]] = []
        wanted: list[int] = []
        for work in works:
            slot, table = work.text.slot, work.text.pages.block_table
            assert slot is not None
            self._tables[slot, : len(table)] = table
            start = len(work.text.pages.tokens)
            tokens += work.tokens
            places += [(position, slot) for position in range(start, start + len(work.tokens))]
            if work.last:
                wanted.append(len(tokens) - 1)
        logits = self._batch.step(tokens, places, self._tables, wanted)
        self._computed_rows += len(tokens)
        rows = iter(logits)
        for work in works:
            self._scheduler.done(work)
            if work.last:
                self._draw(work, next(rows))

    def _draw(self, work: Work, logits: np.ndarray) -> None:
        """The next token of a text, and whether it ends there."""
        request, text = self._requests[work.text], work.text
        try:
            token = sample(logits, request.params, len(text.tokens), request.seed, request.seen)
        except Error as error:  # of this text alone
            self._end(request, None, error)
            return
        if token in request.end_tokens:
            self._end(request, "eos")
            return
        text.tokens.append(token)
        request.seen.add(token)
        request.drawn += 1
        request.mailbox.put(token)
        if request.drawn == request.most:
            self._end(request, "length" if request.most == request.params.max_new_tokens else "context")

    def _end(self, request: _Request, end: StreamEnd | None, error: BaseException | None = None) -> None:
        self._scheduler.remove(request.text)
        del self._requests[request.text]
        request.mailbox.finish(end, error)

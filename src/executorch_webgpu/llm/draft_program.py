"""Guesses by a smaller program with the same vocabulary, for many texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..graph.kv_pages import PagedText, PagePool
from ..ops.sampling.reference import BROKEN
from ..runtime.batch import BatchMethod
from .request import Request


class DraftProgram:
    """Draws what it guesses as the texts are drawn, with their parameters, seeds and noise, over a pool of its own.

    ``batch`` has as many steps in flight as tokens are guessed at a time, and is closed at the end.
    """

    def __init__(self, batch: BatchMethod, pool: PagePool) -> None:
        self._batch, self._pool = batch, pool
        self._texts: dict[Request, PagedText] = {}
        self._tables = np.zeros((batch.sizes.sequences, batch.sizes.table_width), np.int32)

    def expects(self, request: Request) -> bool:
        return len(request.text.tokens) < self._batch.sizes.context_len

    def draft(self, requests: Sequence[Request]) -> None:
        ready = [request for request in requests if self._most(request) > 0 and self._reserve(request, requests)]
        if not ready:
            return
        for row, request in enumerate(ready):
            table = self._texts[request].block_table
            self._tables[row, : len(table)] = table
        self._catch_up(ready)
        guesses = self._run(ready, [self._most(request) for request in ready])
        for request, guess in zip(ready, guesses, strict=True):
            end = guess.index(BROKEN) if BROKEN in guess else len(guess)
            request.text.drafts = guess[:end]
            # Rows are those of the text's last token and of all guesses but the last.
            self._pool.filled(self._texts[request], [request.text.tokens[-1], *guess[: max(end - 1, 0)]])

    def forget(self, request: Request) -> None:
        pages = self._texts.pop(request, None)
        if pages is not None:
            self._pool.end(pages)

    def close(self) -> None:
        self._texts.clear()
        self._batch.close()

    def _most(self, request: Request) -> int:
        assert request.trust is not None
        return min(request.trust.most, self._batch.in_flight, self._batch.sizes.context_len - len(request.text.tokens))

    def _reserve(self, request: Request, others: Sequence[Request]) -> bool:
        """Pages for what a text lacks and for guesses, at the cost of texts that are not guessed now."""
        tokens = request.text.tokens
        pages = self._texts.setdefault(request, PagedText())
        same = next(
            (i for i, (a, b) in enumerate(zip(pages.tokens, tokens, strict=False)) if a != b), len(pages.tokens)
        )
        self._pool.rewind(pages, min(same, len(tokens) - 1))
        self._pool.extend(pages, tokens)
        rows = len(tokens) - len(pages.tokens) + self._most(request) - 1
        for other in [each for each in self._texts if each not in others]:
            if self._pool.needs(pages, rows) <= self._pool.free:
                break
            self.forget(other)
        return self._pool.reserve(pages, rows)

    def _catch_up(self, requests: Sequence[Request]) -> None:
        """All rows but that of the last token."""
        for row, request in enumerate(requests):
            pages, tokens = self._texts[request], request.text.tokens
            while chunk := tokens[len(pages.tokens) : len(tokens) - 1][: self._batch.sizes.rows]:
                start = len(pages.tokens)
                places = [(start + i, row) for i in range(len(chunk))]
                self._batch.submit(chunk, places, self._tables, [], [])
                self._batch.read()
                self._pool.filled(pages, chunk)

    def _run(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        """Guesses of each text, of which steps draw one after the other."""
        before: dict[int, int] = {}  # which row of the step before drew for a text
        steps: list[list[int]] = []
        for step in range(max(most)):
            texts = [row for row, count in enumerate(most) if count > step]
            tokens = [-1 - before[row] if step else requests[row].text.tokens[-1] for row in texts]
            lengths = [len(requests[row].text.tokens) for row in texts]
            places = [(length - 1 + step, row) for length, row in zip(lengths, texts, strict=True)]
            draws = [
                replace(draw, logprobs=None)
                for length, row in zip(lengths, texts, strict=True)
                for draw in requests[row].draws(length + step, 1)
            ]
            self._batch.submit(tokens, places, self._tables, list(range(len(texts))), draws)
            before = {row: index for index, row in enumerate(texts)}
            steps.append(texts)
        guesses: list[list[int]] = [[] for _ in requests]
        for texts in steps:
            for row, drawn in zip(texts, self._batch.read(), strict=True):
                guesses[row].append(drawn.token)
        return guesses

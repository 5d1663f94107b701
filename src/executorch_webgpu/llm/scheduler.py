"""Which rows of which texts the next step of an engine computes: continuous batching over a pool of pages."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph.kv_pages import PagedText, PageKey, PagePool


@dataclass(eq=False)
class Text:
    """A text of the engine: ``tokens`` are its prompt and what was drawn, ``pages`` what has been computed of them.

    ``order``: when it came; ``slot``: its row of the block tables while it runs.
    """

    tokens: list[int]
    order: int
    pages: PagedText = field(default_factory=PagedText)
    slot: int | None = None

    @property
    def pending(self) -> list[int]:
        """Tokens that have not been computed."""
        return self.tokens[len(self.pages.tokens) :]


@dataclass(frozen=True)
class Work:
    """Rows of one text in a step. ``last``: then all its tokens are computed, so the next one can be drawn."""

    text: Text
    tokens: list[int]
    last: bool


class Scheduler:
    """Plans steps of at most ``rows`` rows and ``slots`` texts.

    Texts that only wait for their next token come first, then prompts in the order in which they came, as much of them
    as has room: a long prompt holds nobody up by more than a step. When pages run out, the youngest text gives back
    its own and is computed again later. A text whose next page another one computes in this step waits for it.
    """

    def __init__(self, pool: PagePool, rows: int, slots: int) -> None:
        self._pool, self._rows = pool, rows
        self._free_slots = list(range(slots))
        self._waiting: list[Text] = []  # by order
        self._running: list[Text] = []  # by order

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    def add(self, text: Text) -> None:
        """A text that waits to be computed."""
        self._waiting.append(text)
        self._waiting.sort(key=lambda each: each.order)

    def remove(self, text: Text) -> None:
        """A text has ended: its pages are free, and found by what they hold for as long as nobody needs them."""
        if text in self._running:
            self._stop(text)
        else:
            self._waiting.remove(text)

    def plan(self) -> list[Work]:
        """The next step: no work only if there is no text. Pages for its rows are reserved."""
        works: dict[Text, Work] = {}
        computing: set[PageKey] = set()
        running = self._by_urgency()
        for text in running:
            if text.slot is not None:  # it has not given its pages back to one before it
                self._plan(text, works, computing)
        if all(text.slot is not None for text in running):  # else there are no pages for further ones
            for text in list(self._waiting):
                if self._room(works) == 0 or not self._start(text):
                    break
                self._plan(text, works, computing)
                if text.slot is None:
                    break  # later ones must not overtake it
        return list(works.values())

    def _plan(self, text: Text, works: dict[Text, Work], computing: set[PageKey]) -> None:
        """Add to ``works`` as much of a text as has room, unless it waits for a page or has to give back its own."""
        self._pool.extend(text.pages, text.tokens)
        chunk = text.pending[: self._room(works)]
        if chunk and not self._is_coming(text, computing) and self._reserve(text, len(chunk), works):
            computing |= self._keys(text, chunk)
            works[text] = Work(text, chunk, len(chunk) == len(text.pending))

    def _room(self, works: dict[Text, Work]) -> int:
        """Rows that a step has left."""
        return self._rows - sum(len(work.tokens) for work in works.values())

    def done(self, work: Work) -> None:
        """The rows of ``work`` are computed."""
        self._pool.filled(work.text.pages, work.tokens)

    def _by_urgency(self) -> list[Text]:
        decoding = [text for text in self._running if len(text.pending) == 1]
        return [*decoding, *(text for text in self._running if len(text.pending) != 1)]

    def _start(self, text: Text) -> bool:
        if not self._free_slots or not self._pool.free:
            return False
        text.slot = self._free_slots.pop()
        self._waiting.remove(text)
        self._running.append(text)
        self._running.sort(key=lambda each: each.order)
        return True

    def _stop(self, text: Text) -> None:
        assert text.slot is not None
        self._pool.end(text.pages)
        self._free_slots.append(text.slot)
        text.slot = None
        self._running.remove(text)

    def _reserve(self, text: Text, rows: int, works: dict[Text, Work]) -> bool:
        """Pages for further rows of a text, at the cost of younger ones."""
        while not self._pool.reserve(text.pages, rows):
            youngest = self._running[-1]
            works.pop(youngest, None)
            self._stop(youngest)
            self.add(youngest)
            if youngest is text:
                return False
        return True

    def _is_coming(self, text: Text, computing: set[PageKey]) -> bool:
        """Whether the next page of a text is computed by another one in this step."""
        at_page = len(text.pages.tokens) == len(text.pages.pages) * self._pool.page_rows
        whole = len(text.pending) > self._pool.page_rows
        return at_page and whole and self._pool.next_key(text.pages, text.tokens) in computing

    def _keys(self, text: Text, chunk: list[int]) -> set[PageKey]:
        """What the first page is known by that a step fills whole; who waits for it finds the others later."""
        fills = len(text.pages.tokens) % self._pool.page_rows == 0 and len(chunk) >= self._pool.page_rows
        return {self._pool.next_key(text.pages, text.tokens)} if fills else set()

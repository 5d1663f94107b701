"""Which rows of which texts the next step of an engine computes: continuous batching over a pool of pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from ..graph.kv_pages import PagedText, PageKey, PagePool

DRAFT_ROWS = 64  # of a step, up to which further rows cost little more than the weights that it reads anyway


@dataclass(eq=False)
class Text:
    """A text of the engine: ``tokens`` are its prompt and what was drawn and read, at most ``most`` in all.

    ``order``: when it came; ``slot``: its row of the block tables while it runs. ``waits``: each of its tokens must be
    read before its next row is computed. ``drafts``: guesses of what comes after ``tokens``. ``scored``: so many of its
    first rows draw the token that the prompt has there, by masks that allow nothing else, for its log probability.
    ``redraws``: its next token may be refused, and the row of its last one then be computed again.
    """

    tokens: list[int]
    order: int
    most: int
    waits: bool = False
    drafts: list[int] = field(default_factory=list)
    scored: int = 0
    redraws: bool = False
    pages: PagedText = field(default_factory=PagedText)
    slot: int | None = None
    computed: int = 0  # rows, with those of steps that have not been read
    drawing: int = 0  # tokens that steps draw which have not been read
    tabled: int = 0  # pages that its row of the block tables has
    begins: bool = True  # none of its rows was computed yet
    reused: int = 0  # rows that other texts had computed before it began
    rewinds: int = 0  # how often rows or draws that were in flight stopped counting

    @property
    def known(self) -> int:
        """Rows of known tokens that no step computes yet; negative where steps compute those of further ones."""
        return len(self.tokens) - self.computed


@dataclass(frozen=True)
class Work:
    """Rows of one text in a step, from position ``start`` on, of ``tokens``.

    ``fed``: one row, whose token the step before draws. ``draws``: of how many rows, from the last one back, the next
    token is drawn; more than one verify drafts. ``scores``: its rows draw what the prompt has there. ``rewinds``: those
    of the text before it.
    """

    text: Text
    start: int
    tokens: Sequence[int]
    fed: bool = False
    draws: int = 0
    scores: bool = False
    rewinds: int = 0

    @property
    def rows(self) -> int:
        return 1 if self.fed else len(self.tokens)

    @property
    def stale(self) -> bool:
        """Whether the text was rewound after it was planned, so that what it draws does not count."""
        return self.rewinds != self.text.rewinds


class Scheduler:
    """Plans steps of at most ``rows`` rows, ``draws`` of which draw a token, and ``slots`` texts.

    Texts that only wait for their next token come first, then prompts in the order in which they came, as much of them
    as has room: a long prompt holds nobody up by more than a step. When pages run out, the youngest text gives back
    its own and is computed again later. Steps may be planned before those before them are read: a text's next row then
    takes the token that the step before draws for it.
    """

    def __init__(self, pool: PagePool, rows: int, slots: int, draws: int | None = None) -> None:
        self._pool, self._rows = pool, rows
        self._draws = slots if draws is None else draws
        self._most_drafts = self._draws - slots  # guesses in a step
        self._free_slots = list(range(slots))  # a heap: the lowest are used first
        self._waiting: list[Text] = []  # by order
        self._running: list[Text] = []  # by order
        self._drew: set[Text] = set()  # those that draw a token in the last step

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def running(self) -> Sequence[Text]:
        """Texts that have pages, the oldest first."""
        return self._running

    @property
    def held_pages(self) -> int:
        """Pages that running texts hold, shared ones once."""
        return self._pool.pages - self._pool.free

    def add(self, text: Text) -> None:
        """A text that waits to be computed."""
        self._waiting.append(text)
        self._waiting.sort(key=lambda each: each.order)

    def remove(self, text: Text) -> None:
        """A text has ended: its pages are free, and found by what they hold for as long as nobody needs them."""
        if text.slot is not None:
            self._stop(text)
        else:
            self._waiting.remove(text)

    def plan(self) -> list[Work]:
        """The next step, which the caller submits: its rows count as computed from now on.

        No work if there is no text, or if all wait for tokens to be read.
        """
        plan = _Plan(self._rows, self._draws - len(self._running))
        decoding: list[Text] = []
        others: list[Text] = []
        for text in self._running:
            one = text.known == 1 or self._is_fed(text)
            (decoding if one else others).append(text)
        plan.drafts = max(0, min(self._most_drafts, min(self._rows, DRAFT_ROWS) - len(decoding)))
        running = [*decoding, *others]
        for text in running:
            if text.slot is not None:  # it has not given its pages back to one before it
                self._plan(text, plan)
        if all(text.slot is not None for text in running):  # else there are no pages for further ones
            for text in list(self._waiting):
                if plan.room == 0 or plan.spare == 0 or not self._start(text):
                    break
                plan.spare -= 1
                self._plan(text, plan)
                if text.slot is None:
                    break  # later ones must not overtake it
        works = list(plan.works.values())
        for work in works:
            self._submitted(work)
        self._drew = {work.text for work in works if work.draws and not work.scores}
        return works

    def read(self, work: Work, tokens: Sequence[int], refused: bool = False) -> None:
        """Tokens that follow the rows of a work that has drawn: those of its rows that held its text's own tokens.

        More may follow that must come after the drawn one; or in place of it, if it was ``refused``. Steps in flight
        have another token there, so what they draw does not count. Where nothing is known to follow in place of it, the
        row before is computed again, to draw once more.
        """
        if work.scores:
            return
        text = work.text
        length = len(text.tokens)
        text.drawing -= 1
        text.tokens += tokens
        text.drafts = []  # they were guesses of what came before
        if refused:
            self._rewind(text, length if tokens else length - 1)
        elif work.draws > 1:
            self._rewind(text, len(text.tokens) - 1)  # rows of guesses that were wrong do not count
        elif len(tokens) > 1:
            self._rewind(text, length + 1)
        self._settle(text)

    # -- plans ------------------------------------------------------------------------------------------------------

    def _is_fed(self, text: Text) -> bool:
        """Whether the only row that a text lacks is that of the token which the last step draws for it."""
        return (
            text in self._drew
            and not text.waits
            and text.computed == len(text.tokens) + text.drawing - 1
            and len(text.tokens) + text.drawing < text.most
        )

    def _plan(self, text: Text, plan: _Plan) -> None:
        """Add to ``plan`` as much of a text as has room, unless it waits for a page or has to give back its own."""
        scores = text.computed < text.scored
        if text.known > self._pool.page_rows and text.computed == len(text.pages.tokens) and not scores:
            self._pool.extend(text.pages, text.tokens)
            if text.begins:
                text.reused += len(text.pages.tokens) - text.computed
            text.computed = len(text.pages.tokens)
        if not plan.room:
            return
        start = text.computed
        if text.known < 1:
            if self._is_fed(text) and self._reserve(text, 1, plan):
                plan.works[text] = Work(text, start, (), fed=True, draws=1, rewinds=text.rewinds)
                plan.room -= 1
            return
        most = min(plan.room, 1 + plan.spare, text.scored - start) if scores else plan.room
        tokens = text.tokens[start : start + most]
        last = len(tokens) == text.known and not text.drawing
        drafts = self._drafts(text, plan) if last else []
        if not self._is_coming(text, plan.computing) and self._reserve(text, len(tokens) + len(drafts), plan):
            plan.computing |= self._keys(text, len(tokens))
            draws = len(tokens) if scores else 1 + len(drafts) if last else 0
            plan.works[text] = Work(text, start, [*tokens, *drafts], False, draws, scores, text.rewinds)
            plan.room -= len(tokens) + len(drafts)
            plan.drafts -= len(drafts)
            plan.spare -= max(0, draws - 1)
            text.begins = False

    def _drafts(self, text: Text, plan: _Plan) -> list[int]:
        """Guesses that are worth their rows: there is room for them, and nobody has to give pages back for them."""
        most = min(plan.drafts, plan.spare, plan.room - 1, text.most - len(text.tokens) - 1) if text.known == 1 else 0
        drafts = text.drafts[: max(most, 0)]
        rows = text.computed - len(text.pages.tokens) + 1 + len(drafts)
        return drafts if self._pool.needs(text.pages, rows) <= self._pool.free else []

    def _submitted(self, work: Work) -> None:
        text = work.text
        text.computed += work.rows
        text.drawing += work.draws > 0 and not work.scores
        self._settle(text)

    def _rewind(self, text: Text, rows: int) -> None:
        """Of what is computed, no more than the first ``rows`` count, and nothing that steps in flight draw."""
        text.computed = min(text.computed, rows)
        text.drawing = 0
        text.rewinds += 1

    def _settle(self, text: Text, redraws: bool | None = None) -> None:
        """Rows that are computed, of tokens that are known, are found by their content.

        A row that may be computed again is not yet: a page that others have is never written, even with the same
        values, which another number of rows in the step rounds otherwise.
        """
        redraws = text.redraws if redraws is None else redraws
        count, there = min(text.computed, len(text.tokens) - redraws), len(text.pages.tokens)
        if count > there:
            self._pool.filled(text.pages, text.tokens[there:count])

    def _start(self, text: Text) -> bool:
        if not self._free_slots or not self._pool.free:
            return False
        text.slot, text.tabled = heappop(self._free_slots), 0
        self._waiting.remove(text)
        self._running.append(text)
        self._running.sort(key=lambda each: each.order)
        return True

    def _stop(self, text: Text) -> None:
        assert text.slot is not None
        self._settle(text, redraws=False)
        self._pool.end(text.pages)
        heappush(self._free_slots, text.slot)
        text.slot = None
        text.computed = 0
        self._running.remove(text)

    def _reserve(self, text: Text, rows: int, plan: _Plan) -> bool:
        """Pages for further rows of a text, at the cost of younger ones."""
        while not self._pool.reserve(text.pages, text.computed - len(text.pages.tokens) + rows):
            youngest = self._running[-1]
            given_up = plan.works.pop(youngest, None)
            plan.room += given_up.rows if given_up else 0
            self._stop(youngest)
            self.add(youngest)
            if youngest is text:
                return False
        return True

    def _is_coming(self, text: Text, computing: set[PageKey]) -> bool:
        """Whether the next page of a text is computed by another one in this step."""
        at_page = text.computed == len(text.pages.pages) * self._pool.page_rows
        whole = text.known > self._pool.page_rows
        return at_page and whole and self._pool.next_key(text.pages, text.tokens) in computing

    def _keys(self, text: Text, rows: int) -> set[PageKey]:
        """What the first page is known by that a step fills whole; who waits for it finds the others later."""
        fills = text.computed % self._pool.page_rows == 0 and rows >= self._pool.page_rows
        return {self._pool.next_key(text.pages, text.tokens)} if fills else set()


@dataclass
class _Plan:
    """A step as far as it is planned: ``room`` rows are left, ``drafts`` of them for guesses.

    ``spare``: further rows that may draw a token, beside one of each text.
    """

    room: int
    spare: int
    drafts: int = 0
    works: dict[Text, Work] = field(default_factory=dict)
    computing: set[PageKey] = field(default_factory=set)

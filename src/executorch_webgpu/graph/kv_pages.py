"""Who has which pages of a paged KV cache: the host's account of a pool that lies on a device.

A page holds ``page_rows`` rows of one text, in all layers at once. Texts that begin alike share their first pages: a
full page is known by its tokens and by the page before it, and never written again. A page that nobody holds keeps its
rows until it is needed, the one that was given back first before all others, so a text that comes back finds them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import InvalidInputError


@dataclass(eq=False)
class _Page:
    """``key`` says what a full page holds: the page before it, if there is one, and its tokens."""

    number: int
    holders: int = 0
    key: tuple[_Page | None, tuple[int, ...]] | None = None


PageKey = tuple[_Page | None, tuple[int, ...]]


@dataclass(eq=False)
class PagedText:
    """The pages of one text: the first ones may be those of other texts, too.

    ``tokens``: the text as far as its rows are there.
    """

    tokens: list[int] = field(default_factory=list)
    pages: list[_Page] = field(default_factory=list)

    @property
    def block_table(self) -> list[int]:
        """The numbers of its pages, in order."""
        return [page.number for page in self.pages]


class PagePool:
    """``pages`` pages of ``page_rows`` rows each. For one thread at a time."""

    def __init__(self, pages: int, page_rows: int) -> None:
        if pages < 1 or page_rows < 1 or page_rows & (page_rows - 1):
            raise InvalidInputError(
                f"a pool needs pages, and a power of two of rows in each, not {pages} of {page_rows}"
            )
        self.page_rows = page_rows
        self._pages = [_Page(number) for number in range(pages)]
        self._idle: OrderedDict[_Page, None] = OrderedDict((page, None) for page in self._pages)  # oldest first
        self._known: dict[PageKey, _Page] = {}

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._idle)

    @property
    def pages(self) -> int:
        return len(self._pages)

    def begin(self, tokens: Sequence[int]) -> PagedText:
        """A text that will be ``tokens``, with the pages that other texts have filled with its beginning.

        Its last token is left out of them, since a step must compute something.
        """
        text = PagedText()
        self.extend(text, tokens)
        return text

    def extend(self, text: PagedText, tokens: Sequence[int]) -> None:
        """Give a text that ends with a full page the pages that others have filled with what comes next in ``tokens``.

        The last token is left out, as by ``begin``.
        """
        while len(text.tokens) == len(text.pages) * self.page_rows < len(tokens) - self.page_rows:
            page = self._known.get(self.next_key(text, tokens))
            if page is None:
                return
            self._hold(page)
            text.pages.append(page)
            text.tokens += tokens[len(text.tokens) : len(text.tokens) + self.page_rows]

    def next_key(self, text: PagedText, tokens: Sequence[int]) -> PageKey:
        """What the page is known by that a text which ends with a full page, and will be ``tokens``, fills next."""
        before = text.pages[len(text.tokens) // self.page_rows - 1] if len(text.tokens) >= self.page_rows else None
        return before, tuple(tokens[len(text.tokens) : len(text.tokens) + self.page_rows])

    def needs(self, text: PagedText, rows: int) -> int:
        """Pages that ``rows`` further rows of a text take."""
        return -(-(len(text.tokens) + rows) // self.page_rows) - len(text.pages)

    def reserve(self, text: PagedText, rows: int) -> bool:
        """Give a text the pages for ``rows`` further rows: all of them, or none, and then False."""
        count = self.needs(text, rows)
        if count > len(self._idle):
            return False
        text.pages += [self._take() for _ in range(count)]
        return True

    def filled(self, text: PagedText, tokens: Sequence[int]) -> None:
        """The rows of further tokens are there: full pages are found by their content from now on."""
        first = len(text.tokens) // self.page_rows
        text.tokens += tokens
        for index in range(first, len(text.tokens) // self.page_rows):
            page = text.pages[index]
            before = text.pages[index - 1] if index else None
            content = tuple(text.tokens[index * self.page_rows : (index + 1) * self.page_rows])
            # What has no way to it, since the page before it has been computed twice, is not found.
            if page.key is None and (before is None or before.key is not None) and (before, content) not in self._known:
                page.key = (before, content)
                self._known[page.key] = page

    def rewind(self, text: PagedText, length: int, copy: Callable[[int, int], None] | None = None) -> int:
        """Keep the first ``length`` rows at most. Returns how many remain, which ``text.tokens`` says, too.

        A page that is known by its content is never written again. Where the end falls within one, the text gets
        another page for these rows, which ``copy(from, to)`` must fill. Without ``copy``, or where no page is free,
        these rows go, up to the last full page.
        """
        if length >= len(text.tokens):
            return len(text.tokens)
        pages = -(-length // self.page_rows)
        gone = text.pages[pages:]
        if length % self.page_rows and (known := text.pages[pages - 1]).key is not None:
            gone.insert(0, known)
            if copy is not None and self._idle:
                text.pages[pages - 1] = page = self._take()
                copy(known.number, page.number)
            else:
                pages -= 1
                length = pages * self.page_rows
        self._release(gone)
        del text.pages[pages:], text.tokens[length:]
        return length

    def end(self, text: PagedText) -> None:
        """Give back all pages of a text."""
        self._release(text.pages)
        text.pages.clear()
        text.tokens.clear()

    def _take(self) -> _Page:
        """The page that nobody holds for the longest time."""
        page = next(iter(self._idle))
        self._forget(page)
        self._hold(page)
        return page

    def _hold(self, page: _Page) -> None:
        page.holders += 1
        self._idle.pop(page, None)

    def _release(self, pages: Sequence[_Page]) -> None:
        # Ends of texts first: who holds a page holds those before it, so a page is needed anew before those.
        for page in reversed(pages):
            page.holders -= 1
            if not page.holders:
                self._idle[page] = None
                if page.key is None:  # nobody can find it
                    self._idle.move_to_end(page, last=False)

    def _forget(self, page: _Page) -> None:
        if page.key is not None:
            del self._known[page.key]
            page.key = None

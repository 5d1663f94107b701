"""Pages of texts: nobody has a page of somebody else, equal beginnings are shared, and nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.graph.kv_pages import PagedText, PagePool

ROWS = 4


def filled(pool: PagePool, tokens: list[int]) -> PagedText:
    text = pool.begin(tokens)
    rest = tokens[len(text.tokens) :]
    assert pool.reserve(text, len(rest))
    pool.filled(text, rest)
    return text


def test_equal_beginnings_are_shared() -> None:
    pool = PagePool(10, ROWS)
    first = filled(pool, list(range(11)))
    second = pool.begin([*range(9), 99])
    assert second.block_table == first.block_table[:2] and second.tokens == list(range(8))
    assert pool.free == 10 - 3
    other = pool.begin([5, *range(1, 11)])
    assert other.block_table == []


def test_a_step_always_has_a_token_to_compute() -> None:
    pool = PagePool(10, ROWS)
    filled(pool, list(range(8)))
    assert pool.begin(list(range(8))).tokens == list(range(4))


def test_texts_come_back_until_their_pages_are_needed() -> None:
    pool = PagePool(4, ROWS)
    text = filled(pool, list(range(9)))
    pool.end(text)
    assert pool.free == 4
    again = pool.begin(list(range(9)))
    assert len(again.tokens) == 8
    pool.end(again)
    other = filled(pool, [7] * 9)  # takes the one that was never used, the partial one, and the end of the text
    assert len(pool.begin(list(range(9))).tokens) == 4
    assert pool.free == 0
    pool.end(other)


def test_all_pages_or_none() -> None:
    pool = PagePool(2, ROWS)
    text = pool.begin([1] * 20)
    assert not pool.reserve(text, 9)
    assert text.pages == [] and pool.free == 2
    assert pool.reserve(text, 8)


def test_a_page_that_others_may_find_is_not_written_again() -> None:
    pool = PagePool(10, ROWS)
    text = filled(pool, list(range(10)))
    kept = text.block_table
    pool.rewind(text, 9)
    assert text.tokens == list(range(9)) and text.block_table == kept
    pool.rewind(text, 6)  # in the middle of a full page, which goes
    assert text.tokens == list(range(4)) and text.block_table == kept[:1]
    assert pool.begin(list(range(9))).block_table == kept[:2], "it is still found"


def test_a_text_that_rewinds_into_a_shared_page_gets_a_copy_of_it() -> None:
    pool, copied = PagePool(4, ROWS), list[tuple[int, int]]()
    text, other = filled(pool, list(range(8))), pool.begin(list(range(9)))
    shared = text.block_table
    assert pool.rewind(other, 6, lambda source, target: copied.append((source, target))) == 6
    assert copied == [(shared[1], other.block_table[1])] and other.block_table[0] == shared[0]
    assert text.block_table == shared and pool.free == 1
    rest = filled(pool, [7])
    assert pool.free == 0 and pool.rewind(text, 7, lambda source, target: None) == 4, "there is no page for a copy"
    assert pool.rewind(rest, 5) == 1


def test_pages_go_in_the_order_in_which_they_were_given_back() -> None:
    """What nobody can find goes before what was never used, and ends of texts before their beginnings."""
    pool = PagePool(7, ROWS)
    first, second = filled(pool, [1] * 9), filled(pool, [2] * 8)
    pages = {"first": first.block_table, "second": second.block_table}
    pool.end(second)
    pool.end(first)
    text = pool.begin([3] * 30)
    assert pool.reserve(text, 7 * ROWS)
    partial, (end, *_), unused = text.block_table[0], text.block_table[3:], text.block_table[1:3]
    assert partial == pages["first"][2] and set(unused).isdisjoint(pages["first"] + pages["second"])
    assert text.block_table[3:] == [*pages["second"][::-1], *pages["first"][1::-1]] and end == pages["second"][1]


@pytest.mark.parametrize(("pages", "rows"), [(0, 4), (4, 0), (4, 3)])
def test_pools_that_cannot_be(pages: int, rows: int) -> None:
    with pytest.raises(InvalidInputError):
        PagePool(pages, rows)


class Pool(RuleBasedStateMachine):
    """A pool beside what its pages hold: rows that depend on all tokens up to theirs, as steps write them."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(12, ROWS)
        self.rows = np.full((12, ROWS), -1)
        self.texts: list[PagedText] = []
        self.prefixes: dict[tuple[int, ...], int] = {}

    def row(self, tokens: list[int]) -> int:
        """What the last of these tokens is stored as."""
        return self.prefixes.setdefault(tuple(tokens), len(self.prefixes))

    def write(self, text: PagedText, tokens: list[int]) -> None:
        whole = [*text.tokens, *tokens]
        for position in range(len(text.tokens), len(whole)):
            self.rows[text.pages[position // ROWS].number, position % ROWS] = self.row(whole[: position + 1])
        self.pool.filled(text, tokens)

    def copy(self, source: int, target: int) -> None:
        self.rows[target] = self.rows[source]

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=18))
    def begin(self, tokens: list[int]) -> None:
        text = self.pool.begin(tokens)
        rest = tokens[len(text.tokens) :]
        if self.pool.reserve(text, len(rest)):
            self.write(text, rest)
            self.texts.append(text)
        else:
            self.pool.end(text)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def go_on(self, data: Any, tokens: list[int]) -> None:
        text = data.draw(st.sampled_from(self.texts))
        if self.pool.reserve(text, len(tokens)):
            self.write(text, tokens)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), length=st.integers(0, 18), copies=st.booleans())
    def rewind(self, data: Any, length: int, copies: bool) -> None:
        text = data.draw(st.sampled_from(self.texts))
        before, free = list(text.tokens), self.pool.free
        remain = self.pool.rewind(text, length, self.copy if copies else None)
        assert text.tokens == before[:remain]
        wanted = min(length, len(before))
        assert remain == wanted if copies and free else wanted - ROWS < remain <= wanted

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9))
    def extend(self, data: Any, tokens: list[int]) -> None:
        text = data.draw(st.sampled_from(self.texts))
        if len(text.tokens) == len(text.pages) * ROWS:
            before = list(text.tokens)
            self.pool.extend(text, [*before, *tokens])
            assert text.tokens == [*before, *tokens][: len(text.tokens)] and len(text.tokens) >= len(before)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def end(self, data: Any) -> None:
        text = data.draw(st.sampled_from(self.texts))
        self.texts.remove(text)
        self.pool.end(text)

    @invariant()
    def every_text_reads_its_own_rows(self) -> None:
        for text in self.texts:
            rows = self.rows[text.block_table].reshape(-1)[: len(text.tokens)]
            assert rows.tolist() == [self.row(text.tokens[: i + 1]) for i in range(len(text.tokens))]

    @invariant()
    def a_page_that_may_be_written_has_one_text(self) -> None:
        for text in self.texts:
            for other in self.texts:
                full = len(text.tokens) // ROWS
                assert other is text or not {*text.block_table[full:]} & {*other.block_table}

    @invariant()
    def no_page_is_lost(self) -> None:
        held = {number for text in self.texts for number in text.block_table}
        assert self.pool.free == 12 - len(held)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)

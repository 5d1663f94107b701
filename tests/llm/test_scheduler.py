"""Plans of steps: whatever comes and goes, a step has work, rows for all of it, and pages that nobody else writes."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.graph.kv_pages import PageKey, PagePool
from executorch_webgpu.llm.scheduler import Scheduler, Text, Work
from executorch_webgpu.llm.speculation import accepted

PAGES, ROWS = 9, 4


def texts_of(works: list[Work]) -> list[Text]:
    return [work.text for work in works]


def test_an_older_prompt_goes_on_where_a_younger_text_has_to_give_way() -> None:
    """The only text that asks for a page is the youngest, and an older one has rows to compute."""
    pool = PagePool(3, ROWS)
    scheduler = Scheduler(pool, 4, 2)
    young = Text([1] * 4, order=1, most=9)
    scheduler.add(young)
    (drawing,) = scheduler.plan()
    old = Text([2] * 12, order=0, most=13)  # submitted by another thread, which was slower
    scheduler.add(old)
    scheduler.read(drawing, [1])
    while old.known:
        assert old in texts_of(scheduler.plan())
    assert young.slot is None and old.computed == 12


def test_a_text_goes_on_before_its_token_is_read() -> None:
    scheduler = Scheduler(PagePool(PAGES, ROWS), 8, 2)
    text = Text([5, 6, 7], order=0, most=6)
    scheduler.add(text)
    steps = [scheduler.plan() for _ in range(4)]
    assert [[(w.start, list(w.tokens), w.fed, w.draws) for w in works] for works in steps] == [
        [(0, [5, 6, 7], False, 1)],
        [(3, [], True, 1)],
        [(4, [], True, 1)],
        [],  # three tokens are all that it may get
    ]
    for (work,), token in zip(steps, (8, 9, 10), strict=False):
        scheduler.read(work, [token])
    assert text.tokens == [5, 6, 7, 8, 9, 10]


def test_a_text_whose_tokens_the_host_must_know_waits() -> None:
    scheduler = Scheduler(PagePool(PAGES, ROWS), 8, 2)
    text = Text([5], order=0, most=4, waits=True)
    scheduler.add(text)
    (work,) = scheduler.plan()
    assert not scheduler.plan()
    scheduler.read(work, [6])
    (work,) = scheduler.plan()
    assert (work.start, list(work.tokens), work.fed) == (1, [6], False)


def test_guesses_that_are_right_count_and_others_do_not() -> None:
    pool = PagePool(PAGES, ROWS)
    scheduler = Scheduler(pool, 8, 2, draws=8)
    text = Text([1, 2], order=0, most=20, waits=True)
    scheduler.add(text)
    (work,) = scheduler.plan()
    scheduler.read(work, [3])
    text.drafts = [4, 5, 9, 9]
    (work,) = scheduler.plan()
    assert (work.start, list(work.tokens), work.draws) == (2, [3, 4, 5, 9, 9], 5)
    assert text.pages.tokens == [1, 2, 3]
    scheduler.read(work, accepted([4, 5, 9, 9], [4, 5, 6, 7, 8], ()))
    assert text.tokens == [1, 2, 3, 4, 5, 6] and text.computed == 5 and text.pages.tokens == [1, 2, 3, 4, 5]
    (work,) = scheduler.plan()  # what was guessed is not guessed again
    assert (work.start, list(work.tokens)) == (5, [6])


@pytest.mark.parametrize(("drafts", "drawn", "own"), [([], [1], 1), ([1, 2], [1, 2, 3], 3), ([1, 2], [2, 2, 3], 1)])
def test_tokens_that_are_the_texts_own(drafts: list[int], drawn: list[int], own: int) -> None:
    assert accepted(drafts, drawn, ()) == drawn[:own]
    assert accepted(drafts, drawn, drawn[:1]) == drawn[:1]  # an end token ends it


def test_nobody_gives_pages_back_for_guesses() -> None:
    pool = PagePool(2, ROWS)
    scheduler = Scheduler(pool, 16, 2, draws=16)
    texts = [Text([n, n, n], order=n, most=8, waits=True) for n in range(2)]
    for text in texts:
        scheduler.add(text)
    works = scheduler.plan()
    for work in works:
        scheduler.read(work, [7])
        work.text.drafts = [7, 7, 7]
    assert [len(work.tokens) for work in scheduler.plan()] == [1, 1]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_random_arrivals_and_ends(data: Any) -> None:
    """What each row reads is the text that it belongs to: a page memory is kept beside the pool and compared.

    Some texts are drawn ahead: a token may turn out to be refused, and others may have to follow it.
    """
    rows, slots = data.draw(st.sampled_from([(1, 1), (3, 2), (8, 3), (40, 5)]))
    most_in_flight = data.draw(st.integers(1, 3))
    pool = PagePool(PAGES, ROWS)
    scheduler = Scheduler(pool, rows, slots, draws=min(rows, 3 * slots))
    memory: dict[tuple[int, int], tuple[int, ...]] = {}  # by page and row: the text up to there
    texts: dict[Text, list[int]] = {}  # with all that it will be
    flights: deque[list[Work]] = deque()
    drew: dict[Text, list[int]] = {}  # what the last step computed of texts that are drawn ahead, and drew then

    def draw_ahead(works: list[Work]) -> None:
        """Rows of texts that are drawn ahead are right as long as what they were fed with is."""
        fed = dict(drew)
        drew.clear()
        for work in [work for work in works if work.text.redraws]:
            text, whole = work.text, texts[work.text]
            tokens = fed[text] if work.fed else whole[: work.start + work.rows]
            assert len(tokens) == work.start + work.rows and (work.fed or [*work.tokens] == tokens[work.start :])
            for place in range(work.start, len(tokens)):
                before = memory[at(text, place - 1)] if place else ()
                assert before == tuple(tokens[:place])
                memory[at(text, place)] = tuple(tokens[: place + 1])
            if work.draws:
                token = whole[len(tokens)] if len(tokens) < len(whole) else 98
                drew[text] = [*tokens, 97 if work.fed and data.draw(st.integers(0, 2)) == 0 else token]
                drawn[id(work)] = drew[text]

    def read_ahead(work: Work) -> None:
        text, whole = work.text, texts[work.text]
        tokens = drawn.pop(id(work))
        if work.stale:
            return
        assert tokens[:-1] == text.tokens == whole[: len(text.tokens)]
        refused = tokens != whole[: len(tokens)]
        first, forced = len(tokens) - refused, data.draw(st.sampled_from([0, 0, 0, 1, 5]))
        scheduler.read(work, whole[len(text.tokens) : first + forced], refused)

    drawn: dict[int, list[int]] = {}  # by works that are not read: texts with the tokens that these drew

    def step() -> None:
        known = {page: key for key, page in pool._known.items()}
        for text in scheduler.running:
            future = texts[text][len(text.tokens) :]
            wrong = data.draw(st.integers(0, 3))
            text.drafts = [*future[:wrong], 99] if text.waits else []
        works = scheduler.plan()
        assert sum(work.rows for work in works) <= rows and len(works) <= slots
        assert sum(work.draws for work in works) <= min(rows, 3 * slots)
        assert works or flights or not texts
        for work in works:
            for page in work.text.pages.pages[work.start // ROWS : -(-(work.start + work.rows) // ROWS)]:
                assert page.key is None or page.key is not known.get(page), "a page that others find is written again"
        draw_ahead(works)
        for work in [work for work in works if not work.text.redraws]:
            text, whole = work.text, texts[work.text]
            assert work.fed == (not work.tokens)
            for i, place in enumerate(range(work.start, work.start + work.rows)):
                token = whole[place] if work.fed else work.tokens[i]
                before = memory[at(text, place - 1)] if place else ()
                assert before == tuple([*whole[: work.start], *work.tokens][:place])
                memory[at(text, place)] = (*before, token)
        for page in pool._known.values():
            assert memory[page.number, ROWS - 1] == content(page.key)
        flights.append([work for work in works if work.draws])
        while len(flights) > most_in_flight or (flights and not works):
            for work in flights.popleft():
                if work.text not in texts:
                    continue
                if work.text.redraws:
                    read_ahead(work)
                else:
                    whole = texts[work.text]
                    start = work.start + work.rows - work.draws + 1
                    tokens = [whole[i] if i < len(whole) else 98 for i in range(start, start + work.draws)]
                    scheduler.read(work, accepted(work.tokens[len(work.tokens) - work.draws + 1 :], tokens, ()))
                whole = texts[work.text]
                assert work.text.tokens == whole[: len(work.text.tokens)]
                if len(work.text.tokens) == work.text.most or data.draw(st.integers(0, 9)) == 0:
                    scheduler.remove(work.text)
                    del texts[work.text]

    def content(key: PageKey | None) -> tuple[int, ...]:
        return () if key is None else ((() if key[0] is None else content(key[0].key)) + key[1])

    def at(text: Text, place: int) -> tuple[int, int]:
        return text.pages.block_table[place // ROWS], place % ROWS

    for order in data.draw(st.permutations(range(10))):
        for _ in range(data.draw(st.integers(0, 3))):
            step()
        beginning = [0] * data.draw(st.sampled_from([0, 8]))
        prompt = [*beginning, *data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=9))]
        new = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=12))
        waits, redraws = data.draw(st.sampled_from([(False, False), (True, False), (False, True)]))
        text = Text(prompt, order, len(prompt) + len(new), waits=waits, redraws=redraws)
        scheduler.add(text)
        texts[text] = [*prompt, *new]
    for _ in range(1000):
        if not texts:
            break
        step()
    assert not texts and pool.free == PAGES and not len(scheduler)

"""Plans of steps: whatever comes and goes, a step has work, rows for all of it, and pages that nobody else writes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.graph.kv_pages import PagePool
from executorch_webgpu.llm.scheduler import Scheduler, Text

PAGES, ROWS = 9, 4


def finished(scheduler: Scheduler, text: Text, steps: int = 200) -> bool:
    """Whether a text is computed whole within some steps."""
    for _ in range(steps):
        for work in scheduler.plan():
            scheduler.done(work)
        if not text.pending:
            return True
    return False


def test_an_older_prompt_goes_on_where_a_younger_text_has_to_give_way() -> None:
    """The only text that asks for a page is the youngest, and an older one has rows to compute."""
    pool = PagePool(3, ROWS)
    scheduler = Scheduler(pool, 4, 2)
    young = Text([1] * 4, order=1)
    scheduler.add(young)
    for work in scheduler.plan():
        scheduler.done(work)
    old = Text([2] * 12, order=0)  # submitted by another thread, which was slower
    scheduler.add(old)
    for _ in range(2):  # two pages of the old one: then there are no more
        for work in scheduler.plan():
            assert work.text is old
            scheduler.done(work)
    assert pool.free == 0 and len(old.pending) == 4
    young.tokens.append(1)
    works = scheduler.plan()
    assert [work.text for work in works] == [old]
    scheduler.done(works[0])
    assert finished(scheduler, old)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_arrivals_and_ends(data: Any) -> None:
    rows, slots = data.draw(st.sampled_from([(1, 1), (3, 2), (8, 3), (40, 5)]))
    pool = PagePool(PAGES, ROWS)
    scheduler = Scheduler(pool, rows, slots)
    texts: list[Text] = []
    orders = data.draw(st.permutations(range(12)))
    for order in orders:
        for _ in range(data.draw(st.integers(0, 3))):
            works = scheduler.plan()
            assert bool(works) == any(text.pending for text in texts)
            assert sum(len(work.tokens) for work in works) <= rows and len(works) <= slots
            written: list[tuple[int, int]] = []
            for work in works:
                start = len(work.text.pages.tokens)
                places = range(start, start + len(work.tokens))
                written += [(work.text.pages.block_table[place // ROWS], place % ROWS) for place in places]
                assert work.tokens == work.text.tokens[start : start + len(work.tokens)]
            assert len(set(written)) == len(written), "two rows have one place"
            for work in works:
                scheduler.done(work)
                if work.last:
                    if len(work.text.tokens) < 30:
                        work.text.tokens.append(data.draw(st.integers(0, 1)))
                    else:
                        scheduler.remove(work.text)
                        texts.remove(work.text)
        beginning = [0] * data.draw(st.sampled_from([0, 8]))
        text = Text([*beginning, *data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=9))], order)
        scheduler.add(text)
        texts.append(text)
    for text in texts:
        scheduler.remove(text)
    assert pool.free == PAGES and not len(scheduler)

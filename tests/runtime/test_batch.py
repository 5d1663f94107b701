"""Steps over rows of many sequences: tokens drawn on the device, fed to the next step, and read later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import ClosedError, InvalidInputError
from executorch_webgpu.graph.batching import BatchSizes
from executorch_webgpu.graph.draws import _FIRST_CHANGES
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.sampling import reference
from executorch_webgpu.runtime import Program
from executorch_webgpu.runtime.batch import BROKEN, BatchMethod, Draw, Drawn, LogitChanges
from tests.llm import tiny_program

VOCAB, CONTEXT, TEXTS = SHAPES["tiny"].vocab, 64, 5
SIZES = BatchSizes(rows=24, wanted=TEXTS, sequences=TEXTS, context_len=CONTEXT, page_rows=8, pages=8 * TEXTS)
SMALL = BatchSizes(rows=8, wanted=2, sequences=2, context_len=16, page_rows=4, pages=8)
SHIFT = np.full(1, 3, np.float32)
TABLES, SMALL_TABLES = (np.arange(sizes.pages, dtype=np.int32).reshape(sizes.sequences, -1) for sizes in (SIZES, SMALL))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("batch") / "model.pte"
    config = replace(SHAPES["tiny"], context_len=CONTEXT)
    write_llama(path, config, LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=CONTEXT))
    with Runtime.get().load_program(path) as program:
        yield program


def load(program: Program, **options: Any) -> BatchMethod:
    return program.load_batch("forward", SIZES, **options)


PROMPTS = [np.random.default_rng(text).integers(0, VOCAB, 1 + 2 * text % 5).tolist() for text in range(TEXTS)]


@dataclass
class Texts:
    """Texts of a batch: what a step computes of some of them."""

    lengths: list[int] = field(default_factory=lambda: [0] * TEXTS)

    def prompts(self) -> tuple[list[int], list[tuple[int, int]], list[int]]:
        tokens = [token for prompt in PROMPTS for token in prompt]
        places = [(position, text) for text, prompt in enumerate(PROMPTS) for position in range(len(prompt))]
        self.lengths = [len(prompt) for prompt in PROMPTS]
        return tokens, places, (np.cumsum(self.lengths) - 1).tolist()

    def next(self, texts: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], list[tuple[int, int]], list[int]]:
        places = [(self.lengths[text], text) for text in texts]
        for text in texts:
            self.lengths[text] += 1
        return list(tokens), places, list(range(len(texts)))

    def draws(self, texts: Sequence[int]) -> list[Draw]:
        """Each text in its own way; after ``prompts`` or ``next``."""
        ways: list[dict[str, Any]] = [{}, {"temperature": 0.8}, {"temperature": 1.0, "top_p": 0.9}]
        ways += [{"temperature": 1.2, "top_k": 20, "logprobs": 3}, {"logprobs": 0}]
        return [Draw(self.lengths[text], 77 + text, **ways[text]) for text in texts]


def host_draw(logits: np.ndarray, draw: Draw) -> int:
    return reference.choose(logits, draw.position, draw.seed, draw.temperature, draw.top_k, draw.top_p, draw.min_p)


def test_tokens_are_those_that_the_host_draws_of_the_logits(program: Program) -> None:
    texts, again = Texts(), Texts()
    every = range(TEXTS)
    with load(program) as batch, load(program) as plain:
        step, same = texts.prompts(), again.prompts()
        for _ in range(6):
            draws = texts.draws(every)
            batch.submit(*step[:2], TABLES, step[2], draws)
            logits = plain.step(*same[:2], TABLES, same[2])
            got = batch.read()
            assert logits.shape == (TEXTS, VOCAB)
            assert [d.token for d in got] == [host_draw(row, draw) for row, draw in zip(logits, draws, strict=True)]
            for row, draw, drawn in zip(logits, draws, got, strict=True):
                check_logprobs(row, draw, drawn)
            tokens = [d.token for d in got]
            step, same = texts.next(every, tokens), again.next(every, tokens)


def check_logprobs(logits: np.ndarray, draw: Draw, drawn: Drawn) -> None:
    if draw.logprobs is None:
        assert drawn.logprob is None and drawn.likeliest == ()
        return
    exact = reference.log_probabilities(logits)
    assert drawn.logprob == pytest.approx(exact[drawn.token], abs=1e-4)
    order = np.argsort(-logits, kind="stable")[: draw.logprobs]
    assert [token for token, _ in drawn.likeliest] == order.tolist()
    assert [logprob for _, logprob in drawn.likeliest] == pytest.approx(exact[order].tolist(), abs=1e-4)


def continued(batch: BatchMethod, steps: int, ahead: int, order: np.random.Generator) -> list[list[int]]:
    """Tokens of all texts, each step fed by the one before, whose rows come in another order each time."""
    texts, found = Texts(), [[] for _ in range(TEXTS)]  # type: tuple[Texts, list[list[int]]]
    unread: list[list[int]] = []
    rows = list(range(TEXTS))

    def read() -> None:
        for text, drawn in zip(unread.pop(0), batch.read(), strict=True):
            found[text].append(drawn.token)

    step = texts.prompts()
    for _ in range(steps):
        batch.submit(*step[:2], TABLES, step[2], texts.draws(rows))
        unread.append(rows)
        assert batch.pending == len(unread)
        if batch.pending == ahead:
            read()
        before = rows
        rows = order.permutation(TEXTS).tolist()
        fed = [-1 - before.index(text) for text in rows]
        if ahead == 1:
            fed = [found[text][-1] for text in rows]
        step = texts.next(rows, fed)
    while unread:
        read()
    return found


@pytest.mark.parametrize("ahead", [2, 4])
def test_steps_in_flight_give_what_steps_one_by_one_give(program: Program, ahead: int) -> None:
    with load(program) as batch, load(program, in_flight=ahead) as flying:
        wanted = continued(batch, 12, 1, np.random.default_rng(3))
        assert continued(flying, 12, ahead, np.random.default_rng(4)) == wanted
        assert flying.pending == 0 and all(len(tokens) == 12 for tokens in wanted)


def test_draws_may_be_said_after_their_step(program: Program) -> None:
    """What is drawn is the same, and feeds the next step; here draws depend on tokens of the step before."""
    rows = list(range(TEXTS))
    found: dict[bool, list[list[Drawn]]] = {}

    def draws(texts: Texts, before: Sequence[Drawn]) -> list[Draw]:
        shifts = [LogitChanges(np.array([d.token], np.int32), np.ones(1, np.float32), -SHIFT) for d in before]
        return [replace(d, changes=shift) for d, shift in zip(texts.draws(rows), shifts, strict=True)]

    for late in (False, True):
        texts, found[late] = Texts(), []
        with load(program) as batch:
            step = texts.prompts()
            batch.submit(*step[:2], TABLES, step[2], texts.draws(rows))
            for _ in range(6):
                if late:
                    step = texts.next(rows, [-1 - row for row in rows])
                    batch.submit(*step[:2], TABLES, step[2], None)
                    assert batch.pending == 1
                    found[late].append(batch.read())
                    batch.draw(draws(texts, found[late][-1]))
                else:
                    found[late].append(batch.read())
                    step = texts.next(rows, [d.token for d in found[late][-1]])
                    batch.submit(*step[:2], TABLES, step[2], draws(texts, found[late][-1]))
            found[late].append(batch.read())
    assert [[d.token for d in step] for step in found[True]] == [[d.token for d in step] for step in found[False]]


def test_a_step_of_which_nobody_wants_a_row(program: Program) -> None:
    """Its draws, which are none, may come with it or after it."""
    rows = list(range(TEXTS))
    found = []
    for late in (False, True):
        texts = Texts()
        tokens, places, wanted = texts.prompts()
        with load(program) as batch:
            batch.submit(tokens, places, TABLES, [], None if late else [])
            if late:
                batch.draw([])
            assert batch.read() == []
            batch.submit(tokens, places, TABLES, wanted, texts.draws(rows))
            found.append([each.token for each in batch.read()])
    assert found[0] == found[1] and len(found[0]) == TEXTS


def test_a_step_is_drawn_once_and_before_the_next(program: Program) -> None:
    texts = Texts()
    tokens, places, wanted = texts.prompts()
    with load(program, in_flight=1) as batch:
        with pytest.raises(InvalidInputError, match="no step waits for how its tokens are drawn"):
            batch.draw([Draw(0)] * TEXTS)
        batch.submit(tokens, places, TABLES, wanted, None)
        with pytest.raises(InvalidInputError, match="has not drawn its tokens yet"):
            batch.submit(tokens, places, TABLES, wanted, [Draw(0)] * TEXTS)
        with pytest.raises(InvalidInputError, match="wants 5 rows, but says of 1"):
            batch.draw([Draw(0)])
        with pytest.raises(InvalidInputError, match="no step is in flight"):
            batch.read()
        batch.draw([Draw(0)] * TEXTS)
        batch.submit(tokens, places, TABLES, wanted, None)
        with pytest.raises(InvalidInputError, match="1 steps are in flight already"):
            batch.draw([Draw(0)] * TEXTS)
        first = batch.read()
        batch.draw([Draw(0)] * TEXTS)
        assert batch.read() == first


def test_steps_may_want_no_row_at_all(program: Program) -> None:
    texts = Texts()
    with load(program) as batch:
        tokens, places, wanted = texts.prompts()
        batch.submit(tokens, places, TABLES, [], [])
        assert batch.read() == []
        with pytest.raises(InvalidInputError, match="the step before drew 0"):
            batch.submit(*texts.next([0], [-1])[:2], TABLES, [0], [Draw(1)])
        assert batch.step(tokens, places, TABLES, []).shape == (0, VOCAB)
        batch.submit(tokens, places, TABLES, wanted, [Draw(5)] * TEXTS)
        assert [d.token for d in batch.read()] == batch.step(tokens, places, TABLES, wanted).argmax(axis=1).tolist()


def test_changes_and_masks_of_logits(program: Program) -> None:
    """More changes than there is room for at first, too, while a step is in flight."""
    texts = Texts()
    tokens, places, wanted = texts.prompts()
    every = np.arange(VOCAB, dtype=np.int32)
    random = np.random.default_rng(0)
    mask = reference.bits_of(random.random(VOCAB) < 0.1).view(np.uint32)
    with load(program) as batch:
        logits = batch.step(tokens, places, TABLES, wanted)
        assert 2 * VOCAB <= _FIRST_CHANGES < TEXTS * VOCAB
        for some in (2, TEXTS, 2):
            shifts = random.normal(size=(some, VOCAB)).astype(np.float32) * 9
            changes = [LogitChanges(every, np.full(VOCAB, 1.5, np.float32), shift) for shift in shifts]
            draws = [Draw(9, i, 0.5, changes=each, allowed=mask if i % 2 else None) for i, each in enumerate(changes)]
            batch.submit(tokens, places, TABLES, wanted, [Draw(9)] * TEXTS)
            batch.submit(tokens, places, TABLES, wanted[:some], draws)
            assert [d.token for d in batch.read()] == logits.argmax(axis=1).tolist()
            for i, (row, draw, drawn) in enumerate(zip(logits, draws, batch.read(), strict=False)):
                after = reference.changed(row, every, changes[i].penalty, changes[i].shift)
                assert drawn.token == host_draw(reference.masked(after, mask) if i % 2 else after, draw)


def test_only_the_text_without_finite_logits_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token whose query is no number; fed as a token it is the first one, and reads no memory outside."""
    given = {name: table.copy() for name, table in tiny_program.tables(23).items()}
    given["q"][5] = np.nan
    monkeypatch.setattr(tiny_program, "tables", lambda vocab: given)
    file = tiny_program.tiny_program(vocab_size=23, context_len=16)
    with Runtime.get().load_program(file) as program, program.load_batch("forward", SMALL) as batch:
        batch.submit([1, 5, 3], [(0, 0), (1, 0), (0, 1)], SMALL_TABLES, [1, 2], [Draw(2, logprobs=3), Draw(1)])
        broken, other = batch.read()
        assert broken == Drawn(BROKEN) and 0 <= other.token < 23
        batch.submit([-1, -2], [(2, 0), (1, 1)], SMALL_TABLES, [0, 1], [Draw(3), Draw(2)])
        fed = batch.read()
        batch.submit([0, other.token], [(2, 0), (1, 1)], SMALL_TABLES, [0, 1], [Draw(3), Draw(2)])
        assert batch.read() == fed


def test_what_cannot_be_is_said_before_anything_runs(program: Program) -> None:
    texts = Texts()
    with load(program, in_flight=2) as batch:
        tokens, places, wanted = texts.prompts()
        with pytest.raises(InvalidInputError, match="no step is in flight"):
            batch.read()
        with pytest.raises(InvalidInputError, match="wants 5 rows, but says of 1"):
            batch.submit(tokens, places, TABLES, wanted, [Draw(0)])
        with pytest.raises(InvalidInputError, match=f"token {VOCAB} is not in the vocabulary"):
            batch.submit([VOCAB, *tokens[1:]], places, TABLES, wanted, [Draw(0)] * TEXTS)
        with pytest.raises(InvalidInputError, match="the step before drew 0"):
            batch.submit([-1, *tokens[1:]], places, TABLES, wanted, [Draw(0)] * TEXTS)
        with pytest.raises(InvalidInputError, match="allows none"):
            nothing = np.zeros(-(-VOCAB // 32), np.uint32)
            batch.submit(tokens, places, TABLES, wanted, [*[Draw(0)] * 4, Draw(0, allowed=nothing)])
        for _ in range(2):
            batch.submit(tokens, places, TABLES, wanted, [Draw(0)] * TEXTS)
        with pytest.raises(InvalidInputError, match="2 steps are in flight already"):
            batch.submit(tokens, places, TABLES, wanted, [Draw(0)] * TEXTS)
        with pytest.raises(InvalidInputError, match="drawn token 5, but the step before drew 5"):
            batch.submit([-6, *tokens[1:]], places, TABLES, wanted, [Draw(0)] * TEXTS)
        assert batch.read() == batch.read()
    with pytest.raises(ClosedError, match="this method is closed"):
        batch.step([1], [(0, 0)], TABLES, [0])
    with pytest.raises(ClosedError, match="this method is closed"):
        batch.read()
    with pytest.raises(InvalidInputError, match="in_flight is 0"):
        load(program, in_flight=0)


@pytest.mark.parametrize("all_logits", [False, True])
def test_steps_that_are_checked(all_logits: bool) -> None:
    """Every call of the model is held against its reference, also where the host does not know its tokens."""
    file = tiny_program.tiny_program(vocab_size=23, context_len=16, all_logits=all_logits)
    with Runtime.get().load_program(file) as program, program.load_batch("forward", SMALL, check=True) as batch:
        batch.submit([1, 2, 3], [(0, 0), (1, 0), (0, 1)], SMALL_TABLES, [1, 2], [Draw(2), Draw(1)])
        batch.submit([-1, -2], [(2, 0), (1, 1)], SMALL_TABLES, [0, 1], [Draw(3), Draw(2)])
        tokens = [[drawn.token for drawn in batch.read()] for _ in range(2)]
    prompts = [1, 2], [3]
    assert list(zip(*tokens, strict=True)) == [tuple(tiny_program.continuation(p, 2, 23)) for p in prompts]


def test_a_batch_may_be_closed_while_steps_are_in_flight(program: Program) -> None:
    texts = Texts()
    step = texts.prompts()
    for _ in range(3):
        with load(program, in_flight=3) as batch:
            for _ in range(3):
                batch.submit(*step[:2], TABLES, step[2], texts.draws(range(TEXTS)))
    with load(program) as batch:
        batch.submit(*step[:2], TABLES, step[2], texts.draws(range(TEXTS)))
        assert len(batch.read()) == TEXTS


def test_what_steps_upload_makes_none_wait_for_all(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more than the engine may hold a copy of, in all; but what is read has arrived."""
    texts = Texts()
    step = texts.prompts()
    masks = [np.full(VOCAB // 32, 0xFFFFFFFF, np.uint32)] * TEXTS

    def draws(turn: int) -> list[Draw]:
        """Others in each step: what a buffer holds already is not written again."""
        shifts = np.full(VOCAB, turn, np.float32)
        table = LogitChanges(np.arange(VOCAB, dtype=np.int32), np.ones(VOCAB, np.float32), shifts)
        return [Draw(5, changes=table, allowed=mask) for mask in masks]

    with load(program) as batch:
        batch.submit(*step[:2], TABLES, step[2], draws(0))
        memory, waits = batch._device.memory, []
        before = memory.uploaded_bytes
        monkeypatch.setattr(batch._device, "flush", lambda: waits.append(1))
        for turn in range(100):
            batch.submit(*step[:2], TABLES, step[2], draws(turn))
            batch.read()
        monkeypatch.undo()
        assert memory.uploaded_bytes - before > 4 << 20 and not waits and memory.staged_bytes < 1 << 20


def test_many_steps_leave_memory_as_it_was(program: Program) -> None:
    texts = Texts()
    tokens, places, wanted = texts.prompts()
    with load(program) as batch:
        used = []
        for step in range(60):
            draws = [replace(draw, position=step) for draw in texts.draws(range(TEXTS))]
            batch.submit(tokens, places, TABLES, wanted, draws)
            batch.read()
            used.append(batch._device.memory.live_bytes)
        assert len(set(used[2:])) == 1

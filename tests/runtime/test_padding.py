"""Steps of a few sizes: what is added to them changes nothing for anybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.graph.batching import BatchSizes
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program
from executorch_webgpu.runtime.batch import Draw
from executorch_webgpu.runtime.padding import padded

SIZES = BatchSizes(rows=21, wanted=7, sequences=5, context_len=32, page_rows=4, pages=40)
TABLES = np.arange(40, dtype=np.int32).reshape(5, 8)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("padding") / "model.pte"
    config = replace(SHAPES["tiny"], context_len=32, vocab=97)
    write_llama(path, config, LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=32))
    with Runtime.get().load_program(path) as program:
        yield program


@given(st.integers(0, 600), st.integers(0, 600))
def test_sizes(count: int, more: int) -> None:
    most = count + more
    size = padded(count, most)
    assert count <= size <= most and padded(size, most) == size
    assert size <= max(2 * count, count + 64)


def test_there_are_few_sizes() -> None:
    assert len({padded(count, 512) for count in range(513)}) == 10 + 7


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_added_rows_change_nothing(program: Program, data: st.DataObject) -> None:
    """Logits and tokens are, bit for bit, those of the step alone, at every number of rows and of wanted ones."""
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    lengths = [0] * 5
    with (
        program.load_batch("forward", SIZES, pad=False) as alone,
        program.load_batch("forward", SIZES, pad=True) as more,
    ):
        for _ in range(6):
            if random.integers(2):
                more.warm_up(int(random.choice(more.step_sizes)))
            tokens: list[int] = []
            places: list[tuple[int, int]] = []
            for text in random.permutation(5)[: random.integers(1, 6)]:
                count = min(int(random.integers(1, 8)), 21 - len(tokens), 32 - lengths[text])
                tokens += random.integers(0, 97, count).tolist()
                places += [(lengths[text] + i, int(text)) for i in range(count)]
                lengths[text] += count
            if not tokens:
                continue
            wanted = random.integers(0, len(tokens), random.integers(0, 8)).tolist()
            if random.integers(2):
                draws = [Draw(5, seed=i, temperature=i % 2, logprobs=2) for i in range(len(wanted))]
                for batch in (alone, more):
                    batch.submit(tokens, places, TABLES, wanted, draws)
                assert alone.read() == more.read()
            else:
                np.testing.assert_array_equal(
                    more.step(tokens, places, TABLES, wanted), alone.step(tokens, places, TABLES, wanted)
                )


def test_every_size_is_warmed_up(program: Program) -> None:
    """Later steps of a size find all plans that do not depend on texts; meanwhile nobody may wait for a step."""
    with program.load_batch("forward", SIZES, pad=True) as batch:
        assert batch.step_sizes == sorted({padded(rows, SIZES.rows) for rows in range(1, SIZES.rows + 1)})
        for rows in batch.step_sizes:
            batch.warm_up(rows)
        batch.submit([1, 2], [(0, 0), (1, 0)], TABLES, [1], [Draw(2)])
        with pytest.raises(InvalidInputError, match="in flight"):
            batch.warm_up(1)
        batch.read()
        batch.warm_up(1)
    with program.load_batch("forward", SIZES, pad=False) as batch:
        assert batch.step_sizes == []


def test_steps_that_cannot_be_are_refused_as_they_are_alone(program: Program) -> None:
    with program.load_batch("forward", SIZES, pad=True) as batch:
        for tokens, places, tables, wanted in (
            ([1] * 22, [(0, 0)] * 22, TABLES, [0]),  # rows
            ([1], [(0, 0)], TABLES, [0] * 8),  # wanted
            ([1], [(0, 5)], TABLES, [0]),  # a sequence that is not the caller's
            ([1], [(32, 0)], TABLES, [0]),  # a position
            ([1], [(0, 0)], TABLES + 1, [0]),  # a page that is not the caller's
            ([1], [(0, 0)], np.zeros((6, 8), np.int32), [0]),
            ([1], [(0, 0), (1, 0)], TABLES, [0]),
            ([1], [(0, 0)], TABLES, [1]),  # a row that is there only beside the caller's
        ):
            with pytest.raises(InvalidInputError):
                batch.step(tokens, places, tables, wanted)
        assert batch.step([1], [(0, 0)], TABLES, [0]).shape == (1, 97)

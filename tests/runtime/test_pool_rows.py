"""Rows of a pool: copied, saved and loaded, and never read by a text that did not write or match them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.graph.batching import BatchSizes
from executorch_webgpu.graph.kv_pages import PagedText, PagePool
from executorch_webgpu.llm import LanguageModel
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program
from executorch_webgpu.runtime.batch import BatchMethod
from executorch_webgpu.runtime.state_file import read_arrays
from tests.llm.chain_program import chain_program, chain_table
from tests.llm.exported import FOLDER
from tests.ops.harness import assert_close

CONTEXT, ROWS, PAGES, SEQUENCES = 32, 4, 20, 3
DTYPES = ["f32", "f16", "int8"]
TEXT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
Array = np.ndarray


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("rows") / "model.pte"
    config = replace(SHAPES["tiny"], context_len=CONTEXT)
    write_llama(path, config, LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=CONTEXT))
    with Runtime.get().load_program(path) as program:
        yield program


class Texts:
    """A batch with its pool, and steps of single texts."""

    def __init__(self, program: Program, dtype: str = "f32", pages: int = PAGES) -> None:
        sizes = BatchSizes(16, 4, SEQUENCES, CONTEXT, ROWS, pages)
        self.batch: BatchMethod = program.load_batch("forward", sizes, kv_cache_dtype=dtype)
        self.pool = PagePool(pages, ROWS)

    def __enter__(self) -> Texts:
        return self

    def __exit__(self, *_: object) -> None:
        self.batch.close()

    def begin(self, tokens: list[int]) -> PagedText:
        return self.pool.begin(tokens)

    def run(self, text: PagedText, tokens: list[int]) -> Array:
        """Further tokens of a text; the logits after the last one."""
        assert self.pool.reserve(text, len(tokens))
        tables = np.zeros((SEQUENCES, self.batch.sizes.table_width), np.int32)
        tables[1, : len(text.pages)] = text.block_table
        start = len(text.tokens)
        places = [(start + i, 1) for i in range(len(tokens))]
        (logits,) = self.batch.step(tokens, places, tables, [len(tokens) - 1])
        self.pool.filled(text, tokens)
        return np.asarray(logits)

    def poison(self) -> None:
        """Every row of every pool is NaN, or as large as its dtype allows."""
        arrays = self.batch.rows.read(range(PAGES), PAGES * ROWS)
        for array in arrays.values():
            array.fill(127 if array.dtype == np.int8 else np.nan)
        self.batch.rows.write(range(PAGES), 0, arrays)


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisoned_pages_are_not_read(program: Program, dtype: str) -> None:
    with Texts(program, dtype) as clean, Texts(program, dtype) as poisoned:
        wanted = [clean.run(clean.begin(TEXT), TEXT), clean.run(clean.begin([7, 7, 7]), [7, 7, 7])]
        poisoned.poison()
        text = poisoned.begin(TEXT)
        assert_close(poisoned.run(text, TEXT), wanted[0], 0, 0)
        assert_close(poisoned.run(poisoned.begin([7, 7, 7]), [7, 7, 7]), wanted[1], 0, 0)
        # Pages that are given back and poisoned are clean for whoever gets them.
        poisoned.pool.end(text)
        poisoned.poison()
        assert_close(poisoned.run(PagedText(), TEXT), wanted[0], 0, 0)


def test_poison_is_seen_where_it_is_read(program: Program) -> None:
    """Negative control: a text whose own rows are poisoned has no logits."""
    with Texts(program) as texts:
        text = texts.begin(TEXT)
        texts.run(text, TEXT)
        texts.poison()
        assert np.isnan(texts.run(text, [1])).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copied_page_goes_on_by_itself(program: Program, dtype: str) -> None:
    with Texts(program, dtype) as texts:
        first = texts.begin(TEXT)
        texts.run(first, TEXT)
        second = texts.begin(TEXT)
        assert second.block_table == first.block_table[:2]
        assert texts.pool.rewind(second, 6, texts.batch.rows.copy_page) == 6
        assert second.block_table[1] not in first.block_table
        # Other numbers of rows are added up in another order, which caches of fewer bits round to neighbours; tensor
        # cores round, too.
        close = {"f32": 1e-5, "f16": 1e-3, "int8": 2e-2}[dtype]
        if texts.batch._device.features.subgroup_matrix:
            close = max(close, 5e-3)
        with Texts(program, dtype) as alone:
            other = [*TEXT[:6], 11, 12]
            assert_close(texts.run(second, [11, 12]), alone.run(alone.begin(other), other), close, close)
            again = alone.begin([*TEXT, 8])
            assert_close(texts.run(first, [8]), alone.run(again, [*TEXT, 8][len(again.tokens) :]), close, close)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_text_is_saved_and_found_by_another_engine(program: Program, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "text.npz"
    with Texts(program, dtype) as one, Texts(program, dtype) as two:
        text = one.begin(TEXT)
        one.run(text, TEXT)
        assert one.batch.rows.save(one.pool, TEXT, path) == 8, "full pages"
        assert one.batch.rows.save(one.pool, [9, 9], tmp_path / "none.npz") == 0
        held = two.begin([0] * 9)
        two.run(held, [0] * 9)
        free = two.pool.free
        assert two.batch.rows.load(two.pool, path) == TEXT[:8]
        assert two.pool.free == free
        found = two.begin(TEXT)
        assert found.tokens == TEXT[:8]
        assert_close(two.run(found, TEXT[8:]), one.run(one.begin(TEXT), TEXT[8:]), 1e-6, 1e-6)
        for name, array in one.batch.rows.read(text.block_table, 8).items():
            np.testing.assert_array_equal(array, two.batch.rows.read(found.block_table, 8)[name])
        assert two.batch.rows.load(two.pool, path) == TEXT[:8], "what is there already is not loaded again"


@pytest.mark.parametrize("dtype", DTYPES)
def test_states_of_one_sequence_go_on_among_many_and_back(program: Program, tmp_path: Path, dtype: str) -> None:
    path, back = tmp_path / "state.npz", tmp_path / "back.npz"
    with LanguageModel(program, kv_cache_dtype=dtype) as model, Texts(program, dtype) as texts:
        model.prefill(TEXT)
        method, state = model.runs_on()
        state.save(path)
        with pytest.raises(InvalidInputError, match="does not say of which text it is"):
            texts.batch.rows.load(texts.pool, path)
        assert texts.batch.rows.load(texts.pool, path, TEXT) == TEXT[:8]
        found = texts.begin(TEXT)
        assert len(found.tokens) == 8
        logits = texts.run(found, TEXT[8:])
        assert_close(logits, model.prefill(TEXT), 2e-2 if dtype == "int8" else 1e-3, 1e-2)
        assert texts.batch.rows.save(texts.pool, TEXT, back) == 8
        with method.new_state() as other:
            other.load(back)
            assert other.length == 8
            (after,) = method.execute([np.array([TEXT[8:]]), np.array([8])], other)
        assert_close(np.ravel(after), logits, 2e-2 if dtype == "int8" else 1e-3, 1e-2)


def test_a_pool_without_room_takes_the_beginning(program: Program, tmp_path: Path) -> None:
    path, text = tmp_path / "text.npz", [*range(17)]
    with Texts(program) as one, Texts(program, pages=4) as two:
        long = one.begin(text)
        for start in (0, 9):
            one.run(long, text[start : start + 9])
        assert one.batch.rows.save(one.pool, text, path) == 16
        other = two.begin([5] * 6)
        two.run(other, [5] * 6)
        assert two.batch.rows.load(two.pool, path) == text[:8]
        assert two.pool.free == 2


def test_files_that_do_not_fit_change_nothing(program: Program, tmp_path: Path) -> None:
    path, damaged = tmp_path / "text.npz", tmp_path / "damaged.npz"
    with Texts(program) as texts, Texts(program, "f16") as narrow:
        texts.run(texts.begin(TEXT), TEXT)
        texts.batch.rows.save(texts.pool, TEXT, path)
        arrays = read_arrays(path)
        name = next(n for n in arrays if n.startswith("graph0"))
        np.savez(damaged, allow_pickle=False, **{**arrays, name: arrays[name][:, :2]})
        known = texts.pool.begin([*TEXT[:8], 0]).block_table
        for file, of, text, message in (
            (path, narrow, None, "KV caches of f32, not of f16"),
            (damaged, texts, None, "is damaged"),
            (path, texts, TEXT[:3], "holds 8 tokens, but the text that was given has 3"),
            (path, texts, ["x"] * 8, "a text is a list of integers"),
            (tmp_path / "none", texts, None, "cannot read the state"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                of.batch.rows.load(of.pool, file, text)  # type: ignore[arg-type]  # of wrong types
        assert texts.pool.begin([*TEXT[:8], 0]).block_table == known
        assert narrow.pool.free == PAGES


def test_caches_that_are_no_rows_of_a_state_have_files_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    with Runtime.get().load_program(FOLDER / "gpt_copy.pte") as program, Texts(program) as one, Texts(program) as two:
        one.run(one.begin(TEXT), TEXT)
        assert one.batch.rows.save(one.pool, TEXT, path) == 8
        assert all(name.startswith("pool") for name in read_arrays(path) if name not in ("about", "tokens"))
        assert two.batch.rows.load(two.pool, path) == TEXT[:8]
        found = two.begin(TEXT)
        assert_close(two.run(found, TEXT[8:]), one.run(one.begin(TEXT), TEXT[8:]), 1e-6, 1e-6)


def test_a_program_whose_caches_nothing_reads_has_no_rows(tmp_path: Path) -> None:
    table = chain_table(11)
    with Runtime.get().load_program(chain_program(table, context_len=CONTEXT)) as program, Texts(program) as texts:
        text = texts.begin(TEXT)
        np.testing.assert_allclose(texts.run(text, TEXT), table[TEXT[-1]])
        assert texts.batch.rows.read(text.block_table, 8) == {}
        texts.batch.rows.copy_page(0, 1)
        assert texts.batch.rows.save(texts.pool, TEXT, tmp_path / "text.npz") == 8
        with Texts(program) as other:
            assert other.batch.rows.load(other.pool, tmp_path / "text.npz") == TEXT[:8]

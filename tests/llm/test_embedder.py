"""Texts in batches through programs of the stock exporter, against torch's vectors of each text by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu import ClosedError, InvalidInputError, Program, Runtime, UnsupportedProgramError
from executorch_webgpu.llm.embedder import Embedder
from executorch_webgpu.llm.embedding_batches import Batch, batches
from executorch_webgpu.llm.encoder_signature import EncoderSignature
from executorch_webgpu.models.sentence_transformers import SentenceSettings, read_settings
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.exported_encoders import DIM, EXPORTS, FOLDER, MOST, TEXTS, VOCAB
from tests.ops.harness import assert_close

PROGRAMS = Path(__file__).parents[1] / "data"
OPTIONS: dict[str, dict[str, Any]] = {
    "states": {"pooling": "mean"},
    "types_fixed": {"pooling": "mean"},
    "no_mask_flat": {"pooling": "mean"},
    "no_mask_fixed": {"pooling": "mean"},
    "finds_padding": {"pad_token": 0},
}
Open = Callable[..., Embedder]


@pytest.fixture
def embedder() -> Iterator[Open]:
    """Opens the encoder of a program by its name, with the options that it needs and those that are given."""
    opened: list[Program] = []

    def open(name: str, tokenizer: Tokenizer | None = None, **options: Any) -> Embedder:
        opened.append(Runtime.get().load_program(FOLDER / f"{name}.pte"))
        return Embedder(opened[-1], tokenizer, **OPTIONS.get(name, {}) | options)

    yield open
    for program in opened:
        program.close()


def vectors(name: str) -> np.ndarray:
    """torch's, of ``TEXTS``."""
    return np.array(json.loads((FOLDER / "vectors.json").read_text())[name], np.float32)


@pytest.fixture(scope="module")
def word_tokenizer() -> Tokenizer:
    """Words w0 … w30, with w1 before every text and w2 after it."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w30"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="w1 $A w2", special_tokens=[("w1", 1), ("w2", 2)]
    )
    return Tokenizer.from_files({"tokenizer.json": backend.to_str().encode()})


def test_every_export_has_its_program() -> None:
    assert {path.stem for path in FOLDER.glob("*.pte")} == set(EXPORTS)


@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "no_mask_fixed"])
def test_texts_of_unequal_lengths(name: str, embedder: Open) -> None:
    opened, wanted = embedder(name), vectors(name)
    assert (opened.dim, opened.max_tokens) == (DIM, MOST)
    got = opened.embed(TEXTS)
    assert got.dtype == np.float32
    assert_close(got, wanted)
    backwards = opened.embed(TEXTS[::-1])
    assert_close(backwards, wanted[::-1])
    for text, vector in zip(TEXTS, wanted, strict=True):
        assert_close(opened.embed([text])[0], vector)


def test_the_padding_token_changes_nothing(embedder: Open) -> None:
    """Where the mask says what is text, bit for bit."""
    expected = embedder("states").embed(TEXTS)
    for token in (7, 30):
        np.testing.assert_array_equal(embedder("states", pad_token=token).embed(TEXTS), expected)


@pytest.fixture(scope="module")
def pooled() -> Iterator[Embedder]:
    with Runtime.get().load_program(FOLDER / "pooled.pte") as program, Embedder(program) as opened:
        yield opened


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_text_beside_any_others(data: st.DataObject, pooled: Embedder) -> None:
    """Its vector is the same in whatever batch and place, and others' tokens do not show in it."""
    text = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=MOST)
    others = data.draw(st.lists(text, max_size=6))
    place = data.draw(st.integers(0, len(others)))
    got = pooled.embed([*others[:place], TEXTS[0], *others[place:]])[place]
    assert_close(got, vectors("pooled")[0])


def test_a_program_without_a_mask_takes_equal_lengths_together(embedder: Open) -> None:
    opened = embedder("no_mask")
    shapes: list[tuple[int, ...]] = []
    execute = opened._method.execute
    opened._method.execute = lambda inputs: (shapes.append(inputs[0].shape), execute(inputs))[1]  # type: ignore[assignment, func-returns-value]
    assert_close(opened.embed(TEXTS), vectors("no_mask"))
    assert shapes == [(1, 9), (1, 5), (1, 4), (2, 3), (1, 2), (1, 1)]


def test_one_length_without_a_mask_is_exact_or_refused(embedder: Open) -> None:
    opened = embedder("no_mask_fixed")
    assert_close(opened.embed([TEXTS[0]] * 4), vectors("no_mask_fixed")[[0] * 4])
    with pytest.raises(
        InvalidInputError, match="text 1 has 1 tokens, but the program takes exactly 9 and no attention"
    ):
        opened.embed(TEXTS)
    assert embedder("no_mask_fixed", pad_token=0).embed(TEXTS).shape == (len(TEXTS), DIM)
    with pytest.raises(InvalidInputError, match="name the pad_token"):
        embedder("finds_padding", pad_token=None).embed(TEXTS)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "mean_sqrt_len", "last"])
def test_poolings_of_a_last_hidden_state(pooling: str, embedder: Open) -> None:
    """Of one's own rows only; a text of one token is that token in all of them."""
    got = embedder("states", pooling=pooling).embed(TEXTS)
    of_each = [embedder("states", pooling=pooling).embed([text])[0] for text in TEXTS[:2]]
    assert_close(got[:2], np.stack(of_each))
    assert_close(got[1], vectors("states")[1])
    if pooling != "mean":
        assert np.abs(got[0] - vectors("states")[0]).max() > 1e-2


@pytest.mark.parametrize("name", ["states", "pooled"])
def test_vectors_of_length_one(name: str, embedder: Open) -> None:
    got, wanted = embedder(name, normalize=True).embed(TEXTS), vectors(name)
    assert_close(got, wanted / np.linalg.norm(wanted, axis=1, keepdims=True))


def test_words(embedder: Open, word_tokenizer: Tokenizer) -> None:
    opened = embedder("pooled", word_tokenizer)
    assert opened.encode("w3 w9") == [1, 3, 9, 2]
    assert_close(opened.embed_texts(["w3 w9", "w5"]), opened.embed([[1, 3, 9, 2], [1, 5, 2]]))
    with pytest.raises(InvalidInputError, match="this encoder has no tokenizer"):
        embedder("pooled").encode("w3")


def test_truncation_keeps_what_ends_every_text(embedder: Open, word_tokenizer: Tokenizer) -> None:
    opened = embedder("pooled", word_tokenizer)
    long = opened.encode(" ".join(f"w{i}" for i in range(3, 20)))
    with pytest.raises(InvalidInputError, match="text 1 has 19 tokens, but there is room for 9"):
        opened.embed([[5], long])
    assert_close(opened.embed([long], truncate=True), opened.embed([[1, 3, 4, 5, 6, 7, 8, 9, 2]]))
    assert_close(opened.embed([long[:-1]], truncate=True), opened.embed([[1, 3, 4, 5, 6, 7, 8, 9, 10]]))
    assert_close(opened.embed([[5, 2]], truncate=True), opened.embed([[5, 2]]))


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ([], "there are no texts"),
        ([[1], []], "text 1 has no tokens"),
        ([[1, VOCAB]], f"text 0 has token {VOCAB}, which is outside of the model's vocabulary of {VOCAB}"),
        ([[-1]], "text 0 has token -1"),
        ([[1.5]], "text 0 is no list of token ids"),
        (["words"], "text 0 is no list of token ids"),
        ([[[1]]], "text 0 is no list of token ids"),
        ([[True]], "text 0 is no list of token ids"),
        ([[1 << 40]], "outside of the model's vocabulary"),
    ],
)
def test_texts_that_cannot_be(texts: Any, match: str, embedder: Open) -> None:
    opened = embedder("pooled")
    with pytest.raises(InvalidInputError, match=match):
        opened.embed(texts)
    assert_close(opened.embed(TEXTS), vectors("pooled"))


def test_tokens_outside_of_a_vocabulary_that_nothing_states(embedder: Open) -> None:
    opened = embedder("states")
    with pytest.raises(InvalidInputError, match=f"{VOCAB}"):
        opened.embed([[VOCAB]])
    assert_close(opened.embed(TEXTS), vectors("states"))


def test_what_does_not_fit_the_program(embedder: Open) -> None:
    for name, options, match in (
        ("states", {"pooling": None}, "does not say how these become one of the text: name the pooling"),
        ("states", {"pooling": "median"}, "no pooling 'median'; choose mean, cls"),
        ("pooled", {"pooling": "cls"}, "one vector of each text already"),
    ):
        with pytest.raises(InvalidInputError, match=match):
            embedder(name, **options)
    for path in (PROGRAMS / "engine" / "llama.pte", next((PROGRAMS / "programs").glob("*.pte"))):
        with Runtime.get().load_program(path) as program, pytest.raises(UnsupportedProgramError, match="encoder"):
            Embedder(program)


def test_threads_wait_for_each_other(embedder: Open) -> None:
    opened = embedder("pooled")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: opened.embed(TEXTS), range(12)))
    for got in results:
        np.testing.assert_array_equal(got, results[0])
    opened.close()
    opened.close()
    with pytest.raises(ClosedError):
        opened.embed(TEXTS)


LIVE = EncoderSignature((np.dtype("int64"),) * 2, 4, 100, 100, True, True, True, 8, None)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.booleans(), st.booleans())
def test_batches_have_every_text_once(lengths: list[int], pads: bool, live: bool) -> None:
    signature = LIVE if live or not pads else EncoderSignature(LIVE.inputs, 4, 100, 100, False, False, True, 8, None)
    made = batches(lengths, signature, pads=pads)
    assert sorted(place for batch in made for place in batch.places) == list(range(len(lengths)))
    for batch in made:
        own = [lengths[place] for place in batch.places]
        assert 1 <= len(own) <= 4 and max(own) <= batch.length <= 100
        if not pads:
            assert set(own) == {batch.length}
        elif live:
            assert batch.length < max(max(own) + 8, 1.25 * max(own))
            assert batch.length in {8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 100}


def test_a_long_text_does_not_fill_up_many_short_ones() -> None:
    wide = EncoderSignature(LIVE.inputs, 64, 512, 512, True, True, True, 8, None)
    long, short = batches([5] * 40 + [500], wide, pads=True)
    assert (long.length, short.length) == (512, 8) and len(short.places) >= 39
    assert batches([5, 30, 12], wide, pads=True) == [Batch((1, 2, 0), 32)]


def test_settings_are_what_their_files_say() -> None:
    for its in (
        SentenceSettings(),
        SentenceSettings(("cls", "max"), (), True, 7, True),
        SentenceSettings(("last",), normalize=True),
    ):
        assert read_settings(lambda name, its=its: its.files().get(name)) == its
    assert read_settings(lambda name: None) is None

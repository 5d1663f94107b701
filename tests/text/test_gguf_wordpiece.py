"""A WordPiece vocabulary in a GGUF file gives the tokens of the tokenizer.json that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf import GGUFValueType
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.models.library import find_model
from executorch_webgpu.text.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL = 1, 2, 3
TEXTS = (
    "Hello, world!",
    "Ärzte raten: trink mehr Wasser — naïve café",
    "unbelievably long-winded antidisestablishmentarianism",
    "東京は日本の首都です。",
    "tabs\tand\nlines  and\u00a0spaces \x00 \ufffd",
    "[CLS] is text, and so is [SEP] [MASK]",
    "🙂 emoji, 12,345.67 $ x_y ##ing ▁under",
    "",
)


def write(path: Path, tokens: list[str], ids: dict[str, int], without: str = "") -> Path:
    """As llama.cpp's converter writes the vocabulary of a BERT."""
    writer = gguf.GGUFWriter(path, "bert")
    kinds = [CONTROL if t.startswith("[") and t.endswith("]") and len(t) > 2 else NORMAL for t in tokens]

    def phantom(token: str, kind: int) -> str:
        return token if kind == CONTROL else token[2:] if token.startswith("##") else "\u2581" + token

    texts = [phantom(token, kind) for token, kind in zip(tokens, kinds, strict=True)]
    keys: dict[str, tuple[Any, GGUFValueType]] = {
        "model": ("bert", GGUFValueType.STRING),
        "tokens": (texts, GGUFValueType.ARRAY),
        "token_type": (kinds, GGUFValueType.ARRAY),
        **{f"{name}_token_id": (index, GGUFValueType.UINT32) for name, index in ids.items()},
    }
    for name, (value, kind) in keys.items():
        if name != without:
            writer.add_key_value(f"tokenizer.ggml.{name}", value, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def original() -> Tokenizer:
    return Tokenizer.from_file(find_model("all-minilm-l6-v2"))


@pytest.fixture(scope="module")
def vocabulary(original: Tokenizer) -> list[str]:
    tokens = [str(original.backend.id_to_token(index)) for index in range(original.vocab_size)]
    # The converter takes those that tokenizer_config.json calls special, and the unused ones are ordinary text.
    return [token.replace("[unused", "unused(") if token.startswith("[unused") else token for token in tokens]


def ids(tokens: list[str], first: str, last: str) -> dict[str, int]:
    named = {first: "[CLS]", last: "[SEP]", "unknown": "[UNK]", "padding": "[PAD]", "mask": "[MASK]"}
    return {name: tokens.index(text) for name, text in named.items()}


@pytest.fixture(scope="module")
def converted(vocabulary: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("wordpiece") / "m.gguf"
    return Tokenizer.from_file(write(path, vocabulary, ids(vocabulary, "cls", "seperator")))


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text: str, original: Tokenizer, converted: Tokenizer) -> None:
    assert converted.encode(text) == original.encode(text)
    assert converted.decode(converted.encode(text)) == original.decode(original.encode(text))
    again = Tokenizer.from_files(converted.files())  # as a program carries it
    assert again.encode(text) == original.encode(text)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text(text: str, original: Tokenizer, converted: Tokenizer) -> None:
    assert converted.encode(text) == original.encode(text)


def test_names_of_older_and_newer_files(vocabulary: list[str], original: Tokenizer, tmp_path: Path) -> None:
    newer = Tokenizer.from_file(write(tmp_path / "a.gguf", vocabulary, ids(vocabulary, "bos", "eos")))
    assert newer.encode(TEXTS[0]) == original.encode(TEXTS[0])
    assert newer.settings.special_tokens["pad_token"] == "[PAD]"


@pytest.mark.parametrize(
    ("without", "match"),
    [
        ("unknown_token_id", "names no unknown token"),
        ("seperator_token_id", "does not name the tokens around every"),
    ],
)
def test_vocabularies_that_lack_something(without: str, match: str, vocabulary: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", vocabulary[:2000], ids(vocabulary, "cls", "seperator"), without)
    with pytest.raises(InvalidInputError, match=match):
        Tokenizer.from_file(path)

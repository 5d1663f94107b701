"""all-MiniLM-L6-v2 with its own weights: by the stock exporter and converted, against transformers on text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import export_encoder
from executorch_webgpu import Runtime
from executorch_webgpu.llm.embedder import Embedder
from executorch_webgpu.models.encoder import EncoderOptions
from executorch_webgpu.models.library import find_model, find_program
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.differential.programs_cheap import make_export_cheap

# Each two after each other say the same.
TEXTS = (
    "The cat sat in the sun.",
    "A kitten was lying where it was warm and bright.",
    "Interest rates rose again in March, for the third time this year.",
    "The central bank made borrowing more expensive once more.",
    "How do I reset my password?",
    "I forgot my login and cannot get into my account; what should I do now?",
    "Ärzte raten: trink mehr Wasser!",
    "Hi",
    "",
)
MODEL = "all-minilm-l6-v2"


@pytest.fixture(scope="module")
def folder() -> Path:
    return find_model(MODEL)


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    """By transformers' tokenizer and model, each text by itself."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), export_encoder.sentence_encoder(folder)
    with torch.no_grad():
        encoded = [tokenizer(text, return_tensors="pt") for text in TEXTS]
        return np.concatenate([model(e["input_ids"], e["attention_mask"]).numpy() for e in encoded])


def check(embedder: Embedder, expected: np.ndarray, off: float, cosine: float) -> None:
    got = embedder.embed_texts(TEXTS)
    assert np.abs(got - expected).max() <= off
    assert np.sum(got * expected, axis=1).min() >= cosine
    closeness = got @ got.T - 2 * np.eye(len(got))
    assert all(closeness[i].argmax() == (i ^ 1) for i in range(6))


def test_exported_by_the_stock_tools(folder: Path, expected: np.ndarray) -> None:
    make_export_cheap()
    path = export_encoder.exported(folder)
    with Runtime.get().load_program(path) as program, Embedder(program, Tokenizer.from_file(folder)) as embedder:
        assert (embedder.dim, embedder.max_tokens) == (384, 256)
        check(embedder, expected, off=1e-6, cosine=0.999999)


@pytest.mark.parametrize(
    ("weights", "off", "cosine"),
    [("f32", 1e-6, 0.999999), ("f16", 3e-4, 0.9999), ("native", 6e-3, 0.999), ("q8csw", 3e-2, 0.99)],
)
def test_converted(weights: Any, off: float, cosine: float, expected: np.ndarray) -> None:
    path = find_program(MODEL, EncoderOptions(weights))
    with Runtime.get().load_program(path) as program, Embedder(program) as embedder:
        assert (embedder.dim, embedder.max_tokens, embedder.normalize) == (384, 256, True)
        check(embedder, expected, off, cosine)


def test_by_default_it_is_converted_to_eight_bits() -> None:
    assert find_program(MODEL).stat().st_size < 30e6

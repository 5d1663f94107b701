"""A real server over a tiny program, one for all tests that do it no lasting harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.encoder import EncoderOptions
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.chat_model import ChatModel, write_chat_model
from tests.text.tiny_vocabulary import write_bpe

from .served import Served, Witness, serve

CONTEXT = 256


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A program that answers in capital letters, unless it is told otherwise, with its tokenizer inside."""
    model = write_chat_model(tmp_path_factory.mktemp("served"), CONTEXT)
    options = LlamaOptions("f32", max_seq_len=33, max_context_len=CONTEXT)
    convert(model.program.with_suffix(".gguf"), model.program, options, tokenizer=Tokenizer.from_file(model.tokenizer))
    return model


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that embeds texts."""
    from tests.models.tiny_encoder import TinyEncoder  # of torch's classes, which the fast tests do without

    folder = tmp_path_factory.mktemp("encoder")
    source = TinyEncoder(fields={"vocab_size": 400}, poolings=("mean",), normalize=True).write(folder / "model")
    program = folder / "encoder.pte"
    convert(source, program, EncoderOptions("f32", max_batch=4), tokenizer=write_bpe(folder / "vocabulary.gguf"))
    return program


@pytest.fixture(scope="session")
def served(chat_model: ChatModel, encoder: Path) -> Iterator[Served]:
    with serve(chat_model.program, "--kv-pages", "640", "--embeddings", str(encoder)) as server:
        yield server


@pytest.fixture(scope="session")
def witness(served: Served) -> Witness:
    """A stream that must not change, whatever others do."""
    return Witness(served, "hello world", 150)

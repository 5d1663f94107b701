"""``/v1/embeddings`` through the openai package, of a server that has an encoder only, against that encoder here."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI

from executorch_webgpu import Runtime
from executorch_webgpu.llm.embedder import Embedder
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.encoder import EncoderOptions
from tests.models.tiny_encoder import TinyEncoder
from tests.serve.serving import Serving, serving
from tests.text.tiny_vocabulary import write_bpe

TEXTS = ["hello", "12 hello 12 é", "a"]
MODEL = "encoder"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    source = TinyEncoder(fields={"vocab_size": 400}, poolings=("mean",), normalize=True).write(folder / "model")
    program = folder / f"{MODEL}.pte"
    convert(source, program, EncoderOptions("f32", max_batch=4), tokenizer=write_bpe(folder / "vocabulary.gguf"))
    return program


@pytest.fixture(scope="module")
def embedding_server(encoder: Path) -> Iterator[Serving]:
    with serving(["--embeddings", str(encoder)]) as running:
        yield running


@pytest.fixture(scope="module")
def embedding_client(embedding_server: Serving) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{embedding_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def embedder(encoder: Path) -> Iterator[Embedder]:
    with Runtime.get().load_program(encoder) as program, Embedder(program) as embedder:
        yield embedder


def embed(client: OpenAI, given: Any, **fields: Any) -> np.ndarray:
    """Embeddings [n, dim]; their order is that of the texts."""
    done = client.embeddings.create(model=MODEL, input=given, **fields)
    assert done.model == MODEL and [each.index for each in done.data] == list(range(len(done.data)))
    given_as: list[Any] = [each.embedding for each in done.data]
    if fields.get("encoding_format") == "base64":
        return np.stack([np.frombuffer(base64.b64decode(each), "<f4") for each in given_as])
    return np.array(given_as)


def test_texts_and_tokens_in_both_formats(embedding_client: OpenAI, embedder: Embedder) -> None:
    tokens = [embedder.encode(text) for text in TEXTS]
    wanted = embedder.embed(tokens)
    for form in ("base64", "float"):
        for given, rows in ((TEXTS, wanted), (tokens, wanted), (TEXTS[0], wanted[:1]), (tokens[0], wanted[:1])):
            np.testing.assert_allclose(embed(embedding_client, given, encoding_format=form), rows, atol=1e-5)
    np.testing.assert_allclose(embed(embedding_client, TEXTS), wanted, atol=1e-5)


def test_usage_counts_tokens(embedding_client: OpenAI, embedder: Embedder) -> None:
    done = embedding_client.embeddings.create(model=MODEL, input=TEXTS)
    count = sum(len(embedder.encode(text)) for text in TEXTS)
    assert (done.usage.prompt_tokens, done.usage.total_tokens) == (count, count)


def test_fewer_dimensions_are_scaled_to_length_one(embedding_client: OpenAI, embedder: Embedder) -> None:
    wanted = embedder.embed([embedder.encode(text) for text in TEXTS])[:, :5]
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(embedding_client, TEXTS, dimensions=5), wanted, atol=1e-5)


def test_long_texts_are_refused_or_cut(embedding_client: OpenAI, embedder: Embedder) -> None:
    long = "a" * 200
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        embed(embedding_client, ["a", long])
    assert (refused.value.param, refused.value.code) == ("input[1]", "context_length_exceeded")
    wanted = embedder.embed([embedder.encode(long)], truncate=True)
    np.testing.assert_allclose(embed(embedding_client, long, extra_body={"truncate": True}), wanted, atol=1e-5)


@pytest.mark.parametrize("wrong", ["", [], [""], [[]], [1, "a"], [[100000]], {"text": "a"}, ["a"] * 2049])
def test_what_is_no_text_is_refused(embedding_client: OpenAI, wrong: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        embed(embedding_client, wrong)
    assert (refused.value.param or "").startswith("input")
    with pytest.raises(openai.BadRequestError) as large:
        embed(embedding_client, "a", dimensions=1000)
    assert large.value.param == "dimensions"


def test_only_the_encoder_is_there(embedding_client: OpenAI) -> None:
    assert [model.id for model in embedding_client.models.list().data] == [MODEL]
    with pytest.raises(openai.NotFoundError) as missing:
        embedding_client.embeddings.create(model="text-embedding-3-small", input="a")
    assert missing.value.code == "model_not_found" and "'encoder'" in missing.value.message
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        embedding_client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}])

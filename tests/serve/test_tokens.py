"""``/tokenize``, ``/detokenize``, ``/v1/models`` and ``/health``, by the names of OpenAI, vLLM and llama.cpp."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from executorch_webgpu.text.chat import encode_chat
from tests.serve.conftest import MODEL, Reference
from tests.serve.serving import Serving


def post(server: Serving, path: str, body: Any) -> Any:
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=60)
    return answer.json() | {"status": answer.status_code}


def test_texts_become_tokens_and_texts_again(server: Serving, reference: Reference) -> None:
    for text in ("hello 12", "€ 😀", "</s><tool>", ""):
        tokens = reference.tokenizer.encode(text, add_special=False)
        for body in ({"prompt": text, "add_special_tokens": False, "model": MODEL}, {"content": text}):
            assert post(server, "/tokenize", body)["tokens"] == tokens
        assert post(server, "/detokenize", {"tokens": tokens})["prompt"] == text
    special = post(server, "/tokenize", {"prompt": "</s>", "parse_special": True, "add_special_tokens": False})
    assert special["count"] == 1 and post(server, "/detokenize", {"tokens": special["tokens"]})["content"] == "</s>"
    pieces = post(server, "/tokenize", {"content": "hello", "with_pieces": True})
    assert pieces["tokens"] == [{"id": reference.tokenizer.encode("hello", add_special=False)[0], "piece": "hello"}]
    shown = post(server, "/tokenize", {"prompt": "hello 1", "return_token_strs": True})
    assert "".join(shown["token_strs"]) == "hello 1" and shown["max_model_len"] == 1024


def test_messages_become_the_tokens_of_a_chat(server: Serving, reference: Reference) -> None:
    messages = [{"role": "user", "content": "hello"}]
    assert post(server, "/tokenize", {"messages": messages})["tokens"] == encode_chat(reference.tokenizer, messages)
    bare = post(server, "/tokenize", {"messages": messages, "add_generation_prompt": False})
    assert bare["tokens"] == encode_chat(reference.tokenizer, messages, add_generation_prompt=False)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {}, 400),
        ("/tokenize", {"prompt": "a", "content": "b"}, 400),
        ("/tokenize", {"prompt": 1}, 400),
        ("/tokenize", {"prompt": "a", "model": "other"}, 404),
        ("/tokenize", {"messages": []}, 400),
        ("/detokenize", {"tokens": [100000]}, 400),
        ("/detokenize", {"tokens": [-1]}, 400),
        ("/detokenize", {}, 400),
    ],
)
def test_what_cannot_be_is_refused(server: Serving, path: str, body: Any, status: int) -> None:
    answer = post(server, path, body)
    assert answer["status"] == status and set(answer["error"]) == {"message", "type", "param", "code"}


def test_models(client: OpenAI, server: Serving) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object) == (MODEL, "model")
    assert client.models.retrieve(MODEL).created == model.created
    assert (model.model_extra or {})["max_model_len"] == 1024
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("org/other")
    assert missing.value.code == "model_not_found"
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"


def test_a_server_without_an_encoder_has_no_embeddings(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        client.embeddings.create(model=MODEL, input="a")

"""Requests that cannot be: each gets a proper error that names the field, and disturbs nobody."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.loopback import error_of

from .served import HTTP, Served, Witness

pytestmark = pytest.mark.slow

CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
PROMPT: dict[str, Any] = {"prompt": "hello", "max_tokens": 2}
INPUT: dict[str, Any] = {"input": "hello", "max_output_tokens": 16}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

# What a field cannot be, on routes that sample; the rest of the request is right.
SAMPLING: dict[str, list[Any]] = {
    "temperature": ["hot", -1, [], 10**400],
    "top_p": ["all", -0.1, 1.5, {}],
    "top_k": ["few", 1.5, -5],
    "min_p": [2, -1, "x"],
    "n": [0, -1, 10**6, "two", 1.5],
    "max_tokens": [-1, 1.5, "many"],
    "seed": ["x", 1.5, []],
    "stop": [5, {}, [1], [""], ["x"] * 1000, ""],
    "presence_penalty": [3, "x"],
    "frequency_penalty": [-3, []],
    "repetition_penalty": [0, -1, "x"],
    "logit_bias": [[], {"x": 1}, {"-1": 1}, {"999999": 1}, {"5": 1000}, {"5": "x"}, {"5": None}],
    "stream": ["yes", 2, []],
    "stream_options": ["x", 5],
    "response_format": [5, {"type": "bogus"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": 5}],
    "guided_regex": ["(", 5, "[z-a]"],
    "guided_grammar": ["start: (", 5],
}
OF_CHAT: dict[str, list[Any]] = {
    "messages": [
        *(None, [], {}, "x", [1], [[]], [{}], [{"role": "user"}], [{"content": "x"}], [{"role": 5, "content": "x"}]),
        *([{"role": "king", "content": "x"}], [{"role": "user", "content": 5}], [{"role": "user", "content": [5]}]),
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://localhost/x.png"}}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
    ],
    "top_logprobs": [50, -1, "x", 1.5],
    "logprobs": ["x", 5],
    "tools": [5, {}, [5], [{}], [{"type": "function"}], [{"type": "function", "function": {"name": 5}}]],
    "tool_choice": ["sometimes", 5, {"type": "function"}, {"type": "function", "function": {"name": "unknown"}}],
    "max_completion_tokens": [-1, "x"],
}
OF_COMPLETIONS: dict[str, list[Any]] = {
    "prompt": [None, 5, {}, [1.5], [-1], [10**9], [10**40], [None], [[]], ["x", 5], []],
    "logprobs": [50, -1, "x"],
    "echo": ["x", 5],
}
OF_RESPONSES: dict[str, list[Any]] = {
    "input": [None, 5, {}, [5], [], [{"role": "user"}], [{"role": "king", "content": "x"}]],
    "max_output_tokens": [-1, "x", 1.5],
    "temperature": ["hot", -1],
    "tools": [5, [5], [{}]],
    "previous_response_id": ["resp_x"],
}
OF_EMBEDDINGS: dict[str, list[Any]] = {
    "input": [None, 5, {}, [], "", [1.5], [-1], [[]], ["x", 5], [[10**9]]],
    "encoding_format": ["hex", 5],
    "dimensions": [0, -1, "x", 10**9],
}
ROUTES = {
    CHAT: (HELLO, {**SAMPLING, **OF_CHAT}),
    COMPLETIONS: (PROMPT, {**SAMPLING, **OF_COMPLETIONS}),
    RESPONSES: (INPUT, OF_RESPONSES),
    EMBEDDINGS: ({"input": "hello"}, OF_EMBEDDINGS),
}
# Bodies that are no JSON object, or one that could be read in two ways.
BODIES = [
    *(b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b'{"model": "\xc3"}', b"{'a': 1}", b"\x00" * 1000),
    *(b'{"prompt": "x", "temperature": NaN}', b'{"prompt": "x", "temperature": 1e999}'),
    *(b'{"prompt": "x", "prompt": "y"}', rb'{"prompt": "\ud800"}', b'{"n": ' + b"9" * 5000 + b"}"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}"),
]


def refused(status: int) -> bool:
    return 400 <= status < 500


@pytest.mark.parametrize("path", ROUTES)
def test_values_that_cannot_be_are_refused_by_name(served: Served, witness: Witness, path: str) -> None:
    valid, fields = ROUTES[path]
    wrong: list[Any] = []
    with witness.undisturbed():
        for name, values in fields.items():
            for value in values:
                body = json.dumps({**valid, name: value}).encode()
                answer = served.post(path, body)
                if not refused(answer.status_code):
                    wrong.append((name, str(value)[:60], answer.status_code, answer.text[:200]))
                    continue
                error = error_of(answer.content)
                if not (error["param"] or error["message"]).startswith(name) and name not in error["message"]:
                    wrong.append((name, str(value)[:60], "unnamed", error))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("path", [*ROUTES, "/tokenize", "/detokenize"])
def test_bodies_that_are_no_json_are_refused(served: Served, witness: Witness, path: str) -> None:
    with witness.undisturbed():
        for body in BODIES:
            answer = served.post(path, body)
            assert answer.status_code == 400, (body[:60], answer.text)
            error_of(answer.content)
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            answer = served.post(path, b"{}", headers={"content-type": kind})
            assert answer.status_code == 415
            error_of(answer.content)


def test_paths_methods_and_models_that_are_not_there(served: Served) -> None:
    for method, path, status in [
        *(("GET", "/v1/nothing", 404), ("POST", "/nothing", 404), ("GET", CHAT, 405), ("DELETE", "/v1/models", 405)),
        *(("GET", "/v1/models/nothing", 404), ("PUT", COMPLETIONS, 405), ("GET", "/page/../../etc/passwd", 404)),
        *(("GET", "/page/%2e%2e/%2e%2e/pyproject.toml", 404), ("GET", "/" + "x" * 5000, 404)),
    ]:
        answer = HTTP.request(method, served.url + path)
        assert answer.status_code == status, (method, path[:50], answer.text)
        error_of(answer.content)


def test_values_at_the_ends_of_what_can_be(served: Served, witness: Witness) -> None:
    """Numbers that are larger than what kernels hold mean the same as ones that are just large."""
    with witness.undisturbed():
        for name, value in [
            *(("top_k", 10**30), ("max_tokens", 10**30), ("seed", 10**40), ("seed", -(10**40)), ("temperature", 1e308)),
            *(("temperature", 1e-320), ("top_p", 1e-320), ("min_p", 1), ("repetition_penalty", 1e300)),
            *(("repetition_penalty", 1e-320), ("presence_penalty", 2), ("logit_bias", {"5": 100})),
        ]:
            answer = served.post(COMPLETIONS, {**PROMPT, "temperature": 1, "seed": 3, name: value})
            assert answer.status_code == 200, (name, value, answer.text)


@pytest.mark.parametrize("path", ROUTES)
def test_other_models_are_not_there(served: Served, path: str) -> None:
    answer = served.post(path, {**ROUTES[path][0], "model": "nothing"})
    assert answer.status_code == 404
    assert error_of(answer.content)["param"] == "model"

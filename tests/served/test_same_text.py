"""Text through the server: what ``generate`` gives, cut at stop strings, whatever pieces it came in."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from executorch_webgpu.cli import main
from tests.llm.chat_model import ChatModel

from .served import HTTP, Served

pytestmark = pytest.mark.slow

COMPLETIONS = "/v1/completions"


def streamed(served: Served, body: dict[str, Any], path: str = COMPLETIONS) -> tuple[str, str | None]:
    """A stream's text, and why it ended. Each event must be UTF-8 and JSON by itself."""
    parts: list[str] = []
    reason = None
    request = {"model": served.model, **body, "stream": True}
    with HTTP.stream("POST", served.url + path, json=request) as answer:
        assert answer.status_code == 200, answer.read()
        data = b"".join(answer.iter_raw())
    for event in data.split(b"\n\n"):
        content = event.removeprefix(b"data: ")
        if content and content != b"[DONE]":
            for choice in json.loads(content.decode())["choices"]:
                parts.append(choice["text"])
                reason = choice["finish_reason"] or reason
    assert data.endswith(b"data: [DONE]\n\n")
    return "".join(parts), reason


def whole(served: Served, body: dict[str, Any]) -> tuple[str, str]:
    answer = served.post(COMPLETIONS, body)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return choice["text"], choice["finish_reason"]


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 0.9, "seed": 11}, {"temperature": 1.5, "seed": 5}]
)
def test_the_same_text_as_generate(served: Served, chat_model: ChatModel, sampling: dict[str, Any]) -> None:
    options = [word for name, value in sampling.items() for word in (f"--{name}", str(value))]
    for prompt in ("hello world", "é😀 12 ll", "A"):
        command = ["generate", str(chat_model.program), "--tokenizer", str(chat_model.tokenizer), *options]
        printed = CliRunner().invoke(main, [*command, "--prompt", prompt, "--max-new-tokens", "24", "--json"])
        assert printed.exit_code == 0, printed.output
        expected = json.loads(printed.stdout)["text"]
        body = {"prompt": prompt, "max_tokens": 24, **sampling}
        assert whole(served, body)[0] == streamed(served, body)[0] == expected


# Letters of one to four bytes in UTF-8, so that single tokens are parts of them.
LETTERS = st.text(st.sampled_from('aA1 \n"\\<é߷€한😀👩🏽‍🚀\u0301'), min_size=1, max_size=12)


@st.composite
def texts_and_stops(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(LETTERS)
    places = st.tuples(st.integers(0, len(text) - 1), st.integers(1, 4))
    inside = places.map(lambda place: text[place[0] : place[0] + place[1]])
    stops = draw(st.lists(LETTERS | inside, max_size=4))
    return text, [stop for stop in stops if stop]


@settings(max_examples=25, deadline=None)
@given(texts_and_stops())
@example(("aaab", ["aab"]))
@example(("👩🏽‍🚀é", ["\u200d", "é"]))
def test_stop_strings_and_characters_split_over_tokens(served: Served, case: tuple[str, list[str]]) -> None:
    """A grammar has the model write a text, whose tokens are bytes; the answer is it up to the first stop string."""
    text, stops = case
    # A stop string ends a text as soon as it is complete, so the one that ends first counts.
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    body = {"prompt": "hello", "max_tokens": 60, "guided_regex": re.escape(text), "stop": stops or None}
    expected = text[: min(ends)[1]] if ends else text
    assert streamed(served, body) == (expected, "stop")
    assert whole(served, body) == (expected, "stop")

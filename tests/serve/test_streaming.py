"""Streams of chat completions and completions through the openai package, also with stop strings of any cut."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI

from tests.serve.conftest import MODEL
from tests.serve.serving import Serving

MESSAGES: Any = [{"role": "user", "content": "hello"}]


def test_a_stream_is_the_text(client: OpenAI) -> None:
    fields: dict[str, Any] = {
        "model": MODEL,
        "messages": MESSAGES,
        "max_tokens": 12,
        "temperature": 1,
        "seed": 4,
        "n": 2,
    }
    whole = client.chat.completions.create(**fields)
    texts, roles, finishes, usages = ["", ""], [0, 0], [None, None], []
    ids = set()
    for chunk in client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}):
        ids.add(chunk.id)
        assert chunk.object == "chat.completion.chunk" and chunk.model == MODEL
        usages.append(chunk.usage)
        for choice in chunk.choices:
            assert finishes[choice.index] is None, "a text went on after its end"
            roles[choice.index] += choice.delta.role == "assistant"
            texts[choice.index] += choice.delta.content or ""
            finishes[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert finishes == [choice.finish_reason for choice in whole.choices]
    assert roles == [1, 1] and len(ids) == 1
    assert whole.usage is not None and usages[:-1] == [None] * (len(usages) - 1)
    last = usages[-1]
    assert last is not None
    assert (last.prompt_tokens, last.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)


def test_events_are_as_they_are_on_the_wire(server: Serving) -> None:
    body = {"messages": MESSAGES, "max_tokens": 2, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert all("usage" not in chunk for chunk in chunks)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "length"
    with httpx.stream(
        "POST",
        f"{server.url}/v1/completions",
        json={"prompt": "x", "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}},
        timeout=60,
    ) as answer:
        chunks = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 2


def test_the_asynchronous_client_reads_several_streams_at_once(server: Serving) -> None:
    async def read(client: AsyncOpenAI, seed: int, stream: bool) -> str:
        fields: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 8, "temperature": 1, "seed": seed}
        if not stream:
            return (await client.chat.completions.create(**fields)).choices[0].message.content or ""
        parts = await client.chat.completions.create(**fields, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in parts])

    async def main() -> None:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            streams = await asyncio.gather(*(read(client, seed, True) for seed in range(6)))
            wholes = await asyncio.gather(*(read(client, seed, False) for seed in range(6)))
        assert streams == wholes and len(set(streams)) > 1

    asyncio.run(main())


# Characters of one to four bytes, each byte a token of its own in the model's vocabulary.
TEXTS = st.text(st.sampled_from("ab é€😀"), min_size=1, max_size=6)


def ends(text: str, stops: list[str]) -> str:
    """The text before the stop string that is complete first; of those that end together, the longest."""
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(found)[1]] if found else text


@settings(max_examples=25, deadline=None, derandomize=True)
@given(text=TEXTS, stops=st.lists(TEXTS, min_size=1, max_size=3), data=st.data())
def test_stop_strings_end_a_text_before_them(client: OpenAI, text: str, stops: list[str], data: st.DataObject) -> None:
    """The text is forced, so that what ends it is known; one of the stop strings is usually a part of it."""
    begin = data.draw(st.integers(0, len(text) - 1))
    stops = [*stops, text[begin : data.draw(st.integers(begin + 1, len(text)))]]
    fields: dict[str, Any] = {
        "model": MODEL,
        "prompt": "hello",
        "max_tokens": 40,
        "stop": data.draw(st.permutations(stops)),
        "n": data.draw(st.integers(1, 2)),
        "extra_body": {"guided_choice": [text]},
    }
    wanted = ends(text, stops)
    whole = client.completions.create(**fields)
    streamed = [""] * fields["n"]
    for chunk in client.completions.create(**fields, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    for choice in whole.choices:
        assert (choice.text, choice.finish_reason) == (wanted, "stop")
    assert streamed == [wanted] * fields["n"]


def test_a_stop_string_in_what_the_model_says_itself(client: OpenAI) -> None:
    fields: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "temperature": 1, "seed": 11}
    text = client.chat.completions.create(**fields).choices[0].message.content
    assert text is not None and len(text) > 8
    stop = text[5:8]
    for given_stop in (stop, [stop, "no such text"]):
        stopped = client.chat.completions.create(**fields, stop=given_stop).choices[0]
        assert (stopped.message.content, stopped.finish_reason) == (text[: text.find(stop)], "stop")
        parts = client.chat.completions.create(**fields, stop=given_stop, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == text[: text.find(stop)]


def test_log_probabilities_of_a_stream_are_those_without(client: OpenAI) -> None:
    fields: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 16, "temperature": 1, "seed": 2}
    whole = client.chat.completions.create(**fields, logprobs=True, top_logprobs=2).choices[0]
    assert whole.logprobs is not None and whole.logprobs.content is not None
    entries: list[Any] = []
    for chunk in client.chat.completions.create(**fields, logprobs=True, top_logprobs=2, stream=True):
        logprobs = chunk.choices[0].logprobs
        entries += (logprobs.content or []) if logprobs is not None else []
    assert [entry.token for entry in entries] == [entry.token for entry in whole.logprobs.content]
    for entry, other in zip(entries, whole.logprobs.content, strict=True):
        assert entry.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [top.token for top in entry.top_logprobs] == [top.token for top in other.top_logprobs]
    said = b"".join(bytes(entry.bytes or ()) for entry in whole.logprobs.content)
    assert said.decode("utf-8", "replace") == whole.message.content

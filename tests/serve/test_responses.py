"""``/v1/responses`` through the openai package: items, typed events, tools, conversations that go on."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from executorch_webgpu.serve.responses import KEPT, KEPT_BYTES, Responses
from tests.serve.conftest import MODEL
from tests.serve.test_chat import THOUGHTS
from tests.serve.test_tools import CALL, SCHEMAS

TOOLS: Any = [{"type": "function", "name": name, "parameters": schema} for name, schema in SCHEMAS.items()]


def respond(client: OpenAI, **fields: Any) -> Response:
    asked: dict[str, Any] = {"input": "hello", "max_output_tokens": 8, "temperature": 0} | fields
    return client.responses.create(model=MODEL, **asked)


def events(client: OpenAI, **fields: Any) -> list[Any]:
    asked: dict[str, Any] = {"input": "hello", "max_output_tokens": 8, "temperature": 0} | fields
    return list(client.responses.create(model=MODEL, stream=True, **asked))


def test_a_response_is_the_text_of_a_chat(client: OpenAI) -> None:
    on = {"ignore_eos": True}
    done = respond(client, instructions="Be short.", metadata={"a": "b"}, extra_body=on)
    messages: Any = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hello"}]
    chat = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, temperature=0, extra_body=on)
    assert done.output_text == chat.choices[0].message.content
    assert (done.status, done.model, done.metadata) == ("incomplete", MODEL, {"a": "b"})
    assert done.incomplete_details is not None and done.incomplete_details.reason == "max_output_tokens"
    assert done.usage is not None and chat.usage is not None
    assert (done.usage.input_tokens, done.usage.output_tokens) == (chat.usage.prompt_tokens, 8)
    # Tokens may be drawn as for a chat.
    drawn = {"seed": 5, "stop": ["zzz"], "extra_body": {"top_k": 40, "ignore_eos": True}}
    body = {"seed": 5, "stop": ["zzz"], "top_k": 40, "ignore_eos": True}
    chat = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, temperature=1, **drawn)  # type: ignore[call-overload]
    done = respond(client, instructions="Be short.", temperature=1, extra_body=body)
    assert done.output_text == chat.choices[0].message.content


def test_events_tell_the_response(client: OpenAI) -> None:
    whole = respond(client)
    told = events(client)
    assert [event.sequence_number for event in told] == list(range(len(told)))
    kinds = [event.type for event in told]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole.status}",
    ]
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == whole.output_text
    assert told[-1].response.output_text == whole.output_text
    assert told[-1].response.usage.output_tokens == whole.usage.output_tokens  # type: ignore[union-attr]
    forced = {"guided_choice": ["one", "two"]}
    with client.responses.stream(model=MODEL, input="hello", max_output_tokens=8, extra_body=forced) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text and text in ("one", "two")


def test_reasoning_is_an_item_of_its_own(client: OpenAI) -> None:
    fields: dict[str, Any] = {
        "reasoning": {"effort": "high"},
        "max_output_tokens": 80,
        "extra_body": {"guided_grammar": THOUGHTS},
    }
    done = respond(client, **fields)
    assert [item.type for item in done.output] == ["reasoning", "message"]
    assert done.output[0].content[0].text == "so it goes"  # type: ignore[union-attr,index]
    assert done.output_text == "an answer" and done.status == "completed"
    assert done.usage is not None and done.usage.output_tokens_details.reasoning_tokens >= 10
    told = events(client, **fields)
    thought = [event.delta for event in told if event.type == "response.reasoning_text.delta"]
    assert "".join(thought) == "so it goes"
    assert told[-1].response.output_text == "an answer"


def test_tools(client: OpenAI) -> None:
    fields: dict[str, Any] = {"tools": TOOLS, "max_output_tokens": 200, "temperature": 1, "extra_body": {"seed": 3}}
    forced = respond(client, tool_choice="required", parallel_tool_calls=False, **fields)
    (call,) = forced.output
    assert call.type == "function_call" and call.status == "completed"
    jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
    named = respond(client, tool_choice={"type": "function", "name": "set_clock"}, parallel_tool_calls=False, **fields)
    assert [item.name for item in named.output] == ["set_clock"]  # type: ignore[union-attr]

    told = events(client, **fields | {"extra_body": {"guided_grammar": CALL}})
    done = next(event for event in told if event.type == "response.function_call_arguments.done")
    deltas = [event.delta for event in told if event.type == "response.function_call_arguments.delta"]
    assert json.loads("".join(deltas)) == json.loads(done.arguments) == {"hour": 7}
    assert [item.type for item in told[-1].response.output] == ["message", "function_call"]

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "20 degrees"}
    after = respond(client, previous_response_id=forced.id, input=[result], tools=TOOLS)
    items = [{"role": "user", "content": "hello"}, *(item.model_dump() for item in forced.output), result]
    by_hand = respond(client, input=items, tools=TOOLS)
    assert after.output_text == by_hand.output_text and after.usage is not None and by_hand.usage is not None
    assert after.usage.input_tokens == by_hand.usage.input_tokens


class Answer(BaseModel):
    yes: bool
    number: int | None


def test_text_of_a_schema(client: OpenAI) -> None:
    schema = SCHEMAS["get_weather"]
    form: Any = {"format": {"type": "json_schema", "name": "weather", "schema": schema}}
    done = respond(client, text=form, max_output_tokens=200, temperature=1, extra_body={"seed": 1})
    jsonschema.validate(json.loads(done.output_text), schema)
    assert done.text is not None and done.text.format is not None and done.text.format.type == "json_schema"
    parsed = client.responses.parse(
        model=MODEL, input="hello", text_format=Answer, max_output_tokens=200, extra_body={"seed": 2}
    )
    assert isinstance(parsed.output_parsed, Answer)


def test_conversations_go_on_and_are_forgotten(client: OpenAI) -> None:
    first = respond(client)
    second = respond(client, input="and?", previous_response_id=first.id)
    said = {"role": "assistant", "content": first.output_text}
    items = [{"role": "user", "content": "hello"}, said, {"role": "user", "content": "and?"}]
    by_hand = respond(client, input=items)
    assert second.output_text == by_hand.output_text and second.previous_response_id == first.id
    assert client.responses.retrieve(second.id).output_text == second.output_text
    client.responses.delete(second.id)
    for wrong in (second.id, respond(client, store=False).id, "resp_none"):
        with pytest.raises(openai.NotFoundError) as missing:
            respond(client, previous_response_id=wrong)
        assert (missing.value.code, missing.value.param) == ("response_not_found", "previous_response_id")
        with pytest.raises(openai.NotFoundError) as gone:
            client.responses.retrieve(wrong)
        assert gone.value.param == "id"


def test_the_oldest_responses_are_forgotten_first() -> None:
    kept = Responses(None)  # type: ignore[arg-type]  # which only remembers
    for index in range(KEPT + 5):
        kept.keep({"id": f"resp_{index}"}, [])
    assert sorted(kept._kept) == sorted(f"resp_{index}" for index in range(5, KEPT + 5))
    for index in range(5):
        kept.keep({"id": f"large_{index}"}, [{"content": "x" * (KEPT_BYTES // 3)}])
    assert list(kept._kept) == ["large_3", "large_4"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"temperature": -1}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "nobody", "content": "x"}], "instructions": "y"}, "input[0].role"),
        ({"input": []}, "input"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_cannot_be_is_refused_by_name(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        respond(client, **fields)
    assert refused.value.param == param and param.split("[")[0] in refused.value.message

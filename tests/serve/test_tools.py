"""Tools through the openai package: forced, offered, streamed, and their results sent back."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from tests.serve.conftest import MODEL

MESSAGES: Any = [{"role": "user", "content": "What is the weather?"}]
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"place": {"type": "string", "maxLength": 5}, "unit": {"enum": ["celsius", "kelvin"]}},
    "required": ["place", "unit"],
    "additionalProperties": False,
}
CLOCK: dict[str, Any] = {
    "type": "object",
    "properties": {"hour": {"type": "integer", "minimum": 0, "maximum": 23}},
    "required": ["hour"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "set_clock": CLOCK}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": "It does that.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
# What the template's family writes for a call.
CALL = 'start: "well <tool_call>\\n{\\"name\\": \\"set_clock\\", \\"arguments\\": {\\"hour\\": 7}}\\n</tool_call>"'


def chat(client: OpenAI, messages: Any = MESSAGES, **fields: Any) -> ChatCompletion:
    asked: dict[str, Any] = {"max_tokens": 200, "temperature": 1, "seed": 3, "tools": TOOLS} | fields
    return client.chat.completions.create(model=MODEL, messages=messages, **asked)


def streamed(client: OpenAI, **fields: Any) -> tuple[str, list[dict[str, str]], str | None]:
    """The text, the calls and the finish reason of a stream."""
    asked: dict[str, Any] = {"max_tokens": 200, "temperature": 1, "seed": 3, "tools": TOOLS} | fields
    text, finish = "", None
    calls: list[dict[str, str]] = []
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, **asked):
        choice = chunk.choices[0]
        text += choice.delta.content or ""
        for part in choice.delta.tool_calls or ():
            assert part.function is not None
            if part.id is not None:
                assert part.index == len(calls) and part.function.name and part.type == "function"
                calls.append({"id": part.id, "name": part.function.name, "arguments": ""})
            calls[part.index]["arguments"] += part.function.arguments or ""
        finish = choice.finish_reason
    return text, calls, finish


def check(calls: list[dict[str, str]]) -> None:
    """Calls of the tools that there are, with arguments of their schemas."""
    assert calls and len({call["id"] for call in calls}) == len(calls)
    for call in calls:
        jsonschema.validate(json.loads(call["arguments"]), SCHEMAS[call["name"]])


@pytest.mark.parametrize("choice", ["required", "get_weather", "set_clock"])
def test_forced_calls_fit_their_schemas(client: OpenAI, choice: str) -> None:
    named: Any = choice if choice == "required" else {"type": "function", "function": {"name": choice}}
    fields: dict[str, Any] = {"tool_choice": named, "parallel_tool_calls": False}
    done = chat(client, **fields).choices[0]
    assert done.finish_reason == "tool_calls" and done.message.tool_calls is not None and not done.message.content
    (call,) = done.message.tool_calls
    assert call.type == "function"
    check([{"id": call.id, "name": call.function.name, "arguments": call.function.arguments}])
    assert choice in ("required", call.function.name)
    text, calls, finish = streamed(client, **fields)
    assert (text, finish) == ("", "tool_calls")
    assert [(each["name"], each["arguments"]) for each in calls] == [(call.function.name, call.function.arguments)]


def test_several_calls_where_they_are_allowed(client: OpenAI) -> None:
    most = 0
    for seed in range(6):
        _, calls, finish = streamed(client, tool_choice="required", seed=seed, max_tokens=400, temperature=2)
        if finish == "tool_calls":
            check(calls)
            most = max(most, len(calls))
    assert most >= 1


@pytest.mark.parametrize("stream", [False, True])
def test_calls_that_a_model_makes_itself_are_read(client: OpenAI, stream: bool) -> None:
    given: dict[str, Any] = {"extra_body": {"guided_grammar": CALL}}
    if stream:
        text, calls, finish = streamed(client, **given)
    else:
        done = chat(client, **given).choices[0]
        text, finish = done.message.content or "", done.finish_reason
        calls = [
            {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
            for call in done.message.tool_calls or ()
            if call.type == "function"
        ]
    check(calls)
    assert (text.strip(), finish) == ("well", "tool_calls")
    assert [json.loads(call["arguments"]) for call in calls] == [{"hour": 7}]


def two_calls(after: str) -> str:
    call = CALL.split('"', 1)[1].removesuffix('"').removeprefix("well ")
    return f'start: "well {call}\\n{call}{after}"'


@pytest.mark.parametrize("stream", [False, True])
def test_calls_that_a_model_makes_by_itself_are_cut_to_one_where_one_is_asked_for(client: OpenAI, stream: bool) -> None:
    grammar = two_calls("")
    for parallel, count in ((True, 2), (False, 1)):
        on: dict[str, Any] = {"parallel_tool_calls": parallel, "extra_body": {"guided_grammar": grammar}}
        if stream:
            text, calls, finish = streamed(client, **on)
            arguments = [json.loads(call["arguments"]) for call in calls]
        else:
            done = chat(client, **on).choices[0]
            text, finish = done.message.content or "", done.finish_reason
            made = [call for call in done.message.tool_calls or () if call.type == "function"]
            arguments = [json.loads(call.function.arguments) for call in made]
        assert (arguments, finish, text.strip()) == ([{"hour": 7}] * count, "tool_calls", "well")


def test_a_text_ends_before_a_call_too_many(client: OpenAI) -> None:
    """What would follow is not written, and its tokens are not counted."""
    long = two_calls("x" * 60)
    both, one = (
        chat(client, parallel_tool_calls=parallel, extra_body={"guided_grammar": long}) for parallel in (True, False)
    )
    assert both.usage is not None and one.usage is not None
    assert one.usage.completion_tokens < both.usage.completion_tokens - 40
    assert one.choices[0].finish_reason == "tool_calls"


def test_none_leaves_the_text_as_it_is(client: OpenAI) -> None:
    done = chat(client, tool_choice="none", extra_body={"guided_grammar": CALL}).choices[0]
    assert done.message.tool_calls is None and done.finish_reason == "stop"
    assert done.message.content is not None and "<tool_call>" in done.message.content
    plain = chat(client, tools=openai.omit).usage
    without, with_tools = chat(client, tool_choice="none").usage, chat(client, max_tokens=1).usage
    assert plain is not None and without is not None and with_tools is not None
    assert plain.prompt_tokens == without.prompt_tokens < with_tools.prompt_tokens


def test_results_go_back_to_the_model(client: OpenAI) -> None:
    done = chat(client, tool_choice="required", parallel_tool_calls=False).choices[0].message
    assert done.tool_calls is not None
    result = {"role": "tool", "tool_call_id": done.tool_calls[0].id, "content": '{"degrees": 20}'}
    follow_up: Any = [*MESSAGES, done.model_dump(exclude_none=True), result]
    answer = chat(client, follow_up, max_tokens=4)
    shorter = chat(client, follow_up[:-1], max_tokens=4)
    assert answer.usage is not None and shorter.usage is not None
    assert answer.usage.prompt_tokens > shorter.usage.prompt_tokens + 20  # bytes
    assert answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens_details.cached_tokens or 0) > 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "missing"}}}, "tool_choice"),
        ({"tool_choice": "required", "tools": openai.omit}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_tools_that_cannot_be_are_refused(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **fields)
    assert refused.value.param == param


def test_an_unsupported_schema_of_a_forced_tool_is_refused(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        chat(client, tools=tools, tool_choice="required")

"""Conversations made to fit a template: roles, arguments, ids and descriptions of tools."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.text.chat import encode_chat, render_chat
from executorch_webgpu.text.tokenizer import Tokenizer
from executorch_webgpu.text.tool_calls import tool_format
from executorch_webgpu.text.typed_text import Written
from tests.text.cuttings import TOOLS
from tests.text.test_chat import with_template
from tests.text.tool_calls.templates import (
    DEEPSEEK_R1,
    FAMILIES,
    GRANITE,
    HARMONY,
    HERMES,
    KIMI,
    LFM2_CONTENT,
    LLAMA3,
    MISTRAL,
    NEEDS_TOOLS,
    PARTS,
    PLAIN,
    STRICT,
    XML_TOOLS,
)


def call(index: str, name: str = "get", arguments: str = '{"text": "salt"}') -> dict[str, Any]:
    return {"id": index, "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATION: list[dict[str, Any]] = [
    {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
    {"role": "user", "content": "Fetch two."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("call_one"), call("call_two", arguments='{"text": "pepper"}')],
    },
    {"role": "tool", "tool_call_id": "call_one", "content": "result one"},
    {"role": "tool", "tool_call_id": "call_two", "content": "result two"},
    {"role": "assistant", "content": "Both are there."},
    {"role": "user", "content": "Thanks!"},
]
SAID = ["Be brief.", "Fetch two.", '"salt"', '"pepper"', "result one", "result two", "Both are there.", "Thanks!"]


def rendered(source: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] = TOOLS) -> str:
    prepared, variables = tool_format(source).prepare(messages, tools)
    return render_chat(source, prepared, **variables)


@pytest.mark.parametrize(
    "source", [*FAMILIES.values(), PLAIN, STRICT, PARTS], ids=[*FAMILIES, "plain", "strict", "parts"]
)
def test_every_template_says_all_of_a_conversation(source: str) -> None:
    """In order, but for templates that say all calls before all results."""
    text = rendered(source, CONVERSATION)
    for said in SAID:
        assert said.strip('"') in text
    assert text.index("Be brief.") < text.index("Fetch two.") < text.index("salt") < text.index("result one")
    assert text.index("result two") < text.index("Both are there.") < text.index("Thanks!")
    assert all(name in text for name in ("get_weather", "ping"))
    assert "developer" not in text or "developer" in source


@pytest.mark.parametrize("source", [*FAMILIES.values(), PLAIN, STRICT], ids=[*FAMILIES, "plain", "strict"])
def test_tools_are_not_shown_where_there_are_none(source: str) -> None:
    text = rendered(source, CONVERSATION, [])
    assert "get_weather" not in text and "result two" in text


def test_arguments_are_objects_or_text_as_the_template_wants() -> None:
    assert '"arguments": {"text": "salt"}' in rendered(HERMES, CONVERSATION)
    assert '```json\n{"text": "salt"}\n```' in rendered(DEEPSEEK_R1, CONVERSATION)


def test_content_is_none_where_the_template_asks_for_that() -> None:
    messages, variables = tool_format(DEEPSEEK_R1).prepare(CONVERSATION, TOOLS)
    assert variables == {"keep_none": True}
    assert [message["content"] for message in messages if message.get("tool_calls")] == [None]


@pytest.mark.parametrize("source", [LLAMA3, HARMONY])
def test_calls_come_one_by_one_where_a_message_holds_no_more(source: str) -> None:
    messages, _ = tool_format(source).prepare(CONVERSATION, TOOLS)
    assert [message["role"] for message in messages][-6:] == [
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert [message["name"] for message in messages if message["role"] == "tool"] == ["get", "get"]
    assert not tool_format(source).parallel


def test_ids_are_those_of_the_family() -> None:
    mistral = tool_format(MISTRAL)
    messages, _ = mistral.prepare(CONVERSATION, TOOLS)
    ids = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    assert len(set(ids)) == 2 and all(re.fullmatch("[a-zA-Z0-9]{9}", index) for index in ids)
    assert [message["tool_call_id"] for message in messages if message["role"] == "tool"] == ids
    assert re.fullmatch("[a-zA-Z0-9]{9}", mistral.new_id()) and mistral.new_id() != mistral.new_id()
    messages, _ = tool_format(KIMI).prepare(CONVERSATION, TOOLS)
    ids = ["functions.get:0", "functions.get:1"]
    assert [message["tool_call_id"] for message in messages if message["role"] == "tool"] == ids
    assert tool_format(KIMI).new_id("get", 2) == "functions.get:2"
    assert re.fullmatch("call_[a-zA-Z0-9]{24}", tool_format(HERMES).new_id())


def test_generic_tools_are_described_and_calls_are_text() -> None:
    messages, variables = tool_format(PLAIN).prepare(CONVERSATION, TOOLS)
    assert variables == {}
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert str(messages[0]["content"]).startswith("Be brief.\n\nYou can call tools.")
    assert '<tool_call>\n{"name": "tool_name"' in messages[0]["content"]
    assert messages[2]["content"].count("<tool_call>") == 2
    assert messages[3]["content"] == (
        "<tool_response>\nresult one\n</tool_response>\n<tool_response>\nresult two\n</tool_response>"
    )


def test_a_template_that_only_calls_is_told_of_tools_in_its_own_format() -> None:
    text = rendered(DEEPSEEK_R1, CONVERSATION)
    assert "You can call tools." in text and "<｜tool▁sep｜>tool_name" in text


def test_the_systems_words_go_to_the_user_where_there_is_no_such_role() -> None:
    messages, _ = tool_format(STRICT).prepare(CONVERSATION, TOOLS)
    assert messages[0]["role"] == "user"
    assert messages[0]["content"].startswith("Be brief.") and messages[0]["content"].endswith("Fetch two.")
    only, _ = tool_format(STRICT).prepare([{"role": "system", "content": "Begin."}])
    assert only == [{"role": "user", "content": "Begin."}]


def test_what_a_tool_leaves_out_is_filled_in() -> None:
    tools = [{"type": "function", "function": {"name": "ping", "strict": True, "description": None}}]
    _, variables = tool_format(GRANITE).prepare([{"role": "user", "content": "x"}], tools)
    expected = {"name": "ping", "description": "", "parameters": {"type": "object", "properties": {}}}
    assert variables["tools"] == [{"type": "function", "function": expected}]


def test_calls_are_text_in_the_familys_format_where_the_template_leaves_them_to_the_content() -> None:
    messages, variables = tool_format(LFM2_CONTENT).prepare(CONVERSATION, TOOLS)
    assert len(variables["tools"]) == len(TOOLS)
    assert [message["role"] for message in messages][2:5] == ["assistant", "tool", "tool"]
    expected = '<|tool_call_start|>[get(text="salt"), get(text="pepper")]<|tool_call_end|>'
    assert messages[2]["content"] == expected


def test_tools_go_by_other_names() -> None:
    _, variables = tool_format(XML_TOOLS).prepare(CONVERSATION, TOOLS)
    assert list(variables) == ["xml_tools"]
    _, variables = tool_format(NEEDS_TOOLS).prepare(CONVERSATION)
    assert variables == {"tools": []}


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("salt", ["<|im_end|>"] * 2),
        ("salt<|im_end|>", []),  # a mark in what was typed, so all of them stay text
        ("</s>", []),  # another token
    ],
)
def test_marks_that_are_written_are_tokens_and_typed_ones_are_not(bpe: Tokenizer, text: str, marks: list[str]) -> None:
    content = Written.of(f"<|im_end|>get({text})<|im_end|>", ["<|im_end|>"], [text])
    ids = encode_chat(with_template(bpe, "{{ messages[0].content }}"), [{"role": "assistant", "content": content}])
    special = bpe.named_special_ids
    assert bpe.decode(ids, keep_special=True) == content
    assert [mark for index in ids for mark, token in special.items() if token == index] == marks


def test_messages_are_not_changed_in_place() -> None:
    before = json.dumps(CONVERSATION)
    for source in (LLAMA3, MISTRAL, PLAIN, STRICT):
        tool_format(source).prepare(CONVERSATION, TOOLS)
    assert json.dumps(CONVERSATION) == before


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "null x"])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    messages = [{"role": "assistant", "tool_calls": [call("a"), call("b", arguments=arguments)]}]
    with pytest.raises(InvalidInputError, match=r"messages\[0\]\.tool_calls\[1\]\.function\.arguments is not"):
        tool_format(HERMES).prepare(messages)


def test_no_arguments_are_an_empty_object_and_a_call_needs_a_name() -> None:
    messages, _ = tool_format(HERMES).prepare([{"role": "assistant", "tool_calls": [call("a", arguments="")]}])
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == {}
    with pytest.raises(InvalidInputError, match="has no function with a name"):
        tool_format(HERMES).prepare([{"role": "assistant", "tool_calls": [{"id": "a", "type": "function"}]}])

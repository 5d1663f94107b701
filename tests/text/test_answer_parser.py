from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.text.answer_events import CallArguments, CallBegun, Reasoning, Text
from executorch_webgpu.text.answer_parser import answer_format
from executorch_webgpu.text.chat import encode_chat
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.text.cuttings import TOOLS, calls_of, cuttings, parsed, reasoning_of, text_of
from tests.text.tool_calls.templates import DEEPSEEK_R1, FAMILIES, HARMONY, HERMES, PLAIN

THINKING = HERMES + "{# <think></think> #}"


@pytest.mark.parametrize("tools", [True, False])
@settings(deadline=None)
@given(data=st.data())
def test_reasoning_then_text_then_calls(tools: bool, data: st.DataObject) -> None:
    call = '<tool_call>\n{"name": "get", "arguments": {"text": "<think>"}}\n</tool_call>'
    text = f"Is <tool_call> right?\n</think>\n\nI fetch it.\n{call}"
    parser = answer_format(THINKING).parser("<think>\n", TOOLS if tools else ())
    events = parsed(parser, data.draw(cuttings(text)))
    said = [Reasoning("Is <tool_call> right?"), Text("I fetch it." if tools else f"I fetch it.\n{call}")]
    assert events == [*said, *([CallBegun(0, "get"), CallArguments(0, '{"text": "<think>"}')] if tools else [])]
    assert parser.calls == int(tools)


@settings(deadline=None)
@given(data=st.data())
def test_harmony_in_one(data: st.DataObject) -> None:
    text = (
        "<|channel|>analysis<|message|>Need it.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        "<|end|><|start|>assistant<|channel|>commentary to=functions.get <|constrain|>json<|message|>"
        '{"text": "x"}<|call|>'
    )
    events = parsed(answer_format(HARMONY).parser("", TOOLS), data.draw(cuttings(text)))
    assert events == [
        Reasoning("Need it."),
        Text("I look."),
        CallBegun(0, "get"),
        CallArguments(0, '{"text": "x"}'),
    ]


@pytest.mark.parametrize(
    "head",
    [
        "<|channel|>commentary to=functions.get <|constrain|>json",
        "<|channel|>commentary to=functions.get json",
        "<|channel|>analysis to=functions.get code",
        " to=functions.get<|channel|>commentary json",
        "to=functions.get<|channel|>commentary <|constrain|>json",
        "<|start|>assistant to=functions.get<|channel|>commentary json",
    ],
)
def test_heads_of_messages_to_tools(head: str) -> None:
    text = f'{head}<|message|>{{"text": "to=x"}}'
    events = parsed(answer_format(HARMONY).parser("", TOOLS), list(text))
    assert events == [CallBegun(0, "get"), CallArguments(0, '{"text": "to=x"}')]
    after = parsed(answer_format(HARMONY).parser("", TOOLS), ["<|channel|>analysis<|message|>Hm.<|end|>" + text])
    assert after[1:] == events or not head.startswith("<")


@pytest.mark.parametrize("source", [None, PLAIN])
def test_a_model_without_any_format_calls_in_the_generic_one(source: str | None) -> None:
    format = answer_format(source)
    text = 'Yes.<tool_call>{"name": "ping", "arguments": {}}</tool_call>'
    events = parsed(format.parser("", TOOLS), list(text))
    assert (text_of(events), calls_of(events)) == ("Yes.", [("ping", "{}")])
    assert format.special_tokens(tools=False) == ()
    assert format.special_tokens(tools=True) == ("<tool_call>", "</tool_call>")


def test_special_tokens_are_those_of_both() -> None:
    marks = answer_format(DEEPSEEK_R1 + "</think>").special_tokens(tools=True)
    assert "</think>" in marks and "<｜tool▁sep｜>" in marks
    assert len(set(marks)) == len(marks)


def test_tokens_to_events(bpe: Tokenizer) -> None:
    """The way that a server goes: prompt to tokens, the model's tokens to text with its marks, text to events."""
    special = bpe.named_special_ids
    template = FAMILIES["unknown"].replace("my_call>", "|im_end|>")
    format = answer_format("{# <s></s> #}" + template)
    messages, variables = format.tools.prepare([{"role": "user", "content": "hello"}], TOOLS)
    assert variables["tools"]
    ids = encode_chat(Tokenizer(bpe.backend, bpe.settings), messages)
    written = bpe.encode("hello <|im_end|> 12", parse_special=True, add_special=False)
    stream, kept = bpe.stream(ids), bpe.stream(ids, keep=["<|im_end|>", "<unknown>"])
    assert "".join([*map(stream.push, written), stream.finish()]) == "hello  12"
    assert "".join([*map(kept.push, written), kept.finish()]) == "hello <|im_end|> 12"
    assert bpe.decode([*written, special["</s>"]], keep=["<|im_end|>"]) == "hello <|im_end|> 12"
    assert set(special) >= {"<s>", "</s>", "<|im_end|>"} and "<tool>" not in special


REASONED: dict[str, Any] = {"arguments": '{"text": "a"}'}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_after_reasoning(family: str) -> None:
    if family == "harmony":
        return  # its reasoning is a channel: above
    format = answer_format(FAMILIES[family] + "{# <think></think> #}")
    calls = [("get", {"text": "a"})]
    text = f"<think>So.</think>\n{format.tools.calls.render(calls)}"
    events = parsed(format.parser("", TOOLS), list(text))
    assert reasoning_of(events) == "So." and text_of(events) == ""
    assert [(name, json.loads(arguments)) for name, arguments in calls_of(events)] == calls

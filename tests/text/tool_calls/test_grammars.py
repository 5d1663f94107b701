"""Grammars that force calls, over bytes and special tokens: what the family writes is allowed, all else is not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance
import pytest

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.text.answer_parser import AnswerFormat, answer_format
from executorch_webgpu.text.tool_calls import ToolFormat, tool_format
from tests.text.cuttings import TOOLS
from tests.text.tool_calls.formats import FORMATS
from tests.text.tool_calls.templates import DEEPSEEK_R1, HARMONY, HERMES, MISTRAL

END = 256
Call = tuple[str, Mapping[str, Any]]


class Bytes:
    """A vocabulary of single bytes, an end and special tokens, as llguidance takes one."""

    def __init__(self, special: Sequence[str]) -> None:
        self.eos_token_id = END
        self.bos_token_id = None
        self.tokens = [bytes([byte]) for byte in range(256)] + [b"<|the end|>", *(text.encode() for text in special)]
        self.ids = {text: END + 1 + at for at, text in enumerate(special)}
        self.special_token_ids = list(range(END, len(self.tokens)))

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, its special tokens parsed."""
        if not self.ids:
            return self(text)
        marks = "|".join(map(re.escape, sorted(self.ids, key=len, reverse=True)))
        return [
            token
            for part in re.split(f"({marks})", text)
            for token in ([self.ids[part]] if part in self.ids else self(part))
        ]


def allowed(grammar: str, vocabulary: Bytes, text: str) -> bool:
    """Whether a grammar allows exactly this text."""
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(vocabulary))
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = vocabulary.encode(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def written(format: ToolFormat, calls: Sequence[Call]) -> str:
    # What ends gpt-oss's call is the end of the text.
    return format.calls.render(calls).removesuffix("<|call|>")


ONE: list[Call] = [
    (
        "get_weather",
        {
            "city": 'Zürich\n"a" <b>',
            "days": 3,
            "exact": True,
            "options": {"k": [1]},
            "hours": [1, 2.5],
            "unit": "kelvin",
        },
    )
]
FEW: list[list[Call]] = [[("get_weather", {"city": ""})], [("get", {"text": "[x]"})], [("ping", {})]]
SEVERAL: list[Call] = [*ONE, ("ping", {}), ("get", {"text": "x"})]
WRONG: list[list[Call]] = [
    [("other", {})],
    [("get", {})],
    [("get_weather", {"city": "x", "days": "three"})],
    [("get_weather", {"city": "x", "unit": "fahrenheit"})],
    [("get_weather", {"city": "x", "hours": ["noon"]})],
]


@pytest.mark.parametrize("special", [False, True], ids=["text", "special"])
@pytest.mark.parametrize("family", FORMATS)
class TestForcedCalls:
    def test_calls_are_allowed_and_all_else_is_not(self, family: str, special: bool) -> None:
        format = FORMATS[family]
        vocabulary = Bytes(format.special_tokens if special else ())
        grammar = format.grammar(TOOLS, special=vocabulary.ids)
        for calls in (ONE, *FEW):
            assert allowed(grammar, vocabulary, written(format, calls)), calls
        assert allowed(grammar, vocabulary, written(format, SEVERAL)) is format.parallel
        for calls in WRONG:
            assert not allowed(grammar, vocabulary, written(format, calls)), calls
        for text in ("", "Hello.", "Well: " + written(format, ONE), written(format, ONE)[:-1]):
            assert not allowed(grammar, vocabulary, text)

    def test_by_name_and_one_by_one(self, family: str, special: bool) -> None:
        format = FORMATS[family]
        vocabulary = Bytes(format.special_tokens if special else ())
        named = format.grammar(TOOLS, "get", special=vocabulary.ids)
        assert allowed(named, vocabulary, written(format, [("get", {"text": "a"})]))
        assert not allowed(named, vocabulary, written(format, [("ping", {})]))
        one = format.grammar(TOOLS, parallel=False, special=vocabulary.ids)
        assert allowed(one, vocabulary, written(format, ONE))
        assert not allowed(one, vocabulary, written(format, SEVERAL))


OPEN_TOOLS = [
    {"type": "function", "function": {"name": "any"}},
    {
        "type": "function",
        "function": {
            "name": "nested",
            "parameters": {
                "type": "object",
                "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
                "properties": {"p": {"$ref": "#/$defs/point"}, "q": {}, "r": {"type": "array"}},
                "required": ["p"],
            },
        },
    },
]


@pytest.mark.parametrize("family", FORMATS)
def test_schemas_that_leave_much_open(family: str) -> None:
    format = FORMATS[family]
    vocabulary = Bytes(format.special_tokens)
    grammar = format.grammar(OPEN_TOOLS, special=vocabulary.ids)
    for arguments in ({}, {"x": "y"}, {"x": 1, "z_2": [2, "a"]}):
        assert allowed(grammar, vocabulary, written(format, [("any", arguments)])), arguments
    for point in ({"p": {"x": 1.5}}, {"p": {"x": 1}, "q": {"a": 2}}, {"p": {"x": 1}, "r": [1, "b"]}):
        assert allowed(grammar, vocabulary, written(format, [("nested", point)])), point
    wrongs: list[dict[str, Any]] = [{"q": 1}, {"p": {}}, {"p": {"x": "one"}}]
    for wrong in wrongs:
        assert not allowed(grammar, vocabulary, written(format, [("nested", wrong)])), wrong


STRICT_TOOLS = [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS]  # type: ignore[dict-item]
# Of these a grammar can say where text ends and calls begin only if that is a special token.
BY_TOKEN: tuple[str, ...] = (
    "mistral",
    "mistral-named",
    "deepseek-r1",
    "deepseek-v3.1",
    "kimi",
    "functiongemma",
    "gemma4",
    "harmony",
)
BY_TOKEN += ("unknown-named", "unknown-section")


@pytest.mark.parametrize("special", [False, True], ids=["text", "special"])
@pytest.mark.parametrize("family", FORMATS)
def test_text_with_strict_calls(family: str, special: bool) -> None:
    format = FORMATS[family]
    vocabulary = Bytes(format.special_tokens if special else ())
    grammar = AnswerFormat(None, format).grammar("", STRICT_TOOLS, "auto", special=vocabulary.ids)
    if not special and family in BY_TOKEN:
        assert grammar is None
        return
    assert grammar is not None
    before = "" if family in ("pythonic", "llama3") else "Let me see. [1]\n"
    head = ""
    if family == "harmony":
        before = f"<|channel|>commentary<|message|>{before}<|end|><|start|>assistant"
        head = "<|channel|>final<|message|>"
    for text in (head, head + "Hello, <b>!\n", before + written(format, ONE)):
        assert allowed(grammar, vocabulary, text)
    assert allowed(grammar, vocabulary, before + written(format, SEVERAL)) is format.parallel
    for calls in WRONG:
        assert not allowed(grammar, vocabulary, before + written(format, calls))


def test_nothing_is_forced() -> None:
    format = answer_format(HERMES)
    assert format.grammar("", TOOLS, "auto") is None
    assert format.grammar("", TOOLS, "none") is None
    assert format.grammar("", [], "required") is None


def test_a_name_that_is_no_tool_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="tool_choice names 'other', which is none of the tools"):
        tool_format(MISTRAL).grammar(TOOLS, "other")


@pytest.mark.parametrize("special", [False, True], ids=["text", "special"])
def test_calls_after_reasoning(special: bool) -> None:
    format = answer_format(DEEPSEEK_R1 + "{# </think> #}")
    vocabulary = Bytes(format.special_tokens(tools=True) if special else ())
    call = written(format.tools, [("ping", {})])

    def accepts(prompt: str, text: str) -> bool:
        grammar = format.grammar(prompt, TOOLS, "required", special=vocabulary.ids)
        assert grammar is not None
        return allowed(grammar, vocabulary, text)

    for prompt, before in (("x", ""), ("x", "<think>\nHm: {\n</think>\n\n"), ("x<think>\n", "Hm.\n</think>\n")):
        assert accepts(prompt, before + call)
        assert not accepts(prompt, before)
        assert not accepts(prompt, before + "Hello.")
    assert accepts("<think>\n\n</think>\n", call) and not accepts("<think>\n\n</think>\n", f"<think></think>{call}")
    assert not accepts("x<think>\n", call)


def test_channels_before_a_call() -> None:
    format = answer_format(HARMONY)
    vocabulary = Bytes(format.special_tokens(tools=True))
    grammar = format.grammar("", TOOLS, "required", special=vocabulary.ids)
    assert grammar is not None
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    call = written(format.tools, [("ping", {})])
    assert allowed(grammar, vocabulary, call) and allowed(grammar, vocabulary, thought + call)
    assert not allowed(grammar, vocabulary, thought + "<|channel|>final<|message|>Hello.")


def test_other_answers_after_reasoning() -> None:
    vocabulary = Bytes(())
    body = '%json {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
    thinking = answer_format(HERMES + "{# </think> #}").after_reasoning("<think>\n", body)
    assert allowed(thinking, vocabulary, 'Well, {"a": 1}? </think>\n{"a": 2}')
    assert not allowed(thinking, vocabulary, '{"a": 2}')
    plain = answer_format(HERMES).after_reasoning("", body)
    assert allowed(plain, vocabulary, '{"a": 2}') and not allowed(plain, vocabulary, '{"b": 2}')
    channels = answer_format(HARMONY)
    vocabulary = Bytes(channels.special_tokens(tools=True))
    final = channels.after_reasoning("", body, vocabulary.ids)
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    assert allowed(final, vocabulary, thought + '<|channel|>final<|message|>{"a": 1}')
    assert not allowed(final, vocabulary, '<|channel|>final<|message|>{"b": 1}') and not allowed(
        final, vocabulary, '{"a": 1}'
    )


def test_a_prefilled_answer_may_be_in_the_middle_of_its_reasoning() -> None:
    vocabulary = Bytes(())
    body = '%json {"type": "integer"}'
    format = answer_format(HERMES + "{# </think> #}")
    inside = format.after_reasoning("x<think>We", body, prefill="<think>We")
    assert allowed(inside, vocabulary, " add.</think>42") and not allowed(inside, vocabulary, "42")
    over = format.after_reasoning("x<think>We</think> ", body, prefill="<think>We</think> ")
    assert allowed(over, vocabulary, "42") and not allowed(over, vocabulary, "<think>a</think>42")

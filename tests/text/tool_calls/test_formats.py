"""Every family's calls: told from the template, and parsed as they come, whatever the pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.text.answer_events import CallArguments, CallBegun, Text
from executorch_webgpu.text.chat import render_chat
from executorch_webgpu.text.tool_calls import tool_format
from tests.text.cuttings import TOOLS, calls_of, cuttings, parsed, text_of
from tests.text.tool_calls.formats import FORMATS
from tests.text.tool_calls.templates import FAMILIES, PARTS, PLAIN, STRICT, UNREADABLE

# What is told from each template.
NAMES = {
    "seed": "qwen3-coder",
    "mistral-named": "mistral",
    "deepseek-r1": "deepseek",
    "deepseek-v3.1": "deepseek",
    "phi4": "granite",
    "unknown": "template",
    "unknown-named": "template",
    "unknown-section": "template",
    "unknown-elements": "template",
    "unknown-grouped": "template",
}
BARE = ("pythonic", "llama3")  # calls are told by where they stand
TEXTS = st.text(st.sampled_from("aé\n\"'\\ {}[]<>:,=|/#😀\t") | st.characters(codec="utf-8", exclude_characters="\r"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e6, 1e6, allow_subnormal=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_é", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
ARGUMENTS = st.fixed_dictionaries(
    {"city": TEXTS},
    optional={
        "days": st.integers(-9, 9),
        "exact": st.none() | st.booleans(),
        "options": st.dictionaries(st.text("abc", min_size=1, max_size=3), JSON, max_size=2),
        "hours": st.lists(st.integers() | st.floats(-9, 9), max_size=2),
    },
)
CALLS = st.lists(
    st.tuples(st.just("get_weather"), ARGUMENTS)
    | st.tuples(st.just("get"), st.fixed_dictionaries({"text": TEXTS}))
    | st.tuples(st.just("ping"), st.just({})),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize(("family", "source"), FAMILIES.items(), ids=FAMILIES)
def test_a_format_is_told_from_its_template(family: str, source: str) -> None:
    assert tool_format(source).name == NAMES.get(family, family)


@pytest.mark.parametrize(
    "source", [None, PLAIN, STRICT, PARTS, UNREADABLE, "", "{{ broken", "{{ raise_exception('no') }}"]
)
def test_other_templates_have_the_generic_format(source: str | None) -> None:
    assert tool_format(source).name == "generic"


# What no value may hold, because it ends one.
ENDS = {"qwen3-coder": "</parameter>", "seed": "</parameter>", "minimax": "</parameter>", "glm": "</arg_value>"}
ENDS |= {"unknown-elements": "</with>", "unknown-grouped": "</with>"}
ENDS |= {"gemma4": '<|\\"|>', "functiongemma": "<escape>"}


def writable(family: str, calls: list[tuple[str, Any]]) -> bool:
    return ENDS.get(family, "\0") not in json.dumps(calls, ensure_ascii=False)


@pytest.mark.parametrize("family", FORMATS)
@settings(deadline=None, max_examples=15)
@given(calls=CALLS, data=st.data())
def test_calls_come_back_as_they_were_written(family: str, calls: list[tuple[str, Any]], data: st.DataObject) -> None:
    format = FORMATS[family]
    calls = calls if format.parallel else calls[:1]
    if not writable(family, calls):
        return
    before = "" if family in BARE else data.draw(st.sampled_from(["", "Let me see. \n", "a [x] {\n\n"]))
    text = before + format.calls.render(calls)
    events = parsed(format.parser(TOOLS), data.draw(cuttings(text)))
    assert text_of(events) == before.rstrip()
    assert [(name, json.loads(arguments)) for name, arguments in calls_of(events)] == calls
    assert events == parsed(format.parser(TOOLS), [text])


@pytest.mark.parametrize("family", FORMATS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_text_that_breaks_off_or_goes_wrong_is_the_same_for_all_pieces(family: str, data: st.DataObject) -> None:
    format = FORMATS[family]
    whole = format.calls.render([("get_weather", {"city": 'é "q" \\', "days": 2, "hours": [1.5]}), ("ping", {})])
    start = data.draw(st.integers(0, len(whole)))
    other = data.draw(st.sampled_from(["", "x", "\n", "}", "]", '"', "<", whole, format.calls.render([("ping", {})])]))
    text = whole[:start] + other + whole[start + data.draw(st.integers(0, 9)) :]
    events = parsed(format.parser(TOOLS), data.draw(cuttings(text)))
    assert events == parsed(format.parser(TOOLS), [text]) == parsed(format.parser(TOOLS), list(text))


@pytest.mark.parametrize("family", FORMATS)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_text_without_calls_is_unchanged(family: str, data: st.DataObject) -> None:
    words = st.sampled_from(["Hello", " ", "\n", "[", "{", "<", "<tool", '{"name": "x"}', "f(x=1)", "`", "call:", "é"])
    marks = list(FORMATS[family].calls.marks)
    words |= st.sampled_from([mark[: len(mark) // 2] for mark in marks] + marks[:1]) if marks else words
    text = "".join(data.draw(st.lists(words, max_size=12)))
    events = parsed(FORMATS[family].parser(TOOLS), data.draw(cuttings(text)))
    if not calls_of(events):
        assert events == ([Text(text)] if text else [])


@pytest.mark.parametrize("family", FORMATS)
def test_arguments_come_while_they_are_written(family: str) -> None:
    format = FORMATS[family]
    text = format.calls.render([("get", {"text": "one two three four five six seven eight"})])
    parser = format.parser(TOOLS)
    pieces = [event for character in text for event in parser.push(character)]
    assert [event for event in pieces if isinstance(event, CallBegun)] == [CallBegun(0, "get")]
    assert sum(isinstance(event, CallArguments) for event in pieces) > 20


@pytest.mark.parametrize("family", FORMATS)
def test_an_answer_that_ends_within_arguments_has_their_beginning(family: str) -> None:
    format = FORMATS[family]
    text = format.calls.render([("get", {"text": "one two"})])
    events = parsed(format.parser(TOOLS), [text[: text.index("two")]])
    assert [(name, arguments.replace(" ", "")) for name, arguments in calls_of(events)] == [("get", '{"text":"one')]
    assert text_of(events) == ""


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=10)
@given(calls=CALLS)
def test_calls_in_a_conversation_come_back_from_what_the_template_writes(
    family: str, calls: list[tuple[str, Any]]
) -> None:
    format, source = FORMATS[family], FAMILIES[family]
    calls = calls if format.parallel else calls[:1]
    if not writable(family, calls):
        return
    question = {"role": "user", "content": "how is it?"}
    answer = {"role": "assistant", "content": None, "tool_calls": [openai_call(*call) for call in calls]}
    messages, variables = format.prepare([question, answer], TOOLS)
    whole = render_chat(source, messages, add_generation_prompt=False, **variables)
    prompt = render_chat(source, messages[:1], **variables)
    events = parsed(format.parser(TOOLS), [whole[common(whole, prompt) :]])
    assert [(name, json.loads(arguments)) for name, arguments in calls_of(events)] == calls


def common(first: str, second: str) -> int:
    """How many characters two texts begin with in common."""
    return next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def openai_call(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


@pytest.mark.parametrize("family", FORMATS)
def test_long_arguments_and_long_texts(family: str) -> None:
    format = FORMATS[family]
    long = "A long text of <some> words. " * 800
    calls: list[tuple[str, Any]] = [("get", {"text": long}), ("ping", {}), ("get", {"text": long})]
    calls = calls if format.parallel else calls[:1]
    text = ("" if family in BARE else long) + format.calls.render(calls)
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    events = parsed(format.parser(TOOLS), pieces)
    assert [(name, json.loads(arguments)) for name, arguments in calls_of(events)] == calls
    assert text_of(events) == ("" if family in BARE else long.rstrip())
    broken = parsed(format.parser(TOOLS), [*pieces[:-30], "\x00", *pieces[-30:]])
    assert broken == parsed(format.parser(TOOLS), ["".join(pieces[:-30]) + "\x00" + "".join(pieces[-30:])])

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.text.answer_events import Reasoning, Text
from executorch_webgpu.text.reasoning import MARKS, Marks, ReasoningFormat, reasoning_format
from tests.text.cuttings import cuttings, parsed, reasoning_of, text_of

THINK = "{{ messages[0].content.split('</think>')[-1] }}{% if add_generation_prompt %}{{ prompt }}{% endif %}"
WORDS = st.lists(
    st.sampled_from(["One", " ", "\n", "<", "<think", "</thin", "two.", "é", "[", "◁", "<|channel|", "{}"]), max_size=10
).map("".join)


def test_no_format_without_marks() -> None:
    assert reasoning_format(None) is None
    assert reasoning_format("{{ messages[0].content }}") is None


@pytest.mark.parametrize(
    ("prompt", "inside", "over"),
    [
        ("<|assistant|>\n", False, False),
        ("<|assistant|>\n<think>\n", True, False),
        ("<|assistant|>\n<think>\n\n</think>\n\n", False, True),
        ("what is <think>?<|assistant|>\n", False, False),
    ],
)
def test_the_prompt_tells_where_the_answer_begins(prompt: str, inside: bool, over: bool) -> None:
    assert reasoning_format(THINK, prompt) == ReasoningFormat(MARKS[1], inside, over)


def test_a_prefilled_answer_may_be_inside() -> None:
    for prefill, inside in (("<think>Let me", True), ("<think>Well.</think>So", False), ("So", False)):
        found = reasoning_format(THINK, f"<|assistant|>{prefill}", prefill)
        assert found is not None and found.inside is inside


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks.opener + marks.answer)
@settings(deadline=None, max_examples=20)
@given(data=st.data(), thought=WORDS, answer=WORDS)
def test_reasoning_and_answer_come_apart(marks: Marks, data: st.DataObject, thought: str, answer: str) -> None:
    inside = data.draw(st.booleans())
    found = reasoning_format(marks.closer + marks.sign, f"user\n{marks.opener}\n" if inside else "user\n")
    assert found is not None and found.marks is not None and found.inside is inside
    around = data.draw(st.booleans()) and marks.answer
    said = f"{marks.answer}{answer}{marks.answer_end}" if around else answer
    text = ("" if inside else f"\n{marks.opener}\n") + f"{thought}\n{marks.closer}\n\n{said}"
    events = parsed(found.splitter(), data.draw(cuttings(text)))
    assert events == parsed(found.splitter(), [text])
    if marks.closer not in thought + answer and marks.answer not in answer:
        assert reasoning_of(events) == thought.strip()
        assert text_of(events) == (answer.strip() if around else answer.lstrip())


@settings(deadline=None)
@given(data=st.data(), answer=WORDS)
def test_an_answer_without_reasoning_is_unchanged(data: st.DataObject, answer: str) -> None:
    found = reasoning_format(THINK, "user\n")
    assert found is not None
    events = parsed(found.splitter(), data.draw(cuttings(answer)))
    if "<think>" not in answer:
        assert events == ([Text(answer)] if answer else [])


def test_reasoning_that_is_cut_off_is_reasoning() -> None:
    found = reasoning_format(THINK, "<think>\n")
    assert found is not None
    assert parsed(found.splitter(), ["It may be 4", "2</thi"]) == [Reasoning("It may be 42</thi")]


def test_reasoning_comes_as_it_is_written() -> None:
    found = reasoning_format(THINK, "<think>\n")
    assert found is not None
    splitter = found.splitter()
    assert splitter.push("one two") == [Reasoning("one two")]
    assert splitter.push(" \n<") == []  # what may be the end is held back
    assert splitter.push("b") == [Reasoning(" \n<b")]
    assert splitter.push("</think>\n\n") == []
    assert splitter.push("Four.") == [Text("Four.")]


HARMONY = "<|channel|>analysis {{ messages }}"
MESSAGES = (
    "<|channel|>analysis<|message|>Think <b>.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    "<|start|>assistant<|channel|>analysis<|message|> More.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Done.<|return|>"
)


@settings(deadline=None)
@given(cuttings(MESSAGES))
def test_channels(pieces: list[str]) -> None:
    found = reasoning_format(HARMONY)
    assert found is not None
    expected = [Reasoning("Think <b>."), Text("I look."), Reasoning(" More."), Text("Done.")]
    assert parsed(found.splitter(), pieces) == expected


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("Hello.", [Text("Hello.")]),
        ("<|channel|>final<|message|>Hel", [Text("Hel")]),
        ("<|channel|>fin", []),
        ("<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b", [Reasoning("a"), Text("b")]),
        ("<|channel|>commentary to=functions.f<|message|>{}<|call|>", [Text("{}")]),
    ],
)
def test_channels_that_are_not_as_they_should_be(text: str, events: list[Text]) -> None:
    found = reasoning_format(HARMONY)
    assert found is not None
    assert parsed(found.splitter(), [text]) == parsed(found.splitter(), list(text)) == events


def test_messages_to_tools_stay_for_the_parser_of_calls() -> None:
    text = "<|channel|>commentary to=functions.f<|message|>{}<|call|>"
    found = reasoning_format(HARMONY)
    assert found is not None
    assert parsed(found.splitter(calls=True), list(text)) == [Text(text)]


def test_special_tokens() -> None:
    found = reasoning_format("[THINK]x[/THINK]")
    assert found is not None and found.special_tokens == ("[THINK]", "[/THINK]")
    harmony = reasoning_format(HARMONY)
    assert harmony is not None and "<|channel|>" in harmony.special_tokens


def test_tags_of_other_things_are_the_answers() -> None:
    """Templates name ``<response>`` for results of tools, too."""
    found = reasoning_format(THINK + "<response>{{ result }}</response>", "<think>\n")
    assert found is not None
    events = parsed(found.splitter(), ["So.</think><response>1</response>"])
    assert events == [Reasoning("So."), Text("<response>1</response>")]

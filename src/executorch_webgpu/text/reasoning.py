"""Reasoning that a model writes before its answer, told from the answer by the marks that its template has."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .answer_events import Event, Reasoning, Text
from .grammar_rules import GrammarRules, in_order
from .source import WHITE_SPACE, EndOfTextError, MismatchError, Parsing, Source, beginning

MAX_HEAD = 512  # characters of what a message's head says, of families whose answers are several messages


@dataclass(frozen=True)
class Marks:
    """``opener`` and ``closer`` stand around the reasoning; ``answer`` and ``answer_end`` around the answer, if they
    are there. ``sign``: what a template with these marks says, besides them."""

    opener: str
    closer: str
    answer: str = ""
    answer_end: str = ""
    sign: str = ""


MARKS = (
    Marks("<think>", "</think>", "<response>", "</response>", sign="<response></response>"),
    Marks("<think>", "</think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    Marks("<|channel>thought", "<channel|>"),
    Marks("◁think▷", "◁/think▷"),
    Marks("<thought>", "</thought>"),
    Marks("<thinking>", "</thinking>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"),
    Marks("Here is my thought process:", "Here is my response:"),
    Marks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", "", "[END FINAL RESPONSE]"),
)


@dataclass(frozen=True)
class ReasoningFormat:
    """How a model marks its reasoning.

    ``marks`` is None for answers that are messages in channels (gpt-oss). ``inside``: the prompt opened the block, so
    the answer begins inside of it. ``over``: it closed it, too, so there is to be none.
    """

    marks: Marks | None
    inside: bool = False
    over: bool = False

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Texts of special tokens that the splitter must see: decode with these kept."""
        if self.marks is None:
            return ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>")
        its = self.marks
        opener = "<|channel>" if its.opener.startswith("<|channel>") else its.opener
        return tuple(mark for mark in (opener, its.closer, its.answer, its.answer_end) if mark)

    def splitter(self, *, calls: bool = False) -> ReasoningSplitter:
        """A splitter for one answer. ``calls``: messages to tools stay as they are, for the parser of calls."""
        marks, inside = self.marks, self.inside
        if marks is None:
            return ReasoningSplitter(lambda source, events: _channels(source, events, calls))
        return ReasoningSplitter(lambda source, events: _blocks(source, events, marks, inside))

    def before(self, rules: GrammarRules, answer: str, *, text: bool = False) -> str:
        """A grammar's expression for the reasoning and then ``answer``, an expression, too. ``text``: that is no call,
        and has a head of its own, where answers are messages."""
        if self.marks is None:
            answer = in_order((rules.literal("<|channel|>final<|message|>"), answer)) if text else answer
            thought = in_order((rules.literal("<|channel|>analysis<|message|>"), rules.text_before("<|end|>")))
            return in_order((f"({in_order((thought, rules.literal('<|start|>assistant')))})*", answer))
        if self.over:
            return answer
        thought = in_order((rules.text_before(self.marks.closer), rules.rule("space", r"/[ \t\r\n]*/")))
        if self.inside:
            return in_order((thought, answer))
        return in_order((f"({in_order((rules.literal(self.marks.opener), thought))})?", answer))


def reasoning_format(template: str | None, prompt_text: str = "", prefill: str = "") -> ReasoningFormat | None:
    """How a chat template's model marks its reasoning; None if the template shows no marks.

    ``prompt_text``: the rendered prompt, whose end tells whether the answer begins inside of the block. ``prefill``:
    the beginning of the answer, where the prompt ends with one.
    """
    if template is None:
        return None
    if "<|channel|>" in template and "analysis" in template:
        return ReasoningFormat(None)
    for marks in MARKS:
        # A template that only removes reasoning from earlier answers names the closer alone.
        if marks.closer in template and marks.sign in template:
            end = prompt_text.rstrip()
            opened = prefill.rfind(marks.opener) > prefill.rfind(marks.closer)
            over = marks.closer in prefill and not opened
            return ReasoningFormat(marks, opened or end.endswith(marks.opener), over or end.endswith(marks.closer))
    return None


class ReasoningSplitter:
    """Takes an answer in pieces and tells reasoning from text: whatever the pieces, the events are the same once
    ``joined``. White space next to the marks of a block is left out with them."""

    def __init__(self, run: Callable[[Source, list[Event]], Parsing[None]]) -> None:
        self._source = Source()
        self._events: list[Event] = []
        self._parsing = run(self._source, self._events)
        self._finished = False

    def push(self, text: str) -> list[Event]:
        """What this piece completes."""
        self._source.text += text
        return self._advance()

    def finish(self) -> list[Event]:
        """What is left at the end of all text."""
        self._source.ended = True
        return self._advance()

    def _advance(self) -> list[Event]:
        if not self._finished:
            self._finished = next(self._parsing, self) is self
        events = list(self._events)
        self._events.clear()
        return events


Say = Callable[[str], None]


def _sayer(events: list[Event], kind: type[Reasoning] | type[Text]) -> Say:
    def say(text: str) -> None:
        if text:
            events.append(kind(text))

    return say


def _blocks(source: Source, events: list[Event], marks: Marks, inside: bool) -> Parsing[None]:
    """Reasoning between marks at the beginning, then the answer."""
    text = _sayer(events, Text)
    if not inside:
        yield from source.space()
        inside = bool((yield from source.next_is(marks.opener)))
        source.at = source.at if inside else 0
    if inside:
        yield from source.space()
        if not (yield from _trimmed(source, marks.closer, _sayer(events, Reasoning))):
            return
        yield from source.space()
        if marks.answer_end and (not marks.answer or (yield from source.next_is(marks.answer))):
            yield from source.space()
            if not (yield from _trimmed(source, marks.answer_end, text)):
                return
            yield from source.space()
    while True:
        text(source.text[source.at :])
        source.at = len(source.text)
        source.forget(source.at)
        if source.ended:
            return
        yield


def _trimmed(source: Source, end: str, say: Say) -> Parsing[bool]:
    """Say the text before ``end``, without white space before that, and read it. Returns whether it came."""
    searched = source.at
    while True:
        text = source.text
        found = text.find(end, searched)
        stop = found if found >= 0 else beginning(text, searched, [end])
        if source.ended and found < 0:
            say(text[source.at :])
            return False
        held = source.at + len(text[source.at : stop].rstrip(WHITE_SPACE))
        say(text[source.at : held])
        if found >= 0:
            source.at = found + len(end)
            return True
        source.forget(held)
        source.at, searched = 0, stop - held
        yield


_MESSAGE_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_HEADS: tuple[str, ...] = ("<|start|>", "<|channel|>")


def _channels(source: Source, events: list[Event], calls: bool) -> Parsing[None]:
    """Messages in channels: "analysis" is reasoning, messages to tools are calls, all others are text."""
    text, reasoning = _sayer(events, Text), _sayer(events, Reasoning)
    # The prompt ends within the first message's head, which may go on with whom the message is for.
    heads = (*_HEADS, " to=", "to=")
    while (yield from source.peek()):
        source.forget(source.at)
        opener = yield from source.next_is(*heads)
        heads = _HEADS
        say, to_tool = text, False
        if opener is not None:
            try:
                yield from source.until(["<|message|>"], limit=MAX_HEAD)
                head = source.text[: source.at]
                to_tool = calls and "to=functions." in head
                if to_tool:
                    text(head)
                elif re.search(r"<\|channel\|>\s*analysis", head):
                    say = reasoning
            except EndOfTextError:
                return  # the head of a message that does not come
            except MismatchError:
                text(opener)
                source.at = len(opener)
        try:
            _, end = yield from source.until([*_MESSAGE_ENDS, *_HEADS], take=say)
        except EndOfTextError:
            return
        if end in _HEADS:
            source.at -= len(end)
        elif to_tool:
            text(end)

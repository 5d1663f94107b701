"""A chat template's format of calls."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..answer_events import CallArguments, CallBegun
from .derived import derived, with_spaces
from .families import FAMILIES, HERMES, CallFormat
from .json_calls import JsonCalls
from .template_probe import KEY, NAME, NUMBER_KEY, TOOL, VALUE, Abilities, abilities, answer_text
from .tool_format import ToolFormat


@lru_cache(maxsize=16)
def tool_format(template: str | None) -> ToolFormat:
    """The format that a chat template's model calls tools in.

    It is told from a call that the template writes, or from its source, else read off that call. For any other
    template, and for none, it is the generic one: JSON in ``<tool_call>`` tags, with the tools described by our own
    words in the system's message.
    """
    if template is None:
        return ToolFormat("generic", HERMES)
    can = abilities(template)
    for text in (can.call, can.shown, template):
        for family in FAMILIES:
            if family.sign.search(text):
                found = family.read(can.call if family.sign.search(can.call) else template)
                format = ToolFormat(family.name, _with_spaces(found, can), family.ids, can)
                if _reads(format, can.call.removeprefix(can.around[0]), [{KEY: VALUE}]):
                    return format
    for found in derived(template, can) if can.calls else ():
        format = ToolFormat("template", found, can=can)
        if _reads_all(format, template):
            return format
    kept = {name: getattr(can, name) for name in ("system", "developer", "parts", "needs_tools")}
    # What it shows of tools says nothing of how to call them.
    return ToolFormat("generic", HERMES, can=replace(Abilities(), **kept))


def _with_spaces(format: CallFormat, can: Abilities) -> CallFormat:
    return with_spaces(format, can) if isinstance(format, JsonCalls) and format.closer else format


def _reads_all(format: ToolFormat, template: str) -> bool:
    """Whether the format's parser finds all kinds of calls that the template writes."""
    number: list[dict[str, Any]] = [{KEY: VALUE, NUMBER_KEY: 7}]
    kinds = [[{KEY: VALUE}], number, [{KEY: ""}], *([[{KEY: VALUE}, {KEY: "x"}]] if format.can.parallel else [])]
    return all(_reads(format, answer_text(template, format.can, kind) or "", kind) for kind in kinds)


def _reads(format: ToolFormat, text: str, expected: list[dict[str, Any]]) -> bool:
    """Whether the format's parser finds the calls that the template writes: a sign may be another format's, too."""
    if not format.can.calls:
        return True
    parser = format.parser([TOOL])
    events = [*parser.push(text), *parser.finish()]
    names = [event.name for event in events if isinstance(event, CallBegun)]
    if format.ids == "kimi":  # of these a template writes the id, which holds the name
        names = [NAME for _ in names]
    arguments = ["" for _ in names]
    for event in events:
        if isinstance(event, CallArguments):
            arguments[event.index] += event.json_fragment
    try:
        return names == [NAME] * len(expected) and [json.loads(text) for text in arguments] == expected
    except ValueError:
        return False

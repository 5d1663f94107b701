"""A chat template's format of calls."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache

from ..answer_events import CallArguments, CallBegun
from .families import FAMILIES, HERMES, CallFormat
from .json_calls import ARGUMENT_KEYS, NAME_KEYS, JsonCalls
from .template_probe import KEY, NAME, TOOL, VALUE, Abilities, abilities
from .tool_format import ToolFormat

MAX_MARK = 40


@lru_cache(maxsize=16)
def tool_format(template: str | None) -> ToolFormat:
    """The format that a chat template's model calls tools in.

    It is told from a call that the template writes, else from its source, else read off that call. For any other
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
                if _reads_itself(format):
                    return format
    written = _written(can)
    if written is not None:
        format = ToolFormat("template", written, can=can)
        if _reads_itself(format):
            return format
    kept = {name: getattr(can, name) for name in ("system", "developer", "parts", "needs_tools")}
    # What it shows of tools says nothing of how to call them.
    return ToolFormat("generic", HERMES, can=replace(Abilities(), **kept))


def _reads_itself(format: ToolFormat) -> bool:
    """Whether the format's parser finds the call that the template writes: a sign may be another format's, too."""
    can = format.can
    if not can.calls:
        return True
    parser = format.parser([TOOL])
    events = [*parser.push(can.call.removeprefix(can.around[0])), *parser.finish()]
    names = [event.name for event in events if isinstance(event, CallBegun)]
    if format.ids == "kimi":  # of these a template writes the id, which holds the name
        names = [NAME for _ in names]
    arguments = "".join(event.json_fragment for event in events if isinstance(event, CallArguments))
    try:
        return names == [NAME] and json.loads(arguments) == {KEY: VALUE}
    except ValueError:
        return False


def _with_spaces(format: CallFormat, can: Abilities) -> CallFormat:
    """The format with white space as the template has it, inside of the marks of a call and between two."""
    if not isinstance(format, JsonCalls) or not format.closer:
        return format
    opener, closer = re.escape(format.opener), re.escape(format.closer)
    inner = re.search(opener + r"(\s*)[{\[]", can.call)
    between = re.search(closer + r"(\s*)" + opener, can.two)
    return replace(
        format,
        inner=inner[1] if inner else format.inner,
        separator=between[1] if between else format.separator,
    )


def _written(can: Abilities) -> CallFormat | None:
    """JSON between the marks that the template writes around it, if that is what it writes."""
    head, tail = can.around
    if not head or not can.call.startswith(head):
        return None
    text = can.call.removeprefix(head).removesuffix(tail)
    for found in re.finditer(r"[\[{]", text):
        try:
            value, end = json.JSONDecoder().raw_decode(text, found.start())
        except ValueError:
            continue
        call = value[0] if isinstance(value, list) and value else value
        if not isinstance(call, dict):
            continue
        names = [key for key in NAME_KEYS if call.get(key) == NAME]
        arguments = [key for key in ARGUMENT_KEYS if call.get(key) == {KEY: VALUE}]
        opener, closer = text[: found.start()].strip(), text[end:].strip()
        if names and arguments and max(len(opener), len(closer)) <= MAX_MARK:
            format = JsonCalls(opener, closer, names[0], arguments[0], isinstance(value, list), bare=not opener)
            return _with_spaces(format, can)
    return None

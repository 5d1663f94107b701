"""A chat template's format of calls."""

from __future__ import annotations

import json
import re
from functools import lru_cache

from .families import FAMILIES, HERMES, CallFormat
from .json_calls import ARGUMENT_KEYS, NAME_KEYS, JsonCalls
from .template_probe import KEY, NAME, VALUE, Abilities, abilities
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
    for text in (can.call, template):
        for family in FAMILIES:
            if family.sign.search(text):
                format = family.read(can.call if family.sign.search(can.call) else template)
                return ToolFormat(family.name, format, family.ids, can)
    written = _written(can)
    if written is not None:
        return ToolFormat("template", written, can=can)
    # What it shows of tools says nothing of how to call them.
    return ToolFormat("generic", HERMES, can=Abilities(system=can.system, developer=can.developer, parts=can.parts))


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
            return JsonCalls(opener, closer, names[0], arguments[0], isinstance(value, list), bare=not opener)
    return None

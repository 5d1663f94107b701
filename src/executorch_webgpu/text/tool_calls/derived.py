"""A format read off the calls that a template writes, for families that are not known by name."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from .families import CallFormat
from .json_calls import ARGUMENT_KEYS, NAME_KEYS, JsonCalls
from .named_json import SectionCalls
from .template_probe import KEY, NAME, NUMBER_KEY, VALUE, Abilities, answer_text
from .xml_calls import XmlCalls

MAX_MARK = 48  # characters: longer ones are sentences


def derived(source: str, can: Abilities) -> list[CallFormat]:
    """Formats that the template's calls may be in; whether one of them reads these is to be seen."""
    one = answer_text(source, can, [{KEY: VALUE}])
    two = answer_text(source, can, [{KEY: VALUE}] * 2)
    if one is None or one.count(NAME) != 1:
        return []
    return [
        *_json(one, can),
        *_named(one, two),
        *(
            replace(format, cdata="<![CDATA[" in source)
            for format in _elements(answer_text(source, can, [{KEY: VALUE, NUMBER_KEY: 70707}]), one, two)
        ),
    ]


def with_spaces(format: JsonCalls, can: Abilities) -> JsonCalls:
    """The format with white space as the template has it, inside of the marks of a call and between two."""
    opener, closer = re.escape(format.opener), re.escape(format.closer)
    inner = re.search(opener + r"(\s*)[{\[]", can.call)
    between = re.search(closer + r"(\s*)" + opener, can.two)
    return replace(
        format,
        inner=inner[1] if inner else format.inner,
        separator=between[1] if between else format.separator,
    )


def _json(text: str, can: Abilities) -> list[CallFormat]:
    """JSON with name and arguments, between marks or without any."""
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
        if names and arguments and _are_marks(opener, closer):
            format = JsonCalls(opener, closer, names[0], arguments[0], isinstance(value, list), bare=not opener)
            return [with_spaces(format, can) if closer else format]
    return []


def _named(one: str, two: str | None) -> list[CallFormat]:
    """A name in marks, then arguments in JSON."""
    found = re.search(rf'{NAME}(?P<sep>[^{{]+)(?P<json>\{{\s*"{KEY}":\s*"{VALUE}"\s*\}})', one)
    if found is None:
        return []
    before, after = one[: found.start()], one[found.end() :]
    section, call, close = _split(before, two, after, found["json"])
    if not call.strip() or not _are_marks(section, call, found["sep"], close, after):
        return []
    section_close = after.removeprefix(close) if section else ""
    return [SectionCalls(section.strip(), section_close.strip(), call.strip(), found["sep"], close.strip())]


def _elements(text: str | None, one: str, two: str | None) -> list[XmlCalls]:
    """A parameter an element, of which the number tells where one ends and the next begins."""
    pattern = f"{NAME}(.+?){KEY}(.+?){VALUE}(.+?){NUMBER_KEY}(.+?)70707(.+)"
    found = re.search(pattern, text or "", re.DOTALL)
    end = one.rfind(VALUE) + len(VALUE)
    if text is None or found is None or KEY in "".join(found.groups()) or NAME in "".join(found.groups()):
        return []
    head, key_end, between, _, _ = found.groups()
    key = _common_suffix(head, between)
    value_close, call_end = between.removesuffix(key), head.removesuffix(key)
    if not value_close.strip() or not one[end:].startswith(value_close):
        return []
    after = one[end + len(value_close) :]
    section, call, close = _split(text[: found.start()], two, after, VALUE + value_close)
    parts = (call_end, key, key_end, value_close)
    if not key.strip() or not call_end.strip() or not close.strip() or not _are_marks(section, call, close, *parts):
        return []
    lines = key_end.endswith("\n") and value_close.startswith("\n")
    common = XmlCalls(
        opener=call.strip(),
        closer=close.strip(),
        call="",
        call_end=call_end.strip(),
        call_close="",
        key=key.strip(),
        key_end=key_end.strip(),
        value="",
        value_close=value_close.strip(),
        line="\n" if "\n" in call_end + key else "",
        lines=lines,
    )
    if not section.strip():
        return [common]
    inner = replace(common, call=common.opener, call_close=common.closer, grouped=True)
    return [replace(inner, opener=section.strip(), closer=after.removeprefix(close).strip())]


def _split(before: str, two: str | None, after: str, arguments_end: str) -> tuple[str, str, str]:
    """What stands before all calls and before each, and after each, by what stands between two calls."""
    first = two.find(arguments_end) if two is not None else -1
    second = two.rfind(NAME) if two is not None else -1
    if two is None or first < 0 or second < first + len(arguments_end):
        return "", before, after
    between = two[first + len(arguments_end) : second]
    call = _common_suffix(before, between)
    return before.removesuffix(call), call, between.removesuffix(call)


def _common_suffix(first: str, second: str) -> str:
    size = 0
    while size < min(len(first), len(second)) and first[-size - 1] == second[-size - 1]:
        size += 1
    return first[len(first) - size :]


def _are_marks(*texts: str) -> bool:
    return all(len(text.strip()) <= MAX_MARK for text in texts)

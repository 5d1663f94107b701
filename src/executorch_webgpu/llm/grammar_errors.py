"""What llguidance says against a grammar, as one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Keywords of JSON Schema, from draft 4 to 2020-12, that llguidance does not implement.
UNSUPPORTED = frozenset(
    (
        *("not", "if", "then", "else", "$dynamicRef", "$recursiveRef"),
        *("uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems"),
        *("propertyNames", "dependencies", "dependentRequired", "dependentSchemas", "unevaluatedProperties"),
    )
)
_ONE = "additionalItems", "additionalProperties", "items"  # keywords whose value is a schema,
_MANY = "allOf", "anyOf", "oneOf", "prefixItems", "items"  # a list of schemas,
_NAMED = "properties", "patternProperties", "$defs", "definitions"  # or schemas by name
_UNIMPLEMENTED = re.compile(r"Unimplemented keys: (\[.*?\])")
_ENDS = re.compile(r"\n<(?:state|backtrace|grammar)>")  # what follows is for debugging
_PICTURE = re.compile(r"regex parse error:\n(?P<regex>.*?)\n(?P<caret> *)\^+.*?error: (?P<what>[^\n]*)", re.DOTALL)
_SOURCE = re.compile(r"\n +\d+ \|.*?\n *\^.*?(?=\n|$)", re.DOTALL)  # a line of the grammar, with a caret below
_REGEX = re.compile(r"^at 1\(8\): invalid regex .* \(in regex\): ", re.DOTALL)  # what a regex becomes a grammar with
_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
_INDENT = 4  # of pictures

# What a reader needs to know beside llguidance's own words.
_MEANINGS = {
    "NoExtensionBias": "no text that the vocabulary can spell keeps to it",
    "schema too large": "the schema is too large; give a smaller one",
    "initial lexer configuration (grammar) too big": "it is too large; give a smaller one",
    "fuel exhausted": "it is too complex; give a simpler one",
    "too many expressions": "it is too complex; give a simpler one",
    "Too many items": "it is too complex; give a simpler one",
    "too many states": "it is too complex; give a simpler one",
    "oneOf constraints are not supported": "oneOf is supported only where no text fits two of its schemas; use anyOf",
    "grammar.symbols.len()": "it is too large; give a smaller one",
}


def reason_of(error: str) -> str:
    """llguidance's message without its pictures and its state, on one line."""
    error = _ENDS.split(error)[0]
    for part, meaning in _MEANINGS.items():
        if part in error:
            return meaning
    error = _PICTURE.sub(_in_words, error)
    error = _SOURCE.sub("", error)
    error = _REGEX.sub("", error)
    error = _PLACE.sub(r"line \1, column \2: ", error)
    return re.sub(r"\s+", " ", error.removeprefix("panic: ")).strip() or "llguidance does not say why"


def _in_words(found: re.Match[str]) -> str:
    return f"{found['what']} at character {len(found['caret']) - _INDENT + 1}"


def unsupported_keywords(schema: Any, error: str) -> str:
    """All keywords of a schema that are not supported, with their places, if the error is about any."""
    if not (found := _UNIMPLEMENTED.search(error)):
        return ""
    places: dict[str, str] = {}
    for keyword, place in _keywords(schema, "#"):
        if keyword in UNSUPPORTED:
            places.setdefault(keyword, place)
    missed = [keyword for keyword in json.loads(found[1]) if keyword not in places]
    return ", ".join([*(f"{keyword} (at {place})" for keyword, place in places.items()), *missed])


def _keywords(schema: Any, place: str) -> Iterator[tuple[str, str]]:
    """Keywords of a schema and of those in it, with JSON pointers to the schemas that have them."""
    if not isinstance(schema, Mapping):
        return
    yield from ((keyword, place) for keyword in schema)
    for keyword, value in schema.items():
        if isinstance(value, Mapping) and keyword in _NAMED:
            for name, inner in value.items():
                yield from _keywords(inner, f"{place}/{keyword}/{_escaped(name)}")
        elif isinstance(value, Mapping) and keyword in _ONE:
            yield from _keywords(value, f"{place}/{keyword}")
        elif isinstance(value, list) and keyword in _MANY:
            for index, inner in enumerate(value):
                yield from _keywords(inner, f"{place}/{keyword}/{index}")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")

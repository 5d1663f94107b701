"""What types a tool's JSON schema allows, and values of formats that write all of them as plain text."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

_WORDS = {"True": True, "False": False, "None": None}
ALL_TYPES = frozenset(("string", "number", "integer", "boolean", "null", "object", "array"))


def parameter_schema(schema: Mapping[str, Any], name: str) -> Any:
    """The schema of one parameter; True, which allows all, where none is stated."""
    properties = resolved(schema, schema).get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return properties[name]
    others = schema.get("additionalProperties", True)
    return others if isinstance(others, Mapping) else True


def allowed_types(schema: Any, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """Names of JSON types that a schema allows, all where it says nothing."""
    if not isinstance(schema, Mapping) or depth > 8:
        return ALL_TYPES
    schema = resolved(schema, root)
    types = ALL_TYPES
    stated = schema.get("type")
    if isinstance(stated, str | list):
        types &= frozenset([stated] if isinstance(stated, str) else stated)
        if "number" in types:
            types |= {"integer"}
    if isinstance(schema.get("enum"), list):
        types &= frozenset().union(*map(_types_of, schema["enum"]))
    if "const" in schema:
        types &= _types_of(schema["const"])
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            types &= frozenset().union(*(allowed_types(part, root, depth + 1) for part in schema[key]))
    for part in schema.get("allOf") or ():
        types &= allowed_types(part, root, depth + 1)
    return types


def is_text_only(schema: Any, root: Mapping[str, Any]) -> bool:
    """Whether a schema allows nothing but strings."""
    return allowed_types(schema, root) == {"string"}


def json_of_text(text: str, schema: Any, root: Mapping[str, Any]) -> str:
    """A value that was written as plain text, as JSON of a type that its schema allows; else it is a string."""
    types = allowed_types(schema, root)
    if types != {"string"}:
        for value in _readings(text.strip()):
            if _types_of(value) & types and not isinstance(value, str):
                return json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False)


def string_options(schema: Any) -> list[str] | None:
    """The only strings that a schema allows; None if it names none."""
    if not isinstance(schema, Mapping):
        return None
    options = [schema["const"]] if "const" in schema else schema.get("enum")
    return [str(option) for option in options] if isinstance(options, list) and options else None


def with_definitions(schema: Any, root: Mapping[str, Any]) -> Any:
    """A part of a schema as one of its own, with the definitions that it may refer to."""
    if not isinstance(schema, Mapping):
        return schema
    return {**{key: root[key] for key in ("$defs", "definitions") if key in root}, **schema}


def _readings(text: str) -> list[Any]:
    """What the text may mean: JSON, or Python, as templates without ``tojson`` write it."""
    readings = []
    if text in _WORDS:
        return [_WORDS[text]]
    try:
        readings.append(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        if text[:1] in ("{", "["):
            try:
                value = ast.literal_eval(text)
                json.dumps(value, allow_nan=False)
                readings.append(value)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                pass
    return readings


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _types_of(value: Any) -> frozenset[str]:
    match value:
        case None:
            return frozenset(("null",))
        case bool():
            return frozenset(("boolean",))
        case int():
            return frozenset(("integer", "number"))
        case float():
            return frozenset(("number", "integer") if value.is_integer() else ("number",))
        case str():
            return frozenset(("string",))
        case list() | tuple():
            return frozenset(("array",))
        case _:
            return frozenset(("object",))


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference into the same document names."""
    for _ in range(8):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        found: Any = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step) if isinstance(found, Mapping) and step else found
        if not isinstance(found, Mapping):
            return {}
        schema = found
    return schema

"""Random JSON schemas of what grammars support, whose texts are short."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm.grammar import Grammar, GrammarVocabulary

Schema = dict[str, Any]
NAMES = st.sampled_from(["a", "b", "hello", "he said", "é", 'q"', "n12"])
FORMATS = "date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "hostname"
PATTERNS = "^[a-c]{2,5}$", "^x(yz)*$", "[0-9]{2}", "^(hello|hell)$", r"^\w{1,3}$"


def _merged(*parts: Schema) -> Schema:
    return {key: value for part in parts for key, value in part.items()}


def _range(least: int, most: int, low: str, high: str) -> st.SearchStrategy[Schema]:
    """Both bounds, of which the upper one is always there."""
    pairs = st.tuples(st.integers(least, most), st.integers(least, most)).map(sorted)
    return pairs.map(lambda pair: {low: pair[0], high: pair[1]})


strings = st.one_of(
    _range(0, 6, "minLength", "maxLength").map(lambda bounds: _merged({"type": "string"}, bounds)),
    st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern, "maxLength": 8}),
    st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name}),
)
numbers = st.one_of(
    st.just({"type": "integer"}),
    _range(-200, 300, "minimum", "maximum").map(lambda bounds: _merged({"type": "integer"}, bounds)),
    _range(-9, 9, "minimum", "exclusiveMaximum").map(lambda bounds: _merged({"type": "number"}, bounds)),
    st.sampled_from([2, 3, 10]).map(lambda n: {"type": "integer", "multipleOf": n, "minimum": 0, "maximum": 99}),
)
values = st.one_of(st.none(), st.booleans(), st.integers(-9, 99), st.text(max_size=4), st.just({"a": [1, "b"]}))
leaves: st.SearchStrategy[Schema] = st.one_of(
    strings,
    numbers,
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": ["boolean", "null"]}]),
    values.map(lambda value: {"const": value}),
    st.lists(values, min_size=1, max_size=4).map(lambda found: {"enum": found}),
)


def _arrays(items: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.builds(
        lambda item, bounds, prefix: _merged(
            {"type": "array", "items": item}, bounds, {"prefixItems": prefix} if prefix else {}
        ),
        items,
        _range(0, 3, "minItems", "maxItems"),
        st.lists(items, max_size=2),
    )


@st.composite
def _objects(draw: st.DrawFn, properties: st.SearchStrategy[Schema]) -> Schema:
    named = draw(st.dictionaries(NAMES, properties, max_size=3))
    schema: Schema = {"type": "object", "properties": named, "additionalProperties": False}
    if named:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(named)), unique=True))
    if draw(st.booleans()):
        schema["description"] = "what a reader needs to know"
    return schema


def _open_objects(values: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Names that the schema does not have, or has a pattern of. One may come twice, and then counts once."""
    return st.builds(
        lambda value, other, least, kind: _merged(
            {"type": "object", "minProperties": least, "maxProperties": least + 1},
            {"additionalProperties": value} if kind != "pattern" else {"additionalProperties": False},
            {"patternProperties": {"^[kl][0-9]$": other}} if kind != "other" else {},
        ),
        values,
        values,
        st.integers(0, 1),
        st.sampled_from(["other", "pattern", "both"]),
    )


def _all_of(leaf: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """What one schema says, and what another one adds."""
    more = st.sampled_from([{"minimum": 3}, {"maxLength": 4}, {"maxItems": 2}, {"exclusiveMinimum": -3}, {}])
    return st.tuples(leaf, more).map(lambda both: {"allOf": list(both)})


def _one_of(values: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Objects that a constant tells apart."""
    return st.lists(values, min_size=1, max_size=3).map(
        lambda found: {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": f"k{i}"}, "value": value},
                    "required": ["kind", "value"],
                    "additionalProperties": False,
                }
                for i, value in enumerate(found)
            ]
        }
    )


def _alternatives(options: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.lists(options, min_size=1, max_size=3).map(lambda found: {"anyOf": found})


def _referenced(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return inner.map(
        lambda schema: {
            "$defs": {"one": schema},
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/one"}, "y": {"$ref": "#/$defs/one"}},
            "required": ["x"],
            "additionalProperties": False,
        }
    )


_inner = st.recursive(
    leaves, lambda inner: st.one_of(_arrays(inner), _objects(inner), _alternatives(inner)), max_leaves=4
)
schemas = st.one_of(
    _inner, _objects(_inner), _referenced(_inner), _open_objects(leaves), _all_of(leaves), _one_of(leaves)
)


def possible(vocabulary: GrammarVocabulary, schema: Schema) -> bool:
    """Whether anything fits the schema: random bounds and patterns may leave nothing."""
    try:
        vocabulary.check(Grammar.json_schema(schema))
    except InvalidInputError as error:
        assert "Unsatisfiable" in str(error), f"{schema}: {error}"
        return False
    return True

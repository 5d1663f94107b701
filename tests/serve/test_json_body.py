"""JSON of requests: all that is right is taken as it is, all else is refused in one sentence."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from executorch_webgpu.serve.errors import ApiError
from executorch_webgpu.serve.json_body import MAX_DEPTH, check_content_type, parse_object

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)


def refusal(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as refused:
        parse_object(body)
    error = refused.value
    assert (error.status, error.code) == (400, "invalid_json")
    assert not error.message.endswith(".") and error.message.isascii()
    json.dumps(error.body()).encode()
    return error


@given(st.dictionaries(TEXT, VALUES, max_size=4), st.booleans())
def test_objects_are_taken_as_they_are(value: dict[str, Any], ascii: bool) -> None:
    assert parse_object(json.dumps(value, ensure_ascii=ascii).encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_refusal(body: bytes) -> None:
    try:
        assert isinstance(parse_object(body), dict)
    except ApiError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        *((b"", "line 1, column 1"), (b"{", "line 1, column 2"), (b'{"a": 1,}', "column"), (b"{'a': 1}", "column")),
        *((b"[]", "JSON object"), (b"1", "JSON object"), (b"null", "JSON object"), (b'"{}"', "JSON object")),
        *((b'{"a": \xff}', "byte 6"), (b"\xef\xbb\xbf{}", "column 1"), ('{"a": 1}'.encode("utf-16"), "byte 0")),
        *((b'{"a": NaN}', "NaN"), (b'{"a": -Infinity}', "-Infinity"), (b'{"a": 1e999}', "too large")),
        *((b'{"a": ' + b"9" * 5000 + b"}", "digits"), (b'{"a": -1e999}', "too large")),
        *((b'{"a": 1, "a": 2}', '"a" is in one object twice'), (b'{"x": [{"\\u0061": 1, "a": 2}]}', "twice")),
        *((b'{"a": "\x00"}', "control character"), (b'{"a": 01}', "column"), (b"{} {}", "extra data")),
    ],
)
def test_what_is_no_object_is_refused(body: bytes, reason: str) -> None:
    assert reason in refusal(body).message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (rb'{"a": "\ud800"}', "a"),
        (rb'{"a": [{"b": ["fine \ud83d\ude00", "\udc00\ud800"]}]}', "a[0].b[1]"),
        (rb'{"\uDFFF": 1}', None),
        (rb'{"a": {"\uD800": 1}}', "a"),
    ],
)
def test_half_of_a_character_is_refused_where_it_is(body: bytes, param: str | None) -> None:
    assert refusal(body).param == param


def test_whole_characters_in_halves_are_taken() -> None:
    assert parse_object(rb'{"a": "\ud83d\ude00", "b": "\\ud800"}') == {"a": "😀", "b": "\\ud800"}


@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded(begin: bytes, end: bytes) -> None:
    def body(depth: int) -> bytes:
        return b'{"x":' + begin * depth + b"1" + end * depth + b"}"

    assert parse_object(body(MAX_DEPTH - 1))
    for depth in (MAX_DEPTH, 5000, 200_000):
        assert "deep" in refusal(body(depth)).message
    assert len(parse_object(b'{"x": [' + b"[1]," * 500 + b"2]}")["x"]) == 501  # many, and not deep


def test_numbers_of_any_size_that_are_finite() -> None:
    found = parse_object(b'{"a": 1e308, "b": 1e-999, "c": 123456789012345678901234567890}')
    assert math.isfinite(found["a"]) and found["b"] == 0 and found["c"] == 123456789012345678901234567890


def test_integers_may_have_a_point() -> None:
    found = parse_object(b'{"a": 16.0, "b": [1e3, -2.0], "c": 1.5, "d": 1e300}')
    assert found == {"a": 16, "b": [1000, -2], "c": 1.5, "d": 1e300}
    assert [type(each) for each in (found["a"], *found["b"], found["c"], found["d"])] == [int, int, int, float, float]


@pytest.mark.parametrize("kind", ["application/json", "application/JSON; charset=utf-8", "application/ld+json", None])
def test_json_by_any_of_its_names(kind: str | None) -> None:
    check_content_type(Headers({} if kind is None else {"content-type": kind}))


@pytest.mark.parametrize(
    "headers",
    [
        *({"content-type": kind} for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/x")),
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_what_says_that_it_is_something_else_is_a_415(headers: dict[str, str]) -> None:
    with pytest.raises(ApiError) as refused:
        check_content_type(Headers(headers))
    assert refused.value.status == 415

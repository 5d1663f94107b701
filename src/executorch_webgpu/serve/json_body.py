"""JSON of requests, taken strictly: what could be read in two ways, or could harm what reads it later, is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import Headers

from .errors import ApiError

MAX_DEPTH = 128  # lists and objects within each other; JSON schemas of real programs have about 30
EXACT = 2**53  # below it, a float64 without a fraction is one integer
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _RefusedError(ValueError):
    """What a hook of the parser refuses; its message is a whole sentence."""


def check_content_type(headers: Headers) -> None:
    """Refuse with 415 what says that it is no JSON: among others, forms that any web page can send."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "application/json") and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(415, "the body must be JSON; send it with 'Content-Type: application/json'")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ApiError(415, "the body is compressed, which is not taken; send it without 'Content-Encoding'")


def parse_object(body: bytes) -> dict[str, Any]:
    """The object that a body holds. Its numbers are finite, its strings are Unicode text, its keys are there once.

    Raises ``ApiError`` 400 for anything else, and for lists and objects more than 128 deep.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _bad(f"the body is no UTF-8 text: byte {error.start} is wrong") from None
    try:
        value = json.loads(text, parse_constant=_constant, parse_float=_float, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _bad(f"the body is no valid JSON: {error.msg.lower()} at {where}") from None
    except _RefusedError as error:
        raise _bad(str(error)) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # an integer with more digits than Python reads
        raise _bad("a number of the body has too many digits") from None
    if not isinstance(value, dict):
        raise _bad("the body must be a JSON object: {...}")
    # A text with few brackets cannot be deep, one without such escapes has no lone surrogates.
    if text.count("[") + text.count("{") > MAX_DEPTH or SURROGATE.search(text):
        _check(value)
    return value


def _bad(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_json")


def _too_deep() -> ApiError:
    return _bad(f"the body has lists and objects more than {MAX_DEPTH} deep within each other")


def _constant(name: str) -> None:
    raise _RefusedError(f"{name} is no number of JSON; leave the field out, or send null")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _RefusedError("a number of the body is too large")
    # JSON knows numbers only: 16.0 is as good an integer as 16.
    return int(value) if value.is_integer() and abs(value) < EXACT else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"the key {json.dumps(twice[:100])} is in one object twice")
    return found


def _check(value: dict[str, Any]) -> None:
    """Look at all strings and depths, without recursion."""
    open: list[tuple[str, Iterator[tuple[str, Any]]]] = [("", _items("", value))]
    while open:
        item = next(open[-1][1], None)
        if item is None:
            open.pop()
            continue
        path, inner = item
        if isinstance(inner, str):
            _check_text(inner, path)
        elif isinstance(inner, dict | list):
            if len(open) >= MAX_DEPTH:
                raise _too_deep()
            open.append((path, _items(path, inner)))


def _items(path: str, value: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    """What an object or a list holds, each with the path to it."""
    if isinstance(value, list):
        yield from ((f"{path}[{position}]", inner) for position, inner in enumerate(value))
        return
    for name, inner in value.items():
        _check_text(name, path or None)
        yield f"{path}.{name}" if path else name, inner


def _check_text(text: str, param: str | None) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        escape = f"\\u{ord(text[error.start]):04x}"
        raise _bad(f"a string has half of a character, {escape} without the other half", param) from None

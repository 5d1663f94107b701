"""How a request wants its texts to be continued, as ``SamplingParams`` and ``Grammar`` say it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import InvalidInputError
from ..llm.grammar import Grammar
from ..llm.sample import SEEDS, SamplingParams, sampling_params
from ..llm.token_rules import TokenRules
from ..text.generation import SamplingDefaults
from ..text.tokenizer import Tokenizer
from .errors import ApiError
from .requests import DrawingFields, ResponseFormat

TOKEN_ID = re.compile("0|-?[1-9][0-9]{0,18}")
UNSTATED = {"temperature": 1.0}  # as OpenAI has it, where neither the request nor the model's files say


def sampling_of(
    request: DrawingFields,
    defaults: SamplingDefaults,
    *,
    max_new_tokens: int,
    vocab_size: int,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
    rules: TokenRules | None = None,
) -> SamplingParams:
    """Parameters of the first text; ``for_choice`` gives those of the others. Raises ApiError."""
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(request, name)) is not None}
    if given.get("top_k") == -1:
        given["top_k"] = 0
    if given.get("top_p") == 0:
        given["top_p"] = 2.0**-32
    if request.seed is not None:
        given["seed"] = request.seed % SEEDS
    if request.logit_bias:
        given["logit_bias"] = _biases(request.logit_bias, vocab_size)
    given |= {"max_new_tokens": max_new_tokens, "logprobs": logprobs, "prompt_logprobs": prompt_logprobs}
    given["allowed_tokens"] = rules
    try:
        return sampling_params(defaults, given, UNSTATED)
    except InvalidInputError as error:
        raise ApiError(400, str(error), code="invalid_value") from error


def _biases(given: dict[str, float], vocab_size: int) -> dict[int, float]:
    for key in given:
        # As JSON writes a number: of "1", "01" and "+1" two could be given, and one would be lost.
        if not TOKEN_ID.fullmatch(key):
            message = f'logit_bias takes token ids as keys, such as "42", and {key[:40]!r} is none'
            raise ApiError(400, message, "logit_bias", "invalid_value")
    biases = {int(token): bias for token, bias in given.items()}
    if bad := [token for token in biases if not 0 <= token < vocab_size]:
        raise ApiError(
            400,
            f"logit_bias: token {bad[0]} is not in the vocabulary of {vocab_size} tokens",
            "logit_bias",
            "invalid_value",
        )
    return biases


def rules_of(
    request: DrawingFields, tokenizer: Tokenizer, vocab_size: int, ends: frozenset[int], most: int | None
) -> TokenRules | None:
    """Which tokens may come, where a request says so; ``ends``: those that end its texts; ``most``: tokens of a text.

    Raises ApiError.
    """
    least = request.min_tokens or 0
    if most is not None and least > most:
        message = f"min_tokens is {least}, but the request asks for at most {most} tokens"
        raise ApiError(400, message, "min_tokens", "invalid_value")
    allowed = request.allowed_token_ids
    if bad := [token for token in allowed or () if token >= vocab_size]:
        message = f"allowed_token_ids: token {bad[0]} is not in the vocabulary of {vocab_size} tokens"
        raise ApiError(400, message, "allowed_token_ids", "invalid_value")
    words = _spellings(request.bad_words or (), tokenizer)
    if not allowed and not words and not least:
        return None
    rules = TokenRules(vocab_size, None if allowed is None else tuple(dict.fromkeys(allowed)), words, least, ends)
    if (mask := rules(())) is not None and not mask.any():
        names = " and ".join(_rule_names(request))
        raise ApiError(400, f"{names} leave no token that may come first", _rule_names(request)[0], "invalid_value")
    return rules


def _spellings(words: Sequence[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """How the tokenizer writes words, at the beginning of a text and after a space."""
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        for text in (word, f" {word.lstrip()}"):
            if tokens := tokenizer.encode(text, add_special=False):
                found[tuple(tokens)] = None
    return tuple(found)


def _rule_names(request: DrawingFields) -> list[str]:
    return [name for name in ("min_tokens", "allowed_token_ids", "bad_words") if getattr(request, name)]


def check_one_rule(request: DrawingFields, grammar: Grammar | None, grammar_from: str) -> None:
    """Raise ApiError where a text has a grammar, and other rules about its tokens."""
    if grammar is not None and (names := _rule_names(request)):
        message = f"{' and '.join(names)} cannot be given with {grammar_from}, which says which tokens may come"
        raise ApiError(400, message, names[0], "invalid_value")


def stop_strings(request: DrawingFields) -> tuple[str, ...]:
    """Strings that end a text."""
    stop = request.stop
    return () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)


def grammar_of(request: DrawingFields, form: ResponseFormat | None) -> tuple[Grammar | None, str]:
    """What the texts have to be, and the field that says so: where there is none, tools do.

    Raises ApiError if several things are asked for at once.
    """
    asked = _grammars(request, form)
    if len(asked) > 1:
        names = " and ".join(name for name, _ in asked)
        raise ApiError(400, f"{names} are given, but a text can follow one grammar only", asked[1][0], "invalid_value")
    if not asked:
        return None, "tools"
    field, make = asked[0]
    try:
        return make(), field
    except InvalidInputError as error:
        raise ApiError(400, str(error), field, "invalid_grammar") from error


def _grammars(request: DrawingFields, form: ResponseFormat | None) -> list[tuple[str, Callable[[], Grammar]]]:
    """Each field that says what the texts have to be, and what makes a grammar of it."""
    asked: list[tuple[str, Callable[[], Grammar]]] = []
    if form is not None and form.type == "json_object":
        asked.append(("response_format", Grammar.json_object))
    elif form is not None and form.type == "json_schema":
        if form.json_schema is None:
            place = "response_format.json_schema"
            raise ApiError(400, f"{place} is missing", place, "invalid_value")
        schema = form.json_schema.schema_
        asked.append(("response_format", lambda: Grammar.json_schema(schema)))
    outputs = request.structured_outputs
    ways: list[tuple[str, Any, Callable[[Any], Grammar]]] = [
        ("guided_json", request.guided_json, lambda value: Grammar.json_schema(_schema(value, "guided_json"))),
        ("guided_regex", request.guided_regex, Grammar.regex),
        ("guided_choice", request.guided_choice, Grammar.choice),
        ("guided_grammar", request.guided_grammar, Grammar.lark),
    ]
    if outputs is not None:
        if outputs.structural_tag is not None:
            message = "structured_outputs.structural_tag is not supported: use tools, or structured_outputs.grammar"
            raise ApiError(400, message, "structured_outputs.structural_tag", "unsupported_parameter")
        ways += [
            (
                "structured_outputs.json",
                outputs.json_,
                lambda v: Grammar.json_schema(_schema(v, "structured_outputs.json")),
            ),
            ("structured_outputs.regex", outputs.regex, Grammar.regex),
            ("structured_outputs.choice", outputs.choice, Grammar.choice),
            ("structured_outputs.grammar", outputs.grammar, Grammar.lark),
            ("structured_outputs.json_object", outputs.json_object or None, lambda _: Grammar.json_object()),
        ]
    asked += [(name, partial(make, value)) for name, value, make in ways if value is not None]
    if outputs is not None and not any(name.startswith("structured_outputs") for name, _ in asked):
        message = "structured_outputs is empty: give one of json, regex, choice, grammar and json_object"
        raise ApiError(400, message, "structured_outputs", "invalid_value")
    return asked


def _schema(given: dict[str, Any] | str, name: str) -> Any:
    if isinstance(given, dict):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise ApiError(400, f"{name} is not valid JSON: {error}", name, "invalid_json") from error
    except RecursionError as error:
        raise ApiError(400, f"{name} has too many levels; give a flatter schema", name, "invalid_grammar") from error


def for_choice(params: SamplingParams, index: int) -> SamplingParams:
    """Parameters of text ``index`` of several: a seed that is given counts up, so that they differ."""
    if index == 0 or params.seed is None:
        return params
    return replace(params, seed=(params.seed + index) % SEEDS)

"""What a text has to be, asked for by all names, through the openai package; JSON is checked by ``jsonschema``."""

from __future__ import annotations

import json
import random
import re
from typing import Any, Literal

import jsonschema
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.serve.conftest import MODEL

MESSAGES: Any = [{"role": "user", "content": "hello"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def answer(client: OpenAI, *, stream: bool = False, **fields: Any) -> str:
    """A text, which has ended by itself."""
    asked: dict[str, Any] = {"max_tokens": 200, "temperature": 1, "seed": 1} | fields
    if not stream:
        choice = client.chat.completions.create(model=MODEL, messages=MESSAGES, **asked).choices[0]
        assert choice.finish_reason == "stop"
        return choice.message.content or ""
    text, finish = "", None
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, **asked):
        text += chunk.choices[0].delta.content or ""
        finish = chunk.choices[0].finish_reason
    assert finish == "stop"
    return text


def json_schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}}


@pytest.mark.parametrize(
    "fields",
    [
        json_schema(SCHEMA),
        {"extra_body": {"guided_json": SCHEMA}},
        {"extra_body": {"guided_json": json.dumps(SCHEMA)}},
        {"extra_body": {"structured_outputs": {"json": SCHEMA}}},
    ],
    ids=["response_format", "guided_json", "guided_json as text", "structured_outputs"],
)
def test_json_of_a_schema_by_every_name(client: OpenAI, fields: dict[str, Any]) -> None:
    text = answer(client, **fields)
    jsonschema.validate(json.loads(text), SCHEMA)
    assert answer(client, stream=True, **fields) == text


def test_any_json_object(client: OpenAI) -> None:
    bias = {"99": 5, "93": 8}  # towards closing brackets, as random weights would go on for long
    for fields in (
        {"response_format": {"type": "json_object"}},
        {"extra_body": {"structured_outputs": {"json_object": True}}},
    ):
        done = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=300, temperature=0, logit_bias=bias, **fields
        )
        text = done.choices[0].message.content
        assert text is not None and text.startswith("{")
        if done.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("stream", [False, True])
def test_regular_expressions_choices_and_grammars(client: OpenAI, stream: bool) -> None:
    given: dict[str, Any]
    date, lark = r"\d{4}-[01]\d-[0-3]\d/[a-f]{3}", 'start: ("ha" | "ho")~3 "!"'
    for given in ({"guided_regex": date}, {"structured_outputs": {"regex": date}}):
        assert re.fullmatch(date, answer(client, stream=stream, extra_body=given))
    for given in ({"guided_choice": ["yes", "no", "maybe €"]}, {"structured_outputs": {"choice": ["yes", "no"]}}):
        assert answer(client, stream=stream, extra_body=given) in ("yes", "no", "maybe €")
    for given in ({"guided_grammar": lark}, {"structured_outputs": {"grammar": lark}}):
        assert re.fullmatch("(ha|ho){3}!", answer(client, stream=stream, extra_body=given))


def test_completions_have_grammars_too(client: OpenAI) -> None:
    done = client.completions.create(
        model=MODEL, prompt=["a", "b"], n=2, seed=1, max_tokens=40, extra_body={"guided_regex": "[xy]{4}z"}
    )
    assert all(re.fullmatch("[xy]{4}z", choice.text) and choice.finish_reason == "stop" for choice in done.choices)
    assert len({choice.text for choice in done.choices}) > 1
    form = client.completions.create(model=MODEL, prompt="a", max_tokens=200, extra_body=json_schema(SCHEMA))
    jsonschema.validate(json.loads(form.choices[0].text), SCHEMA)


def test_log_probabilities_of_forced_tokens(client: OpenAI) -> None:
    done = client.completions.create(
        model=MODEL, prompt="a", max_tokens=40, logprobs=1, extra_body={"guided_choice": ["forced"]}
    )
    logprobs = done.choices[0].logprobs
    assert logprobs is not None and "".join(logprobs.tokens or ()) == done.choices[0].text == "forced"
    assert all(value is not None and value < 0 for value in logprobs.token_logprobs or ())


@pytest.mark.parametrize("effort", ["high", "none"])
def test_a_reasoning_model_reasons_before_it_keeps_to_a_grammar(client: OpenAI, effort: Any) -> None:
    """Its own reasoning is free: only ``guided_grammar`` says what all of the text is."""
    for given in ({"guided_choice": ["yes", "no"]}, {"guided_regex": "yes|no"}):
        done = client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=12,
            seed=1,
            reasoning_effort=effort,
            logit_bias={"31": 50} if effort == "high" else {},  # "<", with which it begins to reason
            extra_body=given,
        )
        message = done.choices[0].message
        if effort == "none":
            assert message.content in ("yes", "no")
        else:
            assert not message.content and "reasoning_content" in (message.model_extra or {})


class Place(BaseModel):
    name: Literal["here", "there"]
    floors: tuple[Literal[1, 2, 3], bool] | None
    open: bool


def test_pydantic_models(client: OpenAI) -> None:
    done = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Place, max_tokens=200, seed=1)
    found = done.choices[0].message.parsed
    assert isinstance(found, Place) and found.name in ("here", "there")


def random_schema(draw: random.Random, depth: int = 2) -> dict[str, Any]:
    """A schema whose values are short."""
    kinds = ["string", "integer", "boolean", "enum", "pattern", "number"] + ["object", "array", "anyOf"] * (depth > 0)
    match draw.choice(kinds):
        case "string":
            return {"type": "string", "maxLength": draw.randint(0, 6)}
        case "integer":
            least = draw.randint(-20, 20)
            return {"type": "integer", "minimum": least, "maximum": least + draw.randint(0, 40)}
        case "number":
            return {"type": "number", "minimum": 0, "maximum": 1}
        case "boolean":
            return {"type": draw.choice(["boolean", "null"])}
        case "enum":
            return {"enum": draw.sample(["a", "b c", "é", 1, 2.5, None, True], draw.randint(1, 4))}
        case "pattern":
            return {"type": "string", "pattern": draw.choice(["^[a-c]{2,4}$", "^x+y$", "^(on|off)$"]), "maxLength": 6}
        case "object":
            names = draw.sample(["a", "b", "long name", "é"], draw.randint(0, 3))
            return {
                "type": "object",
                "properties": {name: random_schema(draw, depth - 1) for name in names},
                "required": draw.sample(names, draw.randint(0, len(names))),
                "additionalProperties": False,
            }
        case "array":
            return {"type": "array", "items": random_schema(draw, depth - 1), "maxItems": draw.randint(0, 2)}
        case _:
            return {"anyOf": [random_schema(draw, depth - 1) for _ in range(draw.randint(1, 3))]}


def test_random_schemas(client: OpenAI) -> None:
    """Texts that had room to end are valid; of those that had not, there are few."""
    draw, ended = random.Random(0), 0
    for number in range(30):
        schema = random_schema(draw)
        done = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=120, seed=number, temperature=1, n=2, **json_schema(schema)
        )
        for choice in done.choices:
            if choice.finish_reason == "stop":
                jsonschema.validate(json.loads(choice.message.content or ""), schema)
                ended += 1
    assert ended > 45


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        (json_schema({"type": "array", "uniqueItems": True}), None, "uniqueItems"),
        (json_schema({"type": "no such type"}), None, "JSON schema"),
        (json_schema(False), "response_format", "no text"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema is missing"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_object"),
        ({"extra_body": {"guided_regex": "(("}}, None, "unclosed group"),
        ({"extra_body": {"guided_grammar": "start: missing"}}, None, "grammar"),
        ({"extra_body": {"guided_json": "{"}}, "guided_json", "not valid JSON"),
        ({"extra_body": {"guided_choice": []}}, "guided_choice", "at least one"),
        ({"extra_body": {"guided_choice": ["a"], "guided_regex": "b"}}, "guided_choice", "one grammar only"),
        ({"extra_body": {"structured_outputs": {}}}, "structured_outputs", "is empty"),
        ({"extra_body": {"structured_outputs": {"structural_tag": "x"}}}, "structured_outputs", "structural_tag"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_kept_to_is_refused(
    client: OpenAI, fields: dict[str, Any], param: str | None, words: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            answer(client, stream=stream, **fields)
        assert words in refused.value.message
        assert param is None or (refused.value.param or "").startswith(param)

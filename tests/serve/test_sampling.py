"""How texts are drawn, asked for by the openai package, against the model in this process."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Completion

from executorch_webgpu.llm import SamplingParams
from tests.serve.conftest import MODEL, Reference

PROMPT = [70, 71, 72, 73, 74]


def complete(client: OpenAI, prompt: Any = PROMPT, **fields: Any) -> Completion:
    asked: dict[str, Any] = {"max_tokens": 12, "temperature": 0} | fields
    return client.completions.create(model=MODEL, prompt=prompt, **asked)


def text(client: OpenAI, **fields: Any) -> str:
    return complete(client, **fields).choices[0].text


def test_greedy_is_what_generate_gives(client: OpenAI, reference: Reference) -> None:
    assert text(client) == reference.text(PROMPT, SamplingParams(12))
    assert text(client, prompt="hello 12") == reference.text(
        reference.tokenizer.encode_prompt("hello 12"), SamplingParams(12)
    )


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        ({}, {}),
        ({"top_p": 0.3}, {"top_p": 0.3}),
        ({"extra_body": {"top_k": 3}}, {"top_k": 3}),
        ({"extra_body": {"min_p": 0.5}}, {"min_p": 0.5}),
        ({"extra_body": {"repetition_penalty": 1.8}}, {"repetition_penalty": 1.8}),
        ({"presence_penalty": 2}, {"presence_penalty": 2}),
        ({"frequency_penalty": -2}, {"frequency_penalty": -2}),
        ({"logit_bias": {"80": 100}}, {"logit_bias": {80: 100}}),
    ],
    ids=lambda value: str(value),
)
def test_a_seed_draws_what_generate_draws(
    client: OpenAI, reference: Reference, fields: dict[str, Any], params: dict[str, Any]
) -> None:
    got = text(client, temperature=0.8, seed=7, **fields)
    assert got == reference.text(PROMPT, SamplingParams(12, temperature=0.8, seed=7, **params))
    assert got == text(client, temperature=0.8, seed=7, **fields)


def test_without_a_seed_texts_differ(client: OpenAI) -> None:
    assert len({text(client, temperature=1.5) for _ in range(4)}) > 1
    several = complete(client, temperature=1.5, n=4).choices
    assert len({choice.text for choice in several}) > 1


def test_temperature_is_one_where_nobody_says(client: OpenAI, reference: Reference) -> None:
    got = text(client, temperature=openai.omit, seed=3)
    assert got == reference.text(PROMPT, SamplingParams(12, temperature=1, seed=3))


def test_n_texts_have_seeds_in_a_row(client: OpenAI) -> None:
    singles = [text(client, temperature=1, seed=seed) for seed in (40, 41, 42)]
    several = complete(client, temperature=1, seed=40, n=3).choices
    assert [choice.index for choice in several] == [0, 1, 2]
    assert [choice.text for choice in several] == singles and len(set(singles)) == 3
    # A seed is any integer.
    assert text(client, temperature=1, seed=-1) == text(client, temperature=1, seed=2**64 - 1)


def test_top_p_and_top_k_may_leave_one_token(client: OpenAI) -> None:
    greedy = text(client)
    assert greedy == text(client, temperature=2, top_p=0)
    assert greedy == text(client, temperature=2, extra_body={"top_k": 1})
    assert greedy == text(client, temperature=2, extra_body={"min_p": 1})
    assert text(client, temperature=1, seed=5, extra_body={"top_k": -1}) == text(client, temperature=1, seed=5)


@pytest.mark.parametrize("key", ["01", "+1", " 1", "1_0", "1.0", "\u0661", "", "x", "00", "-0", "9" * 40])
def test_keys_of_biases_are_token_ids_as_json_writes_them(client: OpenAI, key: str) -> None:
    """Two keys of one token would be one bias, and nobody would know which."""
    with pytest.raises(openai.BadRequestError, match="logit_bias") as raised:
        complete(client, logit_bias={"1": 5, key: -5})
    assert raised.value.param == "logit_bias"


def test_logit_bias_forces_and_bans(client: OpenAI, reference: Reference) -> None:
    a = reference.tokenizer.encode("a", add_special=False)[0]
    assert text(client, logit_bias={str(a): 100}) == "a" * 12
    first = int(reference.logprobs(PROMPT)[-1].argmax())
    banned = complete(client, logit_bias={str(first): -100}, logprobs=1, max_tokens=1)
    logprobs = banned.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    ranked = reference.logprobs(PROMPT)[-1].argsort()
    second = reference.logprobs(PROMPT)[-1][ranked[-2]]
    assert logprobs.token_logprobs == pytest.approx([second], abs=1e-3)


def test_stop_token_ids_and_ignore_eos(client: OpenAI, reference: Reference) -> None:
    a, end = (reference.tokenizer.encode(each, add_special=False, parse_special=True)[0] for each in ("a", "</s>"))
    stopped = complete(client, logit_bias={str(a): 100}, extra_body={"stop_token_ids": [a]}).choices[0]
    assert (stopped.text, stopped.finish_reason) == ("", "stop")
    ended = complete(client, logit_bias={str(end): 100})
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")
    goes_on = complete(client, logit_bias={str(end): 100}, extra_body={"ignore_eos": True})
    assert (goes_on.choices[0].text, goes_on.choices[0].finish_reason) == ("", "length")
    shown = complete(client, logit_bias={str(end): 100}, extra_body={"ignore_eos": True, "skip_special_tokens": False})
    assert shown.choices[0].text == "</s>" * 12


def test_max_tokens(client: OpenAI, reference: Reference) -> None:
    bias = {str(reference.tokenizer.encode("a", add_special=False)[0]): 100}
    default = complete(client, max_tokens=openai.omit, logit_bias=bias)
    assert default.choices[0].text == "a" * 16
    none = complete(client, max_tokens=0)
    assert (none.choices[0].text, none.choices[0].finish_reason) == ("", "length")
    assert none.usage is not None and none.usage.completion_tokens == 0
    # More than there is room for is what there is room for: the prompt, and the last token, which needs no row.
    room = complete(client, prompt=[70] * 1000, max_tokens=5000, logit_bias=bias)
    assert room.usage is not None and room.usage.total_tokens == 1025
    assert room.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"70": 101}}, "logit_bias"),
        ({"logit_bias": {"word": 1}}, "logit_bias"),
        ({"logit_bias": {"100000": 1}}, "logit_bias"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"seed": "one"}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"logprobs": 21}, "logprobs"),
        ({"extra_body": {"top_k": -2}}, "top_k"),
        ({"extra_body": {"min_p": 2}}, "min_p"),
        ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty"),
        ({"extra_body": {"stop_token_ids": [100000]}}, "stop_token_ids"),
    ],
    ids=lambda value: str(value),
)
def test_values_out_of_range_are_refused_by_name(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, **fields)
    assert refused.value.param is not None and refused.value.param.startswith(param)
    assert param in refused.value.message

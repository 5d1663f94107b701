"""``/v1/completions`` through the openai package."""

from __future__ import annotations

from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI
from openai.types import CompletionChoice

from executorch_webgpu.llm import SamplingParams
from tests.serve.conftest import MODEL, Reference


def choices(client: OpenAI, prompt: Any, **fields: Any) -> list[CompletionChoice]:
    asked: dict[str, Any] = {"max_tokens": 8, "temperature": 0} | fields
    return client.completions.create(model=MODEL, prompt=prompt, **asked).choices


def streamed(client: OpenAI, prompt: Any, **fields: Any) -> list[list[CompletionChoice]]:
    """The parts of each text."""
    asked: dict[str, Any] = {"max_tokens": 8, "temperature": 0} | fields
    found: dict[int, list[CompletionChoice]] = {}
    for chunk in client.completions.create(model=MODEL, prompt=prompt, stream=True, **asked):
        for choice in chunk.choices:
            found.setdefault(choice.index, []).append(choice)
    return [found[index] for index in sorted(found)]


def test_prompts_as_text_and_as_tokens(client: OpenAI, reference: Reference) -> None:
    first, second = (reference.tokenizer.encode_prompt(text) for text in ("hello", "12 é"))
    wanted = [reference.text(prompt, SamplingParams(8)) for prompt in (first, second)]
    assert [each.text for each in choices(client, ["hello", "12 é"])] == wanted
    assert [each.text for each in choices(client, [first, second])] == wanted
    assert [each.text for each in choices(client, first)] == wanted[:1]
    assert [each.text for each in choices(client, "hello")] == wanted[:1]


def test_several_prompts_with_several_texts_each(client: OpenAI) -> None:
    fields: dict[str, Any] = {"temperature": 1, "seed": 9}
    found = choices(client, ["hello", "12"], n=2, **fields)
    assert [each.index for each in found] == [0, 1, 2, 3]
    wanted = [
        choices(client, prompt, temperature=1, seed=seed)[0].text for prompt in ("hello", "12") for seed in (9, 10)
    ]
    assert [each.text for each in found] == wanted
    parts = streamed(client, ["hello", "12"], n=2, **fields)
    assert ["".join(part.text for part in each) for each in parts] == wanted
    assert [each[-1].finish_reason for each in parts] == ["length"] * 4


def test_usage_counts_each_prompt_once(client: OpenAI) -> None:
    done = client.completions.create(
        model=MODEL, prompt=[[70, 71, 72], [73]], n=2, max_tokens=3, extra_body={"ignore_eos": True}
    )
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (4, 12, 16)
    assert done.object == "text_completion" and done.id.startswith("cmpl-") and done.model == MODEL
    assert done.system_fingerprint is not None and done.system_fingerprint.startswith("executorch-webgpu-")


@pytest.mark.parametrize("stream", [False, True])
def test_echo_and_log_probabilities_are_the_models(client: OpenAI, reference: Reference, stream: bool) -> None:
    prompt = reference.tokenizer.encode_prompt("hello 12 é")
    fields: dict[str, Any] = {"logprobs": 3, "extra_body": {"ignore_eos": True, "skip_special_tokens": False}}
    if stream:
        (parts,) = streamed(client, prompt, echo=True, **fields)
        got_text = "".join(part.text for part in parts)
        scored = [part.logprobs for part in parts if part.logprobs is not None]
    else:
        (choice,) = choices(client, prompt, echo=True, **fields)
        assert choice.logprobs is not None
        got_text, scored = choice.text, [choice.logprobs]
    tokens = [token for each in scored for token in each.tokens or ()]
    logprobs: list[Any] = [value for each in scored for value in each.token_logprobs or ()]
    tops: list[Any] = [top for each in scored for top in each.top_logprobs or ()]
    places = [place for each in scored for place in each.text_offset or ()]
    assert got_text.startswith("hello 12 é")
    assert len(tokens) == len(logprobs) == len(tops) == len(places) == len(prompt) + 8

    (alone,) = choices(client, prompt, **fields)
    assert "hello 12 é" + alone.text == got_text
    # The model's own, of the prompt and of what followed it, which is the likeliest token each time.
    rows = reference.logprobs(prompt)
    assert logprobs[0] is None and tops[0] is None
    for position, token in enumerate(prompt[1:], 1):
        assert logprobs[position] == pytest.approx(rows[position - 1][token], abs=1e-3)
        assert sorted(tops[position].values()) == pytest.approx(sorted(rows[position - 1])[-3:], abs=1e-3)
    assert logprobs[len(prompt)] == pytest.approx(rows[-1].max(), abs=1e-3)
    # Places are where tokens begin, or the unfinished character before them.
    assert places[0] == 0 and places == sorted(places) and max(places) <= len(got_text)
    for name, place in zip(tokens, places, strict=True):
        assert got_text.startswith((name, "\ufffd"), place) or name.startswith("bytes:")


def test_echo_without_new_tokens_scores_a_prompt(client: OpenAI, reference: Reference) -> None:
    prompt = [70, 80, 90, 100]
    (choice,) = choices(client, [prompt], echo=True, logprobs=0, max_tokens=0)
    assert choice.text == reference.tokenizer.decode(prompt) and choice.logprobs is not None
    rows = reference.logprobs(prompt)
    wanted = [rows[position][token] for position, token in enumerate(prompt[1:])]
    first, *others = choice.logprobs.token_logprobs or ()
    scores: list[Any] = [first]
    assert scores == [None] and others == pytest.approx(wanted, abs=1e-3)


def test_prompt_logprobs_by_their_own_name(client: OpenAI, reference: Reference) -> None:
    prompt = [70, 80, 90]
    (choice,) = choices(client, prompt, max_tokens=1, extra_body={"prompt_logprobs": 2})
    assert choice.model_extra is not None
    first, *others = choice.model_extra["prompt_logprobs"]
    assert first is None and len(others) == 2
    rows = reference.logprobs(prompt)
    for position, (token, shown) in enumerate(zip(prompt[1:], others, strict=True)):
        likeliest = {str(index) for index in np.argsort(rows[position])[-2:]}
        assert set(shown) == likeliest | {str(token)}
        assert shown[str(token)]["logprob"] == pytest.approx(rows[position][token], abs=1e-3)
    # Also where the grammar leaves nothing to draw.
    (forced,) = choices(client, prompt, extra_body={"prompt_logprobs": 0, "guided_choice": ["one way"]})
    assert forced.text == "one way" and forced.model_extra is not None
    assert len(forced.model_extra["prompt_logprobs"]) == 3
    with pytest.raises(openai.BadRequestError, match="prompt_logprobs"):
        streamed(client, prompt, extra_body={"prompt_logprobs": 2})


def test_a_text_that_ends_at_once_has_the_prompts_log_probabilities(client: OpenAI, reference: Reference) -> None:
    end = min(reference.tokenizer.eos_ids)
    (choice,) = choices(client, [70, 71], echo=True, logprobs=1, logit_bias={str(end): 100})
    assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
    assert len(choice.logprobs.token_logprobs) == 2 and choice.finish_reason == "stop"


def test_prompts_that_cannot_be(client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        choices(client, [70] * 1025)
    assert refused.value.code == "context_length_exceeded" and refused.value.param == "prompt"
    wrongs: tuple[Any, ...] = ([], [[]], [1, "a"], {"text": 1}, [100000], ["fine", [1]])
    for wrong in wrongs:
        with pytest.raises(openai.BadRequestError) as bad:
            choices(client, wrong)
        assert bad.value.param is not None and bad.value.param.startswith("prompt")
    # A model that has a token for the beginning can write from nothing.
    assert choices(client, "")[0].finish_reason == "length"

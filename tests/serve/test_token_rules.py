"""Fields of vLLM's that say which tokens may come, and where a text ends, through the openai package."""

from __future__ import annotations

from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI

from executorch_webgpu.llm import SamplingParams
from executorch_webgpu.llm.token_rules import TokenRules
from tests.serve.conftest import MODEL, Reference
from tests.serve.test_sampling import PROMPT, complete, text


def tokens_of(client: OpenAI, **fields: Any) -> list[str]:
    logprobs = complete(client, logprobs=0, **fields).choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    return logprobs.tokens


def test_rules_by_themselves() -> None:
    def allowed(rules: TokenRules, *new: int) -> set[int] | None:
        mask = rules(new)
        if mask is None:
            return None
        return {token for token in range(32 * len(mask)) if mask[token // 32] >> token % 32 & 1}

    everything = set(range(70))
    assert allowed(TokenRules(70)) is None
    assert allowed(TokenRules(70, allowed=(1, 69))) == {1, 69}
    bad = TokenRules(70, bad=((3,), (4, 5, 6)))
    assert allowed(bad) == everything - {3}
    assert allowed(bad, 4, 5) == everything - {3, 6}
    assert allowed(bad, 5, 4) == everything - {3}
    ends = TokenRules(70, min_tokens=2, ends=frozenset({0, 69}))
    assert allowed(ends, 7) == everything - {0, 69}
    assert allowed(ends, 7, 7) is None


def test_end_tokens_do_not_come_before_some_tokens(client: OpenAI, reference: Reference) -> None:
    end = min(reference.tokenizer.eos_ids)
    bias: dict[str, Any] = {"logit_bias": {str(end): 100}}
    assert text(client, **bias) == ""
    for count in (1, 5):
        done = complete(client, **bias, extra_body={"min_tokens": count})
        assert done.usage is not None and done.usage.completion_tokens == count
        assert done.choices[0].finish_reason == "stop"
    # The tokens are those that the model would write without an end.
    banned = text(client, logit_bias={str(end): -100}, max_tokens=5)
    assert text(client, **bias, max_tokens=9, extra_body={"min_tokens": 5}) == banned
    a = reference.tokenizer.encode("a", add_special=False)[0]
    on = {"stop_token_ids": [a], "min_tokens": 3}
    given = complete(client, logit_bias={str(a): 100}, extra_body=on)
    assert given.usage is not None and given.usage.completion_tokens == 3 and "a" not in given.choices[0].text


def test_stop_strings_do_not_count_before_some_tokens(client: OpenAI, reference: Reference) -> None:
    a = reference.tokenizer.encode("a", add_special=False)[0]
    bias: dict[str, Any] = {"logit_bias": {str(a): 100}, "stop": ["a"]}
    assert text(client, **bias) == ""
    assert text(client, **bias, extra_body={"min_tokens": 4}) == "aaaa"
    # One that begins before and ends after does not count either.
    assert text(client, **bias | {"stop": ["aaa"]}, extra_body={"min_tokens": 4}) == "aaaa"
    assert text(client, **bias | {"stop": ["aaa"]}, max_tokens=6, extra_body={"min_tokens": 4}) == "aaaaaa"


def test_only_some_tokens_may_come(client: OpenAI, reference: Reference) -> None:
    allowed = [reference.tokenizer.encode(letter, add_special=False)[0] for letter in "xyz"]
    mask = np.zeros(-(-reference.model.vocab_size // 32), np.uint32)
    for token in allowed:
        mask[token // 32] |= np.uint32(1 << token % 32)
    for drawn in ({"temperature": 0}, {"temperature": 1.5, "seed": 3}):
        got = text(client, **drawn, extra_body={"allowed_token_ids": allowed})
        assert got == reference.text(PROMPT, SamplingParams(12, **drawn, allowed_tokens=lambda _: mask))
        assert len(got) == 12 and set(got) <= set("xyz")


def test_bad_words_do_not_come(client: OpenAI) -> None:
    drawn: dict[str, Any] = {"temperature": 1.5, "seed": 11, "max_tokens": 40}
    seen: set[str] = set()
    for _ in range(4):  # what comes instead is forbidden, too
        token = next(
            each for each in tokens_of(client, **drawn, extra_body={"bad_words": sorted(seen)}) if each.isalnum()
        )
        assert token not in seen
        seen.add(token)
    after = tokens_of(client, **drawn, extra_body={"bad_words": sorted(seen)})
    assert not seen & set(after) and not {f" {word}" for word in seen} & set(after)


def test_a_bad_word_of_several_tokens(client: OpenAI, reference: Reference) -> None:
    word = "zq"
    ids = reference.tokenizer.encode(word, add_special=False)
    assert len(ids) == 2
    bias: dict[str, Any] = {"logit_bias": {str(id): 60 for id in ids}, "temperature": 1, "max_tokens": 30}
    assert word in text(client, **bias, seed=0)
    barred = [text(client, **bias, seed=seed, extra_body={"bad_words": [word]}) for seed in range(6)]
    assert not any(word in each for each in barred)
    assert set("".join(barred)) == set(word)  # each letter alone may come


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_may_be_a_part_of_the_text(client: OpenAI, reference: Reference, stream: bool) -> None:
    def written(**fields: Any) -> str:
        if not stream:
            return text(client, **fields)
        asked: dict[str, Any] = {"max_tokens": 12, "temperature": 0} | fields
        chunks = client.completions.create(model=MODEL, prompt=PROMPT, stream=True, **asked)
        return "".join(choice.text for chunk in chunks for choice in chunk.choices)

    whole = reference.text(PROMPT, SamplingParams(12))
    on = {"include_stop_str_in_output": True}
    for stop in (whole[4], whole[3:6], whole[-1]):
        at = whole.index(stop)
        assert written(stop=stop) == whole[:at]
        assert written(stop=stop, extra_body=on) == whole[: at + len(stop)]
    a = reference.tokenizer.encode("a", add_special=False)[0]
    bias = {str(a): 100}
    for ends in ({"stop_token_ids": [a]}, {"stop_token_ids": [a], "min_tokens": 1}):
        assert "a" not in written(logit_bias=bias, extra_body=ends)
        kept = written(logit_bias=bias, extra_body=ends | on)
        assert kept.endswith("a") and kept.count("a") == 1


def test_other_routes_take_them(client: OpenAI, reference: Reference) -> None:
    letters = [reference.tokenizer.encode(letter, add_special=False)[0] for letter in "xy"]
    on: Any = {"allowed_token_ids": letters, "min_tokens": 3}
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=7, extra_body=on
    )
    content = chat.choices[0].message.content
    assert content is not None and len(content) == 7 and set(content) <= set("xy")
    response = client.responses.create(model=MODEL, input="hello", max_output_tokens=7, extra_body=on)
    assert len(response.output_text) == 7 and set(response.output_text) <= set("xy")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"min_tokens": 13}, "at most 12"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 1, "guided_choice": ["a"]}, "guided_choice"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [10**6]}, "not in the vocabulary"),
        ({"allowed_token_ids": [3], "guided_regex": "a"}, "guided_regex"),
        ({"bad_words": [""]}, "bad_words"),
        ({"bad_words": "word"}, "bad_words"),
        ({"bad_words": ["x"] * 257}, "bad_words"),
        ({"bad_words": ["x"], "response_format": {"type": "json_object"}}, "response_format"),
        ({"include_stop_str_in_output": "yes"}, "include_stop_str_in_output"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(client: OpenAI, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as refused:
        complete(client, extra_body=fields)
    assert refused.value.param is not None and refused.value.param.split("[")[0] == next(iter(fields))


def test_rules_that_leave_nothing(client: OpenAI, reference: Reference) -> None:
    end = min(reference.tokenizer.eos_ids)
    with pytest.raises(openai.BadRequestError, match="min_tokens and allowed_token_ids leave no token"):
        complete(client, extra_body={"allowed_token_ids": [end], "min_tokens": 2})

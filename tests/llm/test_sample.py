from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from executorch_webgpu.errors import Error, InvalidInputError
from executorch_webgpu.llm.grammar import Grammar, GrammarVocabulary
from executorch_webgpu.llm.sample import SamplingParams, sample, sampling_params
from executorch_webgpu.text.generation import SamplingDefaults
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.text.tiny_vocabulary import write_bpe

LOGITS = np.array([1.0, 3.0, -1.0, 3.0, 0.0, 2.0], np.float32)


def draws(params: SamplingParams, count: int = 4000, logits: np.ndarray = LOGITS) -> np.ndarray:
    drawn = [sample(logits, params, position, seed=7) for position in range(count)]
    return np.bincount(drawn, minlength=logits.size) / count


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def test_greedy_takes_the_first_of_the_largest() -> None:
    assert {sample(LOGITS, SamplingParams(), position, seed) for position in range(9) for seed in range(9)} == {1}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    frequencies = draws(SamplingParams(temperature=temperature))
    # Four standard deviations of a share near one half, over 4,000 draws.
    np.testing.assert_allclose(frequencies, softmax(LOGITS / temperature), atol=0.032)


def test_top_k_keeps_the_likeliest() -> None:
    frequencies = draws(SamplingParams(temperature=1.0, top_k=3))
    assert set(np.flatnonzero(frequencies)) == {1, 3, 5}
    expected = softmax(LOGITS[[1, 3, 5]])
    np.testing.assert_allclose(frequencies[[1, 3, 5]], expected, atol=0.032)


@pytest.mark.parametrize(("top_p", "kept"), [(1e-9, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.9, 4), (1.0, 4)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: int) -> None:
    """Shares of 1/2, 1/4, 1/8 and 1/8."""
    logits = np.log(np.array([1 / 8, 1 / 2, 1 / 8, 1 / 4])).astype(np.float32)
    frequencies = draws(SamplingParams(temperature=1.0, top_p=top_p), 400, logits)
    assert set(np.flatnonzero(frequencies)) == set([1, 3, 0, 2][:kept])


def test_top_p_counts_within_top_k() -> None:
    logits = np.log(np.array([4, 2, 1, 1], np.float32))
    params = SamplingParams(temperature=1.0, top_k=2, top_p=0.6)
    # Of the two likeliest, the first has 2/3.
    assert draws(params, 100, logits).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, 4), (0.24, 4), (0.26, 2), (0.51, 1), (1.0, 1)])
def test_min_p_keeps_shares_of_the_likeliest(min_p: float, kept: int) -> None:
    """Shares of 1/2, 1/4, 1/8 and 1/8."""
    logits = np.log(np.array([1 / 8, 1 / 2, 1 / 8, 1 / 4])).astype(np.float32)
    frequencies = draws(SamplingParams(temperature=1.0, min_p=min_p), 400, logits)
    assert set(np.flatnonzero(frequencies)) == set([1, 3, 0, 2][:kept])


def test_a_penalty_divides_what_is_positive_and_multiplies_what_is_not() -> None:
    logits = np.array([3, 2, -1, -1.5, 0], np.float32)

    def likeliest(penalty: float, *text: int) -> int:
        return sample(logits, SamplingParams(repetition_penalty=penalty), 0, 0, text)

    assert likeliest(1.4, 0, 0, 0) == 0, "2.14 against 2: once, however often it has occurred"
    assert likeliest(1.6, 0) == 1
    assert likeliest(1.6, 0, 1) == 0
    assert likeliest(0.5, 1) == 1, "a penalty below 1 rewards"
    logits -= 5
    assert likeliest(1.4, 0) == 0 and likeliest(1.6, 0) == 1


def test_penalties_of_the_new_text_and_biases() -> None:
    logits = np.array([3, 2.9, 0, -1], np.float32)

    def likeliest(prompt: list[int], new: list[int], **params: Any) -> int:
        return sample(logits, SamplingParams(**params), 0, 0, prompt, new)

    assert likeliest([0, 0], [1], presence_penalty=2.0, frequency_penalty=2.0) == 0, "the prompt does not count"
    assert likeliest([], [0], presence_penalty=0.2) == likeliest([], [0], frequency_penalty=0.2) == 1
    assert likeliest([], [0], presence_penalty=0.05) == 0
    assert likeliest([], [0] * 3, presence_penalty=0.05) == 0, "once, however often it has occurred"
    assert likeliest([], [0] * 3, frequency_penalty=0.05) == 1, "for each time"
    assert likeliest([], [3] * 3, frequency_penalty=-1.5) == 3
    assert likeliest([], [], logit_bias={2: 100}) == 2
    assert likeliest([], [2], logit_bias={2: 4.0}, presence_penalty=2.0) == 0
    assert likeliest([0], [], logit_bias={0: 1.0}, repetition_penalty=2.0) == 1, "3 / 2 + 1: the penalty comes first"


def test_what_is_allowed_follows_from_the_new_text() -> None:
    logits = np.zeros(70, np.float32)
    asked: list[list[int]] = []

    def next_only(new_tokens: Sequence[int]) -> np.ndarray | None:
        asked.append(list(new_tokens))
        if len(new_tokens) == 3:
            return None
        mask = np.zeros(3, np.uint32)
        mask[(len(new_tokens) + 64) // 32] = 1 << len(new_tokens)
        return mask

    params = SamplingParams(temperature=9.0, allowed_tokens=next_only)
    text: list[int] = []
    for position in range(3):
        text.append(sample(logits, params, position, 1, [5], text))
    assert text == [64, 65, 66] and asked == [[], [64], [64, 65]]
    assert sample(logits, params, 3, 1, [5], text) not in (64, 65, 66), "any token, of which there are many"


def test_a_mask_of_a_smaller_tokenizer_allows_nothing_more() -> None:
    logits = np.arange(70, dtype=np.float32)
    for dtype in (np.uint32, np.int32):
        mask = np.array([1 << 9 | 1, 0], dtype)
        assert sample(logits, SamplingParams(allowed_tokens=lambda new, mask=mask: mask), 0, 0) == 9


def test_parameters_are_values() -> None:
    assert SamplingParams(logit_bias={1: 2.0}) == SamplingParams(logit_bias={1: 2.0}) != SamplingParams()
    assert len({SamplingParams(seed=1), SamplingParams(seed=1), SamplingParams(seed=2)}) == 2


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (np.zeros(3, np.uint32), "allows no token after 2 new ones"),
        (np.array([0, 0, 64], np.uint32), "allows no token"),
        (np.ones(4, np.uint32), r"gave uint32 \[4\]; it must give uint32 \[3\]"),
        (np.ones((1, 3), np.uint32), r"gave uint32 \[1, 3\]"),
        (np.ones(70, np.bool_), "gave bool"),
        ([1, 2, 3], "gave list"),
    ],
)
def test_masks_that_cannot_be(mask: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        sample(np.zeros(70, np.float32), SamplingParams(allowed_tokens=lambda new: mask), 0, 0, [], [1, 2])


def test_what_only_the_host_applies() -> None:
    assert SamplingParams(repetition_penalty=1.1, temperature=1.0, top_p=0.5).host_reason is None
    reason = SamplingParams(presence_penalty=1.0, logit_bias={1: 2.0}).host_reason
    assert reason == "presence_penalty and logit_bias must be applied to each token's logits by the host"
    assert not SamplingParams(logit_bias={1: 2.0}, logprobs=3).needs_tokens
    for name, value in (("presence_penalty", 1.0), ("frequency_penalty", 1.0), ("repetition_penalty", 1.1)):
        assert SamplingParams(**{name: value}).needs_tokens  # type: ignore[arg-type]
    assert SamplingParams(allowed_tokens=lambda new: None).needs_tokens


def test_what_is_drawn_without_a_mask_as_with_it(tmp_path: Path) -> None:
    grammar = GrammarVocabulary(Tokenizer.from_file(write_bpe(tmp_path / "bpe.gguf")), 300).compile(
        Grammar.json_object()
    )
    assert SamplingParams(grammar=grammar, temperature=0.7, logit_bias={1: 2.0}, logprobs=3).may_refuse
    assert SamplingParams(grammar=grammar, top_k=5, top_p=0.5, min_p=0.1).may_refuse  # greedy
    for name, value in (("top_k", 5), ("top_p", 0.5), ("min_p", 0.1), ("frequency_penalty", 1.0)):
        assert not SamplingParams(grammar=grammar, temperature=0.7, **{name: value}).may_refuse  # type: ignore[arg-type]
    assert not SamplingParams(temperature=0.7).may_refuse


TRUE = {"do_sample": True}
FALSE = {"do_sample": False}
QWEN = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
NEARLY_GREEDY = {"temperature": 0.7, "top_p": 0.9}


@pytest.mark.parametrize(
    ("stated", "given", "expected", "in_chat"),
    [
        ({}, {}, {}, NEARLY_GREEDY),
        ({}, {"temperature": 0.3}, {"temperature": 0.3}, {"temperature": 0.3, "top_p": 0.9}),
        ({}, {"temperature": 0.3, "top_p": 1.0}, {"temperature": 0.3}, {"temperature": 0.3}),
        (TRUE, {}, {"temperature": 1.0}, {"temperature": 1.0}),
        (FALSE, {}, {}, {}),
        (FALSE, {"temperature": 2.0}, {"temperature": 2.0}, {"temperature": 2.0}),
        ({"temperature": 0.6}, {}, {}, {"temperature": 0.6}),
        (FALSE | {"temperature": 0.6, "top_k": 5}, {}, {"top_k": 5}, {"top_k": 5}),
        (QWEN, {}, QWEN, QWEN),
        (QWEN, {"temperature": 0.0}, QWEN | {"temperature": 0.0}, QWEN | {"temperature": 0.0}),
        (QWEN, {"top_k": 0, "min_p": 0.1}, QWEN | {"top_k": 0, "min_p": 0.1}, QWEN | {"top_k": 0, "min_p": 0.1}),
        (TRUE | {"top_p": 0.0}, {}, {"temperature": 1.0, "top_p": 2**-32}, {"temperature": 1.0, "top_p": 2**-32}),
        ({"repetition_penalty": 1.1}, {}, {"repetition_penalty": 1.1}, NEARLY_GREEDY | {"repetition_penalty": 1.1}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.0}, {}, NEARLY_GREEDY),
        (TRUE | {"min_p": 0.05}, {}, {"temperature": 1.0, "min_p": 0.05}, {"temperature": 1.0, "min_p": 0.05}),
    ],
)
def test_defaults_are_those_of_the_model(
    stated: dict[str, Any], given: dict[str, Any], expected: dict[str, Any], in_chat: dict[str, Any]
) -> None:
    defaults = SamplingDefaults(**stated)
    for otherwise, wanted in (({}, expected), (NEARLY_GREEDY, in_chat)):
        wanted = {name: value for name, value in wanted.items() if name != "do_sample"}
        assert sampling_params(defaults, given | {"seed": 5}, otherwise) == SamplingParams(seed=5, **wanted)


@settings(deadline=None, max_examples=40)
@given(
    stated=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0.01, 3),
            "top_k": st.integers(1, 100),
            "top_p": st.floats(0.01, 1),
            "min_p": st.floats(0, 1),
            "repetition_penalty": st.floats(0.1, 3),
            "do_sample": st.booleans(),
        },
    )
)
def test_a_model_is_sampled_where_transformers_samples_it(stated: dict[str, Any]) -> None:
    """With its stated values; what it does not state is temperature 1 and all tokens."""
    config = transformers.GenerationConfig(**stated)
    ours = sampling_params(SamplingDefaults(**stated), {})
    assert (ours.temperature > 0) == bool(config.do_sample)
    assert ours.repetition_penalty == stated.get("repetition_penalty", 1.0)
    if config.do_sample:
        values = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **stated}
        assert {name: getattr(ours, name) for name in ("temperature", "top_k", "top_p", "min_p")} == {
            name: values[name] for name in ("temperature", "top_k", "top_p", "min_p")
        }


def test_same_seed_same_tokens() -> None:
    params = SamplingParams(temperature=2.0)

    def sequence(seed: int) -> list[int]:
        return [sample(LOGITS, params, position, seed) for position in range(50)]

    assert sequence(3) == sequence(3)
    assert len({tuple(sequence(seed)) for seed in (3, 4, 3 + 2**32, 2**64 - 1)}) == 4


def test_fresh_seeds_differ() -> None:
    assert SamplingParams(seed=5).some_seed == 5
    assert len({SamplingParams().some_seed for _ in range(5)}) == 5


def test_masked_tokens_are_never_drawn() -> None:
    logits = np.array([0, -np.inf, 0, -np.inf], np.float32)
    assert set(np.flatnonzero(draws(SamplingParams(temperature=5.0), 500, logits))) == {0, 2}


def test_tiny_temperature_is_greedy_and_large_logits_do_not_overflow() -> None:
    logits = np.array([3e38, -3e38, 2.9e38], np.float32)
    assert draws(SamplingParams(temperature=1e-6), 50, logits).tolist() == [1, 0, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [[0, np.nan, 1], [-np.inf, -np.inf, -np.inf], [0, np.inf, 1]])
def test_broken_logits(bad: list[float], temperature: float) -> None:
    with pytest.raises(Error, match="not finite"):
        sample(np.array(bad, np.float32), SamplingParams(temperature=temperature), 0, 0)


@given(
    logits=npst.arrays(np.float32, st.integers(1, 40), elements=st.floats(-50, 50, width=32)),
    temperature=st.floats(0, 10),
    top_k=st.integers(0, 50),
    top_p=st.floats(0, 1, exclude_min=True),
    seed=st.integers(0, 100),
)
def test_a_drawn_token_is_never_less_likely_than_one_left_out(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    token = sample(logits, params, 3, seed)
    assert 0 <= token < logits.size
    if top_k:
        assert (logits > logits[token]).sum() < top_k


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"min_p": float("nan")}, "min_p is nan"),
        ({"min_p": 1.1}, "min_p is 1.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
        ({"stop": "end"}, "stop is 'end'; give a tuple"),
        ({"stop": ("end", "")}, "strings that are not empty"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"presence_penalty": 2.1}, "presence_penalty is 2.1"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty is nan"),
        ({"logit_bias": {3: 101.0}}, "logit_bias has 101.0 for 3"),
        ({"logit_bias": {3: float("nan")}}, "logit_bias has nan for 3"),
        ({"logit_bias": {"3": 1.0}}, "logit_bias has 1.0 for '3'"),
        ({"allowed_tokens": [1, 2]}, "it must be a function"),
        ({"logprobs": 21}, "logprobs is 21"),
        ({"logprobs": -1}, "logprobs is -1"),
    ],
)
def test_parameters_out_of_range(params: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        SamplingParams(**params)

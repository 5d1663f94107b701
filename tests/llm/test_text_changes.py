"""Penalties and biases of a text, kept up token by token, against what they are by definition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.llm.text_changes import TextChanges

VOCAB = 50


def dense(changes: TextChanges) -> tuple[np.ndarray, np.ndarray]:
    """Penalty and shift of every token."""
    penalty, shift, found = np.ones(VOCAB, np.float32), np.zeros(VOCAB, np.float32), changes.changes()
    if found is not None:
        assert len(set(found.tokens.tolist())) == found.tokens.size, "each token comes once"
        dtypes = [str(values.dtype) for values in (found.tokens, found.penalty, found.shift)]
        assert dtypes == ["int32", "float32", "float32"]
        penalty[found.tokens], shift[found.tokens] = found.penalty, found.shift
    return penalty, shift


tokens = st.lists(st.integers(0, VOCAB - 1), max_size=80)


@given(
    prompt=tokens,
    new=tokens,
    repetition=st.sampled_from([1.0, 1.3, 0.5]),
    presence=st.sampled_from([0.0, 0.7, -2.0]),
    frequency=st.sampled_from([0.0, 0.1, -1.5]),
    bias=st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100), max_size=9),
)
def test_changes_are_those_of_the_whole_text(
    prompt: list[int], new: list[int], repetition: float, presence: float, frequency: float, bias: dict[int, float]
) -> None:
    params = SamplingParams(
        repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency, logit_bias=bias
    )
    changes = TextChanges(params, prompt, VOCAB)
    for end in range(len(new) + 1):
        penalty, shift = dense(changes)
        counts = Counter(new[:end])
        seen = {*prompt, *new[:end]}
        np.testing.assert_array_equal(penalty, [np.float32(repetition if t in seen else 1) for t in range(VOCAB)])
        wanted = [bias.get(t, 0.0) - presence * (counts[t] > 0) - frequency * counts[t] for t in range(VOCAB)]
        np.testing.assert_allclose(shift, wanted, rtol=1e-6, atol=1e-6)
        if end < len(new):
            changes.add(new[end])


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    changes = TextChanges(SamplingParams(temperature=1.0), range(30), VOCAB)
    changes.add(3)
    assert changes.changes() is None
    assert TextChanges(SamplingParams(presence_penalty=1.0), range(30), VOCAB).changes() is None, "prompts do not count"


def test_a_token_of_a_long_text_is_no_work_for_all_of_it() -> None:
    """Where a new token is added, nothing of the text before is made again: the arrays are the same memory."""
    params = SamplingParams(repetition_penalty=1.1, frequency_penalty=0.5)
    changes = TextChanges(params, range(100_000), 120_000)
    changes.add(5)
    before = changes.changes()
    changes.add(7)
    after = changes.changes()
    assert before is not None and after is not None
    assert np.shares_memory(before.tokens, after.tokens) and np.shares_memory(before.shift, after.shift)
    changes.add(110_000)
    changes.add(110_001)
    grown, larger = changes.changes(), None
    changes.add(110_002)
    larger = changes.changes()
    assert grown is not None and larger is not None and np.shares_memory(grown.tokens, larger.tokens)


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_a_bias_of_no_token(token: int) -> None:
    with pytest.raises(InvalidInputError, match=f"logit_bias names token {token}, but the vocabulary has {VOCAB}"):
        TextChanges(SamplingParams(logit_bias={token: 1.0}), (), VOCAB)

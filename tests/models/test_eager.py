"""The oracle itself: torch eager must agree with itself before anything is compared with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.eager import EagerLlama, load_eager, quantized_model
from tests.models.tiny_llama import TINY_LLAMAS, TinyLlama

TURNS = ([3, 1, 4, 1, 5, 9, 2], [6], [5, 3], [5], [8, 9, 7, 9, 3, 2, 3, 8, 4, 6])


@pytest.fixture(params=list(TINY_LLAMAS.values()), ids=list(TINY_LLAMAS))
def tiny(request: pytest.FixtureRequest) -> TinyLlama:
    return request.param


def load(tiny: TinyLlama, *, fused: bool = True) -> EagerLlama:
    return load_eager(tiny.params, tiny.write_checkpoint, tiny.options, fused=fused)


def test_fused_attention_agrees_with_plain_attention(tiny: TinyLlama) -> None:
    fused, plain = load(tiny).turns(TURNS), load(tiny, fused=False).turns(TURNS)
    for expected, actual in zip(plain, fused, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-4)


def test_dequantized_weights_give_the_quantized_logits(tiny: TinyLlama) -> None:
    quantized = EagerLlama(quantized_model(tiny.params, tiny.write_checkpoint, tiny.options))
    for expected, actual in zip(quantized.turns(TURNS), load(tiny).turns(TURNS), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_quantization_changes_the_logits() -> None:
    tiny = TINY_LLAMAS["4w"]
    exact = load_eager(tiny.params, tiny.write_checkpoint, replace(tiny.options, group_size=None))
    difference = np.abs(exact.logits([1, 2, 3], 0) - load(tiny).logits([1, 2, 3], 0)).max()
    assert difference > 1e-2


def test_turns_agree_with_one_pass(tiny: TinyLlama) -> None:
    eager = load(tiny)
    *_, last = eager.turns(TURNS)
    (whole,) = eager.turns([[token for turn in TURNS for token in turn]])
    np.testing.assert_allclose(last, whole, atol=1e-4, rtol=1e-4)


def test_reset_forgets_the_context(tiny: TinyLlama) -> None:
    eager = load(tiny)
    fresh = eager.logits([7], 5)
    eager.turns(TURNS)
    assert not np.allclose(eager.logits([7], 5), fresh, atol=1e-3)
    eager.reset()
    np.testing.assert_array_equal(eager.logits([7], 5), fresh)


def test_random_weights_depend_on_the_seed_alone(tiny: TinyLlama, tmp_path: Path) -> None:
    tiny.write_checkpoint(tmp_path / "a.pth")
    tiny.write_checkpoint(tmp_path / "b.pth")
    first, second = torch.load(tmp_path / "a.pth"), torch.load(tmp_path / "b.pth")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)

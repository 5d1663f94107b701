"""The real model's oracle: the weights taken out of the GGUF file, in torch, write English."""

from __future__ import annotations

import gguf
import numpy as np

from export_smollm2 import read_params
from tests.conftest import SmolLM2
from tests.models.eager import EagerLlama


def test_eager_continues_in_english(smollm2: SmolLM2, smollm2_eager: EagerLlama) -> None:
    vocabulary = gguf.GGUFReader(smollm2.gguf).fields["tokenizer.ggml.tokens"].contents()
    prompt = [vocabulary.index(word) for word in ("The", "Ġcapital", "Ġof", "ĠFrance", "Ġis")]
    text = "".join(vocabulary[token] for token in smollm2_eager.greedy(prompt, 4)).replace("Ġ", " ")
    assert text.startswith(" Paris")


def test_eager_turns_agree_with_one_pass(smollm2_eager: EagerLlama) -> None:
    tokens = np.random.default_rng(0).integers(1000, 40000, 24).tolist()
    *_, last = smollm2_eager.turns([tokens[:17], tokens[17:18], tokens[18:]])
    (whole,) = smollm2_eager.turns([tokens])
    np.testing.assert_allclose(last, whole, atol=1e-3, rtol=1e-3)


def test_parameters_come_from_the_file(smollm2: SmolLM2) -> None:
    params = read_params(smollm2.gguf)
    assert params["n_heads"] * params["head_dim"] == params["dim"] == 576
    assert (params["n_kv_heads"], params["norm_eps"], params["rope_theta"]) == (3, 1e-5, 1e5)

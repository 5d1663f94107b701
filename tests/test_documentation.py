"""The examples run, and the operator list says what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import executorch_webgpu.ops  # noqa: F401, registers the operators
from executorch_webgpu.ops.registry import names
from tests.conftest import SmolLM2
from tests.models.tiny_llama import TINY_LLAMAS, TinyLlama

ROOT = Path(__file__).parents[1]


def load_example(name: str) -> dict:
    scope: dict = {"__name__": name}
    exec(compile((ROOT / "examples" / f"{name}.py").read_text(), name, "exec"), scope)
    return scope


def test_operator_list_is_complete() -> None:
    lines = (ROOT / "docs/operators.md").read_text().splitlines()
    assert {line.strip("* `") for line in lines if line.startswith("* ")} == set(names())


def test_run_program_example(tiny_llama: TinyLlama) -> None:
    assert tiny_llama.name in TINY_LLAMAS
    largest, smaller = load_example("run_program")["main"](str(tiny_llama.program))
    assert largest[0].shape == smaller[0].shape == (1, tiny_llama.geometry.vocab_size)
    assert np.isfinite(largest[0]).all()


def test_attention_example() -> None:
    differences = load_example("attention")["main"](prompt=20, steps=3)
    assert differences["f32"] == 0 < differences["f16"] < 4e-3 < differences["int8"] < 6e-2


def test_greedy_example(smollm2: SmolLM2) -> None:
    text = load_example("greedy")["main"](str(smollm2.program), str(smollm2.gguf), "The capital of France is", 4)
    assert text.startswith("The capital of France is Paris")

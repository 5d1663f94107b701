"""A loaded model has all that it runs: no token of a text compiles anything, the first one included."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels
from executorch_webgpu.llm.generate import generate
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.text.tokenizer import Tokenizer

WAYS = (
    SamplingParams(max_new_tokens=9),
    SamplingParams(max_new_tokens=9, temperature=0.8, seed=1),
    SamplingParams(max_new_tokens=9, temperature=0.8, top_k=5, seed=1),
    SamplingParams(max_new_tokens=9, temperature=0.8, top_p=0.5, seed=1),
    SamplingParams(max_new_tokens=9, temperature=0.8, top_k=50, top_p=0.9, seed=1),
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, bpe: Tokenizer) -> Path:
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, SHAPES["tiny"], tokenizer=bpe)
    return path


@pytest.mark.parametrize("profile", [False, True])
@pytest.mark.parametrize("params", WAYS, ids=["greedy", "all", "top-k", "top-p", "both"])
def test_no_token_compiles(
    device: Device, program: Path, params: SamplingParams, profile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "kernels", Kernels(device))
    runtime = Runtime()
    runtime._device = device
    with runtime.load_program(program) as opened, LanguageModel(opened, profile=profile) as model:
        compiled = device.kernels.stats()
        tokenizer = Tokenizer.from_files(opened.named_data)
        for start in (0, 3):
            for piece in generate(model, tokenizer, [40, 41, 42, 43], params, start):
                assert device.kernels.stats() == compiled, piece

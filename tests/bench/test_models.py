"""Shapes of real models: as many weights as those have, written in pieces, and run as the real architectures are."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.models import SHAPES, fitting_options, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.llm import DecodeSession, Engine, LanguageModel, SamplingParams

# Of the published checkpoints; a tied head counts once.
PARAMETERS = {
    "smollm2-135m": 134_515_008,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.1-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_have_the_weights_of_the_real_models(name: str) -> None:
    assert sum(math.prod(dims) for dims in SHAPES[name].weight_dims().values()) == PARAMETERS[name]


def test_writing_needs_little_memory(tmp_path: Path) -> None:
    config = replace(SHAPES["llama-3.1-8b"], layers=1)
    write_llama(tmp_path / "small.pte", SHAPES["tiny"])  # what is made once
    tracemalloc.start()
    try:
        write_llama(tmp_path / "m.pte", config, fitting_options(config, 8, 16))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < (tmp_path / "m.pte").stat().st_size / 2


def test_a_small_qwen_runs_alone_and_among_others(tmp_path: Path) -> None:
    """With norms of q and k, pairs half a head apart, and a tied head: cut down, so that a CPU runs it."""
    config = replace(SHAPES["qwen3-0.6b"], dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=500)
    write_llama(tmp_path / "m.pte", config, fitting_options(config, 20, 40))
    random = np.random.default_rng(0)
    prompts = [random.integers(0, config.vocab, count).tolist() for count in (19, 3)]
    params = SamplingParams(4)
    with Runtime.get().load_program(tmp_path / "m.pte") as program:
        with Engine(program, max_rows=16, max_sequences=2) as engine:
            streams = [engine.submit(prompt, params, end_tokens=()) for prompt in prompts]
            together = [list(stream) for stream in streams]
        with LanguageModel(program) as model, DecodeSession(model, params, end_tokens=()) as session:
            for prompt, tokens in zip(prompts, together, strict=True):
                session.prefill(prompt)
                assert list(session) == tokens

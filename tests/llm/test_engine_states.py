"""What an engine holds of texts: saved, loaded elsewhere, and gone on with from any token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import ClosedError, InvalidInputError
from executorch_webgpu.llm import DecodeSession, Engine, LanguageModel, SamplingParams
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program

CONTEXT = 96
PROMPT = np.random.default_rng(0).integers(0, 512, 41).tolist()
PARAMS = SamplingParams(9)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("states") / "model.pte"
    config = replace(SHAPES["tiny"], context_len=CONTEXT)
    write_llama(path, config, LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=CONTEXT))
    with Runtime.get().load_program(path) as program:
        yield program


@pytest.mark.parametrize("dtype", ["f32", "f16", "int8"])
def test_a_text_goes_on_in_another_engine(program: Program, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "text.npz"
    with Engine(program, kv_cache_dtype=dtype) as engine:
        new = list(engine.submit(PROMPT, PARAMS, end_tokens=()))
        assert engine.held_tokens(PROMPT) == engine.held_tokens([*PROMPT, 1]) == 32
        assert engine.held_tokens([*PROMPT, *new]) == 48 and engine.held_tokens(PROMPT[::-1]) == 0
        wanted = list(engine.submit([*PROMPT, *new], PARAMS, end_tokens=()))
        assert engine.save([*PROMPT, *new], path) == 48
        assert engine.save(PROMPT[::-1], tmp_path / "nothing.npz") == 0
    with Engine(program, kv_cache_dtype=dtype) as other:
        assert other.load(path) == [*PROMPT, *new][:48]
        assert list(other.submit([*PROMPT, *new], PARAMS, end_tokens=())) == wanted
        assert other.computed_rows == len(PROMPT) + 9 - 48 + 8
        # Back to an earlier token, and on from there in another way.
        rows = other.computed_rows
        assert list(other.submit(PROMPT[:20], PARAMS, end_tokens=()))
        assert other.computed_rows == rows + 4 + 8
        assert other.load(tmp_path / "nothing.npz") == []


def test_a_state_of_one_sequence_goes_on_among_many(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    with LanguageModel(program) as model:
        model.prefill(PROMPT)
        _, state = model.runs_on()
        state.save(path)
        with DecodeSession(model, PARAMS, end_tokens=()) as session:
            session.prefill(PROMPT)
            wanted = list(session)
    with Engine(program) as engine:
        with pytest.raises(InvalidInputError, match="does not say of which text it is"):
            engine.load(path)
        assert engine.load(path, PROMPT) == PROMPT[:32]
        assert list(engine.submit(PROMPT, PARAMS, end_tokens=())) == wanted
        assert engine.computed_rows == len(PROMPT) - 32 + 8


def test_what_cannot_be_loaded_disturbs_nobody(program: Program, tmp_path: Path) -> None:
    with Engine(program, kv_cache_dtype="f16") as engine:
        list(engine.submit(PROMPT, PARAMS, end_tokens=()))
        engine.save(PROMPT, tmp_path / "f16.npz")
    (tmp_path / "damaged.npz").write_bytes(b"no state")
    engine = Engine(program)
    running = engine.submit(PROMPT, PARAMS, end_tokens=())
    for name in ("f16.npz", "damaged.npz", "missing.npz"):
        with pytest.raises((InvalidInputError, OSError)):
            engine.load(tmp_path / name)
    with pytest.raises(OSError):
        engine.save(PROMPT, tmp_path / "no folder" / "text.npz")
    assert len(list(running)) == 9
    engine.close()
    with pytest.raises(ClosedError):
        engine.save(PROMPT, tmp_path / "closed.npz")

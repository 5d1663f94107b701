"""Steps that share a submission: the tokens of steps that each had their own, and nothing else in the caches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_webgpu import DeviceError, InvalidInputError, Program, Runtime
from executorch_webgpu.gpu.trace import STEP, trace
from executorch_webgpu.graph import step as step_module
from executorch_webgpu.graph.sampler import SamplerConfig
from executorch_webgpu.graph.step import Steps
from executorch_webgpu.llm.decode_session import DecodeSession
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.runtime import decode
from executorch_webgpu.runtime.decode import DecodeLoop

from .chain_program import cached_row, chain
from .test_decode_session import (
    TABLE,
    VOCAB,
    cache_rows,
    chain_file,
    check_exact,
    check_text,
    check_whole_context,
    device_of,
    llama,
    llama_folder,
    model,
    plain_tokens,
    session_tokens,
)

__all__ = ["chain_file", "llama", "llama_folder", "model"]


@pytest.fixture(autouse=True)
def submitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Submissions of up to four steps, however long these take; how many steps were recorded for each."""
    monkeypatch.setattr(decode, "_TOGETHER_ON_CPU", 4)
    monkeypatch.setattr(decode, "_LONGEST_SECONDS", 1e6)
    counts: list[int] = []
    submit = Steps.submit

    def counted(steps: Steps) -> int:
        if steps._parts:
            counts.append(len(steps._parts) // 2)  # of a model and its sampler
        return submit(steps)

    monkeypatch.setattr(Steps, "submit", counted)
    yield counts


# -- the same tokens --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 1.0, 3.0]),
    top_p=st.sampled_from([0.3, 1.0]),
    penalty=st.sampled_from([1.0, 0.7, 8.0]),
    prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=13),
    ends=st.frozensets(st.integers(0, VOCAB - 1), max_size=4),
    ahead=st.integers(1, 11),
)
def test_any_text(
    model: LanguageModel,
    seed: int,
    temperature: float,
    top_p: float,
    penalty: float,
    prompt: list[int],
    ends: frozenset[int],
    ahead: int,
) -> None:
    check_text(model, prompt, SamplingParams(24, temperature, 0, top_p, seed, 0.0, penalty), ends, ahead)


@pytest.mark.parametrize("mail", [16, 64, 16 << 10])
def test_plans_that_change_from_step_to_step(
    llama: LanguageModel, submitted: list[int], monkeypatch: pytest.MonkeyPatch, mail: int
) -> None:
    """What uniforms change may be too much for one submission."""
    monkeypatch.setattr(step_module, "_MAIL_BYTES", mail)
    top_p = 0.9 + mail * 1e-6  # each has memory of its own
    check_whole_context(llama, SamplingParams(10_000, temperature=0.8, top_p=top_p, seed=3, repetition_penalty=1.1))
    assert max(submitted) == {16: 1, 64: 3}.get(mail, 4)
    assert sum(submitted) > 500


def test_a_program_that_reads_positions_on_the_device(submitted: list[int]) -> None:
    """The queue writes them, so each step has a submission."""
    path = Path(__file__).parents[1] / "data" / "engine" / "gpt_op_of_each.pte"
    with Runtime.get().load_program(path) as program, LanguageModel(program) as model:
        for seed in range(3):
            params = SamplingParams(1000, temperature=1.0, seed=seed)
            assert session_tokens(model, [3, 1, 4], params, ahead=8) == plain_tokens(model, [3, 1, 4], params)
    assert set(submitted) == {1}


def test_a_checked_method_takes_its_steps_one_by_one(chain_file: Program, submitted: list[int]) -> None:
    with LanguageModel(chain_file, check=True) as model:
        assert session_tokens(model, [17, 5, 40], SamplingParams(20), ahead=8) == (chain(TABLE, 40, 20), "length")
    assert not submitted


def test_a_trace_shows_each_step(model: LanguageModel, submitted: list[int]) -> None:
    with trace() as recorded:
        session_tokens(model, [17, 5, 40], SamplingParams(20), ahead=8)
    assert sum(span.kind == STEP for span in recorded.spans) == 20
    assert not submitted


# -- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 8, 9, 13])
def test_a_session_that_is_closed_leaves_what_was_asked_for(model: LanguageModel, count: int) -> None:
    session = DecodeSession(model, SamplingParams(50), steps_in_flight=8)
    session.prefill([17, 5, 40])
    said = list(itertools.islice(session, count))
    assert said == chain(TABLE, 40, count)
    at_any_time = [17, 5, 40, *said[:-1]]
    assert model.cached_tokens == tuple(at_any_time) and model.runs_on()[1].length == len(at_any_time)
    session.close()
    check_exact(model, at_any_time)


@pytest.mark.parametrize("room", range(4, 14))
def test_the_end_of_the_context(model: LanguageModel, submitted: list[int], room: int) -> None:
    prompt = [2] * (64 - room)
    said = chain(TABLE, 2, room + 1)
    assert session_tokens(model, prompt, SamplingParams(100), ahead=8) == (said, "context")
    check_exact(model, prompt + said[:-1])


def test_steps_before_one_that_is_refused_run(model: LanguageModel) -> None:
    """No session asks for such a step."""
    config = SamplerConfig(0, 0.0, 0, 1.0)
    with DecodeSession(model, SamplingParams(1)) as session:
        session.prefill([2] * 61)
        (first,) = session
    loop = DecodeLoop(*model.runs_on(), config, 8)
    loop.run(np.array([[first]], np.int32), 61)
    with pytest.raises(InvalidInputError):
        loop.run_together(62, 4)  # of which the last two are past the end of the cache
    assert loop.pending == 3
    assert [loop.read() for _ in range(3)] == chain(TABLE, first, 3)
    loop.drop()
    loop.close()


@pytest.mark.parametrize("lost", ["recording", "submission"])
def test_uniforms_of_steps_that_never_ran_are_sent_again(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Else the host would take the GPU to know a position that it was never told."""
    with DecodeSession(model, SamplingParams(1)) as session:
        session.prefill([2] * 10)
        (first,) = session
    loop = DecodeLoop(*model.runs_on(), SamplerConfig(0, 0.0, 0, 1.0), 8)
    loop.run(np.array([[first]], np.int32), 10)
    token = loop.read()

    def fail(*_: object) -> None:
        raise DeviceError("the device is busy")

    with monkeypatch.context() as patch, pytest.raises(DeviceError, match="busy"):
        if lost == "submission":
            patch.setattr(device_of(model), "submit", fail)
        else:
            patch.setattr(step_module.Part, "write_inputs", fail)
        loop.run_together(11, 2)
    loop.drop()
    for position in (12, 11):  # where the last step that was lost would have been, and the first
        loop.run(np.array([[token]], np.int32), position)
        assert [loop.read()] == chain(TABLE, token, 1)
        np.testing.assert_array_equal(cache_rows(model)[position], cached_row(token))
    loop.run_together(13, 3)
    assert [loop.read() for _ in range(3)] == chain(TABLE, token, 4)[1:]
    loop.drop()
    loop.close()

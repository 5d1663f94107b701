"""Tokens drawn on the GPU, several steps ahead: the same as one call at a time, and nothing left over."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Program, Runtime
from executorch_webgpu.errors import (
    ClosedError,
    DeviceError,
    Error,
    InvalidInputError,
    UnsupportedProgramError,
)
from executorch_webgpu.gpu.device import Device, open_null_device
from executorch_webgpu.graph.lowering.segments import HostSegment
from executorch_webgpu.llm.decode_session import DecodeSession
from executorch_webgpu.llm.generate import Piece, cached_prefix, generate
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.plain_loop import PlainLoop
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime.decode import DecodeLoop, decode_target, host_reason
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.conftest import SmolLM2
from tests.llm.chain_program import ROW, cached_row, chain, chain_program, chain_table
from tests.models.eager import EagerLlama
from tests.models.tiny_llama import TinyLlama
from tests.text.tiny_vocabulary import BPE_TOKENS

CONTEXT = 600
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
VOCAB = len(BPE_TOKENS)
TABLE = chain_table(VOCAB)


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    config = replace(SHAPES["tiny"], context_len=CONTEXT)
    write_llama(folder / "last.pte", config)
    options = LlamaOptions("q4gsw", head="q4gsw", embedding="f32", max_seq_len=6, full_logits=True)
    write_llama(folder / "full.pte", config, options)
    return folder


@pytest.fixture(scope="module", params=["last", "full", "last-int8"])
def llama(request: pytest.FixtureRequest, llama_folder: Path) -> Iterator[LanguageModel]:
    """A Llama with random weights: logits of the last position, of all of up to five, and over an int8 cache."""
    name, _, dtype = request.param.partition("-")
    with (
        Runtime.get().load_program(llama_folder / f"{name}.pte") as program,
        LanguageModel(program, kv_cache_dtype=dtype or "f32") as model,
    ):
        yield model


@pytest.fixture(scope="module")
def chain_file() -> Iterator[Program]:
    with Runtime.get().load_program(chain_program(TABLE)) as program:
        yield program


@pytest.fixture
def model(chain_file: Program) -> Iterator[LanguageModel]:
    with LanguageModel(chain_file) as model:
        yield model


def session_tokens(
    model: LanguageModel, prompt: list[int], params: SamplingParams, ends: frozenset[int] = frozenset(), ahead: int = 3
) -> tuple[list[int], str | None]:
    model.reset()
    with DecodeSession(model, params, end_tokens=ends, steps_in_flight=ahead) as session:
        session.prefill(prompt)
        return list(session), session.finish_reason


def plain_tokens(
    model: LanguageModel, prompt: list[int], params: SamplingParams, ends: frozenset[int] = frozenset()
) -> tuple[list[int], str | None]:
    model.reset()
    loop = PlainLoop(model, params, ends)
    loop.prefill(prompt)
    return list(loop), loop.finish_reason


def device_of(model: LanguageModel) -> Device:
    target = model.runs_on()[0].decode_target
    assert not isinstance(target, str)
    return target.executor.device


def cache_rows(model: LanguageModel) -> np.ndarray:
    """The chain program's whole cache [context, ROW]."""
    method, state = model.runs_on()
    assert not isinstance(method.decode_target, str)
    (rows,) = state.graph_of(method.decode_target.executor).read(10**9).values()
    return np.asarray(rows).reshape(-1, ROW)


def check_exact(model: LanguageModel, text: list[int]) -> None:
    """The model, its state and its memory say that exactly these tokens have run."""
    _, state = model.runs_on()
    assert model.cached_tokens == tuple(text)
    assert state.length == len(text)
    rows = cache_rows(model)
    np.testing.assert_array_equal(rows[: len(text)], np.reshape([cached_row(token) for token in text], (-1, ROW)))
    assert not rows[len(text) :].any()


def check_text(
    model: LanguageModel, prompt: list[int], params: SamplingParams, ends: frozenset[int], ahead: int
) -> None:
    """The tokens of the plain loop, and exactly its cache afterwards."""
    expected = plain_tokens(model, prompt, params, ends)
    text, rows = list(model.cached_tokens), cache_rows(model)
    assert session_tokens(model, prompt, params, ends, ahead) == expected
    check_exact(model, text)
    np.testing.assert_array_equal(cache_rows(model), rows)


def check_whole_context(model: LanguageModel, params: SamplingParams) -> None:
    """Up to the end of a context of 600 positions, over which attention changes its grid several times."""
    tokens, reason = session_tokens(model, PROMPT, params, ahead=8)
    assert (tokens, reason) == plain_tokens(model, PROMPT, params)
    assert (len(tokens), reason) == (CONTEXT - len(PROMPT) + 1, "context")


# -- the same tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 2, 7])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(40),
        SamplingParams(40, temperature=1.0, seed=0),
        SamplingParams(40, temperature=0.7, top_p=0.9, seed=2**64 - 1),
        SamplingParams(40, temperature=1.5, top_k=11, seed=5),
        SamplingParams(40, temperature=0.9, top_k=40, top_p=0.8, seed=6),
        SamplingParams(40, temperature=1.2, min_p=0.1, seed=7),
        SamplingParams(40, repetition_penalty=1.4),
        SamplingParams(40, temperature=1.1, top_k=60, top_p=0.95, min_p=0.02, repetition_penalty=0.8, seed=8),
    ],
    ids=["greedy", "temperature", "top_p", "top_k", "both", "min_p", "penalty", "all"],
)
def test_tokens_are_those_of_the_plain_loop(llama: LanguageModel, params: SamplingParams, ahead: int) -> None:
    assert session_tokens(llama, PROMPT, params, ahead=ahead) == plain_tokens(llama, PROMPT, params)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.4, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5, 100]),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.5]),
    penalty=st.sampled_from([1.0, 1.0, 0.7, 1.3, 8.0]),
    prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=13),
    ends=st.frozensets(st.integers(0, VOCAB - 1), max_size=6),
    ahead=st.integers(1, 9),
)
def test_any_text(
    model: LanguageModel,
    seed: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
    prompt: list[int],
    ends: frozenset[int],
    ahead: int,
) -> None:
    """Of any prompt, with end tokens anywhere: the same tokens, and exactly the same cache afterwards."""
    check_text(model, prompt, SamplingParams(24, temperature, top_k, top_p, seed, min_p, penalty), ends, ahead)


def test_plans_that_change_while_steps_are_in_flight(llama: LanguageModel) -> None:
    check_whole_context(llama, SamplingParams(10_000, temperature=0.8, top_p=0.95, seed=3))


def test_prompts_continue_a_cache(llama: LanguageModel) -> None:
    """A second turn over what the first one left, and a third one that goes back into it."""
    params = SamplingParams(12, temperature=1.0, seed=8)
    texts = []
    for kind in (DecodeSession, lambda model, params: PlainLoop(model, params, ())):
        llama.reset()
        said = []
        for prompt, start in ((PROMPT, 0), ([7, 7], 19), ([8] * 7, 4)):
            with closing(kind(llama, params)) as loop:
                loop.prefill(prompt, start)
                said += list(loop)
        texts.append((said, llama.cached_tokens, llama.runs_on()[1].length))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("ahead", [1, 5])
def test_the_penalty_is_for_what_the_text_has_and_nothing_else(
    model: LanguageModel, temperature: float, ahead: int
) -> None:
    """Not for what ran ahead and was dropped, nor for what a prompt goes back behind, but for a prefix that is kept."""
    params = SamplingParams(9, temperature, seed=3, repetition_penalty=6.0)

    def said(loop: DecodeSession | PlainLoop) -> list[list[int]]:
        texts = []
        for prompt, start, count in (([17, 5, 40], 0, 4), ([40], 2, 9), ([7, 5], 6, 2), ([5], 1, 9), ([9] * 4, 3, 9)):
            loop.prefill(prompt, start)
            texts.append(list(itertools.islice(loop, count)))
        return texts

    model.reset()
    expected = said(PlainLoop(model, params, ()))
    assert len({token for text in expected for token in text}) > 9
    model.reset()
    with DecodeSession(model, params, end_tokens=(), steps_in_flight=ahead) as session:
        assert said(session) == expected


def test_a_penalty_counts_prompts_of_several_chunks(model: LanguageModel) -> None:
    """Greedy text runs through a cycle; with a penalty no token comes again, of the prompt either."""
    prompt = chain(TABLE, 40, 23)
    tokens, _ = session_tokens(model, prompt, SamplingParams(30, repetition_penalty=1e9))
    assert len(set(tokens) | set(prompt)) == len(tokens) + len(prompt)


# -- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 2, 3, 8])
@pytest.mark.parametrize("after", [0, 1, 2, 5, 9])
def test_an_end_token_in_the_middle_of_what_is_in_flight(model: LanguageModel, after: int, ahead: int) -> None:
    prompt = [17, 5, 40]
    said = chain(TABLE, prompt[-1], after + 1)
    ends = frozenset({said[-1]})
    assert session_tokens(model, prompt, SamplingParams(30), ends, ahead) == (said[:-1], "eos")
    check_exact(model, prompt + said[:-1])


@pytest.mark.parametrize("ahead", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_bound_on_new_tokens(model: LanguageModel, count: int, ahead: int) -> None:
    prompt = [17, 5, 40]
    said = chain(TABLE, 40, count)
    assert session_tokens(model, prompt, SamplingParams(count), ahead=ahead) == (said, "length")
    check_exact(model, prompt + said[:-1])


@pytest.mark.parametrize("ahead", [1, 3, 8])
@pytest.mark.parametrize("room", [0, 1, 5])
def test_the_end_of_the_context(model: LanguageModel, room: int, ahead: int) -> None:
    prompt = [2] * (64 - room)
    said = chain(TABLE, 2, room + 1)
    assert session_tokens(model, prompt, SamplingParams(100), ahead=ahead) == (said, "context")
    check_exact(model, prompt + said[:-1])


@pytest.mark.parametrize("ahead", [1, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_session_that_is_closed_leaves_what_was_asked_for(model: LanguageModel, count: int, ahead: int) -> None:
    session = DecodeSession(model, SamplingParams(50), steps_in_flight=ahead)
    session.prefill([17, 5, 40])
    said = list(itertools.islice(session, count))
    assert said == chain(TABLE, 40, count)
    at_any_time = [17, 5, 40, *said[:-1]]
    assert model.cached_tokens == tuple(at_any_time) and model.runs_on()[1].length == len(at_any_time)
    session.close()
    session.close()
    check_exact(model, at_any_time)
    with pytest.raises(ClosedError, match="this session is closed"):
        next(session)
    assert model.step(9, len(at_any_time)).argmax() == TABLE[9].argmax()


def test_steps_run_ahead_of_the_reader(model: LanguageModel) -> None:
    with DecodeSession(model, SamplingParams(30), steps_in_flight=4) as session:
        session.prefill([40])
        in_flight = []
        for _ in session:
            in_flight.append(session._loop.pending)
        assert max(in_flight) == 3 and in_flight[-4:] == [3, 2, 1, 0]
    with DecodeSession(model, SamplingParams(9), steps_in_flight=1) as session:
        session.prefill([40])
        assert [session._loop.pending for _ in session] == [0] * 9


def test_a_text_that_ended_stays_ended_until_the_next_prompt(model: LanguageModel) -> None:
    with DecodeSession(model, SamplingParams(3)) as session:
        with pytest.raises(InvalidInputError, match="no text to continue"):
            next(session)
        session.prefill([40])
        assert list(session) == chain(TABLE, 40, 3)
        assert list(session) == []
        session.prefill([7], 1)
        assert session.finish_reason is None
        assert list(session) == chain(TABLE, 7, 3)


# -- more than one ----------------------------------------------------------------------------------------------------


def test_sessions_on_two_states_do_not_meet(llama: LanguageModel) -> None:
    params = SamplingParams(25, temperature=0.9, seed=4)
    others = [5, 5, 5]
    alone = [plain_tokens(llama, prompt, params)[0] for prompt in (PROMPT, others)]
    llama.reset()
    with llama.new_sequence() as second:
        sessions = [DecodeSession(model, params, steps_in_flight=3) for model in (llama, second)]
        for session, prompt in zip(sessions, (PROMPT, others), strict=True):
            session.prefill(prompt)
        said: list[list[int]] = [[], []]
        for turn in itertools.islice(itertools.cycle([0, 1, 1, 0, 0, 0, 1]), 60):
            said[turn] += itertools.islice(sessions[turn], 1)
        assert said == [alone[0], alone[1]]
        assert second.cached_tokens == (*others, *said[1][:-1])
        for session in sessions:
            session.close()
    assert llama.cached_tokens == (*PROMPT, *said[0][:-1])
    assert llama.step(1, 3).shape == (llama.vocab_size,)


@pytest.mark.parametrize("use", ["prefill", "reset", "session"])
def test_another_use_of_the_model_ends_a_session(model: LanguageModel, use: str) -> None:
    session = DecodeSession(model, SamplingParams(30), steps_in_flight=4)
    session.prefill([17, 5])
    said = list(itertools.islice(session, 3))
    text = [17, 5, *said[:-1]]
    match use:
        case "prefill":
            model.prefill([8], 4)
            text.append(8)
        case "reset":
            model.reset()
            text = []
        case "session":
            DecodeSession(model, SamplingParams()).close()
    check_exact(model, text)
    with pytest.raises(ClosedError):
        next(session)
    session.close()
    check_exact(model, text)


def test_a_sequence_of_its_own(model: LanguageModel) -> None:
    model.prefill([1, 2, 3])
    with model.new_sequence() as other:
        assert other.cached_tokens == ()
        other.prefill([9])
        check_exact(other, [9])
        other.reset()
        check_exact(other, [])
    check_exact(model, [1, 2, 3])
    model.step(4, 3)


# -- what can go wrong ------------------------------------------------------------------------------------------------


def test_prompts_that_do_not_fit(model: LanguageModel) -> None:
    with DecodeSession(model, SamplingParams(3)) as session:
        for tokens, start in (([], 0), ([1], 1), ([1] * 65, 0), ([VOCAB], 0), ([-1], 0)):
            with pytest.raises(InvalidInputError):
                session.prefill(tokens, start)
        session.prefill([40])
        assert list(session) == chain(TABLE, 40, 3)


@pytest.mark.parametrize("ahead", [1, 5])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_logits_are_an_error_where_they_are(bad: float, ahead: int) -> None:
    table = TABLE.copy()
    said = chain(TABLE, 40, 6)
    table[said[3], 11] = bad
    with (
        Runtime.get().load_program(chain_program(table)) as program,
        LanguageModel(program) as model,
        DecodeSession(model, SamplingParams(30), steps_in_flight=ahead) as session,
    ):
        session.prefill([40])
        assert list(itertools.islice(session, 4)) == said[:4]
        with pytest.raises(Error, match="not finite"):
            next(session)
        check_exact(model, [40, *said[:4]])
        with pytest.raises(ClosedError):
            next(session)
        assert plain_tokens(model, [said[4]], SamplingParams(2))[0] == chain(TABLE, said[4], 2)


def test_tokens_that_the_table_of_the_program_does_not_have() -> None:
    """The host cannot check a token that it has not seen, so what could not be right is refused before it runs."""
    with (
        Runtime.get().load_program(chain_program(TABLE, rows=VOCAB - 1)) as program,
        LanguageModel(program) as model,
        DecodeSession(model, SamplingParams(5)) as session,
    ):
        session.prefill([40])
        with pytest.raises(InvalidInputError, match=f"token {VOCAB - 1} is not in the vocabulary of {VOCAB - 1}"):
            next(session)


def use_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dawn without a GPU, on which every token is 7 instead of whatever lay in memory."""
    monkeypatch.setattr("executorch_webgpu.runtime.program.open_device", lambda *_: open_null_device())
    read = DecodeLoop.read
    monkeypatch.setattr(DecodeLoop, "read", lambda loop: read(loop) * 0 + 7)


@pytest.mark.parametrize("engine", ["default", "dawn"])
def test_a_lost_device_is_our_error(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "dawn":
        use_null_device(monkeypatch)
    runtime = Runtime()  # one of its own: the shared one must live on
    with runtime.load_program(chain_program(TABLE)) as program, LanguageModel(program) as model:
        session = DecodeSession(model, SamplingParams(40), end_tokens=(), steps_in_flight=3)
        session.prefill([40])
        next(session)
        runtime.device.raw.destroy()
        with pytest.raises(DeviceError):
            list(session)
        session.close()
        with pytest.raises(DeviceError):
            model.step(1, 1)
    runtime.device.close()


def test_logits_of_the_last_position_may_have_its_dimension() -> None:
    with Runtime.get().load_program(chain_program(TABLE, last=True)) as program, LanguageModel(program) as model:
        assert not model.full_logits
        with pytest.raises(UnsupportedProgramError, match="the last position only"):
            model.logits(PROMPT)
        with DecodeSession(model, SamplingParams(4), end_tokens=()) as session:
            session.prefill(PROMPT)
            assert list(session) == chain(TABLE, PROMPT[-1], 4)


def test_a_program_that_is_closed_under_a_session() -> None:
    with Runtime.get().load_program(chain_program(TABLE)) as program, LanguageModel(program) as model:
        memory = Runtime.get().device.memory
        session = DecodeSession(model, SamplingParams(40), steps_in_flight=4)
        session.prefill([40])
        next(session)
        program.close()
        with pytest.raises(ClosedError):
            list(session)
        before = memory.live_buffers
        session.close()
        assert memory.live_buffers < before


def test_a_session_on_dawn(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its null device computes nothing, but checks every bind group, copy, submission and mapping."""
    use_null_device(monkeypatch)
    runtime = Runtime()
    for name in ("last", "full"):
        with runtime.load_program(llama_folder / f"{name}.pte") as program, LanguageModel(program) as model:
            penalized = SamplingParams(20, temperature=1.0, min_p=0.1, repetition_penalty=1.2)
            for params in (SamplingParams(20), SamplingParams(20, temperature=1.0, top_k=5, top_p=0.9), penalized):
                assert session_tokens(model, PROMPT, params, ahead=4) == ([7] * 20, "length")
            with DecodeSession(model, SamplingParams(50)) as session:
                session.prefill(PROMPT)
                next(session)
            assert model.cached_tokens == tuple(PROMPT)
            runtime.device.check()
    runtime.device.close()


def test_a_profiled_model_uses_the_plain_loop_and_says_so(chain_file: Program, bpe: Tokenizer) -> None:
    with LanguageModel(chain_file, profile=True) as model:
        with pytest.raises(UnsupportedProgramError, match="a profile waits for every step"):
            DecodeSession(model, SamplingParams())
        *_, last = generate(model, bpe, [40], SamplingParams(4))
        assert last.stats is not None and last.stats.drawn_by == "host"
        assert last.stats.host_reason == "a profile waits for every step"


@pytest.mark.parametrize(
    ("special", "why"),
    [({"peeks": True}, "needs to know tokens on the host"), ({"counts": True}, "keeps more than KV caches")],
    ids=["peeks", "counts"],
)
def test_a_program_that_cannot_run_ahead_uses_the_plain_loop_and_says_so(
    special: dict[str, bool], why: str, bpe: Tokenizer
) -> None:
    with Runtime.get().load_program(chain_program(TABLE, **special)) as program, LanguageModel(program) as model:
        with pytest.raises(UnsupportedProgramError, match=f"cannot be drawn on the GPU: .* {why}"):
            DecodeSession(model, SamplingParams())
        *pieces, last = generate(model, bpe, [40], SamplingParams(4))
        assert [piece.token for piece in pieces] == chain(TABLE, 40, 4)
        assert last.stats is not None and why in str(last.stats.host_reason)


def test_work_of_the_host_around_the_graph(chain_file: Program) -> None:
    with chain_file.load_method("forward") as method:
        lowered, executors = method._lowered, method._executors
        (block,) = lowered.blocks
        flow, (graph,) = lowered.flow, block.segments
        before = replace(block, segments=(HostSegment(()), graph))
        given = next(iter(block.block.entry.values()))
        other_output = replace(block, block=replace(block.block, outputs=[given]))
        changes = {
            "the host computes before or after": (replace(lowered, blocks=(before,)), executors),
            "output is not the graph's": (
                replace(lowered, blocks=(other_output,), flow=replace(flow, blocks=(other_output.block,))),
                executors,
            ),
            "does not take the tokens and their position": (
                replace(lowered, flow=replace(flow, inputs=flow.inputs[:1])),
                executors,
            ),
            "2 graphs": (lowered, executors * 2),
        }
        assert host_reason(method, method.state) is None
        for why, (other, other_executors) in changes.items():
            assert why in str(decode_target(other, other_executors))


@pytest.mark.parametrize("ahead", [0, -1])
def test_steps_in_flight_out_of_range(model: LanguageModel, ahead: int) -> None:
    with pytest.raises(InvalidInputError, match=f"steps_in_flight is {ahead}"):
        DecodeSession(model, SamplingParams(), steps_in_flight=ahead)


# -- text -------------------------------------------------------------------------------------------------------------


def pieces_of(model: LanguageModel, bpe: Tokenizer, prompt: list[int], **options: Any) -> list[Piece]:
    params = SamplingParams(20, temperature=1.3, seed=9)
    return list(generate(model, bpe, prompt, params, cached_prefix(model, prompt), **options))


def test_generate_gives_the_same_text_either_way(model: LanguageModel, bpe: Tokenizer) -> None:
    results = []
    for steps_in_flight in (0, 1, None, 6):
        model.reset()
        *pieces, last = pieces_of(model, bpe, [40, 41], steps_in_flight=steps_in_flight)
        stats = last.stats
        assert stats is not None
        assert stats.drawn_by == ("gpu" if steps_in_flight != 0 else "host")
        assert (stats.host_reason is None) == (steps_in_flight != 0)
        assert stats.decode_seconds > 0 and stats.prefill_seconds > 0
        results.append(
            (pieces, last.text, stats.new_tokens, stats.decode_steps, stats.finish_reason, model.cached_tokens)
        )
    assert all(result == results[0] for result in results)


def test_a_text_that_is_closed_goes_on_where_it_was(model: LanguageModel, bpe: Tokenizer) -> None:
    prompt = [40, 41]
    whole = [piece.token for piece in pieces_of(model, bpe, prompt)[:-1]]
    for count in (0, 1, 3):
        model.reset()
        with closing(generate(model, bpe, prompt, SamplingParams(20, temperature=1.3, seed=9))) as text:
            said = [piece.token for piece in itertools.islice(text, count)]
        assert said == whole[:count]
        again = [*prompt, *(token for token in said if token is not None)]
        assert model.cached_tokens == (tuple(again[:-1]) if count else ())
        # Noise depends on positions, so that the rest is the same.
        assert [piece.token for piece in pieces_of(model, bpe, again)[: len(whole) - count]] == whole[count:]


@pytest.mark.parametrize("steps_in_flight", [0, 1, 3, 8])
@pytest.mark.parametrize("at", [0, 1, 4, 9])
def test_stop_strings_end_a_text_exactly(model: LanguageModel, bpe: Tokenizer, steps_in_flight: int, at: int) -> None:
    """A string over two tokens: the last one is given, and has not run, like that of a text that is cut off."""
    for first in range(4, VOCAB):
        said = chain(TABLE, first, at + 2)
        stop = bpe.decode(said[at:])
        if len(stop) > 1 and stop.isalnum() and stop.isascii() and not bpe.eos_ids & set(said):
            break
    params = SamplingParams(18, stop=("never there", stop))
    *pieces, last = generate(model, bpe, [first], params, steps_in_flight=steps_in_flight)
    assert last.stats is not None and last.text == ""
    assert [piece.token for piece in pieces] == said
    assert "".join(piece.text for piece in pieces) == bpe.decode(said[:at])
    assert (last.stats.finish_reason, last.stats.new_tokens, last.stats.decode_steps) == ("stop", at + 2, at + 1)
    check_exact(model, [first, *said[:-1]])


# -- programs of the stock exporter -----------------------------------------------------------------------------------


def test_exported_programs_continue_like_torch(tiny_llama: TinyLlama, tiny_eager: EagerLlama) -> None:
    prompt = [5, 7, 11, 13]
    with Runtime.get().load_program(tiny_llama.program) as program, LanguageModel(program) as model:
        assert session_tokens(model, prompt, SamplingParams(20)) == (tiny_eager.greedy(prompt, 20), "length")


def test_the_real_model_continues_like_torch(smollm2: SmolLM2, smollm2_eager: EagerLlama) -> None:
    prompt = Tokenizer.from_file(smollm2.gguf).encode("The capital of France is")
    with Runtime.get().load_program(smollm2.program) as program, LanguageModel(program) as model:
        assert session_tokens(model, prompt, SamplingParams(24))[0] == smollm2_eager.greedy(prompt, 24)


# -- memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_flat_over_thousands_of_steps() -> None:
    """GPU buffers, and Python's objects, among which are those that wgpu-py makes for the engine's."""
    with (
        Runtime.get().load_program(chain_program(TABLE, context_len=4096)) as program,
        LanguageModel(program) as model,
        DecodeSession(model, SamplingParams(4000, temperature=1.0, top_p=0.9, seed=1), steps_in_flight=6) as session,
    ):
        device = device_of(model)
        session.prefill([40])
        counts = []
        for taken, _ in enumerate(session):
            if taken % 1000 == 500:
                gc.collect()
                counts.append((device.memory.live_bytes, device.memory.live_buffers, len(gc.get_objects())))
        assert taken == 3999
        assert {(nbytes, buffers) for nbytes, buffers, _ in counts} == {counts[0][:2]}
        # Plans of longer contexts are kept: a few objects every 256 steps, not one a step.
        assert max(objects for *_, objects in counts[1:]) - counts[1][2] < 500


def test_sessions_use_the_memory_of_earlier_ones(model: LanguageModel) -> None:
    """Of the last two ways to draw, whatever the seed; what is kept of more of them is freed."""
    device = device_of(model)
    ways = [SamplingParams(3), SamplingParams(3, repetition_penalty=1.0001), SamplingParams(3, temperature=1e-5)]
    list_of = [session_tokens(model, [40], way)[0] for way in ways[:2]]
    before = (device.memory.live_bytes, device.memory.live_buffers)
    for seed in range(10):
        for way in ways[:2]:
            list_of.append(session_tokens(model, [40], replace(way, seed=seed))[0])
            assert (device.memory.live_bytes, device.memory.live_buffers) == before
    for _ in range(5):
        list_of += [session_tokens(model, [40], way)[0] for way in ways]
    list_of += [session_tokens(model, [40], way)[0] for way in ways[:2]]
    assert (device.memory.live_bytes, device.memory.live_buffers) == before
    assert all(tokens == list_of[0] for tokens in list_of)


def test_a_model_frees_what_it_keeps_for_sessions(chain_file: Program) -> None:
    with LanguageModel(chain_file) as other:  # what loads of the program share stays
        device = device_of(other)
    before = (device.memory.live_bytes, device.memory.live_buffers)
    model = LanguageModel(chain_file)
    session = DecodeSession(model, SamplingParams(3))
    session.prefill([40])
    next(session)
    session_tokens(model, [40], SamplingParams(3, temperature=0.5))  # closes the other one
    model.close()
    session.close()
    assert (device.memory.live_bytes, device.memory.live_buffers) == before

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from executorch_webgpu import Program, State
from executorch_webgpu.errors import DeviceError, InvalidInputError, UnsupportedProgramError
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.runtime.metadata import TensorMetadata
from tests.llm.calls import recorded
from tests.llm.tiny_program import next_token

VOCAB = 97
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


Open = Callable[..., Program]


@pytest.mark.parametrize("all_logits", [False, True])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("length", [1, 4, 5, 6, 12])
def test_prefill_in_chunks(
    open_tiny: Open, monkeypatch: pytest.MonkeyPatch, length: int, dtype: str, all_logits: bool
) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB, dtype=dtype, all_logits=all_logits))
    calls = recorded(model, monkeypatch)
    logits = model.prefill(PROMPT[:length])
    assert logits.shape == (VOCAB,) and logits.dtype == np.float32
    assert logits.argmax() == next_token(PROMPT[:length], VOCAB)
    assert calls == [(min(5, length - start), start) for start in range(0, length, 5)]


def test_one_token_at_a_time_without_dynamic_shapes(open_tiny: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB, max_tokens=1, dynamic=False))
    calls = recorded(model, monkeypatch)
    assert model.prefill(PROMPT).argmax() == next_token(PROMPT, VOCAB)
    assert calls == [(1, position) for position in range(len(PROMPT))]


def test_steps_and_later_turns_continue_the_cache(open_tiny: Open) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    model.prefill(PROMPT[:3])
    assert model.step(PROMPT[3], 3).argmax() == next_token(PROMPT[:4], VOCAB)
    assert model.prefill(PROMPT[4:], 4).argmax() == next_token(PROMPT, VOCAB)


@pytest.mark.parametrize(
    ("constants", "context_len"),
    [
        ({"get_max_context_len": [64], "get_max_seq_len": [32]}, 64),
        ({"get_max_seq_len": [32]}, 32),
        ({"get_max_context_len": [np.array([64])]}, 64),
        ({}, 5),
    ],
)
def test_context_length(open_tiny: Open, constants: dict[str, list[Any]], context_len: int) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB, constants=constants))
    assert (model.context_len, model.max_tokens, model.vocab_size) == (context_len, 5, VOCAB)


def test_unknown_context_length(open_tiny: Open) -> None:
    program = open_tiny(vocab_size=VOCAB, max_tokens=1, dynamic=False, constants={})
    with pytest.raises(UnsupportedProgramError, match="length of its context is unknown"):
        LanguageModel(program)


def test_end_tokens_of_the_program(open_tiny: Open) -> None:
    constants = {"get_max_context_len": [64], "get_eos_ids": [2, 7]}
    assert LanguageModel(open_tiny(vocab_size=VOCAB, constants=constants)).eos_ids == {2, 7}
    assert LanguageModel(open_tiny(vocab_size=VOCAB)).eos_ids == frozenset()


def test_constant_that_is_no_integer(open_tiny: Open) -> None:
    program = open_tiny(vocab_size=VOCAB, constants={"get_max_context_len": ["many"]})
    with pytest.raises(UnsupportedProgramError, match="get_max_context_len does not return integers"):
        LanguageModel(program)


def test_no_kv_cache(open_tiny: Open) -> None:
    constants = {"get_max_context_len": [64], "use_kv_cache": [False]}
    with pytest.raises(UnsupportedProgramError, match="no KV cache"):
        LanguageModel(open_tiny(vocab_size=VOCAB, constants=constants))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([TensorMetadata("int64", (1, 5), (1,))], None),
        ([TensorMetadata("float32", (1, 5), (1,)), TensorMetadata("int64", (1,))], None),
        ([TensorMetadata("int64", (2, 5), (1,)), TensorMetadata("int64", (1,))], None),
        ([TensorMetadata("int64", (5,), (0,)), TensorMetadata("int64", (1,))], None),
        ([TensorMetadata("int64", (1, 5), (1,)), TensorMetadata("int64", (2,))], None),
        ([TensorMetadata("int64", (1, 5), (1,)), TensorMetadata("int", is_tensor=False)], None),
        (None, []),
        (None, [TensorMetadata("int64", (1, VOCAB))]),
        (None, [TensorMetadata("float32", (VOCAB,))]),
    ],
    ids=[
        "no-pos",
        "float-tokens",
        "batch",
        "rank",
        "pos-dims",
        "pos-int",
        "no-logits",
        "int-logits",
        "logits-rank",
    ],
)
def test_forward_that_is_no_language_model(
    open_tiny: Open, inputs: list[TensorMetadata] | None, outputs: list[TensorMetadata] | None
) -> None:
    program = open_tiny(vocab_size=VOCAB, inputs=inputs, outputs=outputs)
    with pytest.raises(UnsupportedProgramError, match=r"forward takes integer tokens \[1, S\]"):
        LanguageModel(program)


def test_fixed_sequence_length(open_tiny: Open) -> None:
    with pytest.raises(UnsupportedProgramError, match="exactly 5 tokens"):
        LanguageModel(open_tiny(vocab_size=VOCAB, dynamic=False))


@pytest.mark.parametrize(
    ("tokens", "start", "why"),
    [
        ([], 0, "no tokens"),
        ([1], -1, "from position -1"),
        ([1] * 65, 0, "65 tokens from position 0 do not fit the model's context of 64"),
        ([1, 1], 63, "2 tokens from position 63"),
        ([1, VOCAB], 0, f"token {VOCAB} is outside the model's vocabulary of {VOCAB}"),
        ([-1], 0, "token -1"),
    ],
)
def test_tokens_out_of_range_run_nothing(
    open_tiny: Open, monkeypatch: pytest.MonkeyPatch, tokens: list[int], start: int, why: str
) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    calls = recorded(model, monkeypatch)
    with pytest.raises(InvalidInputError, match=why):
        model.prefill(tokens, start)
    assert calls == []


def test_what_the_cache_holds(open_tiny: Open) -> None:
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    assert model.cached_tokens == ()
    model.prefill(PROMPT)
    model.step(50, 12)
    assert model.cached_tokens == (*PROMPT, 50)
    assert model.prefill([7, 8], 3).argmax() == next_token([*PROMPT[:3], 7, 8], VOCAB)
    assert model.cached_tokens == (*PROMPT[:3], 7, 8)
    with pytest.raises(InvalidInputError, match="holds 5 tokens, so position 6 would leave a gap"):
        model.step(1, 6)
    model.reset()
    assert model.cached_tokens == ()


def disturb(model: LanguageModel, monkeypatch: pytest.MonkeyPatch, disturbance: Callable[[], object]) -> None:
    """Let the second call of the method do something else first and then its work, or fail in it."""
    calls = 0
    execute = model._forward.execute

    def disturbed(inputs: Sequence[Any], state: State | None = None) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == 2:
            disturbance()
        return execute(inputs, state)

    monkeypatch.setattr(model._forward, "execute", disturbed)


def test_a_step_that_fails_gives_up_the_rows_that_it_may_have_written(
    open_tiny: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise DeviceError("lost")

    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    model.prefill(PROMPT)
    disturb(model, monkeypatch, fail)
    with pytest.raises(DeviceError):
        model.prefill(PROMPT[2:], 2)
    assert model.cached_tokens == tuple(PROMPT[:7])  # the first chunk ran


def test_ctrl_c_waits_for_the_end_of_a_step(open_tiny: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    disturb(model, monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.prefill(PROMPT)
    assert model.cached_tokens == tuple(PROMPT[:10])  # two of three chunks, whole
    assert signal.getsignal(signal.SIGINT) is handler
    assert model.prefill(PROMPT[10:], 10).argmax() == next_token(PROMPT, VOCAB)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_handler_that_is_not_of_python_stays(
    open_tiny: Open, monkeypatch: pytest.MonkeyPatch, handler: signal.Handlers
) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        seen = []
        model = LanguageModel(open_tiny(vocab_size=VOCAB))
        disturb(model, monkeypatch, lambda: seen.append(signal.getsignal(signal.SIGINT)))
        model.prefill(PROMPT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [handler]


def test_steps_in_another_thread(open_tiny: Open) -> None:
    """Signal handlers belong to the main thread."""
    model = LanguageModel(open_tiny(vocab_size=VOCAB))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(model.prefill, PROMPT).result().argmax() == next_token(PROMPT, VOCAB)

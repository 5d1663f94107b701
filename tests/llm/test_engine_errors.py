"""What goes wrong with one text is told to its caller alone; what breaks the device, to all; and memory that stays."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import DeviceLostError, Error, InvalidInputError, copied
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program

CONTEXT, VOCAB = 64, 48
Mask = np.ndarray


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("errors") / "model.pte"
    config = replace(SHAPES["tiny"], dim=32, layers=1, context_len=CONTEXT, vocab=VOCAB)
    write_llama(path, config, LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=CONTEXT))
    with Runtime().load_program(path) as program:
        yield program


def mask_of(*tokens: int) -> Mask:
    mask = np.zeros(2, np.uint32)
    for token in tokens:
        mask[token // 32] |= np.uint32(1 << token % 32)
    return mask


def nothing_after_two(new: Sequence[int]) -> Mask:
    return mask_of(1, 47) if len(new) < 2 else mask_of()


def breaks_after_two(new: Sequence[int]) -> Mask:
    if len(new) == 2:
        raise RuntimeError("the grammar broke")
    return mask_of(33)


def test_texts_that_break_leave_the_others_alone(program: Program) -> None:
    good_params = [SamplingParams(12), SamplingParams(12, temperature=1.0, seed=4), SamplingParams(12, top_k=3, seed=1)]
    with Engine(program, max_rows=16, max_sequences=8) as engine:
        wanted = [list(engine.submit([5, 6, i], each, end_tokens=())) for i, each in enumerate(good_params)]
        good = [engine.submit([5, 6, i], each, end_tokens=()) for i, each in enumerate(good_params)]
        for function, error, message in (
            (nothing_after_two, InvalidInputError, "allows no token after 2 new ones"),
            (breaks_after_two, RuntimeError, "the grammar broke"),
            (lambda new: "no mask", InvalidInputError, "allowed_tokens gave str"),
        ):
            given: Any = function
            stream = engine.submit([7], SamplingParams(9, allowed_tokens=given), end_tokens=())
            got: list[int] = []
            with pytest.raises(error, match=message):
                got += stream
            assert stream.finish_reason is None and set(got) <= {1, 47, 33}
        with pytest.raises(InvalidInputError, match="logit_bias names token 99"):
            engine.submit([7], SamplingParams(9, logit_bias={99: 1.0}))
        assert [list(stream) for stream in good] == wanted
        assert engine.idle_pages == engine.kv_pages


HUGE: list[dict[str, Any]] = [
    *({"top_k": 10**30}, {"top_k": 2**53 + 1}, {"temperature": 1e308}, {"temperature": 5e-324}, {"top_p": 5e-324}),
    *({"repetition_penalty": 1e308}, {"repetition_penalty": 5e-324}, {"min_p": 5e-324}, {"max_new_tokens": 10**30}),
]


def test_numbers_of_any_size_break_no_engine(program: Program) -> None:
    with Engine(program, max_rows=16, max_sequences=8) as engine:
        for each in HUGE:
            params = SamplingParams(**{"max_new_tokens": 3, "temperature": 1.0, **each})
            assert len(list(engine.submit([5, 6], params, end_tokens=()))) >= 3
        assert engine.broken is None


@pytest.mark.parametrize("name", ["temperature", "top_k", "repetition_penalty", "top_p", "min_p"])
def test_numbers_that_are_none_are_refused(name: str) -> None:
    for value in (float("nan"), -1e300, *([10**400, float("inf")] if name != "top_k" else [])):
        with pytest.raises(InvalidInputError, match=name):
            SamplingParams(**{name: value})  # type: ignore[arg-type]


def test_log_probabilities(program: Program) -> None:
    """Of the model's own logits: of the token that was drawn, and of the likeliest ones, one entry for each token."""
    with Engine(program) as engine:
        greedy = engine.submit([3, 4], SamplingParams(6, logprobs=3), end_tokens=())
        sampled = engine.submit([3, 4], SamplingParams(6, logprobs=0, temperature=2.0, seed=3), end_tokens=())
        plain = engine.submit([3, 4], SamplingParams(6), end_tokens=())
        tokens = list(greedy)
        assert tokens == list(plain) and not plain.logprobs and len(list(sampled)) == len(sampled.logprobs) == 6
        for token, found in zip(tokens, greedy.logprobs, strict=True):
            assert found.likeliest[0] == (token, found.logprob) and len(found.likeliest) == 3
            values = [value for _, value in found.likeliest]
            assert values == sorted(values, reverse=True) and 0 < np.exp(values).sum() <= 1 + 1e-5
        assert all(not found.likeliest and found.logprob <= 0 for found in sampled.logprobs)


def test_a_lost_device_ends_all_texts_and_another_engine_goes_on(program: Program, monkeypatch: Any) -> None:
    with Engine(program, max_sequences=2) as engine:
        wanted = list(engine.submit([1, 2], SamplingParams(20), end_tokens=()))
        streams = [engine.submit([1, 2], SamplingParams(60), end_tokens=()) for _ in range(4)]
        next(streams[0])
        device = engine._batch._device

        def lost(*_: Any, **__: Any) -> Any:
            raise DeviceLostError("the device was lost")

        monkeypatch.setattr(device, "submit", lost)
        errors = []
        for stream in streams:
            with pytest.raises(DeviceLostError, match="the device was lost") as caught:
                list(stream)
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == 4  # each thread raises one of its own
        with pytest.raises(DeviceLostError):
            engine.submit([1])
        monkeypatch.undo()
    with Engine(program) as other:
        assert list(other.submit([1, 2], SamplingParams(20), end_tokens=())) == wanted


@pytest.mark.slow
def test_ten_thousand_steps_leave_nothing_behind(program: Program) -> None:
    """Texts come, end, are cancelled and dropped, of all kinds; buffers, objects and memory stay as they were."""
    random = np.random.default_rng(0)
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.9, "top_p": 0.8},
        {"frequency_penalty": 0.5},
        {"logprobs": 2},
        {"allowed_tokens": lambda new: mask_of(2, 3, 40)},
    ]

    def texts(engine: Engine, steps: int) -> None:
        counted = engine._batch.submitted
        while engine._batch.submitted - counted < steps:
            streams = []
            for _ in range(6):
                prompt = random.integers(0, VOCAB, random.integers(1, 12)).tolist()
                params = SamplingParams(int(random.integers(1, 40)), seed=1, **kinds[random.integers(len(kinds))])
                streams.append(engine.submit(prompt, params, end_tokens=()))
            for i, stream in enumerate(streams):
                if i == 1:
                    next(stream)
                    stream.cancel()
                elif i != 2:
                    list(stream)
            del streams, stream

    with Engine(program, max_rows=12, max_sequences=4, kv_pages=12, page_rows=8, speculate="prompt-lookup") as engine:
        texts(engine, 1500)
        memory = engine._batch._device.memory
        tracemalloc.start()
        before = None
        for _ in range(2):
            texts(engine, 4250)
            gc.collect()
            found = (memory.live_buffers, memory.live_bytes, len(gc.get_objects()), tracemalloc.get_traced_memory()[0])
            before, growth = found, None if before is None else [b - a for a, b in zip(before, found, strict=True)]
        tracemalloc.stop()
    assert growth is not None
    assert growth[:2] == [0, 0] and growth[2] < 2000 and growth[3] < 1 << 19, growth


def test_an_engine_that_cannot_be_made_leaves_no_memory(program: Program) -> None:
    gc.collect()
    device = program._runtime.device
    with Engine(program):
        pass
    before = device.memory.live_bytes
    routes = {"paged_sdpa": "none"}
    bad: list[dict[str, Any]] = [
        {"kv_cache_dtype": "f8"},
        {"routes": routes},
        {"steps_in_flight": 0},
        {"speculate": "x"},
    ]
    for options in bad:
        with pytest.raises(Error):
            Engine(program, **options)
    gc.collect()
    assert device.memory.live_bytes <= before


class CodeError(Exception):
    """Of a library whose constructor takes other arguments than an exception keeps, so that it cannot be copied."""

    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"code {code} at {where}")


def test_texts_end_whatever_breaks_the_loop(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(program)

    def breaks(*_: Any) -> None:
        raise CodeError(7, "a step")

    monkeypatch.setattr(engine._batch, "submit", breaks)
    stream = engine.submit([1, 2], SamplingParams(5))
    with pytest.raises(Error, match="CodeError: code 7 at a step") as raised:
        list(stream)
    assert isinstance(raised.value.__cause__, CodeError)
    with pytest.raises(Error, match="CodeError: code 7 at a step"):
        engine.submit([1, 2])
    engine.close()


def test_errors_are_copied_as_what_they_are() -> None:
    for error in (DeviceLostError("gone"), KeyError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")):
        made = copied(error)
        assert made is not error and type(made) is type(error) and str(made) == str(error)

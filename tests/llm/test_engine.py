"""Many texts at once: each as it is alone, whoever comes, goes, or shares its beginning."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import ClosedError, Error, InvalidInputError, UnsupportedProgramError
from executorch_webgpu.llm import DecodeSession, Engine, LanguageModel, SamplingParams
from executorch_webgpu.llm.plain_loop import PlainLoop
from executorch_webgpu.llm.stream import Mailbox
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Program
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.conftest import SmolLM2
from tests.graph_builder import GraphBuilder
from tests.programs import write_delegated

VOCAB = SHAPES["tiny"].vocab
CONTEXT = 96
Prompt = list[int]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    path = tmp_path_factory.mktemp("engine") / "model.pte"
    config = replace(SHAPES["tiny"], context_len=CONTEXT)
    write_llama(path, config, LlamaOptions("q4gsw", embedding="q4gsw", max_seq_len=16, max_context_len=CONTEXT))
    with Runtime.get().load_program(path) as program:
        yield program


class Alone:
    """What a prompt gives by itself, on a model of its own."""

    def __init__(self, program: Program, dtype: str) -> None:
        self.model = LanguageModel(program, kv_cache_dtype=dtype)

    def __call__(self, prompt: Prompt, params: SamplingParams) -> list[int]:
        with DecodeSession(self.model, params, end_tokens=()) as session:
            session.prefill(prompt)
            return list(session)


@pytest.fixture(scope="module")
def alone(program: Program) -> Iterator[dict[str, Alone]]:
    found = {dtype: Alone(program, dtype) for dtype in ("f32", "f16", "int8")}
    yield found
    for each in found.values():
        each.model.close()


def prompts(count: int, seed: int, longest: int = 40) -> list[Prompt]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCAB, random.integers(1, longest)).tolist() for _ in range(count)]


@pytest.mark.parametrize("dtype", ["f32", "f16", "int8"])
def test_texts_are_as_they_are_alone(program: Program, alone: dict[str, Alone], dtype: str) -> None:
    given_prompts = prompts(7, 1)
    params = [SamplingParams(5 + i, temperature=0.8 * (i % 2), top_p=0.9, seed=i) for i in range(7)]
    with Engine(program, kv_cache_dtype=dtype, max_rows=24, max_sequences=4) as engine:
        streams = [engine.submit(p, s, end_tokens=()) for p, s in zip(given_prompts, params, strict=True)]
        for prompt, param, stream in zip(given_prompts, params, streams, strict=True):
            assert list(stream) == alone[dtype](prompt, param)
            assert stream.finish_reason == "length"


def test_penalties_biases_and_masks_are_as_they_are_alone(program: Program, alone: dict[str, Alone]) -> None:
    """On the device for many texts, what the host does for one."""

    def odd_after_even(new_tokens: Sequence[int]) -> np.ndarray:
        return np.full(VOCAB // 32, 0xAAAAAAAA if len(new_tokens) % 2 else 0x55555555, np.uint32)

    ways: list[dict[str, Any]] = [
        {"repetition_penalty": 1.3},
        {"presence_penalty": 1.5, "frequency_penalty": 0.7},
        {"logit_bias": {3: 5.0, 7: -100}, "temperature": 1.0, "top_k": 30},
        {"allowed_tokens": odd_after_even, "temperature": 0.7},
        {"allowed_tokens": odd_after_even, "frequency_penalty": 2.0, "repetition_penalty": 0.8, "top_p": 0.8},
    ]
    given_prompts = prompts(len(ways), 4)
    with Engine(program, max_rows=24, max_sequences=3) as engine:
        params = [SamplingParams(12, seed=i, **way) for i, way in enumerate(ways)]
        streams = [engine.submit(p, s, end_tokens=()) for p, s in zip(given_prompts, params, strict=True)]
        for prompt, param, stream in zip(given_prompts, params, streams, strict=True):
            loop = PlainLoop(alone["f32"].model, param, ())
            loop.prefill(prompt)
            assert list(stream) == list(loop)


def test_a_mask_that_cannot_be_ends_its_text_only(program: Program, alone: dict[str, Alone]) -> None:
    def nothing_after_two(new_tokens: Sequence[int]) -> np.ndarray | None:
        return np.zeros(VOCAB // 32, np.uint32) if len(new_tokens) == 2 else None

    def breaks(new_tokens: Sequence[int]) -> np.ndarray | None:
        raise LookupError("no such state of the grammar")

    prompt = prompts(1, 6)[0]
    with Engine(program, max_rows=24) as engine:
        ends = engine.submit(prompt, SamplingParams(9, allowed_tokens=nothing_after_two), end_tokens=())
        fails = engine.submit(prompt, SamplingParams(9, allowed_tokens=breaks), end_tokens=())
        goes_on = engine.submit(prompt, SamplingParams(9), end_tokens=())
        assert [next(ends), next(ends)] == alone["f32"](prompt, SamplingParams(2))
        with pytest.raises(InvalidInputError, match="allows no token after 2 new ones"):
            next(ends)
        with pytest.raises(LookupError, match="no such state"):
            next(fails)
        assert list(goes_on) == alone["f32"](prompt, SamplingParams(9))
        with pytest.raises(InvalidInputError, match=f"logit_bias names token {VOCAB}"):
            engine.submit(prompt, SamplingParams(logit_bias={VOCAB: 1.0}))


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_random_arrivals_and_small_pools(program: Program, alone: dict[str, Alone], data: st.DataObject) -> None:
    """Pools that hold one or two texts only, so that the youngest are computed again."""
    pages = data.draw(st.integers(12, 30))
    count = data.draw(st.integers(2, 8))
    beginning = prompts(1, 5, 30)[0]
    texts = [(beginning * data.draw(st.integers(0, 1)) + p)[:50] for p in prompts(count, data.draw(st.integers(0, 99)))]
    params = SamplingParams(data.draw(st.integers(1, 12)), seed=3)
    rows, sequences = data.draw(st.sampled_from([(4, 3), (16, 2), (40, 8)]))
    with Engine(program, kv_pages=pages, page_rows=8, max_rows=rows, max_sequences=sequences) as engine:
        streams = []
        for text in texts:
            streams.append(engine.submit(text, params, end_tokens=()))
            if data.draw(st.booleans()):
                next(streams[-1])
        cancelled = data.draw(st.integers(0, count))
        for stream in streams[:cancelled:3]:
            stream.cancel()
        for i, (text, stream) in enumerate(zip(texts, streams, strict=True)):
            got = list(stream)
            if not (i < cancelled and i % 3 == 0):
                wanted = alone["f32"](text, params)
                assert got == wanted[len(wanted) - len(got) :] and len(got) >= len(wanted) - 1
        assert engine.idle_pages == pages


def test_a_shared_beginning_is_computed_once(program: Program) -> None:
    beginning = prompts(1, 9, 61)[0]
    beginning = (beginning * 60)[:64]
    with Engine(program, page_rows=16, max_rows=32, max_sequences=8) as engine:
        streams = [engine.submit([*beginning, i], SamplingParams(1)) for i in range(8)]
        for stream in streams:
            list(stream)
        assert engine.computed_rows == 64 + 8


def test_ends(program: Program) -> None:
    prompt = prompts(1, 3)[0]
    with Engine(program) as engine:
        (first, *_) = tokens = list(engine.submit(prompt, SamplingParams(4), end_tokens=()))
        stream = engine.submit(prompt, SamplingParams(4), end_tokens=[first])
        assert list(stream) == [] and stream.finish_reason == "eos"
        stream = engine.submit((prompt * CONTEXT)[:CONTEXT], SamplingParams(9), end_tokens=())
        assert len(list(stream)) == 1 and stream.finish_reason == "context"
        assert len(tokens) == 4
        assert stream.times.first_token is not None and stream.times.first_token >= stream.times.submitted


def test_bad_input_is_told_to_its_caller_only(program: Program, alone: dict[str, Alone]) -> None:
    prompt = prompts(1, 4)[0]
    with Engine(program, kv_pages=4, page_rows=16) as engine:
        good = engine.submit(prompt, SamplingParams(6), end_tokens=())
        cases: list[tuple[Any, SamplingParams, str]] = [
            ([], SamplingParams(), "the prompt is empty"),
            ([1] * (CONTEXT + 1), SamplingParams(), f"the context has room for {CONTEXT}"),
            ([VOCAB], SamplingParams(), f"token {VOCAB} is not in the vocabulary"),
            ([-1], SamplingParams(), "token -1 is not"),
            ([1.5], SamplingParams(), "a prompt is a list of integers"),
            ("12", SamplingParams(), "a prompt is a list of integers"),
            ([1] * 60, SamplingParams(20), "the pool of KV cache pages holds 64"),
            ([1], SamplingParams(stop=("x",)), "stop strings"),
        ]
        for tokens, params, message in cases:
            with pytest.raises(InvalidInputError, match=message):
                engine.submit(tokens, params)
        assert list(good) == alone["f32"](prompt, SamplingParams(6))


@pytest.mark.parametrize(("rows", "sequences", "page_rows"), [(0, 1, 16), (4, 0, 16), (2, 3, 16), (4, 4, 3), (4, 4, 0)])
def test_engines_that_cannot_be(program: Program, rows: int, sequences: int, page_rows: int) -> None:
    with pytest.raises(InvalidInputError):
        Engine(program, max_rows=rows, max_sequences=sequences, page_rows=page_rows)


def test_a_pool_has_pages(program: Program) -> None:
    with pytest.raises(InvalidInputError, match="a pool needs pages"):
        Engine(program, kv_pages=0)


def test_streams_that_nobody_reads_give_their_pages_back(program: Program) -> None:
    with Engine(program, max_sequences=2) as engine:
        before = engine.idle_pages
        kept = engine.submit([1, 2, 3], SamplingParams(90))
        kept.cancel()
        dropped = engine.submit([1, 2, 3], SamplingParams(90))
        next(dropped)
        del dropped
        gc.collect()
        list(engine.submit([4], SamplingParams(3)))  # some steps later
        deadline = time.monotonic() + 20
        while engine.idle_pages != before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.idle_pages == before
        assert kept.finish_reason == "cancelled"


def test_closing_ends_what_runs(program: Program) -> None:
    engine = Engine(program)
    stream = engine.submit([1, 2, 3], SamplingParams(90))
    engine.close()
    engine.close()
    with pytest.raises(ClosedError, match="engine was closed"):
        list(stream)
    with pytest.raises(ClosedError, match="this engine is closed"):
        engine.submit([1])


def test_an_engine_that_nobody_holds_ends_after_its_streams(program: Program) -> None:
    thread = Engine(program)._loop.thread
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()

    stream = Engine(program).submit([1, 2, 3], SamplingParams(5), end_tokens=())
    thread = next(each for each in threading.enumerate() if each.name == "executorch-webgpu engine")
    assert len(list(stream)) == 5
    del stream
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


def test_no_token_comes_after_the_end() -> None:
    mailbox = Mailbox()
    mailbox.put(1)
    mailbox.finish("cancelled")
    mailbox.put(2)
    assert [mailbox.take(), mailbox.take()] == [1, None]


class ClosesAtOnce(asyncio.SelectorEventLoop):
    """A loop that is closed just before another thread calls it."""

    def call_soon_threadsafe(  # type: ignore[override]  # of any arguments
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        self.close()
        return super().call_soon_threadsafe(callback, *args, context=context)


def test_a_closed_loop_breaks_nobody_else() -> None:
    mailbox, loop = Mailbox(), ClosesAtOnce()
    with pytest.raises(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(mailbox.take_async(), 0.01))
    mailbox.put(7)
    assert mailbox.take() == 7


def test_what_breaks_a_step_ends_every_text_with_one_error(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(program)
    monkeypatch.setattr(engine._batch, "submit", lambda *_: (_ for _ in ()).throw(Error("the device was lost")))
    streams = []
    for _ in range(3):
        try:
            streams.append(engine.submit([1, 2], SamplingParams(5)))
        except Error as error:
            assert "the device was lost" in str(error)
    assert streams
    for stream in streams:
        with pytest.raises(Error, match="the device was lost"):
            list(stream)
    engine.close()
    with Engine(program) as other:
        assert len(list(other.submit([1, 2], SamplingParams(5), end_tokens=()))) == 5


def test_threads_and_tasks_at_once(program: Program, alone: dict[str, Alone]) -> None:
    given_prompts = prompts(6, 8, 20)
    params = SamplingParams(6, temperature=0.9, seed=2)
    got: dict[int, list[int]] = {}
    with Engine(program, max_rows=16, max_sequences=4) as engine:

        def in_thread(index: int) -> None:
            got[index] = list(engine.submit(given_prompts[index], params, end_tokens=()))

        async def in_task(index: int) -> None:
            got[index] = [token async for token in engine.submit(given_prompts[index], params, end_tokens=())]

        async def tasks() -> None:
            await asyncio.gather(*(in_task(index) for index in range(3, 6)))

        threads = [threading.Thread(target=in_thread, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        asyncio.run(tasks())
        for thread in threads:
            thread.join()
    assert got == {index: alone["f32"](prompt, params) for index, prompt in enumerate(given_prompts)}


def test_programs_that_are_no_language_models(tmp_path: Path) -> None:
    build = GraphBuilder()
    x = build.input((4,))
    build.output(build.call("aten.sigmoid.default", x, build.tensor((4,))))
    data = write_delegated(build, ["float32", "float32"])
    with Runtime.get().load_program(data) as program, pytest.raises(UnsupportedProgramError):
        Engine(program)


@pytest.mark.slow
def test_smollm2_writes_what_it_writes_alone(smollm2: SmolLM2) -> None:
    texts = [
        "The capital of France is",
        "Once upon a time",
        "Water boils at",
        "def add(a, b):",
        "The largest planet is",
    ]
    texts += ["Roses are red,", "In 1969, humans", "A good way to learn"]
    tokenizer, params = Tokenizer.from_file(smollm2.gguf), SamplingParams(8)
    given_prompts = [tokenizer.encode(text) for text in texts]
    with Runtime.get().load_program(smollm2.program) as program:
        with LanguageModel(program) as model:
            wanted = []
            for prompt in given_prompts:
                with DecodeSession(model, params, end_tokens=()) as session:
                    session.prefill(prompt)
                    wanted.append(list(session))
        with Engine(program, max_rows=32) as engine:
            streams = [engine.submit(prompt, params, end_tokens=()) for prompt in given_prompts]
            assert [list(stream) for stream in streams] == wanted
    assert "Paris" in tokenizer.decode(wanted[0])

"""A program's stages as actors: texts are those of the whole program, and errors are of one text or of all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import ray

from executorch_webgpu import Runtime
from executorch_webgpu.errors import ClosedError, InvalidInputError, UnsupportedProgramError
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ray import Pipeline
from executorch_webgpu.ray.pipeline import StageGoneError
from tests.models.tiny_gguf import TinyGguf

OPTIONS = LlamaOptions("f32", max_seq_len=9, max_context_len=64)
PROMPTS = [[1, 2, 3], list(range(5, 40)), [7], list(range(90, 40, -1))]  # some of several chunks
GREEDY = SamplingParams(max_new_tokens=8)
SAMPLED = SamplingParams(max_new_tokens=8, temperature=1.0, top_k=30, seed=5, repetition_penalty=1.3)

Converted = Callable[[int | Sequence[int] | None], Path]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    folder = tmp_path_factory.mktemp("pipeline")
    TinyGguf(layers=4).write(folder / "model.gguf")

    def path(stages: int | Sequence[int] | None) -> Path:
        target = folder / f"{stages}.pte"
        if not target.exists():
            convert(folder / "model.gguf", target, OPTIONS, stages=stages)
        return target

    return path


@pytest.fixture(scope="module")
def wanted(converted: Converted) -> dict[SamplingParams, list[list[int]]]:
    """The texts of an engine over the whole program."""
    with Runtime.get().load_program(converted(None)) as program, Engine(program, max_rows=16) as engine:
        return {
            params: [list(stream) for stream in [engine.submit(prompt, params) for prompt in PROMPTS]]
            for params in (GREEDY, SAMPLED)
        }


@pytest.fixture(scope="module")
def two(cluster: str, converted: Converted) -> Iterator[Pipeline]:
    assert cluster
    with Pipeline(converted(2), max_texts=3, actor_options={"num_cpus": 0}) as pipeline:
        yield pipeline


@pytest.mark.slow
def test_texts_are_those_of_the_whole_program(two: Pipeline, wanted: dict[SamplingParams, list[list[int]]]) -> None:
    assert two.stages == 2
    for params, texts in wanted.items():
        streams = [two.submit(prompt, params) for prompt in PROMPTS]  # more than run at once
        assert [list(stream) for stream in streams] == texts
        assert {stream.finish_reason for stream in streams} == {"length"}


@pytest.mark.slow
def test_three_stages_of_different_sizes(
    cluster: str, converted: Converted, wanted: dict[SamplingParams, list[list[int]]]
) -> None:
    assert cluster
    with Pipeline(converted([1, 2, 1]), actor_options={"num_cpus": 0}) as pipeline:
        assert pipeline.stages == 3
        streams = [pipeline.submit(prompt, GREEDY) for prompt in PROMPTS]
        assert [list(stream) for stream in streams] == wanted[GREEDY]


@pytest.mark.slow
def test_tasks_of_asyncio(two: Pipeline, wanted: dict[SamplingParams, list[list[int]]]) -> None:
    async def text(prompt: list[int]) -> list[int]:
        return [token async for token in two.submit(prompt, GREEDY)]

    async def all_texts() -> list[list[int]]:
        return list(await asyncio.gather(*map(text, PROMPTS)))

    assert asyncio.run(all_texts()) == wanted[GREEDY]


@pytest.mark.slow
def test_ends_of_texts(two: Pipeline, wanted: dict[SamplingParams, list[list[int]]]) -> None:
    text = wanted[GREEDY][0]
    stream = two.submit(PROMPTS[0], GREEDY, end_tokens=[text[3]])
    assert list(stream) == text[: text.index(text[3])] and stream.finish_reason == "eos"
    stream = two.submit([5] * 60, SamplingParams(max_new_tokens=100))
    assert len(list(stream)) == 5 and stream.finish_reason == "context"  # the last one is drawn, and not computed
    stream = two.submit([1], SamplingParams(max_new_tokens=60))
    next(stream)
    stream.cancel()
    list(stream)
    assert stream.finish_reason == "cancelled"


@pytest.mark.slow
def test_what_is_wrong_with_a_text_is_its_own(two: Pipeline, wanted: dict[SamplingParams, list[list[int]]]) -> None:
    for prompt, params, words in (
        ([], GREEDY, "empty"),
        ([99], GREEDY, "token 99 is not in the vocabulary"),
        ([1] * 65, GREEDY, "room for 64"),
        ([1], SamplingParams(stop=("x",), logprobs=1), "leave stop and logprobs out"),
        ([1], SamplingParams(logit_bias={99: 1.0}), "99"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            two.submit(prompt, params)

    def nothing(_: Sequence[int]) -> np.ndarray:
        return np.zeros(4, np.uint32)

    wrong = two.submit([1], SamplingParams(allowed_tokens=nothing))
    right = two.submit(PROMPTS[0], GREEDY)
    with pytest.raises(InvalidInputError, match="allows no token"):
        list(wrong)
    assert list(right) == wanted[GREEDY][0]


@pytest.mark.slow
def test_a_stage_that_is_killed_ends_all_texts(cluster: str, converted: Converted) -> None:
    assert cluster
    with pytest.raises(UnsupportedProgramError, match="not in stages"):
        Pipeline(converted(None))
    with Pipeline(converted(2), actor_options={"num_cpus": 0}) as pipeline:
        streams = [pipeline.submit([1, 2], SamplingParams(max_new_tokens=62)) for _ in range(3)]
        next(streams[0])
        ray.kill(pipeline._stages[0])
        for stream in streams:
            with pytest.raises(StageGoneError, match="make another pipeline"):
                list(stream)
        with pytest.raises(StageGoneError):
            pipeline.submit([1], GREEDY)
    with pytest.raises((StageGoneError, ClosedError)):
        pipeline.submit([1], GREEDY)

"""Programs of the stock exporters, made for one text: many at once have the texts that each has alone."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu import Runtime
from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.llm import Engine, LanguageModel, SamplingParams
from executorch_webgpu.runtime import Program

from .exported import CONTEXT, EXPORTS, FOLDER, NEW, PROMPTS, VOCAB

TEXTS: dict[str, list[list[int]]] = json.loads((FOLDER / "texts.json").read_text())
REFUSED = {
    "llama_ring": "aten::lt runs on the host",
    "gemma3": r"aten.bmm.default\) attends in another way than causal attention",
}
ROUNDED = {"llama_full_half", "llama_quantized", "hf_llama_one"}  # torch rounds otherwise than the kernels do
SERVED = [name for name in EXPORTS if name not in REFUSED]


@cache
def program_of(name: str) -> Program:
    return Runtime.get().load_program(FOLDER / f"{name}.pte")


@cache
def alone(name: str, dtype: str, prompt: tuple[int, ...], count: int) -> list[int]:
    """The greedy text after a prompt, by one model call after the other."""
    with LanguageModel(program_of(name), kv_cache_dtype=dtype) as model:
        text = [int(model.prefill(prompt).argmax())]
        while len(text) < count:
            text.append(int(model.step(text[-1], len(prompt) + len(text) - 1).argmax()))
    return text


@pytest.mark.parametrize("name", SERVED)
def test_a_stock_program_serves_many_texts(name: str) -> None:
    """As torch writes them, each of which shares rows of steps, and some pages, with the others."""
    with Engine(program_of(name), max_rows=10, max_sequences=3, page_rows=4) as engine:
        streams = [engine.submit(prompt, SamplingParams(NEW), end_tokens=()) for prompt in PROMPTS]
        got = [list(stream) for stream in streams]
    if name in ROUNDED:
        assert got == [alone(name, "f32", tuple(prompt), NEW) for prompt in PROMPTS]
    else:
        assert got == TEXTS[name]
        assert alone(name, "f32", tuple(PROMPTS[0]), NEW) == TEXTS[name][0]


@pytest.mark.parametrize("name", REFUSED)
def test_what_attends_in_a_window_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedProgramError, match=REFUSED[name]):
        Engine(program_of(name))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_random_arrivals_of_any_program(data: st.DataObject) -> None:
    """Random prompts that begin alike or do not, cancellations, small pools, and pools of any dtype."""
    name = data.draw(st.sampled_from(["llama_one", "qwen3", "gpt_slice", "gpt_of_each"]))
    dtype = data.draw(st.sampled_from(["f32", "f16", "int8"]))
    tokens = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9)
    beginning = data.draw(tokens)
    prompts = [
        tuple([*beginning, *rest] if shares else rest)
        for shares, rest in data.draw(st.lists(st.tuples(st.booleans(), tokens), min_size=1, max_size=5))
    ]
    count = data.draw(st.integers(1, 6))
    rows, sequences = data.draw(st.sampled_from([(3, 2), (16, 4)]))
    pages = data.draw(st.integers(CONTEXT // 4, 20))
    cancelled = data.draw(st.integers(0, 2))
    options: dict[str, Any] = {"kv_pages": pages, "page_rows": 4, "max_rows": rows, "max_sequences": sequences}
    with Engine(program_of(name), kv_cache_dtype=dtype, **options) as engine:
        streams = [engine.submit(prompt, SamplingParams(count), end_tokens=()) for prompt in prompts]
        for stream in streams[:cancelled]:
            stream.cancel()
        got = [list(stream) for stream in streams[cancelled:]]
        with Engine(program_of(name), kv_cache_dtype=dtype, **options | {"max_sequences": 1}) as other:
            each = [list(other.submit(prompt, SamplingParams(count), end_tokens=())) for prompt in prompts[cancelled:]]
        assert got == each
        if dtype == "f32":
            assert got == [alone(name, "f32", prompt, count) for prompt in prompts[cancelled:]]
        assert engine.idle_pages == pages

"""Measurements of many texts: figures from times, and that the times are those of the texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.llm.measure import StreamSpeed, measure_streams, streams
from executorch_webgpu.llm.measure.stream_lines import stream_lines
from executorch_webgpu.llm.measure.streams import (
    StreamSizes,
    TextTimes,
    decode_rate,
    random_prompts,
    speed_of,
    timed,
    total_rate,
)

CONTEXT = SHAPES["tiny"].context_len


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams") / "tiny.pte"
    write_llama(path, SHAPES["tiny"])
    return path


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    with Runtime.get().load_program(tiny) as program, Engine(program, page_rows=4, max_rows=16) as opened:
        yield opened


def text(submitted: float, *came: float) -> TextTimes:
    return TextTimes((0,), (0,) * len(came), submitted, came)


@given(st.integers(1, 40), st.floats(0.5, 1e4), st.integers(2, 200), st.data())
def test_the_rate_of_all_is_as_many_times_that_of_one(count: int, rate: float, steps: int, data: st.DataObject) -> None:
    """Of texts that give tokens evenly, and that began up to half of their time apart; half a token may be off."""
    shifts = data.draw(st.lists(st.floats(0, (steps - 1) / rate / 2), min_size=count, max_size=count))
    texts = [text(0, *(shift + np.arange(steps) / rate)) for shift in shifts]
    found = decode_rate(texts)
    assert found is not None
    window = min(t.came[-1] for t in texts) - max(t.came[0] for t in texts)
    assert abs(found - count * rate) <= count * 1.01 / window


def test_texts_that_never_decode_together_have_no_rate() -> None:
    assert decode_rate([text(0, 1, 2), text(0, 2, 3)]) is None
    assert decode_rate([text(0, 1)]) is None


def test_the_figures_of_two_repeats() -> None:
    arrivals = [[text(0, 1, 2, 3), text(0.5, 1, 2, 4)], [text(10, 12, 13, 14), text(10, 12, 13, 14)]]
    decodes = [[text(4, 5, 6, 7), text(4, 5, 6, 7)], [text(20, 21, 25), text(20, 23, 25)]]
    speed = speed_of(9, arrivals, decodes)
    assert (speed.streams, speed.prompt, speed.steps) == (2, 9, 3)
    assert speed.rates == (2.0, 1.0) and speed.rate == 1.5 and speed.spread == pytest.approx(1 / 1.5)
    assert speed.totals == (6 / 4, 6 / 4)
    np.testing.assert_allclose(speed.first, np.percentile([1, 0.5, 2, 2], (50, 95, 99)))
    np.testing.assert_allclose(speed.between or (), np.percentile([1, 1, 1, 2, 1, 1, 1, 1], (50, 95, 99)))


def test_one_token_each_has_no_rate_and_nothing_between() -> None:
    speed = speed_of(3, [[text(0, 1), text(0, 2)]], [[text(2, 3), text(2, 3)]])
    assert (speed.rate, speed.spread, speed.between) == (None, None, None)
    assert speed.totals == (1.0,)


def test_times_are_those_at_which_the_engine_gave_tokens(engine: Engine) -> None:
    prompts = random_prompts(np.random.default_rng(1), 5, 11, engine.vocab_size)
    texts = timed(engine, prompts, 4)
    for prompt, found in zip(prompts, texts, strict=True):
        assert found.tokens == tuple(engine.submit(prompt, SamplingParams(4), end_tokens=()))
        assert len(found.came) == 4
        assert found.submitted <= found.came[0] and list(found.came) == sorted(found.came)
    assert total_rate(texts) > 0


def test_prompts_that_are_known_are_not_read_again(engine: Engine) -> None:
    prompts = random_prompts(np.random.default_rng(2), 3, 21, engine.vocab_size)
    rows = []
    for _ in range(2):
        before = engine.computed_rows
        timed(engine, prompts, 6)
        rows.append(engine.computed_rows - before)
    assert rows[0] == 3 * (21 + 5) and rows[1] <= 3 * (4 + 5)


def test_measuring_a_program(tiny: Path) -> None:
    wanted = {"streams": (3, 1), "prompts": (7, 20), "steps": 5, "repeats": 2, "max_rows": 16, "page_rows": 4}
    seen: list[tuple[int, int]] = []
    runtime = Runtime.get()
    report = measure_streams(runtime, tiny, wanted, on_progress=lambda *c: seen.append(c), kv_cache_dtype="f16")
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [(s.prompt, s.streams) for s in report.speeds] == [(7, 3), (7, 1), (20, 3), (20, 1)]
    weights_and_rows = [s.step_bytes for s in report.speeds]
    with runtime.load_program(tiny) as program:
        step = program.step_bytes("forward", kv_cache_dtype="f16")
    assert weights_and_rows == [step.at(n * (prompt + 3)) for prompt in (7, 20) for n in (3, 1)]
    for line, speed in zip(stream_lines(report, runtime.device, "m", version="v"), report.speeds, strict=True):
        assert len(speed.rates) <= 2 and len(speed.totals) == 2
        assert line.rate and line.each and line.roofline and line.share
        assert line.each == pytest.approx(line.rate / line.streams, rel=1e-3)
        assert line.share == pytest.approx(line.rate / line.roofline, rel=2e-3)
        assert line.roofline == pytest.approx(line.read_gbs * 1e9 / speed.step_bytes * line.streams, rel=2e-3)
        for waits in (speed.first, speed.between):
            assert waits is not None and 0 < waits[0] <= waits[1] <= waits[2]
        assert (
            line.kv_cache == "f16"
            and line.note == ""
            and line.first_95_ms == pytest.approx(1e3 * speed.first[1], rel=1e-3)
        )


def test_prompts_may_be_chosen(tiny: Path) -> None:
    asked: list[tuple[int, int]] = []

    def ones(random: np.random.Generator, count: int, length: int, vocab: int) -> list[list[int]]:
        asked.append((count, length))
        return [[1] * length for _ in range(count)]

    measure_streams(Runtime.get(), tiny, {"streams": (2,), "prompts": (9,), "steps": 2, "repeats": 3}, prompts_of=ones)
    assert asked == [(2, 9)] * 4, "once to warm up"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"prompts": (60,), "steps": 5}, f"5 tokens after a prompt of 60 do not fit the model's context of {CONTEXT}"),
        ({"prompts": (9, CONTEXT)}, f"1 tokens after a prompt of {CONTEXT}"),
        ({"streams": (1, 0)}, "at least 1"),
        ({"prompts": (0,)}, "at least 1"),
        ({"steps": 0}, "at least 1"),
        ({"repeats": -1}, "at least 1"),
        ({"max_rows": 0}, "at least 1"),
    ],
)
def test_sizes_that_do_not_fit(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        StreamSizes.of(Runtime.get().device, CONTEXT, wanted)


@given(st.integers(2, 5000), st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(1, 64))
def test_default_sizes_fit_every_context_and_pool(context: int, streams: list[int], page_rows: int) -> None:
    wanted = {"streams": tuple(streams), "page_rows": page_rows}
    sizes = StreamSizes.of(Runtime.get().device, context, wanted)
    assert max(sizes.prompts) + sizes.steps <= context
    options = sizes.engine_options
    assert options["max_rows"] >= options["max_sequences"] == max(streams)
    pages_of_a_text = -(-(max(sizes.prompts) + sizes.steps) // page_rows)
    assert options["kv_pages"] > max(streams) * pages_of_a_text


def test_a_pool_of_one_short_text_is_warmed_up_too(tiny: Path) -> None:
    """For a while, as on a GPU, where texts that warm up are longer if they may be."""
    sizes = StreamSizes((1,), (CONTEXT - 1,), steps=1, repeats=2, max_rows=16, page_rows=4)
    with Runtime.get().load_program(tiny) as program, Engine(program, **sizes.engine_options) as engine:
        (speed,) = streams._speeds(engine, sizes, random_prompts, warm_up=0.1)
        assert len(speed.totals) == 2 and speed.steps == 1
        assert engine.computed_rows > 3 * (CONTEXT - 1)


def test_a_speed_without_rates_is_a_line_without_them(tiny: Path) -> None:
    report = measure_streams(Runtime.get(), tiny, {"streams": (2,), "prompts": (4,), "steps": 1})
    (line,) = stream_lines(report, Runtime.get().device, "m", version="v", note="n")
    assert (line.rate, line.each, line.share, line.between_50_ms) == (None, None, None, None)
    assert line.total and line.first_50_ms and line.note == "n"
    two = replace(report.speeds[0], rates=(2.0, 4.0))
    assert isinstance(two, StreamSpeed) and (two.rate, two.spread) == (3.0, 2 / 3)

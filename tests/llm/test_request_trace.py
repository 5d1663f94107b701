"""Requests of an engine in a trace: each has a track from when it came to its end, however it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from executorch_webgpu import Runtime, trace
from executorch_webgpu.errors import ClosedError
from executorch_webgpu.gpu.trace import DISPATCH, REQUESTS, STEP, Span, Trace
from executorch_webgpu.llm import DecodeSession, Engine, LanguageModel, SamplingParams
from executorch_webgpu.runtime import Program
from tests.gpu.trace_events import checked_events

pytestmark = pytest.mark.slow

LLAMA = Path(__file__).parents[1] / "data" / "engine" / "llama_quantized.pte"


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Runtime.get().load_program(LLAMA) as program:
        yield program


def engine_of(program: Program, **options: Any) -> Engine:
    return Engine(program, **{"max_rows": 8, "kv_pages": 16, "page_rows": 4, "max_sequences": 4, **options})


def tracks(recorded: Trace) -> dict[str, list[Span]]:
    """The spans of each request, in order; they lie side by side, from its begin to its end."""
    found: dict[str, list[Span]] = {}
    for span in sorted(recorded.spans, key=lambda span: (span.start, span.end, span.kind == "finish")):
        if span.track.group == REQUESTS:
            found.setdefault(span.track.name, []).append(span)
    for spans in found.values():
        for before, after in pairwise(spans):
            assert before.end <= after.start or after.kind == "finish"
            assert before.end == after.start or after.kind == "finish"
    return found


def refuse(text: Sequence[int]) -> None:
    raise ZeroDivisionError


def kinds(spans: list[Span]) -> list[str]:
    return [span.kind for span in spans]


def test_a_text_is_queued_prefilled_and_gives_its_tokens(program: Program, tmp_path: Path) -> None:
    with engine_of(program) as engine:
        with trace() as recorded:
            texts = [engine.submit([i + 1, 2, 3], SamplingParams(max_new_tokens=4), end_tokens=()) for i in range(3)]
            given = [list(text) for text in texts]
        found = tracks(recorded)
    assert len(found) == 3
    for spans, tokens in zip(found.values(), given, strict=True):
        assert kinds(spans) == ["queued", "prefill", "token", "token", "token", "finish"]
        assert [span.args["token"] for span in spans[1:-1]] == tokens
        assert spans[-1].name == "finish: length" and spans[-1].args == {"tokens": 4}
    recorded.save(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    named = checked_events(events)
    assert {name for name, _ in named} == {"host", "requests", Runtime.get().device.info.name}
    counters = {event["name"] for event in events if event["ph"] == "C"}
    assert counters == {"texts", "steps in flight", "pages"}
    steps = [span for span in recorded.spans if span.kind == STEP]
    assert steps and {span.name for span in steps} == {"engine step"}
    drawn = [span for span in recorded.spans if span.kind == DISPATCH and "sample_rows" in span.name]
    assert drawn, "what draws the tokens is shown too"


def test_texts_that_are_cancelled_or_refused_end(program: Program) -> None:
    with engine_of(program) as engine:
        with trace() as recorded:
            long = engine.submit([1, 2], SamplingParams(max_new_tokens=20), end_tokens=())
            next(long)
            long.cancel()
            broken = engine.submit([3, 4], SamplingParams(max_new_tokens=5, allowed_tokens=refuse), end_tokens=())
            with pytest.raises(ZeroDivisionError):
                list(broken)
            list(engine.submit([5], SamplingParams(max_new_tokens=1), end_tokens=()))
        found = list(tracks(recorded).values())
    assert [spans[-1].name for spans in found] == ["finish: cancelled", "finish: ZeroDivisionError", "finish: length"]


def test_texts_end_with_their_engine(program: Program) -> None:
    engine = engine_of(program)
    with trace() as recorded:
        texts = [engine.submit([1, i], SamplingParams(max_new_tokens=24), end_tokens=()) for i in range(6)]
        next(texts[0])
        engine.close()
        with pytest.raises(ClosedError):
            list(texts[-1])
    found = tracks(recorded)
    assert len(found) == 6
    assert all(spans[-1].kind == "finish" for spans in found.values())
    assert "finish: ClosedError" in {spans[-1].name for spans in found.values()}


def test_texts_that_go_on_are_cut_with_their_trace(program: Program) -> None:
    with engine_of(program) as engine:
        before = engine.submit([1, 2], SamplingParams(max_new_tokens=24), end_tokens=())
        next(before)
        with trace() as recorded:
            for _ in range(6):
                next(before)
            during = engine.submit([3], SamplingParams(max_new_tokens=24), end_tokens=())
            next(during)
        count = len(recorded.spans)
        assert len(list(before)) == 24 - 7
        list(during)
    assert len(recorded.spans) == count, "nothing is added to a trace that has ended"
    found = list(tracks(recorded).values())
    for spans in found:
        last = spans[-1]
        assert last.kind == "finish" or last.args == {"unfinished": True}
        assert all(recorded.begin <= span.start for span in spans)


def test_a_text_that_gives_back_its_pages_is_queued_again(program: Program) -> None:
    with engine_of(program, kv_pages=8) as engine, trace() as recorded:
        texts = [engine.submit([i, 2, 3, 4], SamplingParams(max_new_tokens=14), end_tokens=()) for i in range(1, 4)]
        assert [len(list(text)) for text in texts] == [14] * 3
    found = list(tracks(recorded).values())
    assert any(kinds(spans).count("queued") > 1 for spans in found), "choose fewer pages"
    for spans in found:
        assert spans[-1].name == "finish: length" and spans[-1].args == {"tokens": 14}


def test_tokens_are_the_same_in_a_trace(program: Program) -> None:
    params = SamplingParams(max_new_tokens=8, temperature=0.8, seed=3)
    with LanguageModel(program) as model, DecodeSession(model, params, end_tokens=()) as session:
        session.prefill([1, 2, 3])
        alone = list(session)
        with trace() as recorded:
            session.prefill([1, 2, 3])
            assert list(session) == alone
    names = [span.name for span in sorted(recorded.spans, key=lambda s: s.start) if span.kind == STEP]
    assert names[0] == "prefill" and set(names[1:]) == {"decode"}
    with engine_of(program) as engine, trace():
        assert list(engine.submit([1, 2, 3], params, end_tokens=())) == alone

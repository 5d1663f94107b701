"""The page of a profile: complete, closed in itself, and safe whatever names there are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu import Runtime, trace
from executorch_webgpu.gpu.trace import DISPATCH, HOST, REQUESTS, STEP, SUBMIT, Counter, Span, Trace, Track
from executorch_webgpu.report import profile_page as module
from executorch_webgpu.report.profile import ProfileReport
from executorch_webgpu.report.profile_page import profile_page, write_profile_page
from tests.report.browser import drawn, opened
from tests.report.pages import HOSTILE, checked_page

LLAMA = Path(__file__).parents[1] / "data" / "engine" / "llama_quantized.pte"


@pytest.fixture(scope="module")
def report() -> ProfileReport:
    with Runtime.get().load_program(LLAMA) as program, program.load_method("forward") as method:
        kinds = [np.dtype(tensor.dtype) for tensor in method.metadata.inputs]
        with trace(Runtime.get().device) as recorded:
            for position, tokens in ((0, 4), (4, 1), (5, 1), (6, 1)):
                method.execute([np.ones((1, tokens), kinds[0]), np.array([position], kinds[1])])
    return ProfileReport(recorded, "llama.pte", "four steps", "an adapter", "no options", 0.5, 0.25, 1e9)


@pytest.mark.slow
def test_a_run(report: ProfileReport) -> None:
    text, data = checked_page(profile_page(report))
    for row in report.timings.by_operator:
        assert row.names[0] in text
    for row in report.timings.by_kernel:
        assert row.names[0] in text and row.names[1] in text
    assert "100% longer than one without a trace" in text
    assert len(data["spans"]) == len(report.trace.spans)
    names = [data["names"][span[1]] for span in data["spans"] if data["kinds"][span[2]] == DISPATCH]
    assert sorted(names) == sorted(span.name for span in report.trace.spans if span.kind == DISPATCH)


@pytest.mark.slow
def test_it_opens_in_a_browser(report: ProfileReport, tmp_path: Path) -> None:
    write_profile_page(report, tmp_path / "p.html")
    data = checked_page((tmp_path / "p.html").read_text())[1]
    number = next(i for i, span in enumerate(data["spans"]) if data["kinds"][span[2]] == DISPATCH)
    document = opened(tmp_path / "p.html", tmp_path, f"#span-{number}")
    assert drawn(document) == len(report.trace.spans)
    details = re.search(r'<div id="details".*?</dl>', document, re.DOTALL)
    assert details is not None and data["names"][data["spans"][number][1]] in details[0]
    assert data["args"][data["spans"][number][5]]["kernel"] in details[0]


def hostile_trace() -> Trace:
    made = Trace()
    host, queue = Track(HOST, HOSTILE, 1), Track(HOSTILE, HOSTILE)
    made.spans += [
        Span(host, HOSTILE, STEP, made.begin + 10, made.begin + 5_000, {HOSTILE: HOSTILE}),
        Span(host, "submit", SUBMIT, made.begin + 100, made.begin + 200, {"submission": 1}, 1),
        Span(
            queue,
            HOSTILE,
            DISPATCH,
            made.begin + 300,
            made.begin + 900,
            {"submission": 1, "kernel": HOSTILE, "variant": HOSTILE, "route": HOSTILE, "bytes": 10},
            1,
        ),
        Span(Track(REQUESTS, HOSTILE), HOSTILE, "finish", made.begin + 950, made.begin + 950),
    ]
    made.counters.append(Counter(HOSTILE, made.begin, {HOSTILE: 1, "other": 2}))
    made.note(HOSTILE)
    made.finish()
    return made


@pytest.mark.slow
def test_names_of_strangers_stay_text(tmp_path: Path) -> None:
    report = ProfileReport(hostile_trace(), HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.1)
    text, data = checked_page(profile_page(report))
    assert text.count(HOSTILE) >= 8 and HOSTILE in data["names"]
    write_profile_page(report, tmp_path / "p.html")
    document = opened(tmp_path / "p.html", tmp_path)
    assert drawn(document) == 4
    assert "data-owned" not in document.split("<body")[0] and "<title>owned" not in document


def test_an_empty_trace_and_one_without_a_gpu() -> None:
    nothing = Trace()
    nothing.finish()
    text, _ = checked_page(profile_page(ProfileReport(nothing, "p", "nothing", "NumPy", "none", 0.1)))
    assert "the host's side only" in text and "No step was traced" in text
    hosts = Trace()
    hosts.spans.append(Span(Track(HOST, "main"), "forward", STEP, 0, 10**6))
    hosts.finish()
    text, _ = checked_page(profile_page(ProfileReport(hosts, "p", "one step", "NumPy", "none", 0.1)))
    assert "the host's side only" in text and "work of the host in one forward step" in text


@pytest.mark.slow
def test_a_long_trace_is_cut_and_says_so(report: ProfileReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SPANS", 10)
    text, data = checked_page(profile_page(report))
    assert len(data["spans"]) == 10
    monkeypatch.setattr(module, "MOST_TRACKS", 1)
    fewer, data = checked_page(profile_page(report))
    assert len(data["tracks"]) == 1 and {span[0] for span in data["spans"]} == {0}
    assert "It shows the first 1 of 2 tracks" in " ".join(fewer.split())
    assert f"It shows the first 10 of {len(report.trace.spans):,} spans" in " ".join(text.split())

"""The benchmark of the step loop: lines come out with rates, and only for texts that are alike."""

from __future__ import annotations

import re

import pytest

from bench import bench_decode
from executorch_webgpu.errors import DeviceError
from executorch_webgpu.llm.decode_session import DecodeSession


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_decode, "VOCABULARIES", (1031,))
    monkeypatch.setattr(bench_decode, "IN_FLIGHT", (1, 3))
    monkeypatch.setattr(bench_decode, "ROWS", (1, 5))


def test_main(capsys: pytest.CaptureFixture[str]) -> None:
    bench_decode.main(["--shape", "tiny", "--context", "9", "--steps", "7", "--temperature", "1"])
    lines = capsys.readouterr().out.splitlines()
    draws = [line for line in lines if re.fullmatch(r" +1031( +[\d.]+){7}", line)]
    loops = [line for line in lines if re.fullmatch(r" *(plain|\d in flight)( +[\d.]+){3}", line)]
    rows = [line for line in lines if re.fullmatch(r" +1031 +[\d.]+ +[15] +[a-z-][a-z -]*( +[\d.]+){2}", line)]
    assert (len(draws), len(loops), len(rows)) == (16, 3, 2 * 2 * 9)
    assert all(float(line.split()[-1]) > 0 for line in draws)
    assert "decode at context 9, 7 steps" in lines


def test_loops_that_give_another_text_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    given = DecodeSession.__next__
    monkeypatch.setattr(DecodeSession, "__next__", lambda session: (given(session) + 1) % 500)
    with pytest.raises(DeviceError, match="1 steps in flight give another text"):
        bench_decode.main(["--shape", "tiny", "--context", "9", "--steps", "7"])

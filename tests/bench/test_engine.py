"""The benchmark of the engine: lines, texts that repeat themselves, and beginnings that are shared."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from bench import bench_engine
from bench.bench_engine import NGRAM, OWN, guessed_tokens, main, repeating_prompts
from executorch_webgpu.errors import DeviceError
from executorch_webgpu.llm.measure.streams import TextTimes, random_prompts

TINY = ["--shape", "tiny", "--rows", "16", "--page-rows", "8", "--repeats", "1"]


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "engine.csv"
    main([*TINY, "--prompts", "9", "--steps", "5", "--streams", "1", "3", "--repeat-text", "--csv", str(path)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    notes = ["", "", "prompts repeat 24 tokens", "prompts repeat 24 tokens"]
    assert [(row["streams"], row["note"]) for row in rows] == list(zip("1313", notes, strict=True))
    for row in rows:
        assert row["model"] == "tiny (random)" and row["kv_cache"] == "f16"
        assert 0 < float(row["each"]) <= float(row["rate"])
    out = capsys.readouterr().out
    assert "First token" in out and "Between tokens" in out
    assert (
        len(re.findall(r"^[13] texts: a lookup of the last 3 tokens guesses [\d.]+% of the new ones$", out, re.M)) == 4
    )


def test_one_text_without_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "engine.csv"
    sizes = ["--prompts", "9", "20", "--steps", "5", "--streams", "1", "2", "--kv-cache", "int8", "--session"]
    main([*TINY, *sizes, "--csv", str(path)])
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["implementation"] == "DecodeSession"]
    assert [(row["streams"], row["prompt"], row["kv_cache"]) for row in rows] == [
        ("1", "9", "int8"),
        ("1", "20", "int8"),
    ]
    for row in rows:
        assert float(row["rate"]) == float(row["each"]) > 0 and row["first_50_ms"] == row["rows"] == ""
        assert float(row["share"]) == pytest.approx(float(row["rate"]) / float(row["roofline"]), rel=2e-3)
    assert "DecodeSession" in capsys.readouterr().out


def test_a_shared_beginning(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*TINY, "--prefix", "29", "--prefix-texts", "4", "--steps", "3"]
    main(arguments)
    own = 4 * (29 - 24 + 16 + 2)
    found = re.findall(r"4 prompts of 29 shared tokens \((\w+)\) .*: (\d+) rows were", capsys.readouterr().out)
    assert found == [("new", str(24 + own)), ("known", str(own))]

    def longer(random: np.random.Generator, count: int, length: int, vocab: int) -> list[list[int]]:
        return random_prompts(random, count, length + (length == OWN), vocab)

    monkeypatch.setattr(bench_engine, "random_prompts", longer)
    with pytest.raises(DeviceError, match="more than once"):
        main(arguments)


def test_a_lookup_guesses_what_repeats_itself() -> None:
    (prompt,) = repeating_prompts(np.random.default_rng(0), 1, 60, 1000)
    goes_on = prompt[60 % 24 :][:20]
    assert guessed_tokens(TextTimes(tuple(prompt), tuple(goes_on), 0, ())) == 20
    counting = tuple(range(30))
    assert guessed_tokens(TextTimes(counting[:20], counting[20:], 0, ())) == 0
    # The new text repeats itself from its second turn on, once as many tokens as are compared have come.
    turn = (5, 6, 7, 8)
    assert guessed_tokens(TextTimes((1, 2, 3), turn * 3, 0, ())) == 8 - NGRAM


@pytest.mark.parametrize("length", [1, 10, 24, 60])
def test_prompts_that_repeat_have_their_length_and_nothing_in_common(length: int) -> None:
    prompts = repeating_prompts(np.random.default_rng(0), 5, length, 10**9)
    assert all(len(prompt) == length for prompt in prompts)
    assert all(prompt[i] == prompt[i % 24] for prompt in prompts for i in range(length))
    assert len({prompt[0] for prompt in prompts}) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["m.pte", "--torch"], "a shape with random weights"), (["--shape", "tiny", "--torch"], "needs torch with CUDA")],
)
def test_torch_where_it_cannot_be(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_engine, "torch_available", lambda: False)
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err

"""``et-webgpu bench``: numbers that are positive and fit each other, a history, a plot, and refusals."""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.llm.generate import GenerationStats, generate
from executorch_webgpu.llm.measure import Speed, measure, plot
from executorch_webgpu.llm.measure import speed as measuring
from executorch_webgpu.llm.measure.lines import MIB, Line
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.cli.conftest import Cli
from tests.graph_builder import GraphBuilder
from tests.programs import write_delegated

SIZES = ("--prompts", 9, 40, "--contexts", 0, 20, "--steps", 5, "--repeats", 2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.pte"
    write_llama(path, SHAPES["tiny"])
    return path


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> list[GenerationStats]:
    """The stats of all that is generated while measuring."""
    found: list[GenerationStats] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        for piece in generate(*args, **kwargs):
            if piece.stats is not None:
                found.append(piece.stats)
            yield piece

    monkeypatch.setattr(measuring, "generate", noted)
    return found


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_lines(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    history = tmp_path / "history.csv"
    result = cli("bench", tiny, *SIZES, "--kv-cache", "f16", "--csv", history, "--profile")
    assert result.exit_code == 0, result.output
    lines = read(history)
    assert list(lines[0]) == [field.name for field in fields(Line)]
    shapes = [("prefill", "0", "9"), ("prefill", "0", "40"), ("decode", "0", "5"), ("decode", "20", "5")]
    assert [(line["phase"], line["context"], line["tokens"]) for line in lines] == shapes
    for line in lines:
        assert line["model"] == "tiny.pte" and line["kv_cache"] == "f16"
        for name in ("rate", "read_gbs", "load_s", "file_mib", "device_mib"):
            assert float(line[name]) > 0, name
        assert float(line["spread"]) >= 0
        assert float(line["file_mib"]) == pytest.approx(tiny.stat().st_size / MIB, rel=1e-3)
    for line in lines[:2]:
        assert line["step_mib"] == line["share"] == line["dispatches"] == line["step_50_ms"] == ""
        assert float(line["host_ms"]) > 0
    for line in lines[2:]:
        numbers = {name: float(line[name]) for name in ("rate", "step_mib", "read_gbs", "roofline", "share")}
        assert numbers["roofline"] == pytest.approx(numbers["read_gbs"] * 1e9 / numbers["step_mib"] / MIB, rel=2e-3)
        assert numbers["share"] == pytest.approx(numbers["rate"] / numbers["roofline"], rel=2e-3)
        assert int(line["dispatches"]) == dispatches_of_a_step(tiny)
        waits = [float(line[f"step_{name}_ms"]) for name in ("50", "99", "worst")]
        assert 0 < waits[0] <= waits[1] <= waits[2]
    for line in lines[:2]:
        assert f"{line['phase']} " in result.stdout
    assert "tiny.pte on" in result.stdout and "Time per op" in result.stderr

    cli("bench", tiny, *SIZES, "--csv", history)
    assert len(read(history)) == 2 * len(lines)


@pytest.mark.slow
def test_a_precision_that_is_not_the_default_is_a_note(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    class Noted(LanguageModel):
        def __init__(self, program: Any, options: Any = None, **changes: Any) -> None:
            loaded.append(options.matmul_precision)
            super().__init__(program, options, **changes)

    monkeypatch.setattr(measuring, "LanguageModel", Noted)
    sizes = ("--prompts", 9, "--contexts", 0, "--steps", 1, "--repeats", 1)
    notes = {"highest": "", "high": "matmul precision high"}
    for precision, note in notes.items():
        history = tmp_path / f"{precision}.csv"
        result = cli("bench", tiny, *sizes, "--matmul-precision", precision, "--csv", history)
        assert result.exit_code == 0, result.output
        assert [line["note"] for line in read(history)] == [note] * 2
        assert ("matmul precision high" in result.stdout) is bool(note)
    assert loaded == ["highest"] * 2 + ["high"] * 2, "to measure, and to profile"


def test_routes_are_forced_and_noted(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    sizes = ("--prompts", 9, "--contexts", 0, "--steps", 1, "--repeats", 1)
    history = tmp_path / "history.csv"
    result = cli("bench", tiny, *sizes, "--route", "sdpa_with_kv_cache=flash", "--profile", "--csv", history)
    assert result.exit_code == 0, result.output
    assert [line["note"] for line in read(history)] == ["sdpa_with_kv_cache by flash"] * 2
    assert "flash" in result.stdout and "decode_cpu" not in result.stdout
    for wrong, message in (
        ("flash", "'flash' is not FAMILY=NAME"),
        ("sdpa_with_kv_cache=none", "sdpa_with_kv_cache has no route 'none'"),
        ("nothing=flash", "nothing in this program has routes by the name of nothing"),
    ):
        result = cli("bench", tiny, *sizes, "--route", wrong)
        assert result.exit_code != 0
        assert message in result.stderr


def dispatches_of_a_step(path: Path) -> int:
    with (
        Runtime.get().load_program(path) as program,
        LanguageModel(program, profile=True, kv_cache_dtype="f16") as model,
    ):
        model.step(1, 0)
        return sum(row.dispatches for row in model.profile())


@pytest.mark.slow
def test_default_sizes_fit_the_context(cli: Cli, tiny: Path) -> None:
    result = cli("bench", tiny, "--repeats", 1)
    assert result.exit_code == 0, result.output
    assert sum(line.split()[:2] == ["prefill", "0"] for line in result.stdout.splitlines()) == 1
    assert sum(line.split()[:2] == ["decode", "0"] for line in result.stdout.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("written", [("--prompts", "9", "40"), ("--prompts", "9,40"), ("--prompts=9,40",)])
def test_lists_of_numbers(cli: Cli, tiny: Path, tmp_path: Path, written: tuple[str, ...]) -> None:
    rest = ("--contexts", 0, "--steps", 1, "--repeats", 1, tiny, "--csv", tmp_path / "x.csv")
    result = cli("bench", *written, *rest)
    assert result.exit_code == 0, result.output
    assert [line["tokens"] for line in read(tmp_path / "x.csv")] == ["9", "40", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", 65], "a prompt of 65 tokens does not fit the model's context of 64"),
        (["--contexts", 10, 60, "--steps", 5], "5 tokens after 60 do not fit the model's context of 64"),
        (["--prompts", 0], "must be at least 1"),
        (["--steps", 0], "must be at least 1"),
        (["--repeats", 0], "must be at least 1"),
        (["--contexts", "-1"], "contexts at least 0"),
        (["--contexts", "many"], "many is not a list of whole numbers"),
        (["--weights", "f32"], "is a program already"),
    ],
)
def test_refused(cli: Cli, tiny: Path, arguments: list[object], message: str) -> None:
    result = cli("bench", tiny, *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_program_that_is_no_language_model(cli: Cli, tmp_path: Path) -> None:
    build = GraphBuilder()
    x = build.input((4,))
    build.output(build.call("aten.sigmoid.default", x, build.tensor((4,))))
    (tmp_path / "sigmoid.pte").write_bytes(write_delegated(build, ["float32", "float32"]))
    result = cli("bench", tmp_path / "sigmoid.pte")
    assert result.exit_code == 2 and result.stderr.startswith("error: a language model's forward takes")


@pytest.mark.slow
def test_a_history_of_something_else(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    result = cli("bench", tiny, "--prompts", 4, "--contexts", 0, "--steps", 1, "--repeats", 1, "--csv", other)
    assert result.exit_code == 2 and "other.csv has other columns than date" in result.stderr
    assert other.read_text() == "a,b\n1,2\n"


def test_no_matplotlib(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    result = cli("bench", "missing.pte", "--plot", "x.png")
    assert result.exit_code == 2
    assert result.stderr == "error: --plot needs matplotlib: pip install 'executorch-webgpu[bench]'\n"


@pytest.mark.slow
def test_plot(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    drawing = tmp_path / "speed.svg"
    result = cli("bench", tiny, *SIZES, "--plot", drawing)
    assert result.exit_code == 0, result.output
    assert "<svg" in drawing.read_text()
    result = cli("bench", tiny, *SIZES, "--plot", tmp_path / "speed.nothing")
    assert result.exit_code == 2 and "speed.nothing cannot be drawn" in result.stderr


@pytest.mark.slow
def test_what_is_measured_goes_through_generate_and_never_ends(
    bpe: Tokenizer, stats: list[GenerationStats], tmp_path: Path
) -> None:
    """Of a program with a tokenizer whose every token is an end token, and that says so itself."""
    settings = replace(bpe.settings, eos_ids=frozenset(range(bpe.vocab_size)))
    path = tmp_path / "model.pte"
    write_llama(path, replace(SHAPES["tiny"], vocab=bpe.vocab_size), tokenizer=Tokenizer(bpe.backend, settings))
    with Runtime.get().load_program(path) as program, LanguageModel(program) as model:
        assert len(model.eos_ids) == bpe.vocab_size

    report = measure(Runtime.get(), path, {"prompts": (9, 40), "contexts": (20, 0), "steps": 5, "repeats": 2})
    shapes = [("prefill", 0, 9), ("prefill", 0, 40), ("decode", 0, 5), ("decode", 20, 5)]
    assert [(speed.phase, speed.context, speed.tokens) for speed in report.speeds] == shapes
    assert all(len(speed.seconds) == 2 for speed in report.speeds)
    assert {s.finish_reason for s in stats} == {"length"}
    # Prefill begins with an empty cache; decode computes the last token of its prompt, and then one a token.
    ran = [(s.prompt_tokens, s.reused_tokens, s.new_tokens) for s in stats]
    assert ran[:12] == [(9, 0, 1)] * 3 + [(40, 0, 1)] * 3 + [(1, 0, 5)] * 3 + [(21, 20, 5)] * 3


@pytest.mark.slow
def test_tokens_without_a_tokenizer_are_numbers(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def noted(model: Any, tokenizer: Any, *args: Any) -> Any:
        for piece in generate(model, tokenizer, *args):
            if piece.token is not None:
                texts.append(f"{piece.token}={piece.text.strip()}")
            yield piece

    monkeypatch.setattr(measuring, "generate", noted)
    measure(Runtime.get(), tiny, {"prompts": (3,), "contexts": (4,), "steps": 3, "repeats": 1})
    assert texts and all(text.split("=")[0] == text.split("=")[1] for text in texts)


def test_speed() -> None:
    waits = (0.1, 0.5, 0.2, 0.3, 0.4)
    speed = Speed("decode", 10, 6, (2.0, 1.0, 4.0), waits, host_ms=1.0, step_bytes=300.0)
    assert (speed.rate, speed.spread, speed.share(1800.0)) == (3.0, 1.5, 0.5)
    assert [speed.wait_ms(share) for share in (0.5, 1.0)] == pytest.approx([300.0, 500.0])
    assert replace(speed, waits=()).wait_ms(0.5) is None
    assert replace(speed, step_bytes=None).share(1800.0) is None

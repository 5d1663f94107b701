"""``et-webgpu profile``: a trace, a page and tables of language models, engines, and any other program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.cli.profile_runs import random_inputs
from executorch_webgpu.gpu.trace import active
from executorch_webgpu.runtime.metadata import TensorMetadata
from tests.cli.conftest import Cli
from tests.gpu.trace_events import checked_events
from tests.report.pages import checked_page

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
LLAMA, CROSS = DATA / "engine" / "llama_quantized.pte", DATA / "programs" / "r12230_cross.pte"


def events_of(path: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    return checked_events(json.loads(path.read_text())["traceEvents"])


def test_a_language_model(cli: Cli, tmp_path: Path) -> None:
    arguments = ("--prompt-tokens", 6, "--steps", 3, "--trace", tmp_path / "t.json", "--html", tmp_path / "p.html")
    result = cli("profile", LLAMA, *arguments)
    assert result.exit_code == 0, result.stderr
    assert "a prompt of 6 tokens, continued by 3" in " ".join(result.stdout.split())
    assert re.search(r"the traced run took [\d.]+ ms, \d+% (longer|less) than one without a trace", result.stdout)
    assert re.search(r"^\s*prefill: host\s+1\s", result.stdout, re.MULTILINE)
    assert re.search(r"^\s*decode: GPU busy\s+2\s", result.stdout, re.MULTILINE)
    assert result.stderr == f"wrote {tmp_path / 't.json'}\nwrote {tmp_path / 'p.html'}\n"
    named = events_of(tmp_path / "t.json")
    names = [event["name"] for event in named["host", "MainThread"] if event["cat"] == "step"]
    assert names.count("prefill") == 1 and names.count("decode") == 2
    text, _ = checked_page((tmp_path / "p.html").read_text())
    assert str(LLAMA) in text and "decode step" in text
    assert active() is None


def test_an_engine(cli: Cli, tmp_path: Path) -> None:
    result = cli("profile", LLAMA, "--streams", 3, "--prompt-tokens", 4, "--steps", 2, "--trace", tmp_path / "t.json")
    assert result.exit_code == 0, result.stderr
    assert "3 texts at once, each a prompt of 4 tokens, continued by 2" in " ".join(result.stdout.split())
    named = events_of(tmp_path / "t.json")
    requests = [events for (process, _), events in named.items() if process == "requests"]
    assert len(requests) == 3
    for events in requests:
        assert [event["cat"] for event in events] == ["queued", "prefill", "token", "finish"]


def test_a_program_with_given_and_with_random_inputs(cli: Cli, tmp_path: Path) -> None:
    with np.load(CROSS.with_suffix(".npz")) as saved:
        given = [saved[name] for name in ("in0_0", "in0_1")]
    files: list[object] = []
    for number, array in enumerate(given):
        np.save(tmp_path / f"{number}.npy", array)
        files += ["--input", tmp_path / f"{number}.npy"]
    for inputs, how in ((files, "given"), ([], "random")):
        result = cli("profile", CROSS, *inputs, "--runs", 2, "--trace", tmp_path / "t.json")
        assert result.exit_code == 0, result.stderr
        assert f"2 calls of forward with {how} float32[" in result.stdout
        assert re.search(r"^\s*forward: host\s+2\s", result.stdout, re.MULTILINE)
        steps = [e for e in events_of(tmp_path / "t.json")["host", "MainThread"] if e["cat"] == "step"]
        assert [event["args"]["inputs"] for event in steps] == [[list(array.shape) for array in given]] * 2


def test_a_live_shape_is_the_one_that_is_given(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.ones((1, 3), np.int64))
    arguments = (
        "--input",
        tmp_path / "tokens.npy",
        "--input",
        0,
        "--runs",
        1,
        "--cold",
        "--trace",
        tmp_path / "t.json",
    )
    result = cli("profile", LLAMA, *arguments)
    assert result.exit_code == 0, result.stderr
    assert "in which drivers may have compiled" in result.stdout
    shapes = [
        event["args"]["shapes"]
        for (_, thread), events in events_of(tmp_path / "t.json").items()
        if thread == "queue"
        for event in events
        if "embedding" in event["name"]
    ]
    assert [shape[0][:2] for shape in shapes] == [[1, 3]]


def test_without_a_device(cli: Cli, tmp_path: Path) -> None:
    result = cli("profile", CROSS, "--adapter", "reference", "--runs", 1, "--html", tmp_path / "p.html")
    assert result.exit_code == 0, result.stderr
    assert "NumPy references" in result.stdout and "GPU ms" not in result.stdout
    assert "the host's side only" in checked_page((tmp_path / "p.html").read_text())[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CROSS, "--streams", "2"], "takes integer tokens"),
        ([CROSS, "--input", "1"], "forward takes 2 inputs .* 1 were given"),
        ([CROSS, "--method", "backward"], "no method 'backward'"),
        ([LLAMA, "--steps", "1000"], "do not fit the model's context"),
        ([LLAMA, "--prompt", ""], "--prompt is empty"),
        (["missing.pte"], "missing.pte"),
    ],
)
def test_bad_input(cli: Cli, tmp_path: Path, arguments: list[object], message: str) -> None:
    result = cli("profile", *arguments, "--trace", tmp_path / "t.json")
    assert result.exit_code == 2
    assert result.stdout == "" and re.fullmatch(rf"error: .*{message}.*\n", result.stderr)
    assert not (tmp_path / "t.json").exists() and active() is None


def test_streams_and_methods_exclude_each_other(cli: Cli) -> None:
    result = cli("profile", LLAMA, "--streams", 2, "--method", "forward")
    assert result.exit_code == 2 and "goes with neither" in result.stderr


def test_a_file_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    result = cli("profile", CROSS, "--runs", 1, "--trace", tmp_path / "none" / "t.json")
    assert result.exit_code == 2 and re.fullmatch(r"error: .*t\.json: No such file or directory\n", result.stderr)


def test_inspect_draws_a_page(cli: Cli, tmp_path: Path) -> None:
    result = cli("inspect", LLAMA, "--html", tmp_path / "g.html")
    assert result.exit_code == 0, result.stderr
    assert "Operator" in result.stdout and result.stderr == f"wrote {tmp_path / 'g.html'}\n"
    text, data = checked_page((tmp_path / "g.html").read_text())
    assert str(LLAMA) in text and data["graphs"]


def test_random_inputs_are_what_a_method_takes() -> None:
    expected = [
        TensorMetadata("float32", (2, 3)),
        TensorMetadata("int64", (4,)),
        TensorMetadata("bool", (1,)),
        TensorMetadata("bfloat16", (2,)),
        TensorMetadata("int", is_tensor=False),
        TensorMetadata("float", is_tensor=False),
        TensorMetadata("bool", is_tensor=False),
    ]
    values = random_inputs(expected)
    for value, tensor in zip(values[:4], expected, strict=False):
        assert (value.dtype.name, value.shape) == (tensor.dtype, tensor.max_dims)
    assert [type(value) for value in values[4:]] == [int, float, bool]
    np.testing.assert_array_equal(values[0], random_inputs(expected)[0])

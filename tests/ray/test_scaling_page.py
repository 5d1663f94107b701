"""What docs/scaling.md says, on a cluster without GPUs. Tests of the server run its command and its config file."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from ray.data import DataContext

from executorch_webgpu.cli import main
from tests.models.tiny_gguf import TinyGguf
from tests.text.tiny_vocabulary import BPE_TOKENS, bpe_keys

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    TinyGguf(layers=2, vocab=len(BPE_TOKENS), context_len=128, edits=bpe_keys()).write(tmp_path / "model.gguf")
    rows = ({"id": i, "prompt": f"hello {i}"} for i in range(6))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
def test_snippets_run(cluster: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    (convert,) = (command[1:] for command in commands if command[:2] == ["et-webgpu", "convert"])
    assert CliRunner().invoke(main, convert).exit_code == 0
    try:
        for block in blocks("python"):
            assert "num_gpus=1" in block
            exec(compile(block.replace("num_gpus=1", "num_gpus=0"), "scaling.md", "exec"), {})
    finally:
        DataContext.get_current().checkpoint_config = None
    answers = pq.read_table(folder / "answers").to_pylist()
    assert sorted(row["id"] for row in answers) == list(range(6))
    assert all(row["error"] is None and row["new_tokens"] for row in answers)
    (streams,) = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("[["))
    assert [len(stream) for stream in streams] == [20, 20]

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from executorch_webgpu.cli.serve import model_name
from tests.cli.conftest import Cli


def test_what_is_missing_of_the_extra_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of it, and before the model is looked at."""
    for name in ("llguidance", "starlette", "prometheus_client"):
        monkeypatch.setitem(sys.modules, name, None)  # which makes an import fail
    result = cli("serve", tmp_path / "no_such_model.pte")
    assert result.exit_code != 0 and "Traceback" not in result.stderr
    wanted = 'the server needs llguidance, prometheus-client, starlette: pip install "executorch-webgpu[serve]"'
    assert wanted in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a language model as SOURCE, an encoder with --embeddings, or both"),
        (["no_such_model.pte"], "no_such_model.pte"),
        (["m.pte", "--port", "70000"], "--port"),
        (["m.pte", "--request-seconds", "0"], "--request-seconds"),
        (["m.pte", "--api-key", "secret"], "--api-key"),
    ],
)
def test_bad_arguments(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli("serve", *arguments)
    assert result.exit_code != 0 and message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("models/qwen.pte", "qwen"),
        ("model.q4_0.gguf", "model.q4_0"),
        ("bge-small-en-v1.5", "bge-small-en-v1.5"),
        ("org/SmolLM2-1.7B", "SmolLM2-1.7B"),
        ("a/folder/", "folder"),
    ],
)
def test_names_of_models(source: str, name: str) -> None:
    assert model_name(source) == name

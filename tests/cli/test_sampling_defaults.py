"""What a model's generation_config.json says is how ``generate`` and ``chat`` draw, unless the user says otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu.text.generation import SamplingDefaults
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.cli.conftest import Cli

STATED = SamplingDefaults(temperature=1.3, top_k=9, min_p=0.01, repetition_penalty=1.2, do_sample=True)
OPTIONS = ("--temperature", 1.3, "--top-k", 9, "--min-p", 0.01, "--repetition-penalty", 1.2, "--top-p", 1)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, bpe: Tokenizer) -> tuple[Path, Path]:
    """The same model twice, without a word about sampling and with it; nothing ends its text."""
    folder = tmp_path_factory.mktemp("defaults")
    shape = replace(SHAPES["tiny"], vocab=bpe.vocab_size, context_len=128)
    for name, sampling in (("silent", SamplingDefaults()), ("stated", STATED)):
        settings: Any = replace(bpe.settings, sampling=sampling, eos_ids=frozenset())
        write_llama(folder / f"{name}.pte", shape, tokenizer=Tokenizer(bpe.backend, settings))
    return folder / "silent.pte", folder / "stated.pte"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["generate", "chat"])
def test_defaults_of_the_model(cli: Cli, programs: tuple[Path, Path], command: str) -> None:
    silent, stated = programs

    def text(program: Path, *options: object) -> str:
        prompt, lines = (("hello",), None) if command == "generate" else ((), "hello\n")
        result = cli(command, program, *prompt, "--max-new-tokens", 30, *options, input=lines)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    as_stated = text(stated, "--seed", 1)
    assert as_stated == text(silent, "--seed", 1, *OPTIONS)
    assert as_stated != text(stated, "--seed", 2), "the model is sampled"
    greedy = ("--temperature", 0, "--repetition-penalty", 1)
    assert text(stated, *greedy) == text(silent, *greedy)
    hotter = ("--seed", 1, "--temperature", 40, "--top-k", 0)
    assert text(stated, *hotter) == text(silent, *OPTIONS, *hotter) != as_stated
    usual = () if command == "generate" else ("--temperature", 0.7, "--top-p", 0.9)
    assert text(silent, "--seed", 3) == text(silent, "--seed", 3, *usual)

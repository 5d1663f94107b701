"""Perplexity of a small real program, against the same text one token at a time in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.perplexity import perplexity, surprise
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.cli.conftest import Cli, cli  # noqa: F401 (a fixture)
from tests.models.tiny_gguf import TinyGguf
from tests.text.tiny_vocabulary import BPE_TOKENS

MODEL = TinyGguf(layers=1, vocab=len(BPE_TOKENS))
TOKENS = np.random.default_rng(3).integers(0, MODEL.vocab, 23).tolist()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("perplexity") / "model.gguf"
    return path, MODEL.write(path)


@pytest.fixture(scope="module")
def model(weights: tuple[Path, dict[str, np.ndarray]]) -> Iterator[LanguageModel]:
    """Takes 4 tokens at once, and 16 in all."""
    path = weights[0].with_suffix(".pte")
    convert(weights[0], path, LlamaOptions("f32", max_seq_len=5, max_context_len=16, full_logits=True))
    with Runtime.get().load_program(path) as program, LanguageModel(program) as opened:
        yield opened


@pytest.mark.parametrize("window", [1, 3, 7, 16])
def test_every_token_is_predicted_once(
    model: LanguageModel, weights: tuple[Path, dict[str, np.ndarray]], window: int
) -> None:
    total = 0.0
    for at in range(1, len(TOKENS)):
        begin = (at - 1) // window * window
        logits = MODEL.logits(weights[1], TOKENS[begin:at])
        total += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[TOKENS[at]]
    expected = np.exp(total / (len(TOKENS) - 1))
    seen: list[tuple[int, int]] = []
    found = perplexity(model, TOKENS, window, lambda done, count: seen.append((done, count)))
    assert found == pytest.approx(expected, rel=1e-4)
    assert seen[-1] == (len(TOKENS) - 1, len(TOKENS) - 1) and seen == sorted(seen)


def test_a_uniform_guess_is_as_surprised_as_there_are_tokens() -> None:
    logits = np.full((5, 64), 1e4, np.float32)
    assert np.exp(surprise(logits, [0, 1, 2, 3, 63]) / 5) == pytest.approx(64)


@pytest.mark.parametrize(("tokens", "window", "said"), [([1], 4, "nothing to predict"), (TOKENS, 17, "1 to 16")])
def test_what_cannot_be_measured(model: LanguageModel, tokens: list[int], window: int, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        perplexity(model, tokens, window)


def test_a_program_of_last_logits(weights: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    convert(weights[0], tmp_path / "m.pte", LlamaOptions("f32", max_seq_len=5, max_context_len=16))
    with (
        Runtime.get().load_program(tmp_path / "m.pte") as program,
        LanguageModel(program) as model,
        pytest.raises(UnsupportedProgramError, match="--full-logits"),
    ):
        perplexity(model, TOKENS, 16)


def test_the_command(
    weights: tuple[Path, dict[str, np.ndarray]],
    bpe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,  # noqa: F811
) -> None:
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path))
    (tmp_path / "text").write_text("hello 12 hello 12 HELLO")
    arguments = ("perplexity", weights[0], tmp_path / "text", "--tokenizer", bpe_file)
    result = cli(*arguments)
    assert result.exit_code == 0, result.stderr
    assert 1 < float(result.stdout) < 1e6
    assert cli(*arguments, "--weights", "f32").stdout != result.stdout
    convert(weights[0], tmp_path / "last.pte", LlamaOptions("f32"), tokenizer=bpe_file)
    assert "--full-logits" in cli("perplexity", tmp_path / "last.pte", tmp_path / "text").stderr

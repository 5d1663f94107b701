from __future__ import annotations

import re
from pathlib import Path

import pytest

from executorch_webgpu.cli.prompts import describe, encode_prompt
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.llm.generate import GenerationStats
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.cli.conftest import Cli
from tests.conftest import SmolLM2
from tests.models.tiny_llama import TinyLlama
from tests.text.tiny_vocabulary import write_bpe, write_spm

RATES = re.compile(r"prefill (\d+) tokens, [\d.]+ tokens/s; decode (\d+) tokens, [\d.]+ tokens/s; (.*)\n")


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    return write_bpe(tmp_path / "vocabulary.gguf")


def test_final_line() -> None:
    stats = GenerationStats(10, 2.0, 6, 5, 0.5, "context")
    line = "prefill 10 tokens, 5.0 tokens/s; decode 6 tokens, 10.0 tokens/s; the context is full"
    assert describe(stats) == line


def test_plain_prompt_parses_no_special_text(vocabulary: Path) -> None:
    tokenizer = Tokenizer.from_file(vocabulary)
    plain = encode_prompt(tokenizer, "hello<s>", chat=False, system=None)
    assert plain == tokenizer.encode("hello<s>")
    chat = encode_prompt(tokenizer, "hello", chat=True, system="12")
    said = "<s>system\n12<|im_end|>\n<s>user\nhello<|im_end|>\n<s>assistant\n"
    assert tokenizer.decode(chat, keep_special=True) == said


def test_chat_without_a_template(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(write_spm(tmp_path / "spm.gguf"))
    with pytest.raises(InvalidInputError, match="no chat template"):
        encode_prompt(tokenizer, "hello", chat=True, system=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokenizer", "missing.gguf"], "missing.gguf: No such file or directory"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--top-p", "2"], "top_p is 2"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--system", "be brief"], "--system needs --chat"),
        ([], "missing.pte"),
    ],
    ids=["tokenizer", "temperature", "top-p", "max-new-tokens", "system", "program"],
)
def test_bad_input(cli: Cli, vocabulary: Path, arguments: list[str], message: str) -> None:
    result = cli("generate", "missing.pte", "--prompt", "hello", "--tokenizer", vocabulary, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr and "Traceback" not in result.stderr


def test_prompt_that_is_no_text(cli: Cli, vocabulary: Path) -> None:
    result = cli("generate", "missing.pte", "--prompt", "-", "--tokenizer", vocabulary, input=b"\xff\xfe")
    assert (result.exit_code, result.stderr) == (2, "error: the prompt on standard input is not UTF-8 text\n")


@pytest.mark.parametrize("tiny_llama", ["4w"], indirect=True)
def test_tokenizer_of_another_model(cli: Cli, tiny_llama: TinyLlama, smollm2: SmolLM2) -> None:
    result = cli("generate", tiny_llama.program, "--tokenizer", smollm2.gguf, "--prompt", "Hello, world!")
    assert result.exit_code == 2
    assert f"outside the model's vocabulary of {tiny_llama.geometry.vocab_size}" in result.stderr


def test_streams_an_answer(cli: Cli, smollm2: SmolLM2) -> None:
    arguments = ("--tokenizer", smollm2.gguf, "--chat", "--prompt", "-", "--max-new-tokens", 12, "--profile")
    result = cli("generate", smollm2.program, *arguments, input="What is the capital of France?\n")
    assert result.exit_code == 0, result.stderr
    assert "Paris" in result.stdout and result.stdout.endswith("\n")
    assert "<|im_" not in result.stdout
    rates = RATES.match(result.stderr)
    assert rates is not None and int(rates[1]) > 30 and int(rates[2]) <= 12
    assert "Time per op" in result.stderr


def test_prompt_longer_than_the_context(cli: Cli, smollm2: SmolLM2) -> None:
    prompt = "a b c d e f g h i j " * 110
    result = cli("generate", smollm2.program, "--tokenizer", smollm2.gguf, "--prompt", prompt)
    assert result.exit_code == 2
    assert re.fullmatch(r"error: the prompt is \d{4} tokens long, .* holds 1024; .*\n", result.stderr)

"""``et-webgpu generate`` with several prompts: the texts that each gives alone, in order, as text or as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from executorch_webgpu.cli import prompts as module
from executorch_webgpu.cli.prompts import engine_sizes, goes_by_engine, read_prompts
from executorch_webgpu.errors import Error, InvalidInputError, UnsupportedProgramError
from executorch_webgpu.llm import Stream
from executorch_webgpu.llm import engine as engine_module
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import Runtime
from tests.cli.conftest import Cli
from tests.models.tiny_gguf import TinyGguf
from tests.text.tiny_vocabulary import BPE_TOKENS, write_bpe, write_spm

CONTEXT = 64
SAMPLED = ("--temperature", 3, "--seed", 5, "--max-new-tokens", 20)
PROMPTS = ["hello", "12 hello", "HELLO 1", "hello hello 12"]


@dataclass(frozen=True)
class Files:
    program: Path
    tokenizer: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A program of random weights, with a tokenizer inside that has a chat template."""
    folder = tmp_path_factory.mktemp("prompts")
    tokenizer = write_bpe(folder / "vocabulary.gguf")
    TinyGguf(layers=1, vocab=len(BPE_TOKENS), context_len=CONTEXT).write(folder / "model.gguf")
    options = LlamaOptions("f32", max_seq_len=17, max_context_len=CONTEXT)
    convert(folder / "model.gguf", folder / "model.pte", options, tokenizer=tokenizer)
    return Files(folder / "model.pte", tokenizer)


def alone(cli: Cli, files: Files, prompt: str, *options: object) -> str:
    """The text that one prompt gives, without its last newline."""
    result = cli("generate", files.program, *SAMPLED, *options, "--prompt", prompt)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("prefill ")
    return result.stdout.removesuffix("\n")


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.split("\n")[:-1]]


@pytest.mark.slow
def test_texts_in_order(cli: Cli, files: Files, tmp_path: Path) -> None:
    wanted = [alone(cli, files, prompt) for prompt in PROMPTS]
    repeated = cli("generate", files.program, *SAMPLED, *(part for p in PROMPTS for part in ("--prompt", p)))
    assert repeated.exit_code == 0, repeated.stderr
    assert repeated.stdout == "".join(f"{text}\n" for text in wanted)
    *each, last = repeated.stderr.splitlines()
    for number, line in enumerate(each, 1):
        assert re.fullmatch(rf"prompt {number}: prefill \d+ tokens, .* tokens/s; decode \d+ tokens, .*", line)
    assert len(each) == len(PROMPTS) and re.fullmatch(r"4 prompts, \d+ tokens, [\d.]+ tokens/s in all", last)

    (tmp_path / "prompts.txt").write_text("\n".join(["", *PROMPTS, "  "]))
    for file, given in ((tmp_path / "prompts.txt", None), ("-", "\n".join(PROMPTS) + "\n")):
        result = cli("generate", files.program, *SAMPLED, "--prompts", file, input=given)
        assert (result.exit_code, result.stdout) == (0, repeated.stdout)


@pytest.mark.slow
def test_lines_of_json(cli: Cli, files: Files, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    stop = alone(cli, files, PROMPTS[1])[1:3]
    options = (*SAMPLED, "--stop", stop, "--chat", "--json")
    result = cli("generate", files.program, *options, "--prompts", tmp_path / "prompts.txt")
    assert result.exit_code == 0 and result.stderr == ""
    found = lines(result.stdout)
    assert [line["prompt"] for line in found] == PROMPTS
    for prompt, line in zip(PROMPTS, found, strict=True):
        assert line["text"] == alone(cli, files, prompt, "--stop", stop, "--chat")
        assert lines(cli("generate", files.program, *options, prompt).stdout) == [line], "one prompt, the same line"
    assert {line["finish_reason"] for line in found} <= {"eos", "stop", "length", "context"}
    assert result.stdout.isascii()


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_a_bad_prompt_is_told_and_the_others_go_on(cli: Cli, files: Files, as_json: bool) -> None:
    given = (*SAMPLED, "--prompt", "hello", "--prompt", "12 " * CONTEXT, "--prompt", "12 hello")
    result = cli("generate", files.program, *given, *(["--json"] if as_json else []))
    assert result.exit_code == 2
    if as_json:
        first, bad, last = lines(result.stdout)
        assert set(bad) == {"prompt", "error"} and "the context has room for 64" in bad["error"]
        assert [first["text"], last["text"]] == [alone(cli, files, prompt) for prompt in ("hello", "12 hello")]
    else:
        assert result.stdout == f"{alone(cli, files, 'hello')}\n\n{alone(cli, files, '12 hello')}\n"
        assert re.search(r"^error: prompt 2: the prompt has \d+ tokens", result.stderr, re.M)


@pytest.mark.slow
def test_a_text_that_breaks_is_told_and_the_others_go_on(
    cli: Cli, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose logits are not finite: an error of its own, after it has begun."""
    seen = []

    def broken(self: Stream) -> int:
        seen.append(self)
        if self is seen[0] and len(seen) > 3:
            raise Error("the model's logits are not finite numbers")
        return given_next(self)

    given_next = Stream.__next__
    monkeypatch.setattr(Stream, "__next__", broken)
    result = cli("generate", files.program, *SAMPLED, "--prompt", "hello", "--prompt", "12 hello", "--json")
    assert result.exit_code == 2
    bad, good = lines(result.stdout)
    assert bad == {"prompt": "hello", "error": "the model's logits are not finite numbers"}
    assert good["text"] == alone(cli, files, "12 hello")


@pytest.mark.slow
def test_without_a_chat_template_no_prompt_can_be(cli: Cli, files: Files, tmp_path: Path) -> None:
    given = ("--tokenizer", write_spm(tmp_path / "spm.gguf"), "--chat", "--prompt", "a", "--prompt", "b")
    result = cli("generate", files.program, *given)
    assert result.exit_code == 2 and result.stdout == "\n\n"
    assert result.stderr.count("no chat template") == 2


@pytest.mark.slow
def test_a_program_that_no_engine_takes_gives_the_same_texts(
    cli: Cli, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(engine_module.Engine):
        def __init__(self, *args: Any, **options: Any) -> None:
            raise UnsupportedProgramError("the program mixes rows")

    given = (*SAMPLED, "--prompt", PROMPTS[0], "--prompt", "12 " * CONTEXT, "--prompt", PROMPTS[1])
    engine = cli("generate", files.program, *given)
    monkeypatch.setattr(engine_module, "Engine", Refusing)
    model = cli("generate", files.program, *given)
    assert model.stderr.startswith("one text after the other: the program mixes rows\n")
    assert (model.exit_code, model.stdout) == (engine.exit_code, engine.stdout)


@pytest.mark.slow
def test_the_reference_adapter_takes_one_text_after_the_other(cli: Cli, files: Files) -> None:
    given = ("--max-new-tokens", 3, "--adapter", "reference", "--prompt", "hello", "--prompt", "12")
    result = cli("generate", files.program, *given)
    assert result.exit_code == 0 and result.stderr.startswith("one text after the other: the reference has no device")
    texts = [cli("generate", files.program, *given[:4], prompt).stdout for prompt in ("hello", "12")]
    assert result.stdout == "".join(texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one prompt to continue"),
        (["a", "--prompt", "b"], "give one prompt to continue"),
        (["a", "--prompts", "x.txt"], "give one prompt to continue"),
        (["--prompt", "b", "--prompts", "x.txt"], "or several with --prompts"),
        (["--prompts", "missing.txt"], "missing.txt: No such file"),
        (["--prompt", "a", "--prompt", "b", "--profile"], "--profile measures one text"),
    ],
)
def test_refused(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli("generate", "missing.pte", *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in " ".join(result.stderr.split())


def test_files_of_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffone\r\n\r\n two \nthree".encode())
    assert read_prompts(None, (), path) == ["one", " two ", "three"]
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_prompts(None, (), path)
    path.write_text(" \n\n")
    with pytest.raises(InvalidInputError, match="has no prompts"):
        read_prompts(None, (), path)


def test_one_prompt_needs_no_engine() -> None:
    assert [goes_by_engine(["x"] * count) for count in (1, 2, 100)] == [False, True, True]


def test_an_engine_has_pages_for_what_is_asked_of_it(files: Files) -> None:
    with Runtime.get().load_program(files.program) as program:
        sizes = engine_sizes(program, [[1] * 5, [1] * 20], 10)
        assert (sizes["kv_pages"], sizes["max_sequences"]) == (1 + 2, 2)
        sizes = engine_sizes(program, [[1]] * 100, 10**6)
        assert (sizes["kv_pages"], sizes["max_sequences"]) == (module.CONTEXTS * 4, 64)
        sizes = engine_sizes(program, [], 10)
        assert min(sizes.values()) == 1

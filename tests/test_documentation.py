"""What README and docs say is so: snippets run, commands exist, the operator list is complete, the site builds."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import executorch_webgpu.ops  # registers the operators
from executorch_webgpu import Runtime
from executorch_webgpu.cli import main
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.encoder import EncoderOptions
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.registry import names
from scripts import operators_page
from tests.conftest import SmolLM2
from tests.models.tiny_encoder import TinyEncoder
from tests.models.tiny_gguf import TinyGguf
from tests.models.tiny_llama import TINY_LLAMAS, TinyLlama
from tests.serve.serving import Serving, serving, write_tiny_model
from tests.serve.templates import THINKING
from tests.text.tiny_vocabulary import BPE_TOKENS, bpe_keys

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(page: Path) -> Iterator[list[str]]:
    """Lines of code blocks that are indented or marked as ``console``, without comments and prompts."""
    text = page.read_text()
    lines = [*_joined([line for line in text.splitlines() if line.startswith("    ")]), *console(page)]
    yield from (found for found in (shlex.split(line, comments=True) for line in lines) if found)


def console(page: Path) -> list[str]:
    """What a shell is told in blocks that are marked as ``console``."""
    lines = "".join(blocks(page, "console")).replace("\\\n", "").splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


def _joined(lines: list[str]) -> Iterator[str]:
    yield from "\n".join(line.strip() for line in lines).replace("\\\n", "").splitlines()


# Pages whose snippets are parts of operators, and need a Ray cluster: see tests/ray.
ELSEWHERE = ("architecture.md", "scaling.md")
PYTHON = [page for page in PAGES if blocks(page, "python") and page.name not in ELSEWHERE]
OURS = [command for page in PAGES for command in commands(page) if command[0] == "et-webgpu"]
COMMANDS = [pytest.param(each, id=" ".join(each)) for each in OURS if each[1] != "serve"]
SERVERS = {" ".join(each): each for each in OURS if each[1] == "serve" and "--replicas" not in each}
SHELL = [line for page in PAGES for line in console(page) if line.split()[0] in ("chmod", "curl", "head")]
SERVED = "http://localhost:8000"  # where snippets have a server


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that snippets name: a small model with random weights, as GGUF file and as program."""
    folder = tmp_path_factory.mktemp("snippets")
    TinyGguf(layers=1, vocab=len(BPE_TOKENS), context_len=4096, edits=bpe_keys()).write(folder / "model.gguf")
    convert(folder / "model.gguf", folder / "model.pte", LlamaOptions("f32", max_seq_len=65, max_context_len=128))
    encoder = TinyEncoder(fields={"vocab_size": 400}, poolings=("mean",)).write(folder / "encoder")
    convert(encoder, folder / "encoder.pte", EncoderOptions("f32"), tokenizer=folder / "model.gguf")
    (folder / "text.txt").write_text("hello world " * 20)
    np.save(folder / "x.npy", np.array([[1, 2, 3]]))
    np.save(folder / "pos.npy", np.array([0]))
    (folder / "keys.txt").write_text("a-key\n")
    (folder / "keys.txt").chmod(0o600)
    write_tiny_model(folder, 4096, THINKING).rename(folder / "smollm2-135m.pte")
    shutil.copy(folder / "encoder.pte", folder / "all-minilm-l6-v2.pte")
    return folder


@pytest.fixture(scope="module")
def served(written: Path) -> Iterator[Serving]:
    """The server that snippets talk to, whose models have the names that snippets give them."""
    with serving([str(written / "smollm2-135m.pte"), "--embeddings", str(written / "all-minilm-l6-v2.pte")]) as running:
        yield running


@pytest.fixture
def folder(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of those files, as the current folder: snippets write over them."""
    copy = Path(shutil.copytree(written, tmp_path / "snippets"))
    monkeypatch.chdir(copy)
    return copy


def given(folder: Path) -> dict[str, Any]:
    """The names that snippets use and do not define."""
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((1, 3, heads, 128)).astype(np.float32) for heads in (32, 8, 8))
    return {
        "tokens": np.array([[1, 2, 3]]),
        "input_pos": np.array([0]),
        "prompt_tokens": [1, 2, 3],
        "q": q,
        "k": k,
        "v": v,
        "program": Runtime.get().load_program(folder / "model.pte"),
        "model": torch.nn.Linear(8, 8),
        "example_inputs": (torch.zeros(2, 8),),
        "dynamic_shapes": ({0: torch.export.Dim("rows", min=1, max=4)},),
    }


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_python_snippets_run(page: Path, folder: Path, request: pytest.FixtureRequest) -> None:
    scope = given(folder)
    needs_server = SERVED in page.read_text()
    url = request.getfixturevalue("served").url if needs_server else SERVED
    with scope["program"]:
        for text in blocks(page, "python"):
            block = text.replace(SERVED, url)
            exec(compile(block, page.name, "exec"), scope)


@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
@pytest.mark.usefixtures("folder")
def test_servers_start(command: list[str]) -> None:
    ours = {"smollm2-135m": "smollm2-135m.pte", "all-minilm-l6-v2": "all-minilm-l6-v2.pte"}
    with serving([ours.get(word, word) for word in command[2:]]) as server:
        assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
        assert httpx.get(f"{server.url}/v1/models").status_code == (401 if "--api-key-file" in command else 200)
        assert server.stop() == 0, "".join(server.output)


@pytest.mark.parametrize("line", SHELL)
@pytest.mark.usefixtures("folder")
def test_shell_lines_run(line: str, served: Serving) -> None:
    line = line.replace(SERVED, served.url)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    if line.startswith("curl"):
        shown = "top_p: input should be less than or equal to 1" if '"top_p": 2' in line else '"usage"'
        assert ("etwebgpu_" if line.endswith("/metrics") else shown) in done.stdout, done.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("folder")
def test_commands_run(command: list[str]) -> None:
    ours = {"smollm2-135m": "model.gguf", "all-minilm-l6-v2": "encoder.pte"}
    arguments = [ours.get(word, word) for word in command[1:]]
    result = CliRunner().invoke(main, arguments, input="")
    assert result.exit_code == 0, result.output


def test_other_commands_exist() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    found = [(page, command) for page in PAGES for command in commands(page)]
    found += [(page, line.split()) for page in PAGES for line in re.findall(r"`(make [^`]+)`", page.read_text())]
    for page, command in found:
        match command:
            case ["make", target, *_]:
                assert target in targets, (page, command)
            case ["python", "-m", module, *_]:
                assert find_spec(module), (page, command)
            case ["python", script, *_]:
                assert (ROOT / script).exists(), (page, command)
    assert {command[0] for _, command in found} >= {"make", "python", "et-webgpu"}


def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr
    reference = "".join(path.read_text() for path in (tmp_path / "api").glob("*.html"))
    for name in executorch_webgpu.__all__:
        assert re.search(rf'id="executorch_webgpu\.(runtime|errors)\.{name}"', reference), name
    # A page that is opened fetches nothing from elsewhere.
    pages = "".join(path.read_text() for path in tmp_path.rglob("*.html"))
    assert not re.findall(r"<(?:script|img)[^>]*src=.?https?:|<link[^>]*stylesheet[^>]*https?:", pages)


def load_example(name: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": name}
    exec(compile((ROOT / "examples" / f"{name}.py").read_text(), name, "exec"), scope)
    return scope


@pytest.mark.slow
def test_the_page_of_operators_is_up_to_date() -> None:
    assert operators_page.PAGE.read_text() == operators_page.page(), "run python -m scripts.operators_page"
    assert set(names()) <= set(re.findall(r"`([^` ]+)`", operators_page.PAGE.read_text()))


def test_run_program_example(tiny_llama: TinyLlama) -> None:
    assert tiny_llama.name in TINY_LLAMAS
    largest, smaller = load_example("run_program")["main"](str(tiny_llama.program))
    assert largest[0].shape == smaller[0].shape == (1, tiny_llama.geometry.vocab_size)
    assert np.isfinite(largest[0]).all()


def test_attention_example() -> None:
    differences = load_example("attention")["main"](prompt=20, steps=3)
    assert differences["f32"] == 0 < differences["f16"] < 4e-3 < differences["int8"] < 6e-2


def test_greedy_example(smollm2: SmolLM2) -> None:
    text = load_example("greedy")["main"](str(smollm2.program), str(smollm2.gguf), "The capital of France is", 4)
    assert text.startswith("The capital of France is Paris")


def test_many_prompts_example(folder: Path) -> None:
    prompts = ["hello", "12 hello", "HELLO", "hello 1", "2"]
    main = load_example("many_prompts")["main"]
    together = main("model.pte", prompts, 8)
    assert together == [text for prompt in prompts for text in main("model.pte", [prompt], 8)]
    assert all(text.startswith(prompt) for prompt, text in zip(prompts, together, strict=True))

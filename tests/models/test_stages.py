"""Programs in stages: one behind the other they compute what the whole program does, and each loads its own weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from executorch_webgpu import InvalidInputError, Program, Runtime, UnsupportedProgramError
from executorch_webgpu.cli import main
from executorch_webgpu.llm import Engine, LanguageModel
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.models.tiny_gguf import TinyGguf

OPTIONS = LlamaOptions("native", max_seq_len=9, max_context_len=48)
STEPS = ((0, [1, 2, 3, 4]), (4, [5]), (5, [6, 7, 8, 9, 10, 11]))
MODELS = {"llama": TinyGguf(layers=5), "qwen3": TinyGguf("qwen3", layers=3, qk_norm=True, tied_head=True)}


@pytest.fixture(scope="module", params=MODELS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stages") / "model.gguf"
    MODELS[request.param].write(path)
    convert(path, path.with_suffix(".pte"), OPTIONS)
    return path


def constant_bytes(program: Program) -> int:
    """On the device, of all methods that are loaded."""
    return program._constant_pool().nbytes


def logits(program: Program, names: Sequence[str]) -> list[np.ndarray]:
    with ExitStack() as stack:
        methods = [stack.enter_context(program.load_method(name)) for name in names]
        found = []
        for position, tokens in STEPS:
            x = np.array([tokens], np.int64)
            for method in methods:
                (x,) = method.execute([x, np.array([position])])
            found.append(x)
        return found


@pytest.mark.parametrize("stages", [2, 3, [1, 2], [1, 1, 1], 1], ids=str)
def test_stages_compute_what_the_whole_does(source: Path, stages: int | list[int], tmp_path: Path) -> None:
    with Runtime.get().load_program(source.with_suffix(".pte")) as whole:
        layers = int(whole.load_method("get_n_layers").execute()[0])
        wanted = logits(whole, ["forward"])
        whole.load_method("forward")
        total = constant_bytes(whole)
    if isinstance(stages, list):
        stages = [*stages[:-1], layers - sum(stages[:-1])]
    convert(source, tmp_path / "model.pte", OPTIONS, stages=stages)
    with Runtime.get().load_program(tmp_path / "model.pte") as program:
        count = int(program.load_method("get_n_stages").execute()[0])
        assert count == (stages if isinstance(stages, int) else len(stages))
        names = [f"stage{i}" for i in range(count)]
        assert program.method_names >= set(names) and "forward" not in program.method_names
        for got, want in zip(logits(program, names), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        of_each = []
        for name in names:
            with program.load_method(name):
                of_each.append(constant_bytes(program))
        assert total <= sum(of_each) < total * 1.1  # rope tables, and a tied embedding, are in several
        assert max(of_each) < total or count == 1


def test_a_number_of_stages_is_cut_evenly(tmp_path: Path) -> None:
    # A large vocabulary: the embedding is float32, so the first stage has fewer layers.
    TinyGguf(layers=9, vocab=2000).write(tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "model.pte", OPTIONS, stages=3)
    with Runtime.get().load_program(tmp_path / "model.pte") as program:
        found = []
        for i in range(3):
            with program.load_method(f"stage{i}"):
                found.append(constant_bytes(program))
    assert max(found) - min(found) < 0.5 * max(found)


@pytest.mark.parametrize("stages", [0, 6, [], [5, 0], [2, 2], [6, -1]], ids=str)
def test_stages_that_cannot_be(tmp_path: Path, stages: int | list[int]) -> None:
    TinyGguf(layers=5).write(tmp_path / "model.gguf")
    with pytest.raises(InvalidInputError, match="stages"):
        convert(tmp_path / "model.gguf", tmp_path / "model.pte", OPTIONS, stages=stages)
    assert not (tmp_path / "model.pte").exists()


def test_the_command(tmp_path: Path) -> None:
    TinyGguf(layers=3).write(tmp_path / "model.gguf")
    for given, count in (("2", 2), ("1,1,1", 3)):
        command = ["convert", str(tmp_path / "model.gguf"), "-o", str(tmp_path / "m.pte"), "--stages", given]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        with Runtime.get().load_program(tmp_path / "m.pte") as program:
            assert program.load_method("get_n_stages").execute() == [count]
            for whole in (LanguageModel, Engine):
                with pytest.raises(UnsupportedProgramError, match="in stages"):
                    whole(program)
    result = CliRunner().invoke(main, [*command[:-1], "two"])
    assert result.exit_code == 2 and "neither a number of stages" in result.output

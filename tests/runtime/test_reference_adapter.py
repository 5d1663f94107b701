"""``Runtime.get(adapter="reference")`` runs whole programs without a device; ``check=True`` checks those on one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.models import SHAPES, write_llama
from executorch_webgpu import DivergenceError, InvalidInputError, Method, NoAdapterError, Runtime, State
from executorch_webgpu.cli import main
from executorch_webgpu.llm.decode_session import DecodeSession
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops import registry

pytestmark = pytest.mark.slow
CONTEXT = 24
CACHES = ("f32", "f16", "int8")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, replace(SHAPES["tiny"], layers=1, vocab=64), LlamaOptions(max_seq_len=8, max_context_len=CONTEXT))
    return path


@pytest.fixture(params=CACHES)
def methods(path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Method, Method]]:
    """The same method without a device, and on one."""
    with Runtime.get(adapter="reference").load_program(path) as host, Runtime.get().load_program(path) as device:
        loaded = [program.load_method("forward", kv_cache_dtype=request.param) for program in (host, device)]
        yield loaded[0], loaded[1]


def run(method: Method, state: State | None, tokens: Sequence[int], position: int) -> np.ndarray:
    return method.execute([np.array([tokens]), np.array([position])], state)[0]


def close(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=2e-2, atol=2e-2)


def test_states_are_kept_apart_rewound_and_reset(methods: tuple[Method, Method]) -> None:
    results = []
    for method in methods:
        other = method.new_state()
        found = [run(method, None, [1, 2, 3], 0), run(method, other, [9], 0), run(method, None, [4, 5], 3)]
        method.state.rewind(3)
        assert (method.state.length, other.length) == (3, 1)
        found += [run(method, None, [4, 5], 3), run(method, other, [3, 1], 1)]
        np.testing.assert_array_equal(found[2], found[3])
        method.reset()
        found.append(run(method, None, [1, 2, 3], 0))
        np.testing.assert_array_equal(found[0], found[-1])
        results.append(found)
    for got, wanted in zip(*results, strict=True):
        close(got, wanted)


def test_saved_states_go_on_elsewhere(methods: tuple[Method, Method], tmp_path: Path) -> None:
    """Each of them goes on with the other's."""
    for number, (first, second) in enumerate((methods, methods[::-1])):
        run(first, None, [1, 2, 3], 0)
        run(first, None, [7], 3)
        first.state.save(tmp_path / f"{number}.npz")
        loaded, again = second.load_state(tmp_path / f"{number}.npz"), first.load_state(tmp_path / f"{number}.npz")
        assert loaded.length == again.length == 4
        wanted = run(first, None, [5, 6], 4)
        np.testing.assert_array_equal(run(first, again, [5, 6], 4), wanted)
        close(run(second, loaded, [5, 6], 4), wanted)


def test_what_a_device_refuses_is_refused_and_changes_nothing(methods: tuple[Method, Method]) -> None:
    host, device = methods
    run(host, None, [1, 2], 0)
    wanted = run(host, None, [3], 2)
    host.state.rewind(2)
    for tokens, position in (([1, 2], CONTEXT - 1), ([64], 2), ([1], -1), ([1] * 9, 0)):
        messages = []
        for method in (host, device):
            with pytest.raises(InvalidInputError) as error:
                run(method, None, tokens, position)
            messages.append(str(error.value))
        assert messages[0] == messages[1]
    assert host.state.length == 2
    np.testing.assert_array_equal(run(host, None, [3], 2), wanted)


def test_it_needs_no_engine(path: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['wgpu', 'wgpudawn', 'rendercanvas']))\n"
        "import numpy as np; from executorch_webgpu import Runtime\n"
        "with Runtime.get(adapter='reference').load_program(sys.argv[1]) as program:\n"
        "    print(program.load_method('forward').execute([np.array([[1, 2]]), np.array([0])])[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 64)\n", done.stderr


def test_there_is_no_device() -> None:
    with pytest.raises(NoAdapterError, match="the reference has no device"):
        _ = Runtime.get(adapter="reference").device
    assert Runtime.get(adapter="reference") is not Runtime.get(adapter="reference", check=True)


# -- checked --------------------------------------------------------------------------------------------------------


@pytest.fixture
def wrong_softmax(monkeypatch: pytest.MonkeyPatch) -> str:
    """An operator of the program whose reference gives something else than its kernel."""
    name = "et_webgpu.rope_sdpa_with_kv_cache.default"
    found = registry.find(name)
    assert found is not None
    right = found.reference
    monkeypatch.setitem(
        registry._OPS, name, replace(found, reference=lambda *args, **more: [r * 2 for r in right(*args, **more)])
    )
    return name


@pytest.mark.parametrize("cache", CACHES)
def test_a_checked_runtime_checks_every_step(path: Path, cache: str) -> None:
    with Runtime.get(check=True).load_program(path) as program:
        method = program.load_method("forward", kv_cache_dtype=cache)
        for tokens, position in (([1, 2, 3], 0), ([4], 3), ([5, 6], 4)):
            run(method, None, tokens, position)


def test_it_says_where_a_program_goes_wrong(path: Path, wrong_softmax: str) -> None:
    with Runtime.get(check=True).load_program(path) as program:
        method = program.load_method("forward")
        with pytest.raises(DivergenceError, match=r"rope_sdpa_with_kv_cache.*the reference gives") as error:
            run(method, None, [1, 2, 3], 0)
        unchecked = program.load_method("forward", check=False)
        run(unchecked, None, [1, 2, 3], 0)
    assert error.value.divergence is not None and error.value.divergence.operator == wrong_softmax
    assert error.value.divergence.shape == (1, 3, 4, 16)


def drawn(runtime: Runtime, path: Path) -> list[int]:
    with (
        runtime.load_program(path) as program,
        LanguageModel(program) as model,
        DecodeSession(model, SamplingParams(max_new_tokens=5), end_tokens=()) as session,
    ):
        session.prefill([1, 2, 3])
        return list(session)


def test_steps_that_run_ahead_are_checked_too(path: Path, request: pytest.FixtureRequest) -> None:
    assert drawn(Runtime.get(check=True), path) == drawn(Runtime.get(), path)
    request.getfixturevalue("wrong_softmax")
    with pytest.raises(DivergenceError):
        drawn(Runtime.get(check=True), path)


def test_the_command_runs_both(path: Path, tmp_path: Path, wrong_softmax: str) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3]]))
    arguments = ["run", str(path), "--input", str(tmp_path / "x.npy"), "--input", "0"]
    assert CliRunner().invoke(main, [*arguments, "--adapter", "reference"]).exit_code == 0
    assert CliRunner().invoke(main, [*arguments, "--check", "--no-fuse"]).exit_code == 0
    result = CliRunner().invoke(main, [*arguments, "--check"])
    assert result.exit_code not in (0, 1) and wrong_softmax in result.output

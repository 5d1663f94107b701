"""Runtimes, programs, methods and states in several threads: what they give alone, or one of our errors."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from bench.models import SHAPES, write_llama
from executorch_webgpu import ClosedError, Error, Method, Program, Runtime, State
from executorch_webgpu.gpu.device import list_adapters
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import inspect_program
from tests.llm.chain_program import chain_program, chain_table
from tests.portable.test_portable import Counter, export
from tests.threads.together import pause, seeds, together

ROWS, CONTEXT, VOCAB = 15, 48, 32  # tokens of a step, of a state, and of those that we use

Step = Callable[[Method, State, Path], Any]  # one thing that one does with a state


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, SHAPES["tiny"], LlamaOptions(max_seq_len=ROWS + 1, max_context_len=CONTEXT))
    return path


@pytest.fixture(scope="module")
def program(path: Path) -> Iterator[Program]:
    with Runtime.get().load_program(path) as program:
        yield program


@pytest.fixture(scope="module")
def method(program: Program) -> Iterator[Method]:
    with program.load_method("forward") as method:
        yield method


@pytest.fixture(scope="module")
def counting() -> Iterator[Method]:
    """Adds one to memory on the device with each call, and gives nothing of it away but by ``State.save``."""
    file = chain_program(chain_table(VOCAB), context_len=1 << 12, counts=True)
    with Runtime.get().load_program(file) as program, program.load_method("forward") as method:
        yield method


def run(method: Method, state: State, tokens: list[int], position: int) -> bytes:
    (logits,) = method.execute([np.array([tokens]), np.array([position])], state)
    return logits.tobytes()


def random_steps(random: Random, count: int, name: str) -> list[Step]:
    """What one sequence does: steps of many sizes, and all else that states can do. ``name`` tells its files apart."""
    steps: list[Step] = [lambda method, state, _: run(method, state, [1], 0)]

    def of(tokens: list[int]) -> Step:
        return lambda method, state, _: run(method, state, tokens, min(state.length, CONTEXT - len(tokens)))

    def rewind(share: float) -> Step:
        return lambda _, state, __: state.rewind(int(share * state.length))

    def save(_: Method, state: State, folder: Path) -> bytes:
        state.save(folder / name)
        return (folder / name).read_bytes()

    def load(method: Method, state: State, folder: Path) -> int | None:
        if not (folder / name).exists():
            return None
        with method.load_state(folder / name) as other:
            state.load(folder / name)
            return other.length

    for _ in range(count):
        tokens = [random.randrange(VOCAB) for _ in range(random.choice([1, 1, 1, 2, 5, ROWS]))]
        choices = [of(tokens)] * 8 + [rewind(random.random()), save, load, lambda _, state, __: state.reset()]
        steps.append(random.choice(choices))
    return steps


def follow(method: Method, steps: list[Step], folder: Path) -> list[Any]:
    with method.new_state() as state:
        return [(step(method, state, folder), state.length) for step in steps]


# -- runtimes and programs --------------------------------------------------------------------------------------------


@seeds(1)
def test_one_runtime_for_one_choice(random: Random, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        monkeypatch.setattr(Runtime, "_runtimes", {})
        choice = random.randrange(100)
        first, *others = together(random, [lambda choice=choice: Runtime.get("wgpu", choice)] * 4)
        assert all(other is first for other in others)


@seeds(1)
def test_one_device_of_a_runtime(random: Random) -> None:
    runtime = Runtime()
    jobs = [lambda: runtime.device, lambda: runtime.device, lambda: runtime.device, list_adapters]
    first, *others, _ = together(random, jobs)
    with first:
        assert all(other is first for other in others)


@seeds(1)
def test_runtimes_of_their_own(random: Random, path: Path, tmp_path: Path) -> None:
    steps = [random_steps(random, 6, f"{i}.npz") for i in range(2)]
    runtimes = [Runtime(), Runtime()]

    def job(index: int) -> list[Any]:
        with runtimes[index].load_program(path) as program, program.load_method("forward") as method:
            return follow(method, steps[index], tmp_path)

    expected = [job(0), job(1)]
    for file in tmp_path.iterdir():
        file.unlink()
    assert together(random, [lambda: job(0), lambda: job(1)]) == expected
    for runtime in runtimes:
        runtime.device.close()


@seeds(1)
def test_methods_of_one_program(random: Random, path: Path, tmp_path: Path) -> None:
    """Loaded, used and closed at once, they share constants and pipelines; in the end nothing is left over."""
    gc.collect()
    memory = Runtime.get().device.memory
    before = memory.live_buffers, memory.live_bytes
    choices: list[dict[str, Any]] = [{}, {"kv_cache_dtype": "f16"}, {"fuse": False}, {"profile": True}]
    options = [random.choice(choices) for _ in range(3)]
    steps = [random_steps(random, 4, f"{i}.npz") for i in range(3)]
    with Runtime.get().load_program(path) as program:

        def job(index: int) -> list[Any]:
            with program.load_method("forward", **options[index]) as method:
                results = follow(method, steps[index], tmp_path)
                assert bool(method.profile()) == ("profile" in options[index])
                return results

        def look() -> Any:
            return program.inspect(), program.metadata("forward"), program.step_bytes("forward"), program.method_names

        expected = [job(0), job(1), job(2), look()]
        for file in tmp_path.iterdir():
            file.unlink()
        assert together(random, [lambda: job(0), lambda: job(1), lambda: job(2), look]) == expected
    gc.collect()
    memory.free_unused()
    assert (memory.live_buffers, memory.live_bytes) == before


@seeds(4)
def test_a_program_that_is_closed_meanwhile(random: Random, path: Path, tmp_path: Path) -> None:
    expected_report = inspect_program(path)
    steps = random_steps(random, 8, "state.npz")
    with Runtime.get().load_program(path) as program, program.load_method("forward") as method:
        expected = follow(method, steps, tmp_path)
    (tmp_path / "state.npz").unlink(missing_ok=True)

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")

    def use() -> None:
        for step, (result, length) in zip(steps, expected, strict=True):
            assert (step(method, method.state, tmp_path), method.state.length) == (result, length)

    def load() -> None:
        with program.load_method("forward") as other:
            assert run(other, other.state, [1], 0) == expected[0][0]

    def look() -> None:
        for _ in range(3):
            assert program.inspect() == expected_report
            assert program.metadata("forward").name == "forward"
            assert program.named_data is not None

    def close() -> None:
        pause(random, 0.1)
        random.choice([program.close, method.close, method.state.close])()

    together(random, [use, load, look, close], refusals=(ClosedError,))
    program.close()


@seeds(1)
def test_files_that_two_threads_write(random: Random, method: Method, tmp_path: Path) -> None:
    run(method, method.state, [3, 1, 4], 0)
    method.state.save(tmp_path / "alone.npz")
    together(random, [lambda: method.state.save(tmp_path / "both.npz")] * 4)
    assert (tmp_path / "both.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


# -- methods and states -----------------------------------------------------------------------------------------------


@seeds(8)
def test_states_of_one_method(random: Random, method: Method, tmp_path: Path) -> None:
    threads = random.choice([2, 2, 3, 4])
    steps = [random_steps(random, 12, f"{i}.npz") for i in range(threads)]
    expected = [follow(method, of_one, tmp_path) for of_one in steps]
    for file in tmp_path.iterdir():
        file.unlink()
    jobs = [lambda of_one=of_one: follow(method, of_one, tmp_path) for of_one in steps]
    assert together(random, jobs) == expected


@seeds(2)
def test_calls_of_a_shared_state_run_one_after_another(random: Random, counting: Method, tmp_path: Path) -> None:
    """The device counts all of them, and the host adds up all of them in some order."""
    with counting.new_state() as state:
        together(random, [lambda: [run(counting, state, [1], i) for i in range(40)]] * 3)
        state.save(tmp_path / "count.npz")
    with np.load(tmp_path / "count.npz") as arrays:
        assert any(array.shape == (1,) and array[0] == 120 for array in arrays.values() if array.dtype == np.float32)

    with Runtime.get().load_program(export(Counter(), torch.zeros(3))) as program:
        method = program.load_method("forward")
        ones = np.ones(3, np.float32)
        totals = together(random, [lambda: [float(method.execute([ones])[0][0]) for _ in range(40)]] * 3)
    assert sorted(total for of_thread in totals for total in of_thread) == list(range(1, 121))
    assert all(of_thread == sorted(of_thread) for of_thread in totals)


@seeds(4)
def test_anything_on_one_state(random: Random, method: Method, tmp_path: Path) -> None:
    """Nobody can say what comes of it, but it is a state of the program afterwards, and nothing but our errors come."""
    with method.new_state() as state:

        def job(steps: list[Step]) -> None:
            for step in steps:
                with suppress(Error):  # its position may be beyond what others have left of the text
                    step(method, state, tmp_path)

        steps = [random_steps(random, 10, f"{i}.npz") for i in range(3)]
        together(random, [lambda of_one=of_one: job(of_one) for of_one in steps])
        state.reset()
        assert run(method, state, [1, 2, 3], 0) == run(method, method.state, [1, 2, 3], 0)


@seeds(1)
def test_garbage_is_collected_in_any_thread(random: Random, method: Method, tmp_path: Path) -> None:
    """Buffers of what nobody closed go while another thread is in the middle of a step."""
    gc.collect()
    memory = Runtime.get().device.memory
    before = memory.live_buffers
    steps = random_steps(random, 10, "state.npz")
    expected = follow(method, steps, tmp_path)
    (tmp_path / "state.npz").unlink(missing_ok=True)

    def litter() -> None:
        for _ in range(12):
            cycle: list[Any] = [method.new_state()]
            cycle.append(cycle)
            del cycle
            gc.collect(1)

    result, *_ = together(random, [lambda: follow(method, steps, tmp_path), litter, litter])
    assert result == expected
    gc.collect()
    memory.free_unused()
    assert memory.live_buffers == before

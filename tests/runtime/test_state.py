"""States of a method: kept apart, rewound, saved, loaded, and freed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import ClosedError, InvalidInputError, Method, Program, Runtime, State, UnsupportedProgramError
from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.pte import write_program
from executorch_webgpu.format.vkgraph import write_vkgraph
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.models.llama import LlamaOptions
from tests.graph_builder import GraphBuilder
from tests.portable.test_portable import Counter, export
from tests.programs import delegate_plan, write_delegated

ROWS, CONTEXT = 15, 48  # tokens of a step, and of a state
rng = np.random.default_rng(0)

Step = tuple[int, int]  # tokens, position


@pytest.fixture(autouse=True)
def nothing_of_other_tests() -> None:
    """Buffers are counted here; those that garbage of other tests still holds would go at any time."""
    gc.collect()


@pytest.fixture(scope="module")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, SHAPES["tiny"], LlamaOptions(max_seq_len=ROWS + 1, max_context_len=CONTEXT))
    return path


@pytest.fixture(scope="module")
def llama(llama_path: Path) -> Iterator[Method]:
    with Runtime.get().load_program(llama_path) as program, program.load_method("forward") as method:
        yield method


def attention(initial: np.ndarray | None = None, seed: int = 0) -> bytes:
    """Attention over caches [1, 24, 2, 4], after an embedding of 99 tokens: [1, ≤7] at a position -> [1, ≤7, 4, 4]."""
    weights = np.random.default_rng(seed)
    build = GraphBuilder()
    tokens = build.input((1, 7), "int32")
    position, length = build.live(), build.size_of(tokens, 1)
    q, k, v = (
        build.call(
            "aten.view_copy.default",
            build.call(
                "aten.embedding.default",
                weights.normal(size=(99, heads * 4)).astype(np.float32),
                tokens,
                -1,
                False,
                False,
                build.tensor((1, 7, heads * 4)),
            ),
            [1, length, heads, 4],
            build.tensor((1, 7, heads, 4)),
        )
        for heads in (4, 2, 2)
    )
    caches = [build.constant(np.zeros((1, 24, 2, 4), np.float32) if initial is None else initial) for _ in "kv"]
    out = build.tensor((1, 7, 4, 4))
    build.call("sdpa_with_kv_cache.default", q, k, v, *caches, position, 1, None, 0.0, True, None, out)
    build.output(out)
    return write_delegated(build, ["int64", "int64", "float32"], dynamic=[0])


def run(method: Method, state: State | None, tokens: Sequence[int], position: int) -> np.ndarray:
    (out,) = method.execute([np.array([tokens]), np.array([position])], state=state)
    return out


def tokens_of(state: int, step: Step) -> list[int]:
    """Tokens that only this state has at this place."""
    length, position = step
    return [(31 * state + 7 * (position + i) + length) % 99 for i in range(length)]


def saved(state: State, path: Path) -> bytes:
    state.save(path)
    return path.read_bytes()


# -- apart ------------------------------------------------------------------------------------------------------------


@st.composite
def interleavings(draw: st.DrawFn, most: int, context: int) -> list[tuple[int, Step]]:
    """Steps of up to three states: prefill, decode, several tokens; sometimes from an earlier position again."""
    ends = [0] * draw(st.integers(2, 3))
    steps = []
    for _ in range(draw(st.integers(3, 10))):
        state = draw(st.integers(0, len(ends) - 1))
        position = draw(st.sampled_from([ends[state], ends[state], ends[state], ends[state] // 2]))
        length = min(draw(st.sampled_from([1, 1, 2, 5, most])), context - position)
        if length:
            steps.append((state, (length, position)))
            ends[state] = position + length
    return steps


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=interleavings(ROWS, CONTEXT))
def test_interleaved_states_give_what_each_gives_alone(
    llama: Method, tmp_path: Path, steps: list[tuple[int, Step]]
) -> None:
    check_interleaved(llama, tmp_path, steps)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=interleavings(7, 24))
def test_interleaved_states_of_one_attention(tmp_path: Path, steps: list[tuple[int, Step]]) -> None:
    with Runtime.get().load_program(attention()) as program, program.load_method("forward") as method:
        check_interleaved(method, tmp_path, steps)


def check_interleaved(method: Method, folder: Path, steps: list[tuple[int, Step]]) -> None:
    numbers = sorted({number for number, _ in steps})
    states = {number: method.new_state() for number in numbers}
    together = [run(method, states[number], tokens_of(number, step), step[1]) for number, step in steps]
    for number in numbers:
        alone = method.new_state()
        for (who, step), got in zip(steps, together, strict=True):
            if who == number:
                np.testing.assert_array_equal(run(method, alone, tokens_of(number, step), step[1]), got)
                length = sum(step)
        assert states[number].length == alone.length == length
        assert saved(states[number], folder / "together") == saved(alone, folder / "alone")
        alone.close()
        states[number].close()


def test_without_a_state_a_method_uses_its_own(llama: Method) -> None:
    llama.reset()
    other = llama.new_state()
    first = run(llama, None, [1, 2, 3], 0)
    assert (llama.state.length, other.length) == (3, 0)
    np.testing.assert_array_equal(run(llama, other, [1, 2, 3], 0), first)
    went_on = run(llama, llama.state, [4], 3)
    assert (llama.state.length, other.length) == (4, 3)
    np.testing.assert_array_equal(run(llama, other, [4], 3), went_on)
    llama.reset()
    assert (llama.state.length, other.length) == (0, 4)
    other.close()


# -- what a refusal leaves --------------------------------------------------------------------------------------------


def test_a_refused_step_changes_no_state(llama: Method, tmp_path: Path) -> None:
    one, two = llama.new_state(), llama.new_state()
    for state in (one, two):
        run(llama, state, [1, 2, 3], 0)
    before = [saved(state, tmp_path / "state") for state in (one, two)]
    for tokens, position in (([1], CONTEXT), ([1] * ROWS, CONTEXT - ROWS + 1), ([1], -1), ([512], 3), ([-1], 3)):
        with pytest.raises(InvalidInputError):
            run(llama, one, tokens, position)
    with pytest.raises(InvalidInputError):
        llama.execute([np.array([[1]])], state=one)
    assert [saved(state, tmp_path / "state") for state in (one, two)] == before
    np.testing.assert_array_equal(run(llama, one, [4], 3), run(llama, two, [4], 3))
    one.close()
    two.close()


def test_states_of_other_methods_are_refused(llama: Method) -> None:
    with Runtime.get().load_program(attention()) as program:
        one, two = program.load_method("forward"), program.load_method("forward")
        for foreign in (two.state, two.new_state(), llama.state):
            with pytest.raises(InvalidInputError, match="another loaded method"):
                run(one, foreign, [1], 0)
        with pytest.raises(InvalidInputError, match="new_state"):
            one.execute([np.array([[1]]), np.array([0])], state="state")  # type: ignore[arg-type]
        assert one.state.length == two.state.length == 0


def two_delegates() -> bytes:
    """Two calls with a cache each, of 8 and of 6 rows, for the same row [1, 1, 2, 4] and position."""
    blobs: list[bytes] = []
    plans: list[schema.ExecutionPlan] = []
    for capacity in (8, 6):
        build = GraphBuilder()
        row, position = build.input((1, 1, 2, 4)), build.live()
        cache = build.constant(np.zeros((1, capacity, 2, 4), np.float32))
        build.call("update_cache.default", row, cache, position, build.tensor((1,)))
        build.output(build.call("aten.clone.default", cache, None, build.tensor((1, capacity, 2, 4))))
        blobs.append(write_vkgraph(build.build(), [a.tobytes() for a in build.constants]))
        plans.append(delegate_plan(build, ["float32", "int64", "float32"], segment=len(plans)))
    one, two = plans
    calls = tuple(schema.Instruction(schema.DelegateCall(i, (0, 1, 2 + i))) for i in range(2))
    plan = replace(
        one,
        values=(*one.values, two.values[2]),
        outputs=(2, 3),
        chains=(schema.Chain(instructions=calls),),
        delegates=(*one.delegates, *two.delegates),
    )
    return write_program(schema.Program(execution_plan=(plan,)), blobs)


def test_several_delegates(tmp_path: Path) -> None:
    row = rng.normal(size=(1, 1, 2, 4)).astype(np.float32)
    with Runtime.get().load_program(two_delegates()) as program, program.load_method("forward") as method:
        one, two = method.new_state(), method.new_state()
        for position in range(3):
            method.execute([row * position, np.array([position])], state=one)
            caches = method.execute([row, np.array([position])], state=two)
        for cache in caches:
            np.testing.assert_array_equal(cache[:, :3], row.repeat(3, axis=1))
            assert not cache[:, 3:].any()
        before = saved(one, tmp_path / "before")
        with pytest.raises(InvalidInputError):
            method.execute([row, np.array([7])], state=one)  # the first delegate takes it, the second does not
        assert one.length == 3
        assert saved(one, tmp_path / "after") == before
        caches = method.execute([row * 2, np.array([2])], state=one)
        assert not caches[0][:, 3:].any()
        one.rewind(1)
        one.save(tmp_path / "one")
        again = method.load_state(tmp_path / "one")
        for got, wanted in zip(
            method.execute([row, np.array([1])], state=again),
            method.execute([row, np.array([1])], state=one),
            strict=True,
        ):
            np.testing.assert_array_equal(got, wanted)


# -- rewind and reset -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 20), steps=st.lists(st.integers(1, 7), min_size=1, max_size=4), nonzero=st.booleans())
def test_a_rewound_state_is_one_that_saw_only_those_tokens(
    tmp_path: Path, length: int, steps: list[int], nonzero: bool
) -> None:
    initial = np.linspace(-1, 1, 24 * 8, dtype=np.float32).reshape(1, 24, 2, 4) if nonzero else None
    with Runtime.get().load_program(attention(initial)) as program, program.load_method("forward") as method:
        rewound, fresh = method.new_state(), method.new_state()
        text = [int(t) for t in rng.integers(0, 99, 24)]
        for step in steps:
            if rewound.length + step <= 24:
                run(method, rewound, text[rewound.length : rewound.length + step], rewound.length)
        if length > rewound.length:
            with pytest.raises(InvalidInputError, match=f"holds {rewound.length} tokens"):
                rewound.rewind(length)
            return
        rewound.rewind(length)
        for position in range(length):
            run(method, fresh, [text[position]], position)
        assert rewound.length == length
        assert saved(rewound, tmp_path / "rewound") == saved(fresh, tmp_path / "fresh")
        for i in range(2):  # all rows of it, not only those that a file has
            (one, two) = (graph.read(24) for state in (rewound, fresh) for graph in state._graphs)
            np.testing.assert_array_equal(list(one.values())[i], list(two.values())[i])
        np.testing.assert_array_equal(run(method, rewound, [98, 97], length), run(method, fresh, [98, 97], length))


def test_a_llama_goes_on_from_where_it_was_rewound_to(llama: Method, tmp_path: Path) -> None:
    state, wanted = llama.new_state(), llama.new_state()
    for one in (state, wanted):
        run(llama, one, list(range(10)), 0)
        run(llama, one, [11], 10)
    expected = run(llama, wanted, [12, 13, 14], 11)
    for tokens in ([1], [2, 3, 4, 5, 6], list(range(ROWS))):
        run(llama, state, tokens, 11)
        state.rewind(11)
    np.testing.assert_array_equal(run(llama, state, [12, 13, 14], 11), expected)
    assert saved(state, tmp_path / "one") == saved(wanted, tmp_path / "two")
    state.reset()
    assert saved(state, tmp_path / "one") == saved(llama.new_state(), tmp_path / "two")


def test_rows_behind_an_earlier_write_are_forgotten_and_saved_too(llama: Method, tmp_path: Path) -> None:
    """A step at an earlier position leaves the rows behind it: they are no tokens, but they are there."""
    state = llama.new_state()
    run(llama, state, list(range(12)), 0)
    run(llama, state, [5], 4)
    assert state.length == 5
    state.save(tmp_path / "state")
    loaded = llama.load_state(tmp_path / "state")
    assert loaded.length == 5
    np.testing.assert_array_equal(run(llama, loaded, [7], 11), run(llama, state, [7], 11))
    state.rewind(5)
    fresh = llama.new_state()
    run(llama, fresh, list(range(12)), 0)
    fresh.rewind(4)
    run(llama, fresh, [5], 4)
    assert saved(state, tmp_path / "one") == saved(fresh, tmp_path / "two")


@pytest.mark.parametrize("length", [-1, 1.0, True, "1", None, 4])
def test_lengths_that_nothing_rewinds_to(llama: Method, length: object) -> None:
    state = llama.new_state()
    run(llama, state, [1, 2, 3], 0)
    with pytest.raises(InvalidInputError):
        state.rewind(length)  # type: ignore[arg-type]
    assert state.length == 3
    state.rewind(cast(int, np.int64(2)))
    assert state.length == 2
    state.close()


def test_caches_that_are_not_written_alike_cannot_be_rewound() -> None:
    build = GraphBuilder()
    row, position = build.input((1, 1, 2, 4)), build.live()
    for start in (position, 3):
        cache = build.constant(np.zeros((1, 8, 2, 4), np.float32))
        build.call("update_cache.default", row, cache, start, build.tensor((1,)))
        build.output(build.call("aten.clone.default", cache, None, build.tensor((1, 8, 2, 4))))
    data = write_delegated(build, ["float32", "int64", "float32", "float32"])
    with Runtime.get().load_program(data) as program, program.load_method("forward") as method:
        method.execute([np.ones((1, 1, 2, 4), np.float32), np.array([3])])
        method.state.rewind(4)
        method.execute([np.ones((1, 1, 2, 4), np.float32), np.array([6])])
        assert method.state.length == 7
        with pytest.raises(UnsupportedProgramError, match="cannot be rewound"):
            method.state.rewind(3)
        method.reset()
        method.state.rewind(0)


# -- other memory -----------------------------------------------------------------------------------------------------


def accumulating() -> bytes:
    """A sum that the delegate writes in place, and answers with."""
    build = GraphBuilder()
    x, total = build.input((3,)), build.constant(np.linspace(1, 2, 3, dtype=np.float32))
    build.call("aten.add.Tensor", total, x, 1, total)
    build.output(build.call("aten.clone.default", total, None, build.tensor((3,))))
    return write_delegated(build, ["float32", "float32"])


@pytest.mark.parametrize("where", ["host", "delegate"])
def test_memory_that_is_no_cache(where: str, tmp_path: Path) -> None:
    data = accumulating() if where == "delegate" else export(Counter(), torch.ones(3))
    xs = [rng.normal(size=3).astype(np.float32) for _ in range(4)]
    with Runtime.get().load_program(data) as program:
        method, alone = program.load_method("forward"), program.load_method("forward")
        wanted = [alone.execute([x])[0] for x in xs]
        one, two = method.new_state(), method.new_state()
        for x, expected in zip(xs[:2], wanted, strict=False):
            np.testing.assert_array_equal(method.execute([x], state=one)[0], expected)
            method.execute([x * 5], state=two)
            method.execute([x * 7])
        assert one.length == 0
        with pytest.raises(UnsupportedProgramError, match="cannot be rewound"):
            one.rewind(0)
        one.save(tmp_path / "state")
        again = alone.load_state(tmp_path / "state")
        for x, expected in zip(xs[2:], wanted[2:], strict=True):
            np.testing.assert_array_equal(method.execute([x], state=one)[0], expected)
            np.testing.assert_array_equal(alone.execute([x], state=again)[0], expected)
        one.reset()
        np.testing.assert_array_equal(method.execute([xs[0]], state=one)[0], wanted[0])


def test_a_method_that_remembers_nothing(tmp_path: Path) -> None:
    build = GraphBuilder()
    build.output(build.call("aten.sigmoid.default", build.input((3,)), build.tensor((3,))))
    data = write_delegated(build, ["float32", "float32"], constants={"seven": 7})
    with Runtime.get().load_program(data) as program:
        seven = program.load_method("seven")
        with seven.new_state() as state:
            assert seven.execute([], state) == [7]
            state.rewind(0)
            state.save(tmp_path / "state")
        seven.load_state(tmp_path / "state").close()
        with pytest.raises(InvalidInputError, match="method 'seven', not of 'forward'"):
            program.load_method("forward").load_state(tmp_path / "state")


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_loaded_state_goes_on_like_the_saved_one(llama: Method, llama_path: Path, tmp_path: Path) -> None:
    state = llama.new_state()
    run(llama, state, list(range(9)), 0)
    run(llama, state, [17], 9)
    data = saved(state, tmp_path / "state")
    row_bytes = 4 * SHAPES["tiny"].kv_heads * SHAPES["tiny"].head_dim * 2 * SHAPES["tiny"].layers
    assert 10 * row_bytes < len(data) < 10 * row_bytes + 5000
    with (
        Runtime(Runtime.get().device.engine).load_program(llama_path.read_bytes()) as program,
        program.load_method("forward") as method,
    ):
        run(method, None, [50, 51, 52], 20)
        other = method.load_state(str(tmp_path / "state"))
        method.state.load(tmp_path / "state")
        assert other.length == method.state.length == 10
        assert saved(other, tmp_path / "again") == saved(method.state, tmp_path / "third") == data
        for position in range(10, 13):
            expected = run(llama, state, [position], position)
            np.testing.assert_array_equal(run(method, other, [position], position), expected)
            np.testing.assert_array_equal(run(method, None, [position], position), expected)
    assert {file.name for file in tmp_path.iterdir()} == {"state", "again", "third"}


def refused(method: Method, path: Path, message: str) -> None:
    """Loading is refused and changes nothing, neither memory nor a state that was to take it."""
    memory = Runtime.get().device.memory
    run(method, None, [1, 2], 0)
    before = saved(method.state, path.with_name("before"))
    gc.collect()
    held = memory.live_bytes
    for load in (method.state.load, method.load_state):
        with pytest.raises(InvalidInputError, match=message):
            load(path)
    assert memory.live_bytes == held
    assert saved(method.state, path.with_name("before")) == before


def test_states_of_other_programs_are_refused(tmp_path: Path) -> None:
    with (
        Runtime.get().load_program(attention(seed=0)) as program,
        Runtime.get().load_program(attention(seed=1)) as other,
    ):
        method, foreign = program.load_method("forward"), other.load_method("forward")
        foreign.state.save(tmp_path / "foreign")
        refused(method, tmp_path / "foreign", "another program")
        again = Runtime.get().load_program(attention(seed=0)).load_method("forward")
        again.state.save(tmp_path / "same")
        method.state.load(tmp_path / "same")


def test_a_changed_weight_is_another_program(llama_path: Path, llama: Method, tmp_path: Path) -> None:
    """One bit of the file's last constant."""
    data = bytearray(llama_path.read_bytes())
    data[-100] ^= 1
    llama.state.save(tmp_path / "state")
    with Runtime.get().load_program(bytes(data)) as program:
        refused(program.load_method("forward"), tmp_path / "state", "another program")


def test_files_that_are_no_states(llama: Method, tmp_path: Path) -> None:
    refused(llama, tmp_path / "missing", "missing.*No such file")
    refused(llama, tmp_path, "cannot read the state")
    (tmp_path / "text").write_text("no state, but text")
    np.savez((tmp_path / "arrays").open("wb"), x=np.zeros(3))
    np.savez((tmp_path / "pickle").open("wb"), about=np.array([{}], object))
    for name in ("text", "arrays", "pickle"):
        refused(llama, tmp_path / name, "damaged, or no saved state")
    (tmp_path / "empty").touch()
    refused(llama, tmp_path / "empty", "damaged")


def altered(source: Path, target: Path, **arrays: np.ndarray | None) -> None:
    """Another file with whole checksums, and other arrays in it."""
    with np.load(source) as old:
        contents = {**old, **arrays}
    np.savez(target.open("wb"), **{name: array for name, array in contents.items() if array is not None})


def test_whole_files_with_the_wrong_contents(llama: Method, tmp_path: Path) -> None:
    state, good = llama.new_state(), tmp_path / "good"
    run(llama, state, [1, 2, 3], 0)
    state.save(good)
    with np.load(good) as arrays:
        about = str(arrays["about"])
        name = next(name for name in arrays if name != "about")
        array = arrays[name]
    bad = tmp_path / "bad"
    for change in (
        {name: array[:, :2]},
        {name: array.astype(np.int32)},
        {name: None},
        {"more": array},
        {"about": None},
        {"about": np.array("[]")},
        {"about": np.array(about.replace('"length": 3', '"length": 4'))},
        {"about": np.array(about.replace('"length": 3', '"length": "3"'))},
        {"about": np.array(about.replace('"extent": 3', '"extent": 4'))},
    ):
        altered(good, bad, **change)
        refused(llama, bad, "damaged, or no saved state")
    altered(good, bad, about=np.array(about.replace('"format": 2', '"format": 1')))
    refused(llama, bad, "format 1 .*reads 2")


@pytest.fixture(scope="module")
def small() -> Iterator[Method]:
    with Runtime.get().load_program(attention()) as program, program.load_method("forward") as method:
        run(method, None, [1, 2, 3], 0)
        yield method


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_damage_is_refused_or_harmless(small: Method, tmp_path: Path, draw: st.DataObject) -> None:
    good = saved(small.state, tmp_path / "good")
    data = bytearray(good)
    for _ in range(draw.draw(st.integers(0, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    (tmp_path / "bad").write_bytes(data[:cut])
    try:
        loaded = small.load_state(tmp_path / "bad")
    except InvalidInputError:
        assert data[:cut] != good
        return
    assert saved(loaded, tmp_path / "loaded") == good
    loaded.close()


def test_what_cannot_be_written_leaves_the_older_file(llama: Method, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        llama.state.save(tmp_path / "nowhere" / "state")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        llama.state.save(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


# -- memory -----------------------------------------------------------------------------------------------------------


def load(path: Path) -> tuple[Program, Method]:
    program = Runtime.get().load_program(path)
    return program, program.load_method("forward")


def test_a_state_costs_its_mutable_bytes_until_it_is_closed(llama_path: Path) -> None:
    memory = Runtime.get().device.memory
    gc.collect()
    at_first = memory.live_bytes
    program, method = load(llama_path)
    shape = SHAPES["tiny"]
    steps = ((ROWS, 0), (1, ROWS), (3, ROWS + 1))
    for tokens, position in steps:  # so that all routes have their scratch memory
        run(method, None, [1] * tokens, position)
    before = memory.live_bytes
    state = method.new_state()
    assert memory.live_bytes - before == 2 * shape.layers * CONTEXT * shape.kv_heads * shape.head_dim * 4
    for tokens, position in steps:
        run(method, state, [1] * tokens, position)
    state.close()
    state.close()
    assert memory.live_bytes == before
    for use in (state.reset, lambda: state.rewind(0), lambda: state.save("x"), lambda: state.load("x")):
        with pytest.raises(ClosedError, match="state is closed"):
            use()
    with pytest.raises(ClosedError, match="state is closed"):
        run(method, state, [1], 0)
    with pytest.raises(ClosedError):
        _ = state.length
    run(method, None, [1], ROWS)

    forgotten = method.new_state()
    run(method, forgotten, [1], 0)
    del forgotten
    gc.collect()
    assert memory.live_bytes == before

    kept = method.new_state()
    program.close()
    assert memory.live_bytes == at_first
    uses: list[Callable[[], object]] = [kept.reset, method.new_state, lambda: method.load_state("x"), method.reset]
    for refused in uses:
        with pytest.raises(ClosedError):
            refused()


def test_many_states_one_after_the_other_leave_nothing(llama: Method, tmp_path: Path) -> None:
    device = Runtime.get().device
    llama.state.save(tmp_path / "state")

    def one(number: int) -> None:
        with llama.load_state(tmp_path / "state") if number % 3 == 0 else llama.new_state() as state:
            run(llama, state, [number % 99] * (1 + number % 2), 0)

    for number in range(6):
        one(number)
    gc.collect()
    before = (device.memory.live_bytes, device.memory.live_buffers, device.kernels.stats())
    (executor,) = llama._executors
    assert isinstance(executor, GraphExecutor)
    groups = len(executor._groups)
    for number in range(200):
        one(number)
    gc.collect()
    assert (device.memory.live_bytes, device.memory.live_buffers, device.kernels.stats()) == before
    assert len(executor._groups) == groups
    assert len(executor._states) == len(llama._states) == 1


def test_a_step_in_flight_survives_the_end_of_other_states(llama: Method) -> None:
    """Bind groups that name the buffers of a closed state must not be in any later submission."""
    outs = []
    for _ in range(3):
        keep, other = llama.new_state(), llama.new_state()
        run(llama, other, list(range(ROWS)), 0)
        run(llama, keep, list(range(4)), 0)
        other.close()
        outs.append([run(llama, keep, [4], 4), run(llama, keep, list(range(ROWS)), 5), run(llama, None, [1], 0)])
        keep.close()
    for later in outs[1:]:
        for got, wanted in zip(later, outs[0], strict=True):
            np.testing.assert_array_equal(got, wanted)

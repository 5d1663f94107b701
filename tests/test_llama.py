"""Exported llamas against torch eager: the whole way from a stock .pte to logits."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu import InvalidInputError, Method, Program, Runtime
from executorch_webgpu.format.pte import open_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.values import Tensor
from tests.conftest import SmolLM2
from tests.models.eager import EagerLlama
from tests.models.tiny_llama import TinyLlama
from tests.ops.harness import assert_close

# Prefill, several tokens, single tokens, several again; 32 is the most at once, 64 the context.
TURNS = ([17, 4, 301, 77, 5, 5, 260, 11, 42, 90, 8, 133, 2], [9, 250, 31, 7], [64], [65], [1], [3, 88, 5, 5, 5, 12, 40])


def step(method: Method, tokens: Sequence[int], position: int) -> np.ndarray:
    (logits,) = method.execute([np.array([tokens], np.int64), np.array([position], np.int64)])
    return logits


def turns(method: Method, parts: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Logits after each part, every part beginning where the one before ended."""
    starts = np.cumsum([0, *map(len, parts)])
    return [step(method, part, int(start)) for part, start in zip(parts, starts, strict=False)]


def greedy(method: Method, prompt: Sequence[int], count: int) -> list[int]:
    logits = step(method, prompt, 0)
    tokens = [int(logits.argmax())]
    while len(tokens) < count:
        tokens.append(int(step(method, tokens[-1:], len(prompt) + len(tokens) - 1).argmax()))
    return tokens


@pytest.fixture(scope="module")
def tiny(tiny_llama: TinyLlama) -> Program:
    return Runtime.get().load_program(tiny_llama.program)


def test_turns_agree_with_torch(tiny: Program, tiny_eager: EagerLlama) -> None:
    with tiny.load_method("forward") as method:
        for got, expected in zip(turns(method, TURNS), tiny_eager.turns(TURNS), strict=True):
            assert_close(got, expected)


def test_every_split_gives_the_same_logits(tiny: Program, tiny_eager: EagerLlama) -> None:
    tokens = [t for part in TURNS for t in part]
    expected = tiny_eager.turns([tokens[:30], tokens[30:]] if len(tokens) > 31 else [tokens])[-1]
    splits = ([1] * len(tokens), [len(tokens)], [7, 1, 13, len(tokens) - 21], [2, len(tokens) - 2])
    with tiny.load_method("forward") as method:
        for sizes in splits:
            bounds = np.cumsum([0, *sizes])
            parts = [tokens[a:b] for a, b in itertools.pairwise(bounds)]
            method.reset()
            assert_close(turns(method, parts)[-1], expected)


def test_every_live_length(tiny: Program, tiny_eager: EagerLlama) -> None:
    """One loaded method, lengths up and down, each at another position of a carried cache."""
    random = np.random.default_rng(0)
    tiny_eager.reset()
    with tiny.load_method("forward") as method:
        most = method.metadata.inputs[0].max_dims[1]
        for length in [*random.permutation(most)[:12] + 1, most, 1, most]:
            tokens = random.integers(0, 500, length).tolist()
            position = int(random.integers(0, 64 - length + 1))
            assert_close(step(method, tokens, position), tiny_eager.logits(tokens, position))


def test_a_pinned_position_diverges(tiny: Program, tiny_eager: EagerLlama) -> None:
    """Negative control: without the live input_pos, the same comparison must fail."""
    expected = tiny_eager.turns(TURNS)[-1]
    with tiny.load_method("forward") as method:
        pinned = [step(method, part, 0) for part in TURNS][-1]
    assert np.abs(pinned - expected).max() > 1e-2


def test_a_fresh_method_for_each_step_diverges(tiny: Program, tiny_eager: EagerLlama) -> None:
    """Negative control: the cache in the graph is what carries the context."""
    expected = tiny_eager.turns(TURNS)[-1]
    position = sum(map(len, TURNS[:-1]))
    with tiny.load_method("forward") as method:
        alone = step(method, TURNS[-1], position)
    assert np.abs(alone - expected).max() > 1e-2


def test_two_methods_interleaved_do_not_disturb_each_other(tiny: Program) -> None:
    with tiny.load_method("forward") as one, tiny.load_method("forward") as two:
        alone = [turns(one, TURNS), turns(one, TURNS[::-1])]
        one.reset()
        positions = [0, 0]
        for i, parts in enumerate(zip(TURNS, TURNS[::-1], strict=True)):
            for j, (method, part) in enumerate(zip((one, two), parts, strict=True)):
                np.testing.assert_array_equal(step(method, part, positions[j]), alone[j][i])
                positions[j] += len(part)


def test_positions_at_and_past_the_end_of_the_context(tiny: Program, tiny_eager: EagerLlama) -> None:
    with tiny.load_method("forward") as method:
        filled = [list(range(20)), list(range(20, 40)), list(range(40, 63)), [9]]
        expected = tiny_eager.turns(filled)
        for got, wanted in zip(turns(method, filled), expected, strict=True):
            assert_close(got, wanted)
        for tokens, position in (([1], 64), ([1, 2], 63), ([1], -1), (list(range(31)), 40)):
            with pytest.raises(InvalidInputError, match="input_pos"):
                step(method, tokens, position)
        assert_close(step(method, [9], 63), expected[-1])  # nothing of the refused steps was written


def test_a_token_outside_the_vocabulary(tiny: Program) -> None:
    with tiny.load_method("forward") as method:
        for token in (-1, 10**6):
            with pytest.raises(InvalidInputError, match="vocabulary"):
                step(method, [token], 0)


def test_steps_repeat_bit_for_bit(tiny: Program) -> None:
    with tiny.load_method("forward") as method:
        first = turns(method, TURNS)
        method.reset()
        for a, b in zip(first, turns(method, TURNS), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("tiny_llama", ["4w"], indirect=True)
def test_nothing_grows_over_a_thousand_steps(tiny: Program) -> None:
    memory, kernels = Runtime.get().device.memory, Runtime.get().device.kernels

    def sizes() -> tuple[int, int, object]:
        return memory.live_bytes, memory.live_buffers, kernels.stats()

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    with tiny.load_method("forward") as method:

        def run(steps: int) -> None:
            for i in range(steps):
                step(method, [i % 500] * (1 if i % 10 else 1 + i % 31), i % 30)

        run(930)  # all sizes and places, whose last plans are kept, and then all of them again
        objects_before, before = objects(), sizes()
        run(930)
        assert sizes() == before
        assert objects() - objects_before < 500, "at least one object in two steps is kept"


# -- the real model ---------------------------------------------------------------------------------------------------

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees",
)

# Float32 sums over 30 layers, in another order than torch's.
REAL_ABSOLUTE, REAL_RELATIVE = 5e-3, 1e-3


@pytest.fixture(scope="module")
def smollm2_forward(smollm2: SmolLM2) -> Method:
    return Runtime.get().load_program(smollm2.program).load_method("forward")


@pytest.fixture(scope="module")
def encode(smollm2: SmolLM2) -> Callable[[str], list[int]]:
    from executorch_webgpu.text.tokenizer import Tokenizer

    return Tokenizer.from_file(smollm2.gguf).encode


def test_the_real_model_agrees_with_torch(smollm2_forward: Method, smollm2_eager: EagerLlama) -> None:
    random = np.random.default_rng(3)
    parts = [random.integers(100, 40000, n).tolist() for n in (37, 1, 1, 8, 1)]
    smollm2_forward.reset()
    for got, expected in zip(turns(smollm2_forward, parts), smollm2_eager.turns(parts), strict=True):
        assert_close(got, expected, REAL_ABSOLUTE, REAL_RELATIVE)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_real_model_continues_like_torch(
    smollm2_forward: Method, smollm2_eager: EagerLlama, encode: Callable[[str], list[int]], prompt: str
) -> None:
    tokens = encode(prompt)
    smollm2_forward.reset()
    assert greedy(smollm2_forward, tokens, 24) == smollm2_eager.greedy(tokens, 24)


def test_the_real_model_continues_as_it_does_call_by_call(
    smollm2: SmolLM2, smollm2_forward: Method, encode: Callable[[str], list[int]]
) -> None:
    """With every fusion, and with none: the same text from a third of the calls."""
    with (
        Runtime.get().load_program(smollm2.program) as program,
        program.load_method("forward", fuse=False) as plain,
        program.load_method("forward", profile=True) as profiled,
    ):
        for prompt in PROMPTS[:2]:
            for method in (plain, smollm2_forward):
                method.reset()
            assert greedy(smollm2_forward, encode(prompt), 12) == greedy(plain, encode(prompt), 12)
        step(profiled, [1], 0)
        # Four linear layers and attention in each of 30 layers, the head, the embedding, the choice of the last row.
        assert sum(row.calls for row in profiled.profile()) == 30 * 5 + 3


@pytest.mark.parametrize("position", [0, 900])
def test_a_decode_step_of_the_real_model_is_few_dispatches(smollm2: SmolLM2, position: int) -> None:
    """As planned for the smallest device that is no CPU, whose adapter the test does not need."""
    _, file = open_program(smollm2.program)
    (plan,) = (plan for plan in file.methods if plan.name == "forward")
    source = read_vkgraph(file.delegate_data(plan.delegates[0]), file.named_data)
    graph, _ = fuse_graph(build_graph(source), FUSIONS)
    plans = plan_graph(graph, Planning(Features.none(), Limits.floor()))
    for value, number in zip(graph.inputs, (17, position), strict=True):
        assert isinstance(value, Tensor)
        dims = (1,) * len(value.max_dims)
        plans.set_dims(value, dims)
        plans.set_host(value, np.full(dims, number, np.int32))
    plans.update()
    assert sum(len(plan.dispatches) for plan in plans.plans) <= 260


def test_the_real_program_is_what_the_exporter_made(smollm2: SmolLM2) -> None:
    report = Runtime.get().load_program(Path(smollm2.program)).inspect()
    forward = next(m for m in report.methods if m.name == "forward")
    assert all(o.supported for o in forward.operators)
    assert {o.name: o.count for o in forward.operators}["sdpa_with_kv_cache.default"] == 30
    assert sum(o.count for o in forward.operators) == 734
    assert str(forward.inputs[0]) == "int64[1, ≤511]"

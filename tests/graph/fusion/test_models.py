"""Whole language models: fused, they answer as they do call by call, whatever their layers are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import Method, Program, Runtime, State
from executorch_webgpu.format.pte import open_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.fusion import FUSIONS, fuse_graph
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions
from tests.models.tiny_llama import TinyLlama
from tests.ops.harness import assert_close

from .graphs import FUSED_LINEAR, names

MOST, CONTEXT, VOCAB = 12, 40, 512
TINY = SHAPES["tiny"]
TURNS = (
    (7, 0),
    (1, 7),
    (1, 8),
    (3, 9),
    (1, 12),
    (12, 13),
    (1, 25),
    (2, 4),
    (1, 6),
)  # tokens, position; the last rewind
OPTIONS = LlamaOptions("q4gsw", head="q8csw", max_seq_len=MOST + 1, max_context_len=CONTEXT)


def step(method: Method, tokens: int, position: int, state: State | None = None) -> np.ndarray:
    ids = np.random.default_rng([tokens, abs(position)]).integers(0, VOCAB, (1, tokens))
    (logits,) = method.execute([ids, np.array([position])], state)
    return logits


def written(folder: Path, config: LlamaConfig, options: LlamaOptions) -> Path:
    write_llama(folder / "model.pte", config, options)
    return folder / "model.pte"


def graph_of(path: Path) -> Graph:
    _, file = open_program(path)
    (plan,) = (plan for plan in file.methods if plan.name == "forward")
    return build_graph(read_vkgraph(file.delegate_data(plan.delegates[0]), file.named_data))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Runtime.get().load_program(written(tmp_path_factory.mktemp("tiny"), TINY, OPTIONS)) as program:
        yield program


def check(program: Program, fuse: Any = True, turns: Sequence[tuple[int, int]] = TURNS, **loading: Any) -> None:
    with (
        program.load_method("forward", fuse=False, **loading) as plain,
        program.load_method("forward", fuse=fuse, **loading) as fused,
    ):
        for tokens, position in turns:
            expected = step(plain, tokens, position)
            assert_close(step(fused, tokens, position), expected, 2e-4)
            assert plain.state.length == fused.state.length == position + tokens


# Qwen2.5 has biases, Qwen3 norms of heads; Llama has neither. Heads are in groups or not, the head is tied or not.
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    heads=st.sampled_from([(4, 4), (4, 2), (6, 2), (6, 1)]),
    kind=st.sampled_from(["llama", "bias", "norm"]),
    interleaved=st.booleans(),
    tied=st.booleans(),
    weights=st.sampled_from(["f32", "q4gsw", "q8csw", "native"]),
    full_logits=st.booleans(),
)
def test_random_models(
    tmp_path_factory: pytest.TempPathFactory,
    heads: tuple[int, int],
    kind: str,
    interleaved: bool,
    tied: bool,
    weights: Any,
    full_logits: bool,
) -> None:
    config = replace(
        TINY,
        layers=1,
        heads=heads[0],
        kv_heads=heads[1],
        tied_head=tied,
        qkv_bias=kind == "bias",
        qk_norm=kind == "norm",
        rope_interleaved=interleaved,
    )
    options = LlamaOptions(weights, max_seq_len=MOST + 1, max_context_len=CONTEXT, full_logits=full_logits)
    path = written(tmp_path_factory.mktemp("random"), config, options)
    with Runtime.get().load_program(path) as program:
        check(program)
    graph, _ = fuse_graph(graph_of(path), FUSIONS)
    # Query, key and value; output; gate and up; down; head.
    assert names(graph)[FUSED_LINEAR] == 5
    assert names(graph)["et_webgpu.rope_sdpa_with_kv_cache.default"] == 1
    assert names(graph)["et_vk.rms_norm.default"] == (2 if kind == "norm" else 0)


@pytest.mark.parametrize("name", FUSIONS)
def test_each_pass_alone(tiny: Program, name: str) -> None:
    check(tiny, [name])


@pytest.mark.parametrize("name", FUSIONS)
def test_all_passes_but_one(tiny: Program, name: str) -> None:
    check(tiny, set(FUSIONS) - {name}, TURNS[:4])


@pytest.mark.parametrize("dtype", ["f16", "int8"])
def test_small_caches(tiny: Program, dtype: str) -> None:
    """Both round what they store; how a number halfway between two codes is rounded may differ."""
    with (
        tiny.load_method("forward", fuse=False, kv_cache_dtype=dtype) as plain,
        tiny.load_method("forward", kv_cache_dtype=dtype) as fused,
    ):
        for tokens, position in TURNS:
            assert_close(
                step(fused, tokens, position), step(plain, tokens, position), 1e-2 if dtype == "int8" else 1e-3
            )


@pytest.mark.parametrize("tiny_llama", ["fp32", "4w", "4w-embedding"], indirect=True)
def test_stock_exports(tiny_llama: TinyLlama) -> None:
    with Runtime.get().load_program(tiny_llama.program) as program:
        check(program)
    before = graph_of(tiny_llama.program)
    graph, reports = fuse_graph(before, FUSIONS)
    layers = tiny_llama.geometry.n_layers
    assert names(graph)[FUSED_LINEAR] == 4 * layers + 1
    assert [report.before for report in reports[1:]] == [report.after for report in reports[:-1]]
    assert (reports[0].before, reports[-1].after) == (len(before.calls), len(graph.calls))
    # Embedding, select, tables and live integers, and a layer's views of heads.
    assert len(graph.calls) <= 9 * layers + 8


# -- states -----------------------------------------------------------------------------------------------------------


def test_states_are_kept_apart_and_rewound(tiny: Program) -> None:
    with tiny.load_method("forward") as method, method.new_state() as other:
        alone = [step(method, *turn) for turn in TURNS[:5]]
        method.reset()
        for turn, expected in zip(TURNS[:5], alone, strict=True):
            step(method, 5, 0, other)
            np.testing.assert_array_equal(step(method, *turn), expected)
        method.state.rewind(9)
        assert method.state.length == 9
        np.testing.assert_array_equal(step(method, *TURNS[3]), alone[3])


def test_a_state_of_the_unfused_program_goes_on_in_the_fused_one(tiny: Program, tmp_path: Path) -> None:
    with tiny.load_method("forward", fuse=False) as plain, tiny.load_method("forward") as fused:
        for tokens, position in TURNS[:3]:
            step(plain, tokens, position)
        plain.state.save(tmp_path / "state.npz")
        with fused.load_state(tmp_path / "state.npz") as state:
            assert state.length == 9
            assert_close(step(fused, 3, 9, state), step(plain, 3, 9), 2e-4)


def test_a_refused_step_changes_nothing(tiny: Program) -> None:
    with tiny.load_method("forward") as method:
        step(method, 12, 0)
        expected = step(method, 1, 12)
        for tokens, position in ((1, CONTEXT), (12, CONTEXT - 3), (2, -1)):
            with pytest.raises(Exception, match="input_pos"):
                step(method, tokens, position)
        np.testing.assert_array_equal(step(method, 1, 12), expected)

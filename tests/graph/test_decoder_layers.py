"""Decoder layers in one dispatch: what the calls of the layers compute, whatever the shape, and whoever does not come.

Where nothing has to be true of several workgroups at once, there is one: Mesa's CPU driver runs as many as there are
processors, and gives up waiting when these have other work.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.models import write_llama
from executorch_webgpu import InvalidInputError, Method, Runtime
from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.graph.decoder_layers import Run, find_runs
from executorch_webgpu.graph.execute import GraphExecutor, plan_graph
from executorch_webgpu.llm.decode_session import DecodeSession
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions
from executorch_webgpu.models.matrix import WeightFormat
from executorch_webgpu.ops.decoder_layers.persistent import plan as persistent_plan
from executorch_webgpu.ops.decoder_layers.persistent.plan import MOST_WORKGROUPS
from executorch_webgpu.ops.plan import MATMUL_PRECISIONS, Planning
from executorch_webgpu.runtime.graphs import PlannedGraph

ROUTES = {"decoder_layers": "persistent"}
CALLS = {"decoder_layers": "calls"}
CONTEXT = 96
VOCABULARY = 64


def config(**changes: Any) -> LlamaConfig:
    small = LlamaConfig(64, 2, 4, 2, 16, 96, VOCABULARY, CONTEXT, 1e-5, 1e4)
    return replace(small, **changes)


def options(**changes: Any) -> LlamaOptions:
    return LlamaOptions("q4gsw", **{"max_seq_len": 7, "max_context_len": CONTEXT, **changes})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "llama.pte"
    write_llama(path, config(), options())
    return path


def run_of(method: Method) -> Run:
    (executor,) = method._executors
    assert isinstance(executor, GraphExecutor)
    (run,) = executor.plans.runs
    return run


def use(method: Method, workgroups: int) -> None:
    (executor,) = method._executors
    assert isinstance(executor, GraphExecutor)
    executor.plans.use_run(run_of(method), workgroups)


def too_many(method: Method) -> int:
    """Workgroups that do not run at once: Mesa's CPU driver runs one a processor, and no GPU the most that may be."""
    (executor,) = method._executors
    assert isinstance(executor, GraphExecutor)
    return (os.cpu_count() or 1) + 1 if executor.device.features.cpu else MOST_WORKGROUPS


def step(method: Method, tokens: list[int], position: int) -> np.ndarray:
    return method.execute([np.array([tokens]), np.array([position])])[0]


def texts(seed: int) -> list[tuple[list[int], int]]:
    """Steps of one text after another: prompts of some tokens, and then single ones."""
    random = np.random.default_rng(seed)
    steps = []
    for _ in range(2):
        position = 0
        for tokens in (int(random.integers(1, 7)), 1, 1, int(random.integers(2, 7)), 1, 1):
            steps.append((random.integers(0, VOCABULARY, tokens).tolist(), position))
            position += tokens
    return steps


# -- what they compute ------------------------------------------------------------------------------------------------

shapes = st.builds(
    lambda group, kv_heads, head_dim, hidden, ffn, layers: config(
        dim=32 * hidden,
        layers=layers,
        heads=group * kv_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=32 * ffn,
    ),
    st.integers(2, 5),
    st.integers(1, 4),
    st.sampled_from([8, 16, 32]),
    st.integers(1, 7),
    st.integers(1, 9),
    st.integers(1, 3),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(
    shapes,
    st.sampled_from(["q4gsw", "q4gaw", "q8gsw", "q8csw"]),
    st.sampled_from(["f32", "f16"]),
    st.booleans(),
    st.sampled_from([1, 2]),
    st.integers(0, 2**16),
)
def test_shapes(
    own_runtime: Runtime,
    tmp_path_factory: pytest.TempPathFactory,
    shape: LlamaConfig,
    weights: WeightFormat,
    cache: str,
    interleaved: bool,
    workgroups: int,
    seed: int,
) -> None:
    """Against the references in float64: within what the calls one by one are off, and a little.

    A cache of float16 rounds what differs in its last bits to neighbours that are 1e-3 apart.
    """
    if shape.heads * shape.head_dim % 32:
        shape = replace(shape, head_dim=32)
    path = tmp_path_factory.mktemp("program") / "llama.pte"
    write_llama(
        path,
        replace(shape, rope_interleaved=interleaved),
        LlamaOptions(weights, max_seq_len=7, max_context_len=CONTEXT),
        seed=seed,
    )
    reference = Runtime.get(adapter="reference")
    with reference.load_program(path) as exact, own_runtime.load_program(path) as program:
        wanted = exact.load_method("forward", kv_cache_dtype=cache)
        ordinary = program.load_method("forward", kv_cache_dtype=cache, routes=CALLS)
        method = program.load_method("forward", kv_cache_dtype=cache, routes=ROUTES)
        use(method, workgroups)
        for tokens, position in texts(seed):
            outputs = [step(m, tokens, position) for m in (wanted, ordinary, method)]
            largest = np.abs(outputs[0]).max()
            known, found = (np.abs(output - outputs[0]).max() for output in outputs[1:])
            assert found <= 3 * known + (3e-6 if cache == "f32" else 3e-4) * largest


tunings = st.builds(
    replace,
    st.just(persistent_plan.CPU_TUNING),
    size=st.sampled_from([32, 64]),
    unroll=st.integers(1, 8),
    expected=st.integers(1, 4),
    keys=st.sampled_from([1, 2, 4]),
    least_chunk=st.sampled_from([1, 3, 32]),
    merged=st.sampled_from([1, 4, 8]),
    early=st.booleans(),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=4, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(
    tunings,
    st.sampled_from(["q4gsw", "q4gaw", "q8gsw"]),
    st.sampled_from([1100, 1500, 32 << 10]),
    st.sampled_from(MATMUL_PRECISIONS),
    st.integers(0, 2**16),
)
def test_tunings(
    own_runtime: Runtime,
    tmp_path_factory: pytest.TempPathFactory,
    tuning: persistent_plan.Tuning,
    weights: WeightFormat,
    workgroup_bytes: int,
    precision: str,
    seed: int,
) -> None:
    """None of them changes more than the order of sums, nor does x in chunks that fit little workgroup memory."""
    path, device = tmp_path_factory.mktemp("program") / "llama.pte", own_runtime.device
    shape = config(heads=4, kv_heads=2, head_dim=8, dim=352, ffn=416)
    write_llama(path, shape, LlamaOptions(weights, max_seq_len=7, max_context_len=CONTEXT), seed=seed)
    with own_runtime.load_program(path) as program, pytest.MonkeyPatch.context() as patch:
        ordinary = program.load_method("forward", routes=CALLS)
        for name in ("TUNING", "WIDE_TUNING", "CPU_TUNING"):
            patch.setattr(persistent_plan, name, tuning)
        # Kernels that only GPUs choose need what every device has.
        given = workgroup_bytes if device.features.cpu else max(workgroup_bytes, 16 << 10)
        patch.setattr(device, "limits", replace(device.limits, max_workgroup_bytes=given))
        method = program.load_method("forward", routes=ROUTES, matmul_precision=precision)
        assert run_of(method).workgroups
        allowed = 1e-5 if precision == "highest" else 5e-4
        for tokens, position in texts(seed):
            a, b = (step(m, tokens, position) for m in (ordinary, method))
            np.testing.assert_allclose(a, b, rtol=0, atol=allowed * np.abs(a).max())


def test_a_long_context_in_chunks(own_runtime: Runtime, tmp_path: Path) -> None:
    """One KV head whose context several workgroups share, one after the other, and up to the last row."""
    path, context = tmp_path / "llama.pte", 300
    write_llama(
        path, config(heads=3, kv_heads=1, head_dim=32, dim=96, context_len=context), options(max_context_len=context)
    )
    with own_runtime.load_program(path) as program:
        ordinary, method = program.load_method("forward", routes=CALLS), program.load_method("forward", routes=ROUTES)
        tokens = np.random.default_rng(0).integers(0, VOCABULARY, context).tolist()
        for position in range(context):
            a, b = (step(m, tokens[position : position + 1], position) for m in (ordinary, method))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
        with pytest.raises(InvalidInputError, match="the cache has 300 rows"):
            step(method, [1], context)


def test_layers_that_cannot_be_bound_at_once(
    own_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three layers in two dispatches, the second of which begins with what the first has made."""
    write_llama(tmp_path / "llama.pte", config(layers=3, dim=256, ffn=512), options())
    most = replace(own_runtime.device.limits, max_binding_bytes=553_000)  # a layer has 221,184 bytes of weights
    with own_runtime.load_program(tmp_path / "llama.pte") as program:
        ordinary = program.load_method("forward", routes=CALLS)
        monkeypatch.setattr(own_runtime.device, "limits", most)
        method = program.load_method("forward", routes=ROUTES)
        use(method, 1)
        for tokens, position in texts(7):
            a, b = (step(m, tokens, position) for m in (ordinary, method))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
        (executor,) = method._executors
        assert isinstance(executor, GraphExecutor)
        assert len(executor.plans.plans[run_of(method).last].dispatches) == 2


def test_runs_give_the_same_bits(own_runtime: Runtime, path: Path) -> None:
    with own_runtime.load_program(path) as program:
        method = program.load_method("forward", routes=ROUTES)
        use(method, 1)
        results = [[step(method, tokens, position) for tokens, position in texts(3)] for _ in range(3)]
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_states_and_methods_do_not_disturb_each_other(own_runtime: Runtime, path: Path, tmp_path: Path) -> None:
    """Caches are parts of one buffer, and so are constants, whichever method was loaded first."""
    with own_runtime.load_program(path) as program:
        ordinary, method = program.load_method("forward", routes=CALLS), program.load_method("forward", routes=ROUTES)
        use(method, 1)
        wanted = [step(ordinary, tokens, position) for tokens, position in texts(5)]
        with method.new_state() as other:
            for (tokens, position), expected in zip(texts(5), wanted, strict=True):
                found = step(method, tokens, position)
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
                method.execute([np.array([[9]]), np.array([11])], state=other)
            method.state.save(tmp_path / "state")
            other.load(tmp_path / "state")
            tokens, position = texts(5)[-1]
            again = method.execute([np.array([tokens]), np.array([position])], state=other)[0]
            np.testing.assert_array_equal(again, found)
        method.reset()
        first, position = texts(5)[0]
        np.testing.assert_allclose(
            step(method, first, position), wanted[0], rtol=0, atol=1e-5 * np.abs(wanted[0]).max()
        )
        assert own_runtime.device.memory.live_bytes > 0
    assert own_runtime.device.memory.live_bytes == 0


def test_only_parameters_change_from_step_to_step(own_runtime: Runtime, path: Path) -> None:
    """No call is planned again, at no length of the context."""
    with own_runtime.load_program(path) as program, program.load_method("forward", routes=ROUTES) as method:
        use(method, 1)
        (executor,) = method._executors
        assert isinstance(executor, GraphExecutor)
        step(method, [1], 0)
        layers = {index: plan for index, plan in enumerate(executor.plans.plans) if index in run_of(method).calls}
        for position in range(1, CONTEXT):
            step(method, [position % VOCABULARY], position)
        assert {index: executor.plans.plans[index] for index in layers} == layers
        assert sum(len(plan.dispatches) for plan in layers.values()) == 1


# -- workgroups that do not come --------------------------------------------------------------------------------------


@pytest.fixture
def all_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workgroups wait for all others, also for those that layers as small as these leave without work."""
    for name in ("TUNING", "WIDE_TUNING", "CPU_TUNING"):
        monkeypatch.setattr(persistent_plan, name, replace(getattr(persistent_plan, name), throttle=True))


@pytest.fixture
def crowded(own_runtime: Runtime, path: Path, all_meet: None) -> Iterator[Method]:
    """A method whose dispatches want more workgroups than this machine runs at once."""
    with own_runtime.load_program(path) as program, program.load_method("forward", routes=ROUTES) as method:
        use(method, too_many(method))
        yield method


def test_a_step_whose_workgroups_do_not_meet_is_computed_again(
    crowded: Method, own_runtime: Runtime, path: Path
) -> None:
    with own_runtime.load_program(path) as program, program.load_method("forward", routes=CALLS) as ordinary:
        step(crowded, [1, 2, 3], 0), step(ordinary, [1, 2, 3], 0)
        with pytest.warns(UserWarning, match="did not meet"):
            found = step(crowded, [4], 3)
        np.testing.assert_array_equal(found, step(ordinary, [4], 3))
        assert run_of(crowded).workgroups == 0
        np.testing.assert_array_equal(step(crowded, [5], 4), step(ordinary, [5], 4))


@pytest.mark.usefixtures("all_meet")
@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize("prompt", [[3], [1, 2, 3]])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_tokens_in_flight_are_drawn_again(
    own_runtime: Runtime, path: Path, prompt: list[int], ahead: int, penalty: float
) -> None:
    """Workgroups fail to meet in the first step, or after some; the tokens are those of the ordinary route."""
    params = SamplingParams(12, temperature=0.8, seed=4, repetition_penalty=penalty)

    def tokens(model: LanguageModel, fail_after: int | None) -> list[int]:
        found = []
        with DecodeSession(model, params, end_tokens=(), steps_in_flight=ahead) as session:
            if fail_after == 0:
                use(model._forward, too_many(model._forward))
            session.prefill(prompt)
            for token in session:
                found.append(token)
                if len(found) == fail_after:
                    use(model._forward, too_many(model._forward))
        assert len(model.cached_tokens) == model._forward.state.length
        return found

    with own_runtime.load_program(path) as program:
        wanted = tokens(LanguageModel(program, routes=CALLS), None)
        for fail_after in (0, 5):
            model = LanguageModel(program, routes=ROUTES)
            use(model._forward, 0)
            with pytest.warns(UserWarning, match="did not meet"):
                assert tokens(model, fail_after) == wanted
            assert run_of(model._forward).workgroups == 0


def test_a_program_that_keeps_more_than_caches_is_computed_by_its_calls(
    own_runtime: Runtime, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To compute a step of it again would change what it keeps twice."""
    monkeypatch.setattr(GraphExecutor, "keeps_only_caches", property(lambda self: False))
    with own_runtime.load_program(path) as program, program.load_method("forward", routes=ROUTES) as method:
        assert run_of(method).workgroups == 0
        ordinary = program.load_method("forward", routes=CALLS)
        for tokens, position in texts(1):
            np.testing.assert_array_equal(step(method, tokens, position), step(ordinary, tokens, position))


def test_several_workgroups(own_runtime: Runtime, path: Path) -> None:
    """As many as this machine runs at once; where it is busy, it may give up, but not go wrong."""
    with own_runtime.load_program(path) as program:
        ordinary, method = program.load_method("forward", routes=CALLS), program.load_method("forward", routes=ROUTES)
        most, met = run_of(method).workgroups, 0
        assert most >= 1
        for attempt in range(40):
            use(method, most)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                a, b = (step(m, [attempt % VOCABULARY], attempt) for m in (ordinary, method))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
            met += run_of(method).workgroups == most
        assert met


# -- where it is chosen -----------------------------------------------------------------------------------------------


def test_gpus_choose_it_for_small_layers(own_runtime: Runtime, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_runtime.load_program(path) as program:
        (stage,) = program.graphs("forward").stages
    assert isinstance(stage, PlannedGraph)
    device = own_runtime.device
    gpu = replace(device.features, subgroups=True, subgroup_min_size=32, subgroup_max_size=32, cpu=False)

    def chosen(features: Features, **routes: str) -> bool:
        return bool(plan_graph(stage.graph, Planning(features, device.limits, routes)).runs)

    assert chosen(gpu) and not chosen(gpu, decoder_layers="calls")
    assert not chosen(replace(gpu, cpu=True))
    assert not chosen(replace(gpu, byte_products=False))
    assert chosen(replace(gpu, byte_products=False), decoder_layers="persistent")
    for limit in ("_LARGEST_LAYER", "_LARGEST_CACHE"):
        with monkeypatch.context() as patch:
            patch.setattr(persistent_plan, limit, 1000)
            assert not chosen(gpu)


@pytest.mark.parametrize("has_room", [True, False])
def test_large_layers_and_long_caches_take_large_workgroups(
    own_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    """Where these have room: eight heads of 64 elements would need 35 KB."""
    heads = {} if has_room else {"heads": 8, "kv_heads": 1, "head_dim": 64}
    write_llama(tmp_path / "llama.pte", config(**heads), options())
    with own_runtime.load_program(tmp_path / "llama.pte") as program:
        (stage,) = program.graphs("forward").stages
    assert isinstance(stage, PlannedGraph)
    device = own_runtime.device
    gpu = replace(device.features, subgroups=True, subgroup_min_size=32, subgroup_max_size=32, cpu=False)

    def chosen(invocations: int = 1024, precision: str = "highest") -> tuple[int, int]:
        limits = replace(device.limits, max_invocations=invocations, max_workgroup_bytes=32 << 10)
        planning = Planning(gpu, limits, matmul_precision=precision)
        (run,) = plan_graph(stage.graph, planning).runs
        (dispatch,) = run.dispatches(planning)
        return dispatch.template["size"], dispatch.template["unroll"]

    assert chosen() == (256, 2)
    for limit, rounded in (("_WIDE_LAYER", (512, 4)), ("_WIDE_CACHE", (512, 2))):
        with monkeypatch.context() as patch:
            patch.setattr(persistent_plan, limit, 1000)
            assert chosen() == ((512, 2) if has_room else (256, 2))
            assert chosen(precision="high") == (rounded if has_room else (256, 2))
            assert chosen(256) == (256, 2)


def test_gpus_compute_layers_of_8_bits_by_calls(own_runtime: Runtime, tmp_path: Path) -> None:
    write_llama(tmp_path / "llama.pte", config(), LlamaOptions("q8gsw", max_seq_len=7, max_context_len=CONTEXT))
    with own_runtime.load_program(tmp_path / "llama.pte") as program:
        (stage,) = program.graphs("forward").stages
    assert isinstance(stage, PlannedGraph)
    device = own_runtime.device
    gpu = replace(device.features, subgroups=True, subgroup_min_size=32, subgroup_max_size=32, cpu=False)
    assert not plan_graph(stage.graph, Planning(gpu, device.limits)).runs
    assert plan_graph(stage.graph, Planning(gpu, device.limits, ROUTES)).runs


def test_other_graphs_read_the_weights_where_they_lie(own_runtime: Runtime, path: Path) -> None:
    """A load that wants single matrices gets parts of the buffer that has those of all layers, and holds it."""
    quads = {"fused_linear": "quads"}  # the repacked weights that this route reads
    with own_runtime.load_program(path) as program:
        with program.load_method("forward", routes=quads | CALLS) as alone:
            wanted = step(alone, [5], 0)
        first = program.load_method("forward", routes=quads | ROUTES)
        constants = program._constant_pool()
        joined = constants.nbytes
        with program.load_method("forward", routes=quads | CALLS) as second:
            assert constants.nbytes == joined
            first.close()
            assert constants.nbytes <= joined
            np.testing.assert_array_equal(step(second, [5], 0), wanted)
        assert constants.nbytes == 0


# -- which calls they are ---------------------------------------------------------------------------------------------


def test_what_others_read_belongs_to_no_run(own_runtime: Runtime, path: Path) -> None:
    """Nothing between two calls of a run is in memory: whoever wants it must be one of them."""
    with own_runtime.load_program(path) as program:
        (stage,) = program.graphs("forward").stages
    assert isinstance(stage, PlannedGraph)
    graph = stage.graph
    (run,) = find_runs(graph)
    assert len(run.layers) == 2
    assert [call.name for call in graph.calls if call.index not in run.calls][-2:] == [
        "aten.select_copy.int",
        "et_webgpu.fused_linear.default",
    ]
    for index in sorted(run.calls):
        for tensor in graph.calls[index].outputs:
            without = find_runs(replace(graph, outputs=(*graph.outputs, tensor)))
            layers = sum(len(each.layers) for each in without)
            last = tensor is graph.calls[run.layers[-1].down].outputs[0]
            between = tensor is graph.calls[run.layers[0].down].outputs[0]
            assert (len(without), layers) == ((1, 2) if last else (2, 2) if between else (1, 1))
            assert all(index not in each.calls for each in without) or last or between


def test_what_does_not_fit_is_refused(own_runtime: Runtime, tmp_path: Path, path: Path) -> None:
    write_llama(tmp_path / "normed.pte", config(qk_norm=True), options())
    with (
        own_runtime.load_program(tmp_path / "normed.pte") as program,
        pytest.raises(InvalidInputError, match="decoder_layers"),
    ):
        program.load_method("forward", routes=ROUTES)
    with own_runtime.load_program(path) as program, pytest.raises(KernelError, match="'persistent' of decoder_layers"):
        program.load_method("forward", kv_cache_dtype="int8", routes=ROUTES)

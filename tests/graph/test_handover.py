"""Rows that a call leaves as float16 to the one that reads them: what comes of it, and when it is not done.

Tensor cores are emulated where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from executorch_webgpu.gpu.buffers import upload
from executorch_webgpu.gpu.capabilities import Limits
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor, plan_graph
from executorch_webgpu.graph.kv_cache import store_kv_caches
from executorch_webgpu.graph.memory import Kind
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.ops.attention.flash_matrix.plan import Tile as AttentionTile
from executorch_webgpu.ops.matmul import gemm_matrix
from executorch_webgpu.ops.matmul.gemm_matrix import Tile
from executorch_webgpu.ops.plan import MATMUL_PRECISIONS, Planning
from tests.graph_builder import GraphBuilder, Ref
from tests.ops.matrix_emulation import TENSOR_CORES, emulate
from tests.ops.samples import matrix_of, numbers_of

Array = np.ndarray
GATE, DOWN = 0, -1  # calls
# Of fewer rows the second one: its steps are longer, and what is left to it lies in another order. Few share tiles.
TUNING = gemm_matrix.Tuning((Tile(2, 2, 2, 2, 16), Tile(1, 1, 1, 2, 32)), workgroups=4, shared=20, shared_k=16)
MOST = 200
STEPS = ((MOST, True), (140, True), (9, False), (67, True), (MOST, True), (20, True), (193, True))  # rows, whether left
QUANTIZED = ("q4gsw", "q4gaw", "q8gsw", "q8csw", "q4csw")
ALLOWED = {"highest": 2e-5, "high": 1e-2}  # of the largest in a row


@pytest.fixture
def matrix_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    if not device.features.subgroup_matrix:
        emulate(monkeypatch, device)
    return device


def layer(
    build: GraphBuilder,
    x: Ref,
    widths: tuple[int, int],
    rows: int,
    weight_format: str = "q4gsw",
    *,
    norm: Array | Ref | None = None,
    gated: bool = False,
    residual: Ref | None = None,
    bias: bool = False,
) -> Ref:
    """A linear layer of ``widths`` features, in and out."""
    k, n = widths
    with numbers_of(k, n, rows, gated):
        matrices = [matrix_of(weight_format, n, k, 32) for _ in range(2 if gated else 1)]
    biases = [np.ones(n, np.float32) if bias else None for _ in matrices]
    out = build.tensor((1, rows, n))
    arguments: list[Any] = [x, norm, 1e-5, "f32" if weight_format == "f32" else weight_format]
    arguments += [[m[0].array for m in matrices], [m[1].array for m in matrices if len(m) > 1], 32, biases, gated]
    build.call("et_webgpu.fused_linear.default", *arguments, residual, [out])
    return out


def gate_and_down(
    rows: int = MOST,
    width: int = 64,
    middle: int = 96,
    formats: tuple[str, str] = ("q4gsw", "q4gsw"),
    *,
    norm: Array | Ref | bool = True,
    views: int = 0,
    bias: bool = False,
) -> GraphBuilder:
    """x + down(silu(gate(norm(x))) * up(norm(x))), with ``views`` between the layers."""
    build = GraphBuilder()
    x = build.input((1, rows, width))
    weights = np.random.default_rng(rows).uniform(0.5, 2, width).astype(np.float32) if norm is True else norm
    between = layer(
        build, x, (width, middle), rows, formats[0], norm=None if weights is False else weights, gated=True, bias=bias
    )
    for _ in range(views):
        between = build.call("aten.clone.default", between, None, build.tensor((1, rows, middle)))
    build.output(layer(build, between, (middle, width), rows, formats[1], residual=x))
    return build


class Run:
    """A graph on a device, and its references in float64."""

    def __init__(self, device: Device, graph: Graph, **options: Any) -> None:
        tunings = {"matmul/gemm_matrix": TUNING, **options.pop("tunings", {})}
        # An emulation has no subgroups: its few rows cannot go to kernels that use them.
        routes = {"fused_linear": "matrix_f16" if options.get("matmul_precision") == "high" else "matrix"}
        planning = Planning(device.features, device.limits, routes, tunings=tunings, **options)
        self.device = device
        self.executor = GraphExecutor(graph, ConstantPool(device, lambda view: None), planning)
        self.reference = ReferenceExecutor(graph)

    def __call__(self, *inputs: Array) -> Array:
        self.poison()
        (got,) = self.executor.execute(inputs)
        return np.asarray(got)

    def poison(self) -> None:
        for index, storage in enumerate(self.executor.memory.storages):
            if storage.kind is Kind.SHARED:
                buffer = self.executor._bound.buffer(index)
                upload(self.device, buffer, np.full(buffer.size // 4, 0x7FC00001, np.uint32))

    def error(self, *inputs: Array) -> float:
        """By how much the result is off, of the largest in its row; two runs must agree bit for bit."""
        got, expected = self(*inputs), np.asarray(self.reference.execute(inputs)[0])
        assert got.tobytes() == self(*inputs).tobytes()
        assert got.shape == expected.shape and np.isfinite(got).all()
        return float((np.abs(got - expected).max(-1) / np.abs(expected).max(-1)).max())

    def kernels(self, call: int) -> list[str]:
        plan = self.executor.plans.plans[call]
        return [dispatch.kernel.split("/")[1] for dispatch in plan.dispatches]

    @property
    def left(self) -> bool:
        """Whether the last step's second product has been left float16."""
        first = self.kernels(DOWN)[0]
        assert first in ("split_rows", "gemm_matrix")
        return first == "gemm_matrix"


@contextmanager
def loaded(device: Device, build: GraphBuilder | Graph, **options: Any) -> Iterator[Run]:
    graph = build if isinstance(build, Graph) else build_graph(build.build())
    run = Run(device, graph, **options)
    try:
        yield run
    finally:
        run.executor.close()


def rows_of(count: int, width: int = 64, seed: int = 0) -> Array:
    return np.random.default_rng([count, seed]).standard_normal((1, count, width), np.float32)


# -- gates ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", MATMUL_PRECISIONS)
@pytest.mark.parametrize("weight_format", QUANTIZED)
def test_a_gate_leaves_float16(matrix_device: Device, weight_format: str, precision: str) -> None:
    """At most rows and at fewer, in both orders, and back; of few rows, whose tiles are shared, it leaves float32."""
    build = gate_and_down(formats=(weight_format, weight_format), views=2 if precision == "high" else 0)
    with loaded(matrix_device, build, matmul_precision=precision) as run:
        for rows, left in STEPS:
            assert run.error(rows_of(rows)) < ALLOWED[precision], rows
            assert run.left == left, rows


@pytest.mark.parametrize("formats", [("q4gsw", "q8gsw"), ("q8gsw", "q4gaw"), ("q4gsw", "f32")])
def test_layers_of_two_formats(matrix_device: Device, formats: tuple[str, str]) -> None:
    """Each in its own order of pairs."""
    for precision in MATMUL_PRECISIONS:
        with loaded(matrix_device, gate_and_down(formats=formats), matmul_precision=precision) as run:
            assert run.error(rows_of(100)) < ALLOWED[precision]
            assert run.left


@pytest.mark.parametrize(
    "build",
    [
        lambda: gate_and_down(norm=False),  # x may be as long as it likes
        lambda: gate_and_down(bias=True),
        lambda: gate_and_down(formats=("f32", "q4gsw")),
        lambda: gate_and_down(middle=104),  # rows that end within a step
    ],
)
def test_what_has_no_bound_or_no_place_is_split_by_its_reader(
    matrix_device: Device, build: Callable[[], GraphBuilder]
) -> None:
    with loaded(matrix_device, build()) as run:
        assert run.error(rows_of(100)) < ALLOWED["highest"]
        assert not run.left


def test_what_others_read_stays_float32(matrix_device: Device) -> None:
    """A second reader, an output, the reader's own residual, and a layer that normalizes."""
    for case in range(4):
        build = GraphBuilder()
        x = build.input((1, 100, 64))
        norm = np.ones(64, np.float32)
        between = layer(build, x, (64, 64), 100, norm=norm, gated=True)
        if case == 0:
            build.output(build.call("aten.relu.default", between, build.tensor((1, 100, 64))))
        if case == 1:
            build.output(between)
        residual = between if case == 2 else x
        build.output(layer(build, between, (64, 64), 100, norm=norm if case == 3 else None, residual=residual))
        with loaded(matrix_device, build) as run:
            got, expected = (e.execute([rows_of(100)]) for e in (run.executor, run.reference))
            for one, other in zip(got, expected, strict=True):
                assert np.abs(one - other).max() < 2e-5 * np.abs(other).max()
            assert all(not plan.splits for plan in run.executor.plans.plans), case


def test_the_weights_of_the_norm_may_be_prepacked(matrix_device: Device) -> None:
    """As in ExecuTorch's exports. What is written to is no constant, under whatever name."""
    for written in (False, True):
        build = GraphBuilder()
        x, weights = build.input((1, 100, 64)), build.constant(np.linspace(0.5, 2, 64, dtype=np.float32))
        norm, other = (build.call("et_vk.prepack.default", weights, build.tensor((64,))) for _ in range(2))
        if written:
            ones = np.ones(64, np.float32)
            build.call("et_webgpu.slice_scatter_.default", other, ones, 0, 0, 64, 1, build.tensor((64,)))
        between = layer(build, x, (64, 64), 100, norm=norm, gated=True)
        build.output(layer(build, between, (64, 64), 100, residual=x))
        with loaded(matrix_device, build) as run:
            assert run.error(rows_of(100)) < ALLOWED["highest"]
            assert run.left != written


def test_rows_of_several_dimensions(matrix_device: Device) -> None:
    """Which views fold into one; steps change any of them."""
    build = GraphBuilder()
    x, norm = build.input((3, 40, 64)), np.ones(64, np.float32)
    between = build.tensor((3, 40, 96))
    with numbers_of(0):
        gate, down = [matrix_of("q4gsw", 96, 64, 32) for _ in range(2)], matrix_of("q4gsw", 48, 96, 32)
    weights, scales = ([m[i].array for m in gate] for i in (0, 1))
    gated = [x, norm, 1e-5, "q4gsw", weights, scales, 32, [None, None], True, None, [between]]
    build.call("et_webgpu.fused_linear.default", *gated)
    flat = build.call("aten.view_copy.default", between, [-1, 96], build.tensor((120, 96)))
    row = build.call("aten.unsqueeze_copy.default", flat, 0, build.tensor((1, 120, 96)))
    out = build.tensor((1, 120, 48))
    plain = [row, None, 1e-5, "q4gsw", [down[0].array], [down[1].array], 32, [None], False, None, [out]]
    build.call("et_webgpu.fused_linear.default", *plain)
    build.output(out)
    with loaded(matrix_device, build) as run:
        for dims, left in (((3, 40), True), ((1, 7), False), ((2, 30), True), ((3, 33), True)):
            assert run.error(rows_of(dims[0] * dims[1]).reshape(*dims, 64)) < ALLOWED["highest"]
            assert run.left == left


def test_a_view_that_makes_other_rows_of_it(matrix_device: Device) -> None:
    build = GraphBuilder()
    x = build.input((1, 100, 64))
    between = layer(build, x, (64, 64), 100, norm=np.ones(64, np.float32), gated=True)
    halves = build.call("aten.view_copy.default", between, [1, -1, 32], build.tensor((1, 200, 32)))
    build.output(layer(build, halves, (32, 48), 200))
    with loaded(matrix_device, build) as run:
        assert run.error(rows_of(100)) < ALLOWED["highest"]
        assert not run.left


def test_tiles_may_read_past_the_last_row(matrix_device: Device) -> None:
    """In memory that belongs to it: not every engine bounds what kernels read."""
    with loaded(matrix_device, gate_and_down()) as run:
        (between,) = run.executor.graph.calls[GATE].outputs
        memory = run.executor.memory
        room = memory.storages[memory.storage_of[between.id]].nbytes
        assert room >= between.max_nbytes + max(4 * tile.rows * tile.depth for tile in TUNING.tiles)


def test_a_checked_step_reads_what_operators_give(matrix_device: Device) -> None:
    graph = build_graph(gate_and_down().build())
    planning = Planning(matrix_device.features, matrix_device.limits)
    executor = GraphExecutor(graph, ConstantPool(matrix_device, lambda view: None), planning, check=True)
    executor.execute([rows_of(100)])
    assert all(not plan.splits for plan in executor.plans.plans)
    executor.close()


@pytest.mark.slow
@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(
    st.integers(1, 130),
    st.sampled_from([32, 64, 160]),
    st.sampled_from([32, 96, 224]),
    st.sampled_from(QUANTIZED),
    st.sampled_from(MATMUL_PRECISIONS),
    st.integers(0, 2**16),
)
def test_shapes(
    matrix_device: Device, most: int, width: int, middle: int, weight_format: str, precision: str, seed: int
) -> None:
    build = gate_and_down(most, width, middle, (weight_format, weight_format))
    random = np.random.default_rng(seed)
    with loaded(matrix_device, build, matmul_precision=precision) as run:
        for rows in (most, *random.integers(1, most + 1, 3)):
            assert run.error(rows_of(int(rows), width, seed)) < ALLOWED[precision]


# -- how large they may be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_format", QUANTIZED)
def test_the_largest_that_can_be_fits(matrix_device: Device, weight_format: str) -> None:
    """Columns of equal codes at an end of their range, and rows along them: nearly the bound itself."""
    build = gate_and_down(formats=(weight_format, "q4gsw"))
    codes = [i for i, array in enumerate(build.constants) if array.dtype in (np.uint8, np.int8)][:2]
    for value in (0x00, 0xFF) if "4" in weight_format else (0x80, 0x7F):
        for i in codes:
            build.constants[i].view(np.uint8)[:] = value
        with loaded(matrix_device, build) as run:
            rows = np.stack([sign * np.ones(64, np.float32) for sign in (-1, 1)] * 40)[None]
            assert run.error(rows) < ALLOWED["highest"]
            assert run.left


@pytest.mark.parametrize("power", [-40, -12, 12, 40])
def test_large_and_small_weights_keep_their_bits(matrix_device: Device, power: int) -> None:
    """Beyond what float16 holds: weights of the norm, and scales of the gate's columns."""
    norm = (2.0**power * np.random.default_rng(1).uniform(0.5, 2, 64)).astype(np.float32)
    with loaded(matrix_device, gate_and_down(norm=norm)) as run:
        x = rows_of(100)
        got, expected = run(x), np.asarray(run.reference.execute([x])[0])
        result, right = got - x, expected - x.astype(np.float64)
        assert np.abs(result - right).max() < 1e-4 * np.abs(right).max() + 2e-7 * np.abs(x).max()
        assert run.left


def test_columns_far_below_the_largest_are_exact(matrix_device: Device) -> None:
    """One column of the gate is 2^12 times the others, and the way back has nothing of it."""
    build = gate_and_down()
    scales = [array for array in build.constants if array.dtype == np.float32 and array.ndim == 2]
    scales[0][:, 5] *= 2.0**12
    down = next(a for a in reversed(build.constants) if a.dtype == np.uint8)
    down.reshape(64, -1)[:, 2] = down.reshape(64, -1)[:, 2] & 0x0F | 0x80  # element 5 is the high half of byte 2
    with loaded(matrix_device, build) as run:
        assert run.error(rows_of(100)) < 1e-4
        assert run.left


def test_zeros_and_numbers_that_are_none_stay_in_their_rows(matrix_device: Device) -> None:
    x = rows_of(100)
    x[0, 3], x[0, 50, 7], x[0, 51, 8] = 0, np.nan, np.inf
    with loaded(matrix_device, gate_and_down()) as run:
        got, others = run(x), [i for i in range(100) if i not in (50, 51)]
        assert not np.isfinite(got[0, 50:52]).any() and not got[0, 3].any()
        expected = np.asarray(run.reference.execute([x])[0])[0, others]
        assert np.abs(got[0, others] - expected).max() < 2e-5 * np.abs(expected).max()
        assert run.left


# -- attention --------------------------------------------------------------------------------------------------------


def attention_and_output(heads: tuple[int, int], head_dim: int, most: int, capacity: int, weights: str) -> GraphBuilder:
    build = GraphBuilder()
    q, k, v = (build.input((1, most, heads[i], head_dim)) for i in (0, 1, 1))
    caches = [build.constant(np.zeros((1, capacity, heads[1], head_dim), np.float32)) for _ in "kv"]
    attended = build.tensor((1, most, heads[0], head_dim))
    build.call("sdpa_with_kv_cache.default", q, k, v, *caches, build.live(), 1, None, 0.0, True, None, attended)
    width = heads[0] * head_dim
    flat = build.call("aten.view_copy.default", attended, [1, -1, width], build.tensor((1, most, width)))
    build.output(layer(build, flat, (width, 48), most, weights, residual=build.input((1, most, 48))))
    return build


@pytest.mark.slow
@pytest.mark.parametrize("precision", MATMUL_PRECISIONS)
@pytest.mark.parametrize(
    ("heads", "head_dim", "magnitude"),
    [((4, 2), 16, 1.0), ((6, 2), 48, 2.0**-12), ((2, 1), 80, 2.0**12), ((3, 1), 160, 1.0)],
)
def test_attention_leaves_float16(
    matrix_device: Device, heads: tuple[int, int], head_dim: int, precision: str, magnitude: float
) -> None:
    """As exact as with the conversion between them, or as float16, which the values in the cache are."""
    build = attention_and_output(heads, head_dim, 80, 200, "q8gsw")
    graph = store_kv_caches(build_graph(build.build()), "float16")
    tile = AttentionTile(2, 16, 2 if head_dim > 128 else 1, 0)
    options: dict[str, Any] = {"matmul_precision": precision, "tunings": {"attention/flash_matrix": tile}}
    with loaded(matrix_device, graph, **options) as run, loaded(matrix_device, graph, splits=False, **options) as other:
        position, random = 0, np.random.default_rng(head_dim)
        for length in (80, 67, 11):
            given = [random.standard_normal((1, length, heads[i], head_dim), np.float32) for i in (0, 1, 1)]
            given[2] *= magnitude
            given += [np.array([position], np.int32), np.zeros((1, length, 48), np.float32)]
            got, expected = run(*given), other(*given)
            allowed = (1e-6 if precision == "highest" else 1e-3) * np.abs(expected).max()
            assert np.abs(got - expected).max() < allowed + 2.0**-24 * np.sqrt(heads[0] * head_dim)
            assert run.left and not other.left
            position += length


@pytest.mark.parametrize(("cache", "left"), [("float32", False), ("int8", False), ("float16", True)])
def test_attention_over_other_caches_leaves_float32(matrix_device: Device, cache: str, left: bool) -> None:
    graph = build_graph(attention_and_output((4, 2), 16, 80, 100, "q4gsw").build())
    graph = graph if cache == "float32" else store_kv_caches(graph, cache)
    limits = replace(matrix_device.limits, max_workgroup_bytes=64 << 10)
    plans = plan_graph(graph, Planning(matrix_device.features, limits))
    assert any(plan.splits for plan in plans.plans) == left


# -- plans ------------------------------------------------------------------------------------------------------------


def graphs() -> Sequence[Graph]:
    attention = build_graph(attention_and_output((4, 2), 64, 200, 300, "q4gsw").build())
    return build_graph(gate_and_down(200, middle=128).build()), store_kv_caches(attention, "float16")


@pytest.mark.parametrize("precision", MATMUL_PRECISIONS)
def test_no_step_compiles_what_load_did_not_and_all_of_it_compiles(precision: str) -> None:
    limits = replace(Limits.floor(), max_workgroup_bytes=64 << 10, max_invocations=256)
    for graph in graphs():
        planning = Planning(TENSOR_CORES, limits, matmul_precision=precision)
        plans = plan_graph(graph, planning)
        prepared = {repr(variant) for variant in plans.pipelines()}
        for kernel, template, overrides in plans.pipelines():
            compile_check("dawn", kernel, template, overrides)
        seen = set()
        for rows in (200, 150, 67, 20, 3, 1, 199):
            for value in graph.inputs:
                if len(value.max_dims) > 1:  # type: ignore[union-attr]
                    plans.set_dims(value, (1, rows, *value.max_dims[2:]))  # type: ignore[arg-type, union-attr]
            plans.update()
            seen.add(any(plan.splits for plan in plans.plans))
            for plan in plans.plans:
                for d in plan.dispatches:
                    assert repr((d.kernel, d.template, d.overrides)) in prepared
        assert seen == {False, True}

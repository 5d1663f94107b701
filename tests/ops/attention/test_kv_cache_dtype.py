"""KV caches in float16 and int8: what is stored, attention over it, what is refused, and states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.models import SHAPES, write_llama
from executorch_webgpu import InvalidInputError, Method, Runtime, State, UnsupportedProgramError
from executorch_webgpu.cli import main
from executorch_webgpu.format.pte import open_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES, store_kv_caches
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.attention import reference
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder
from tests.ops.harness import assert_close, contents
from tests.programs import write_delegated
from tests.text.tiny_vocabulary import write_bpe

REDUCED = ("f16", "int8")
# Against attention over float32 caches: what rounding the caches may change.
ABSOLUTE = {"f16": 2e-3, "int8": 4e-2}
CONTEXT = 24

Array = np.ndarray
rng = np.random.default_rng(4)


def attention_graph(
    heads: tuple[int, int], head_dim: int, capacity: int, most: int, *, prepacked: bool = False, cache: Any = np.float32
) -> GraphBuilder:
    """sdpa_with_kv_cache of [1, ≤most] tokens at a position; caches of zeros, behind a prepack if asked."""
    build = GraphBuilder()
    q, k, v = (build.input((1, most, heads[i], head_dim)) for i in (0, 1, 1))
    dims = (1, capacity, heads[1], head_dim)
    caches = [build.constant(np.zeros(dims, cache)) for _ in "kv"]
    if prepacked:
        caches = [build.call("et_vk.prepack.default", c, build.tensor(dims, np.dtype(cache).name)) for c in caches]
    out = build.tensor((1, most, heads[0], head_dim))
    build.call("sdpa_with_kv_cache.default", q, k, v, *caches, build.live(), 1, None, 0.0, True, None, out)
    build.output(out)
    return build


class Attention:
    """One attention graph on the device, and its reference; ``step`` holds one against the other."""

    def __init__(
        self, device: Device, dtype: str, heads: tuple[int, int], head_dim: int, capacity: int, most: int, **more: Any
    ) -> None:
        route, tunings = more.pop("route", None), more.pop("tunings", {})
        self.heads, self.head_dim = heads, head_dim
        self.build = attention_graph(heads, head_dim, capacity, most, **more)
        self.graph = self.stored(dtype)
        routes = {"sdpa_with_kv_cache": route} if route else {}
        planning = Planning(device.features, device.limits, routes, tunings=tunings)
        self.executor = GraphExecutor(self.graph, ConstantPool(device, lambda view: None), planning)
        self.rounded, self.exact = ReferenceExecutor(self.stored(dtype)), ReferenceExecutor(self.stored("f32"))

    def stored(self, dtype: str) -> Graph:
        graph = build_graph(self.build.build())
        return graph if dtype == "f32" else store_kv_caches(graph, KV_CACHE_DTYPES[dtype])

    def __enter__(self) -> Attention:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.close()

    def step(self, length: int, position: int) -> tuple[Array, Array, Array]:
        """(device, reference over the rows as the device has stored them, reference) of random rows.

        A number halfway between two int8 codes may get either one, on the device or in a reference.
        """
        shapes = [(1, length, self.heads[i], self.head_dim) for i in (0, 1, 1)]
        inputs = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        given = [*inputs, np.array([position], np.int32)]
        (got,) = self.executor.execute(given)
        assert isinstance(got, np.ndarray)
        self.rounded.execute(given)
        k, v = self.caches()
        new = slice(position, position + length)
        stored = reference.sdpa_with_kv_cache(inputs[0].astype(np.float64), k[:, new], v[:, new], k, v, position)
        return got, stored, self.exact.execute(given)[0]

    def replay(self, lengths: Sequence[int], position: int = 0) -> Iterator[tuple[Array, Array, Array]]:
        for length in lengths:
            yield self.step(length, position)
            position += length

    def caches(self) -> list[Array]:
        """Both caches on the device as numbers, scales applied."""
        call = self.graph.calls[-1]
        found = []
        for cache in call.mutated[:2]:
            codes = contents(self.executor, cache).astype(np.float64)
            scales = 1 if cache.scales is None else contents(self.executor, cache.scales)[..., None]
            found.append(codes * scales)
        return found


def check(attention: Attention, dtype: str, lengths: Sequence[int], position: int = 0) -> None:
    for got, stored, exact in attention.replay(lengths, position):
        # Tensor cores take probabilities in float16.
        halves = attention.executor.plans.plans[-1].route == "flash_matrix"
        assert_close(got, stored, *((2e-3, 1e-2) if halves else (1e-4, 1e-3)))
        assert np.abs(got - exact).max() <= ABSOLUTE[dtype]


# -- what is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["update_cache.default", "sdpa_with_kv_cache.default"])
@pytest.mark.parametrize("head_dim", [4, 20, 64, 256])
def test_int8_codes_and_scales(device: Device, head_dim: int, op: str) -> None:
    """Every row and head on its own: large ones, small ones, zeros, and numbers past float16 beside each other."""
    heads, rows = 3, 5
    x = rng.standard_normal((1, rows, heads, head_dim)).astype(np.float32)
    x *= np.float32(10) ** rng.integers(-6, 7, (1, rows, heads, 1)).astype(np.float32)
    x[0, 2, 1] = 0
    x[0, 3, 0] = 1e-41  # float32 that is not normal: zeros
    caches = _written(device, op, x, "int8")
    for codes, scales in caches:
        assert codes.dtype == np.int8 and scales.dtype == np.float32
        expected = np.abs(x[0].astype(np.float64)).max(axis=-1) / 127
        expected[3, 0] = 0
        np.testing.assert_allclose(scales[0, 2:7], expected, rtol=1e-6)
        assert not scales[0, :2].any() and not scales[0, 7:].any() and not codes[0, :2].any() and not codes[0, 7:].any()
        steps = np.divide(x[0], expected[..., None], out=np.zeros(x[0].shape), where=expected[..., None] > 0)
        assert np.abs(codes[0, 2:7] - steps).max() <= 0.5 + 1e-4
        largest = np.abs(codes[0, 2:7].astype(int)).max(axis=-1)
        np.testing.assert_array_equal(largest, np.where(expected > 0, 127, 0))


def test_more_int8_rows_than_a_grid_is_wide(device: Device) -> None:
    x = rng.standard_normal((1, device.limits.max_workgroups + 4466, 1, 4)).astype(np.float32)
    codes, scales = _written(device, "update_cache.default", x, "int8")[1]
    assert np.abs(codes[:, 2:-2] * scales[:, 2:-2, :, None] - x).max() <= np.abs(x).max() / 127 * 0.51


@pytest.mark.parametrize("op", ["update_cache.default", "sdpa_with_kv_cache.default"])
def test_float16_is_rounded_and_never_infinite(device: Device, op: str) -> None:
    x = rng.standard_normal((1, 5, 3, 12)).astype(np.float32)
    x[0, 0, 0, :4] = [1e6, -1e6, 65504, 65520]
    for halves, _ in _written(device, op, x, "f16"):
        assert halves.dtype == np.float16
        np.testing.assert_array_equal(halves[0, 2:7], reference.as_stored(x, "float16")[0].astype(np.float16))
        assert not halves[0, :2].any() and not halves[0, 7:].any()


def _written(device: Device, op: str, rows: Array, dtype: str) -> list[tuple[Array, Array]]:
    """(contents, scales) of all caches, after ``op`` wrote ``rows`` at row 2."""
    build = GraphBuilder()
    _, length, heads, head_dim = rows.shape
    x = build.input(rows.shape)
    caches = [build.constant(np.zeros((1, length + 4, heads, head_dim), np.float32)) for _ in "kv"]
    if op == "update_cache.default":
        build.output(*(build.call(op, x, cache, build.live(), build.tensor((1,))) for cache in caches))
        given = [rows, *[np.array([2], np.int32)] * 2]
    else:
        out = build.tensor(rows.shape)
        build.output(build.call(op, x, x, x, *caches, build.live(), 1, None, 0.0, True, None, out))
        given = [rows, np.array([2], np.int32)]
    graph = store_kv_caches(build_graph(build.build()), KV_CACHE_DTYPES[dtype])
    executor = GraphExecutor(graph, ConstantPool(device, lambda view: None), Planning(device.features, device.limits))
    try:
        executor.execute(given)
        tensors = {t.id: t for call in graph.calls for t in call.mutated if t.dtype == KV_CACHE_DTYPES[dtype]}
        return [
            (contents(executor, t), contents(executor, t.scales) if t.scales else np.empty(0)) for t in tensors.values()
        ]
    finally:
        executor.close()


def test_the_reference_rounds_like_the_device() -> None:
    x = np.array([[1.0, -2.0, 0.3, 127.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(reference.as_stored(x, "int8"), [[1, -2, 0, 127], [0, 0, 0, 0]])
    assert reference.as_stored(np.array([1 + 2**-12]), "float16") == 1
    np.testing.assert_array_equal(reference.as_stored(x, "float32"), x)


# -- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REDUCED)
@pytest.mark.parametrize(
    ("heads", "head_dim", "route"),
    [
        ((9, 3), 64, None),
        ((7, 1), 256, None),
        ((4, 4), 4, "large_heads"),
        ((9, 3), 64, "large_heads"),
        ((5, 1), 80, "large_heads"),
        ((2, 2), 132, "large_heads"),
    ],
)
def test_replay(device: Device, heads: tuple[int, int], head_dim: int, dtype: str, route: str | None) -> None:
    """Prefill, decode and chunks up to an exactly full cache whose size is prime."""
    lengths = (37, 1, 1, 23, 8, 1)
    with Attention(device, dtype, heads, head_dim, sum(lengths), 37, route=route) as attention:
        check(attention, dtype, lengths)
        for got, cache in zip(attention.caches(), attention.graph.calls[-1].mutated, strict=False):
            assert np.isclose(got, attention.rounded._constants[cache.id], rtol=1e-5, atol=1e-6).mean() > 0.999


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    dtype=st.sampled_from(REDUCED),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 5),
    quarter=st.sampled_from([1, 3, 4, 7, 16]),
    lengths=st.lists(st.integers(1, 13), min_size=2, max_size=5),
    spare=st.integers(0, 3),
    prepacked=st.booleans(),
)
def test_any_geometry(
    device: Device,
    dtype: str,
    kv_heads: int,
    group: int,
    quarter: int,
    lengths: list[int],
    spare: int,
    prepacked: bool,
) -> None:
    heads, capacity = (kv_heads * group, kv_heads), sum(lengths) + spare
    most = min(13, capacity)
    with Attention(device, dtype, heads, 4 * quarter, capacity, most, prepacked=prepacked) as attention:
        check(attention, dtype, lengths)


@pytest.mark.parametrize("dtype", REDUCED)
def test_live_length_shrinks_grows_and_goes_back(device: Device, dtype: str) -> None:
    with Attention(device, dtype, (6, 2), 16, 67, 29) as attention:
        for length, position in ((29, 0), (3, 0), (1, 3), (1, 3), (17, 4), (29, 21), (1, 50), (16, 51), (29, 0)):
            check(attention, dtype, [length], position)


def test_a_file_with_float16_caches(device: Device) -> None:
    with Attention(device, "f32", (6, 2), 20, 31, 13, cache=np.float16) as attention:
        assert [t.dtype for t in attention.graph.calls[-1].mutated] == ["float16", "float16"]
        check(attention, "f16", (13, 1, 7))


@pytest.mark.parametrize("dtype", REDUCED)
def test_a_file_with_float16_caches_stored_as_asked(device: Device, dtype: str) -> None:
    with Attention(device, dtype, (6, 2), 20, 31, 13, cache=np.float16) as attention:
        assert attention.graph.calls[-1].mutated[0].dtype == KV_CACHE_DTYPES[dtype]
        check(attention, dtype, (13, 1, 7))


@pytest.mark.parametrize("route", [None, "large_heads"])
@pytest.mark.parametrize("dtype", REDUCED)
def test_rows_past_the_context_never_leak(device: Device, dtype: str, route: str | None) -> None:
    """A step of NaN far ahead leaves rows that nobody may read."""
    with Attention(device, dtype, (4, 2), 12, 300, 8, route=route) as attention:
        nan = [np.full((1, 8, h, 12), np.nan, np.float32) for h in (4, 2, 2)]
        for position in (8, 16, 292):
            attention.executor.execute([*nan, np.array([position], np.int32)])
        check(attention, dtype, (8, 1, 2))


# -- programs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, SHAPES["tiny"], LlamaOptions(max_seq_len=13, max_context_len=CONTEXT))
    return path


def run(method: Method, tokens: Sequence[int], position: int, state: State | None = None) -> Array:
    (logits,) = method.execute([np.array([tokens]), np.array([position])], state=state)
    return np.asarray(logits)


def references(path: Path, dtype: str) -> tuple[ReferenceExecutor, ReferenceExecutor]:
    """The llama in float64, with KV caches of ``dtype`` and without."""
    mapped, file = open_program(path)
    with mapped:
        (delegate,) = next(plan for plan in file.methods if plan.name == "forward").delegates
        graphs = [build_graph(read_vkgraph(file.delegate_data(delegate), file.named_data)) for _ in "ab"]
        exact = ReferenceExecutor(graphs[1])
        if dtype != "f32":
            graphs[0] = store_kv_caches(graphs[0], KV_CACHE_DTYPES[dtype])
        return ReferenceExecutor(graphs[0]), exact


@pytest.mark.parametrize("dtype", KV_CACHE_DTYPES)
def test_a_llama(llama_path: Path, dtype: str) -> None:
    text = [int(t) for t in rng.integers(0, 512, CONTEXT)]
    rounded, exact = references(llama_path, dtype)
    on_tensor_cores = Runtime.get().device.features.subgroup_matrix
    with (
        Runtime.get().load_program(llama_path) as program,
        program.load_method("forward", kv_cache_dtype=dtype) as method,
    ):
        position = 0
        for length in (11, 1, 1, 7, 1):
            part = text[position : position + length]
            given = [np.array([part], np.int32), np.array([position], np.int32)]
            got = run(method, part, position)
            # A code that is rounded the other way moves what the next layer rounds; tensor cores round probabilities.
            tolerance = {"f32": 1e-4, "f16": 4e-3 if on_tensor_cores else 1e-3, "int8": 2e-2}[dtype]
            assert np.abs(got - rounded.execute(given)[0]).max() < tolerance
            assert np.abs(got - exact.execute(given)[0]).max() < {"f32": 1e-4, "f16": 5e-3, "int8": 0.1}[dtype]
            position += length


@pytest.mark.slow
def test_memory(own_runtime: Runtime, llama_path: Path) -> None:
    """Half of it in float16; in int8 a quarter, and a float32 for each row and head of 16 elements."""
    with own_runtime.load_program(llama_path) as program:
        taken = {}
        for dtype in KV_CACHE_DTYPES:
            with program.load_method("forward", kv_cache_dtype=dtype) as method:
                before = own_runtime.device.memory.live_bytes
                with method.new_state():
                    taken[dtype] = own_runtime.device.memory.live_bytes - before
    elements = 2 * SHAPES["tiny"].layers * CONTEXT * 2 * 16
    assert taken == {"f32": 4 * elements, "f16": 2 * elements, "int8": elements + 4 * elements // 16}


# -- states -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=REDUCED)
def llama(llama_path: Path, request: pytest.FixtureRequest) -> Iterator[Method]:
    with (
        Runtime.get().load_program(llama_path) as program,
        program.load_method("forward", kv_cache_dtype=request.param) as method,
    ):
        yield method


def test_interleaved_states_give_what_each_gives_alone(llama: Method) -> None:
    texts = [[int(t) for t in rng.integers(0, 512, CONTEXT)] for _ in range(2)]
    steps = [(0, 9), (9, 1), (10, 12), (22, 1)]
    alone = []
    for text in texts:
        with llama.new_state() as state:
            alone.append([run(llama, text[at : at + n], at, state) for at, n in steps])
    with llama.new_state() as one, llama.new_state() as two:
        for i, (at, n) in enumerate(steps):
            for state, text, expected in zip((one, two), texts, alone, strict=True):
                np.testing.assert_array_equal(run(llama, text[at : at + n], at, state), expected[i])


@pytest.mark.parametrize("length", [0, 7, 10])
def test_a_rewound_state_is_one_that_saw_only_those_tokens(llama: Method, length: int, tmp_path: Path) -> None:
    with llama.new_state() as rewound, llama.new_state() as fresh:
        run(llama, [3, 1, 4, 1, 5, 9, 2], 0, rewound)
        run(llama, [6, 5, 3], 7, rewound)
        rewound.rewind(length)
        for at, tokens in ((0, [3, 1, 4, 1, 5, 9, 2]), (7, [6, 5, 3])):
            if at < length:
                run(llama, tokens, at, fresh)
        contents = [[list(g.read(CONTEXT).values()) for g in state._graphs] for state in (rewound, fresh)]
        for one, two in zip(contents[0][0], contents[1][0], strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(run(llama, [8, 9], length, rewound), run(llama, [8, 9], length, fresh))


def test_saved_and_loaded(llama: Method, tmp_path: Path) -> None:
    with llama.new_state() as state:
        run(llama, [3, 1, 4, 1, 5], 0, state)
        state.save(tmp_path / "state")
        with llama.load_state(tmp_path / "state") as again:
            assert again.length == 5
            np.testing.assert_array_equal(run(llama, [9, 2], 5, again), run(llama, [9, 2], 5, state))


@pytest.mark.slow
def test_a_state_of_another_dtype_is_refused(llama_path: Path, tmp_path: Path) -> None:
    with Runtime.get().load_program(llama_path) as program:
        methods = {dtype: program.load_method("forward", kv_cache_dtype=dtype) for dtype in KV_CACHE_DTYPES}
        for dtype, method in methods.items():
            run(method, [1, 2], 0)
            method.state.save(tmp_path / dtype)
        for dtype, method in methods.items():
            for other in set(KV_CACHE_DTYPES) - {dtype}:
                with pytest.raises(InvalidInputError, match=f"KV caches of {other}.*kv_cache_dtype='{other}'"):
                    method.load_state(tmp_path / other)


# -- refused ----------------------------------------------------------------------------------------------------------


def load(build: GraphBuilder, dtypes: Sequence[str], dtype: str) -> None:
    with Runtime.get().load_program(write_delegated(build, dtypes)) as program:
        program.load_method("forward", kv_cache_dtype=dtype).close()


def cached(build: GraphBuilder, cache: Any, head_dim: int = 4) -> Any:
    build.output(build.call("update_cache.default", build.input((1, 2, 2, head_dim)), cache, 3, build.tensor((1,))))


@pytest.mark.parametrize("dtype", REDUCED)
def test_refused_at_load(dtype: str) -> None:
    dims = (1, 8, 2, 4)
    read = GraphBuilder()
    cache = read.constant(np.zeros(dims, np.float32))
    cached(read, cache)
    read.output(read.call("aten.clone.default", cache, None, read.tensor(dims)))
    with pytest.raises(UnsupportedProgramError, match=r"call 1 \(aten.clone.default\) uses the KV cache"):
        load(read, ["float32"] * 3, dtype)

    written = GraphBuilder()
    cache = written.constant(np.zeros(dims, np.float32))
    cached(written, cache)
    written.call("aten.sigmoid.default", written.input(dims), cache)
    with pytest.raises(UnsupportedProgramError, match=r"call 1 \(aten.sigmoid.default\) uses the KV cache"):
        load(written, ["float32"] * 3, dtype)

    nonzero = GraphBuilder()
    cached(nonzero, nonzero.constant(np.eye(4, 16, dtype=np.float32).reshape(dims)))
    with pytest.raises(UnsupportedProgramError, match="does not begin with zeros"):
        load(nonzero, ["float32"] * 2, dtype)

    odd = GraphBuilder()
    cached(odd, odd.constant(np.zeros((1, 8, 2, 6), np.float32)), head_dim=6)
    with pytest.raises(UnsupportedProgramError, match="must be a multiple of 4, not 6"):
        load(odd, ["float32"] * 2, dtype)

    none = GraphBuilder()
    none.output(none.call("aten.sigmoid.default", none.input((3,)), none.tensor((3,))))
    with pytest.raises(UnsupportedProgramError, match="'forward' has no KV cache"):
        load(none, ["float32"] * 2, dtype)

    given = GraphBuilder()
    cached(given, given.input(dims))
    with pytest.raises(UnsupportedProgramError, match="is no constant"):
        load(given, ["float32"] * 3, dtype)


def test_an_unknown_dtype(llama_path: Path) -> None:
    with (
        Runtime.get().load_program(llama_path) as program,
        pytest.raises(InvalidInputError, match="no KV cache dtype 'q4'; choose f32, f16, int8"),
    ):
        program.load_method("forward", kv_cache_dtype="q4")


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", KV_CACHE_DTYPES)
def test_generate_and_chat(llama_path: Path, tmp_path: Path, dtype: str) -> None:
    tokenizer = write_bpe(tmp_path / "vocabulary.gguf")
    for command in (["generate", "--prompt", "hello"], ["chat"]):
        more = ["--tokenizer", str(tokenizer), "--max-new-tokens", "3", "--kv-cache", dtype]
        result = CliRunner().invoke(main, [command[0], str(llama_path), *command[1:], *more], input="hi\n")
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", [["generate", "--prompt", "hello"], ["chat"]])
def test_a_model_without_a_cache(tmp_path: Path, command: list[str]) -> None:
    """Which is how we see that the option arrives."""
    build = GraphBuilder()
    tokens = build.input((1, 7), "int32")
    build.live()
    table = np.zeros((512, 512), np.float32)
    build.output(build.call("aten.embedding.default", table, tokens, -1, False, False, build.tensor((1, 7, 512))))
    path = tmp_path / "model.pte"
    path.write_bytes(write_delegated(build, ["int64", "int64", "float32"], dynamic=[0]))
    more = ["--tokenizer", str(write_bpe(tmp_path / "vocabulary.gguf")), "--kv-cache", "int8"]
    result = CliRunner().invoke(main, [command[0], str(path), *command[1:], *more])
    assert result.exit_code != 0 and "no KV cache that could be int8" in result.output


# -- kernels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_kernels_compile(engine: str) -> None:
    for count in (1, 2):
        compile_check(engine, "attention/cache_update", {"count": count, "width": 4, "cache": "int8", "paged": False})
        compile_check(
            engine, "attention/cache_update", {"count": count, "width": 4, "cache": "float16", "paged": False}
        )
    for dtype in KV_CACHE_DTYPES.values():
        compile_check(engine, "attention/scores", {"rows": 8, "cache": dtype})
        compile_check(engine, "attention/large_heads/values", {"rows": 8, "vectors": 2, "cache": dtype})

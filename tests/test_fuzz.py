"""Damaged programs through the whole of loading and running: only our exceptions, and no memory left behind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from executorch_webgpu import Error, Runtime
from tests.graph_builder import GraphBuilder, Ref
from tests.programs import write_delegated

rng = np.random.default_rng(0)


def small_program() -> bytes:
    """A bit of everything: live positions, a cache, views, attention, a 4-bit layer."""
    build = GraphBuilder()
    x, position = build.input((1, 5, 16)), build.input((1,), "int32")
    start = build.call("et_vk.select_as_symint.default", position, 0, 0, build.symint())
    length = build.size_of(x, 1)
    packed = rng.integers(0, 256, (16, 8), np.uint8)
    scales = rng.uniform(0.01, 0.1, (2, 16)).astype(np.float32)
    query = build.call("et_vk.linear_q4gsw.default", x, packed, scales, 8, None, build.tensor((1, 5, 16)))
    heads = build.call("aten.view_copy.default", query, [1, length, 4, 4], build.tensor((1, 5, 4, 4)))
    caches = [build.constant(np.zeros((1, 8, 4, 4), np.float32)) for _ in "kv"]
    out = build.tensor((1, 5, 4, 4))
    arguments = (heads, heads, heads, *caches, start, 1, None, 0.0, True, None)
    attention = build.call("sdpa_with_kv_cache.default", *arguments, out)
    flat = build.call("aten.view_copy.default", attention, [1, length, 16], build.tensor((1, 5, 16)))
    normed = build.call("et_vk.rms_norm.default", flat, np.ones(16, np.float32), 1e-5, build.tensor((1, 5, 16)))
    build.output(build.call("aten.add.Tensor", normed, x, 1, build.tensor((1, 5, 16))))
    return write_delegated(build, ["float32", "int64", "float32"], dynamic=[0], constants={"seven": 7})


def layer_program() -> bytes:
    """A layer of a language model, which becomes a few fused calls: damage meets every pass over graphs."""
    build = GraphBuilder()
    x, position = build.input((1, 5, 16)), build.input((1,), "int32")
    start = build.call("et_vk.select_as_symint.default", position, 0, 0, build.symint())
    length = build.size_of(x, 1)
    end = build.call("add", start, length, build.symint())

    def linear(value: Ref, n: int, k: int) -> Ref:
        packed = rng.integers(0, 256, (n, k // 2), np.uint8)
        scales = rng.uniform(0.01, 0.1, (k // 8, n)).astype(np.float32)
        return build.call("et_vk.linear_q4gsw.default", value, packed, scales, 8, None, build.tensor((1, 5, n)))

    def normed(value: Ref) -> Ref:
        ones = np.ones(16, np.float32)
        return build.call("et_vk.rms_norm.default", value, ones, 1e-5, build.tensor((1, 5, 16)))

    def binary(name: str, *args: object, n: int) -> Ref:
        return build.call(f"aten.{name}.Tensor", *args, build.tensor((1, 5, n)))

    tables = [rng.standard_normal((8, 2)).astype(np.float32) for _ in "cs"]
    cos_sin = [build.call("aten.slice_copy.Tensor", t, 0, start, end, 1, build.tensor((5, 2))) for t in tables]
    before = normed(x)
    q, k, v = (
        build.call("aten.view_copy.default", linear(before, 16, 16), [1, length, 4, 4], build.tensor((1, 5, 4, 4)))
        for _ in "qkv"
    )
    turned = [build.tensor((1, 5, 4, 4)) for _ in "qk"]
    build.call("et_vk.apply_rotary_emb.default", q, k, *cos_sin, turned)
    caches = [build.constant(np.zeros((1, 8, 4, 4), np.float32)) for _ in "kv"]
    arguments = (*turned, v, *caches, start, 1, None, 0.0, True, None)
    attention = build.call("sdpa_with_kv_cache.default", *arguments, build.tensor((1, 5, 4, 4)))
    flat = build.call("aten.view_copy.default", attention, [1, length, 16], build.tensor((1, 5, 16)))
    middle = binary("add", x, linear(flat, 16, 16), 1, n=16)
    before = normed(middle)
    gate, up = linear(before, 24, 16), linear(before, 24, 16)
    silu = binary("mul", gate, build.call("aten.sigmoid.default", gate, build.tensor((1, 5, 24))), n=24)
    build.output(binary("add", middle, linear(binary("mul", silu, up, n=24), 16, 24), 1, n=16))
    return write_delegated(build, ["float32", "int64", "float32"], dynamic=[0])


PROGRAM, LAYER = small_program(), layer_program()


def load_and_run(runtime: Runtime, data: bytes) -> bool:
    """Whether the program still runs; anything but a result or one of our exceptions fails the test."""
    before = runtime.device.memory.live_bytes
    try:
        with runtime.load_program(data) as program:
            program.inspect()
            for name in program.method_names:
                with program.load_method(name) as method:
                    x = rng.normal(size=(1, 3, 16)).astype(np.float32)
                    given = [x, np.array([2])] if method.metadata.inputs else []
                    method.execute(given)
        return True
    except Error:
        return False
    finally:
        assert runtime.device.memory.live_bytes == before


def test_the_undamaged_programs_run(own_runtime: Runtime) -> None:
    assert load_and_run(own_runtime, PROGRAM) and load_and_run(own_runtime, LAYER)


def test_the_layer_is_fused() -> None:
    with Runtime.get().load_program(LAYER) as program:
        (method,) = program.inspect().methods
        assert {"norm_linear", "gate", "residual", "rope_cache"} <= {r.name for r in method.fusions if r.fused}


@pytest.mark.slow
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@example([(337, 0)])  # an argument of the delegate call that nothing gives a value
@given(st.lists(st.tuples(st.integers(0, len(PROGRAM) - 4), st.integers(0, 2**32 - 1)), min_size=1, max_size=3))
def test_overwritten_words(own_runtime: Runtime, words: list[tuple[int, int]]) -> None:
    data = bytearray(PROGRAM)
    for offset, word in words:
        data[offset : offset + 4] = word.to_bytes(4, "little")
    load_and_run(own_runtime, bytes(data))


@pytest.mark.slow
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@example([(663, 3)])  # an output of integers that NumPy does not have
@example([(2432, 1)])  # an integer input of hundreds of gigabytes
@given(st.lists(st.tuples(st.integers(0, len(PROGRAM) - 1), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits(own_runtime: Runtime, bits: list[tuple[int, int]]) -> None:
    data = bytearray(PROGRAM)
    for offset, bit in bits:
        data[offset] ^= 1 << bit
    load_and_run(own_runtime, bytes(data))


@pytest.mark.slow
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@example([(424, 1)])  # the method's first input is an argument of its delegate's call, but none that the delegate takes
@given(st.lists(st.tuples(st.integers(0, len(LAYER) - 1), st.integers(0, 7)), min_size=1, max_size=2))
def test_flipped_bits_of_a_layer(own_runtime: Runtime, bits: list[tuple[int, int]]) -> None:
    data = bytearray(LAYER)
    for offset, bit in bits:
        data[offset] ^= 1 << bit
    load_and_run(own_runtime, bytes(data))


@pytest.mark.parametrize("length", range(0, len(PROGRAM), max(1, len(PROGRAM) // 150)))
def test_truncated(own_runtime: Runtime, length: int) -> None:
    assert not load_and_run(own_runtime, PROGRAM[:length])

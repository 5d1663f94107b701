"""Constants that a device cannot bind whole: calls in parts compute the same, and what has no parts is named."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.errors import InvalidInputError, LimitError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.binding_limit import split_constants
from executorch_webgpu.graph.build import PREPACK, Graph, build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.fusion import chosen_fusions, fuse_graph
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder, Ref

from .fusion.graphs import check_same, names

LINEAR, EMBEDDING, CAT = "aten.linear.default", "aten.embedding.default", "aten.cat.default"
WIDTH = 32  # of every layer's input
rng = np.random.default_rng(3)


def normal(*dims: int) -> np.ndarray:
    return rng.standard_normal(dims, dtype=np.float32) / 4


def codes(*dims: int) -> np.ndarray:
    return rng.integers(0, 256, dims, np.uint8)


def largest(graph: Graph) -> int:
    """Bytes of the largest constant that a call computes with."""
    roots = graph.prepacked
    reads = [roots.get(t.id, t) for call in graph.calls if call.name != PREPACK for t in call.inputs]
    return max(t.max_nbytes for t in reads if t.constant is not None)


def check(device: Device, build: GraphBuilder, most: int, *steps: list[np.ndarray], fuse: bool = True) -> Graph:
    """In parts of at most ``most`` bytes a graph gives what it gives as a whole: exactly, or on a device nearly so."""
    whole, _ = fuse_graph(build_graph(build.build()), chosen_fusions(fuse))
    assert largest(whole) > most, "nothing is in parts here"
    split = split_constants(whole, most)
    assert largest(split) <= most
    check_same(device, build_graph(build.build()), split, steps)
    return split


# -- linear layers ----------------------------------------------------------------------------------------------------


def layer(build: GraphBuilder, x: Ref, form: str, n: int, bias: bool) -> Ref:
    """A layer [.., 32] -> [.., n] with groups of 16, in any form."""
    out, given, columns = build.tensor((1, 7, n)), normal(n) if bias else None, -(-n // 4) * 4
    if form in ("f32", "f16"):
        return build.call(LINEAR, x, normal(n, WIDTH).astype(np.float16 if form == "f16" else np.float32), given, out)
    if form == "q8csw":
        scales = np.abs(normal(n))
        return build.call("aten._weight_int8pack_mm.default", x, codes(n, WIDTH).view(np.int8), scales, out)
    if form == "q4csw":
        return build.call("et_vk.linear_qcs4w.default", x, codes(n, WIDTH // 2), np.abs(normal(n)), out)
    by_group = np.abs(normal(WIDTH // 16, columns))
    if form == "q4gsw":
        return build.call("et_vk.linear_q4gsw.default", x, codes(n, WIDTH // 2), by_group, 16, given, out)
    if form == "q8gsw":
        bytes_, halves = codes(n, WIDTH).view(np.int8), by_group.astype(np.float16)
        return build.call("et_webgpu.linear_q8gsw.default", x, bytes_, halves, 16, given, out)
    pairs = np.stack([by_group, -8 * by_group], axis=-1).astype(np.float16)
    return build.call("et_webgpu.linear_q4gaw.default", x, codes(n, WIDTH // 2), pairs, 16, given, out)


FORMS = {"f32": 4, "f16": 2, "q8csw": 1, "q4csw": 0.5, "q4gsw": 0.5, "q8gsw": 1, "q4gaw": 0.5}  # bytes a weight


@pytest.mark.parametrize("n", [65, 131, 256, 331])
@pytest.mark.parametrize("form", FORMS)
def test_layers_of_every_format_run_in_parts(device: Device, form: str, n: int) -> None:
    build = GraphBuilder()
    x = build.input((1, 7, WIDTH))
    build.output(layer(build, x, form, n, bias=form[:3] != "q8c" and form != "q4csw"))
    most = int(64 * WIDTH * FORMS[form])
    split = check(device, build, most, [normal(1, 7, WIDTH)], [normal(1, 2, WIDTH)], [normal(1, 5, WIDTH)])
    assert names(split)[CAT] == 1


@pytest.mark.parametrize("fuse", [True, False])
def test_what_surrounds_layers_stays_right(device: Device, fuse: bool) -> None:
    """A norm before three layers of which one is large, a gate of two, and a residual."""
    build = GraphBuilder()
    x = build.input((1, 7, WIDTH))
    normed = build.call("et_vk.rms_norm.default", x, 1 + normal(WIDTH), 1e-5, build.tensor((1, 7, WIDTH)))
    for n in (16, 200, 24):
        build.output(layer(build, normed, "f32", n, bias=True))
    gate, up = (layer(build, normed, "q4gsw", 192, bias=False) for _ in range(2))
    sigmoid = build.call("aten.sigmoid.default", gate, build.tensor((1, 7, 192)))
    silu = build.call("aten.mul.Tensor", gate, sigmoid, build.tensor((1, 7, 192)))
    build.output(build.call("aten.mul.Tensor", silu, up, build.tensor((1, 7, 192))))
    wide = build.input((1, 7, 150))
    build.output(build.call("aten.add.Tensor", layer(build, x, "f32", 150, True), wide, 1, build.tensor((1, 7, 150))))
    steps = [[normal(1, s, WIDTH), normal(1, s, 150)] for s in (7, 1, 4)]
    check(device, build, 64 * 4 * WIDTH, *steps, fuse=fuse)
    check(device, build, 64 * WIDTH // 2, *steps, fuse=fuse)


def test_products_with_matrices_run_in_parts(device: Device) -> None:
    """By the transpose of a constant, by a constant as it is, and by what a call makes of one."""
    build = GraphBuilder()
    x = build.input((7, WIDTH))
    turned = build.call("aten.permute_copy.default", normal(150, WIDTH), [1, 0], build.tensor((WIDTH, 150)))
    build.output(build.call("aten.mm.default", x, turned, build.tensor((7, 150))))
    build.output(build.call("aten.mm.default", x, normal(WIDTH, 150), build.tensor((7, 150))))
    given = (codes(300, WIDTH).view(np.int8), np.abs(normal(300)), np.zeros(300, np.int32), 0, -128, 127, None, None)
    name = "quantized_decomposed.dequantize_per_channel.default"
    scaled = build.call(name, *given, build.tensor((300, WIDTH)))
    build.output(build.call(LINEAR, x, scaled, None, build.tensor((7, 300))))
    check(device, build, 64 * 4 * WIDTH, [normal(7, WIDTH)], [normal(3, WIDTH)], fuse=False)


# -- tables -----------------------------------------------------------------------------------------------------------


def table(build: GraphBuilder, indices: Ref, form: str, rows: int) -> Ref:
    """Rows of 16 elements of a table in any form."""
    out, half = build.tensor((1, 9, 16)), -(-rows // 4) * 4
    if form == "f32":
        return build.call(EMBEDDING, normal(rows, 16), indices, -1, False, False, out)
    if form == "q4gsw":
        scales = np.abs(normal(rows, 2))
        return build.call("et_vk.embedding_q4gsw.default", codes(rows, 8), scales, 8, indices, True, out)
    by_group = np.abs(normal(2, half)).astype(np.float16)
    if form == "q8gsw":
        bytes_ = codes(rows, 16).view(np.int8)
        return build.call("et_webgpu.embedding_q8gsw.default", bytes_, by_group, 8, indices, out)
    if form == "q4gaw":
        pairs = np.stack([by_group, -8 * by_group], axis=-1)
        return build.call("et_webgpu.embedding_q4gaw.default", codes(rows, 8), pairs, 8, indices, out)
    scales, zeros = np.abs(normal(rows)), normal(rows)
    bytes_ = codes(rows, 16).view(np.int8)
    given = (bytes_, scales, zeros, -128, 127, indices, out)
    return build.call("quantized_decomposed.embedding_byte.default", *given)


@pytest.mark.parametrize("rows", [65, 128, 331])
@pytest.mark.parametrize("form", ["f32", "q4gsw", "q8gsw", "q4gaw", "byte"])
def test_tables_of_every_format_are_read_in_parts(device: Device, form: str, rows: int) -> None:
    build = GraphBuilder()
    indices = build.input((1, 9), "int32")
    build.output(table(build, indices, form, rows))
    ends = np.array([[0, 63, 64, rows - 1, rows - 2, 65 % rows]], np.int32)
    steps = [ends, rng.integers(0, rows, (1, 9), np.int32), rng.integers(0, rows, (1, 2), np.int32)]
    row_bytes = 64 if form == "f32" else 8 if form.startswith("q4") else 16
    most = row_bytes * max(40, rows // 3)
    check(device, build, most, *([step] for step in steps))


def test_an_index_outside_of_a_table_in_parts_is_refused(device: Device) -> None:
    build = GraphBuilder()
    build.output(table(build, build.input((1, 9), "int32"), "f32", 200))
    split = split_constants(build_graph(build.build()), 64 * 64)
    executor = GraphExecutor(split, ConstantPool(device, lambda view: None), Planning(device.features, device.limits))
    for bad in (-1, 200):
        with pytest.raises(InvalidInputError, match=f"token {bad} is not in the vocabulary of 200 tokens"):
            executor.execute([np.array([[3, bad]], np.int32)])
    executor.close()


def test_a_table_that_is_the_head_too_has_one_set_of_parts(device: Device) -> None:
    build = GraphBuilder()
    indices = build.input((1, 9), "int32")
    weights = build.constant(codes(300, WIDTH).view(np.int8))
    scales = build.constant(np.abs(normal(2, 300)).astype(np.float16))
    x = build.call("et_webgpu.embedding_q8gsw.default", weights, scales, 16, indices, build.tensor((1, 9, WIDTH)))
    build.output(build.call("et_webgpu.linear_q8gsw.default", x, weights, scales, 16, None, build.tensor((1, 9, 300))))
    split = check(device, build, 100 * WIDTH, [np.array([[0, 299, 64, 128]], np.int32)])
    read = {t.id for call in split.calls for t in call.inputs if t.constant is not None and t.dtype == "int8"}
    assert len(read) == 5, "parts of 64 rows"


# -- other calls ------------------------------------------------------------------------------------------------------


def test_other_calls_run_along_axes_of_independent_rows(device: Device) -> None:
    build = GraphBuilder()
    x = build.input((7, 1), "int32")
    largest = build.call("aten.argmax.default", normal(200, 32), 1, False, build.tensor((200,), "int32"))
    build.output(build.call("aten.add.Tensor", x, largest, 1, build.tensor((7, 200), "int32")))
    split = check(device, build, 6000, [np.arange(7, dtype=np.int32)[:, None]], [np.ones((2, 1), np.int32)])
    assert names(split)["aten.argmax.default"] == 5


def refusal(build: GraphBuilder, most: int) -> str:
    with pytest.raises(LimitError) as error:
        split_constants(build_graph(build.build()), most)
    return str(error.value)


def test_what_needs_a_constant_whole_is_named() -> None:
    build = GraphBuilder()
    x = build.input((4,))
    total = build.call("aten.sum.dim_IntList", normal(200, 32), [0, 1], False, None, build.tensor(()))
    build.output(build.call("aten.add.Tensor", x, total, 1, build.tensor((4,))))
    view = build.call("aten.view_copy.default", normal(100, 64), [6400], build.tensor((6400,)))
    build.output(view)
    message = refusal(build, 5000)
    assert "aten.sum.dim_IntList reads all 25600 bytes" in message
    assert "aten.view_copy.default reads all 25600 bytes" in message
    assert "binds at most 5000 bytes (max-storage-buffer-binding-size)" in message


def test_rows_longer_than_a_binding_are_refused() -> None:
    build = GraphBuilder()
    build.output(layer(build, build.input((1, 7, WIDTH)), "f32", 128, bias=False))
    assert "reads all 16384 bytes" in refusal(build, 500)


def test_graphs_without_large_constants_stay_as_they_are() -> None:
    build = GraphBuilder()
    build.output(layer(build, build.input((1, 7, WIDTH)), "f32", 128, bias=False))
    graph = build_graph(build.build())
    assert split_constants(graph, 128 * 4 * WIDTH) is graph


# -- at the size that devices bind ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_head_of_263_mb_runs_where_bindings_end_at_128_mib(device: Device) -> None:
    rows, width = 128_256, 2048
    build = GraphBuilder()
    indices = build.input((1, 2), "int32")
    raw = rng.integers(0, 256, rows * width, np.uint8).view(np.int8).reshape(rows, width)
    weights, scales = build.constant(raw), build.constant(np.full((1, rows), 2**-9, np.float16))
    x = build.call("et_webgpu.embedding_q8gsw.default", weights, scales, width, indices, build.tensor((1, 2, width)))
    build.output(
        build.call("et_webgpu.linear_q8gsw.default", x, weights, scales, width, None, build.tensor((1, 2, rows)))
    )
    most = min(device.limits.max_binding_bytes, 128 << 20)
    assert raw.nbytes == 262_668_288 > most
    executor = GraphExecutor(
        split_constants(build_graph(build.build()), most),
        ConstantPool(device, lambda view: None),
        Planning(device.features, device.limits),
    )
    (got,) = executor.execute([np.array([[rows - 1, rows // 2]], np.int32)])
    executor.close()
    x = raw[[rows - 1, rows // 2]].astype(np.float64) / 2**18
    for i in range(2):
        for start in range(0, rows, 8192):
            wanted = raw[start : start + 8192].astype(np.float32) @ x[i].astype(np.float32)
            np.testing.assert_allclose(got[0, i, start : start + 8192], wanted, rtol=1e-3, atol=1e-2)

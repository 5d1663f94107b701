"""Linear layers take in what surrounds them: norms, each other, gates, biases, residuals. And what keeps them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Graph
from tests.graph_builder import GraphBuilder, Ref

from .graphs import FUSED_LINEAR, Model, check, fused, is_unchanged, names, normal

NORM, LINEAR, ADD = "et_vk.rms_norm.default", "aten.linear.default", "aten.add.Tensor"
FORMS = ("f32", "q4gsw", "q4gaw", "q8gsw", "q8csw")
random = np.random.default_rng(5)


def layer(build: Model, x: Ref, form: str = "f32", n: int = 16, bias: bool = False) -> Ref:
    """A linear layer [.., 32] -> [.., n] of any form."""
    out, given = build.rows(n), normal(n) if bias else None
    if form == "f32":
        return build.call(LINEAR, x, normal(n, 32) / 6, given, out)
    bits = 4 if form.startswith("q4") else 8
    codes = random.integers(0, 256, (n, 4 * bits), np.uint8)
    columns = -(-n // 4) * 4
    scales = np.abs(normal(1, columns)).astype(np.float32) / 2**bits
    if form == "q8csw":
        return build.call("aten._weight_int8pack_mm.default", x, codes.view(np.int8), scales[0, :n].copy(), out)
    if form == "q4gsw":
        return build.call("et_vk.linear_q4gsw.default", x, codes, scales, 32, given, out)
    if form == "q8gsw":
        halves = scales.astype(np.float16)
        return build.call("et_webgpu.linear_q8gsw.default", x, codes.view(np.int8), halves, 32, given, out)
    pairs = np.stack([scales, -8 * scales], axis=-1).astype(np.float16)
    return build.call("et_webgpu.linear_q4gaw.default", x, codes, pairs, 32, given, out)


def used(graph: Graph) -> list[Any]:
    """The named arguments of every fused layer."""
    return [dict(zip(call.op.parameters, call.args, strict=True)) for call in graph.calls if call.name == FUSED_LINEAR]


# -- layers with one input, and the norm before them -----------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_query_key_and_value_behind_a_norm(device: Device, form: str, bias: bool) -> None:
    build = Model(width=32)
    x = build.norm(build.x)
    build.output(*(layer(build, x, form, n, bias) for n in (16, 8, 8)))
    graph = check(device, build, ["norm_linear"], build.steps(7, 1, 3))
    (arguments,) = used(graph)
    assert (
        arguments["weight_format"] == form and len(arguments["weights"]) == 3 and arguments["norm_weight"] is not None
    )
    assert len(graph.calls) == 2


def test_one_layer_behind_a_norm(device: Device) -> None:
    build = Model(width=32)
    build.output(layer(build, build.norm(build.x)))
    graph = check(device, build, ["norm_linear"], build.steps(7, 1))
    assert names(graph)[FUSED_LINEAR] == 1 and names(graph)[NORM] == 0


def test_layers_with_one_input_and_no_norm(device: Device) -> None:
    build = Model(width=32)
    build.output(layer(build, build.x), layer(build, build.x))
    (arguments,) = used(check(device, build, ["norm_linear"], build.steps(7, 1)))
    assert arguments["norm_weight"] is None


def test_a_lone_layer_stays() -> None:
    build = Model(width=32)
    build.output(layer(build, build.sigmoid(build.x)))
    assert is_unchanged(build, "norm_linear")


def test_more_than_three_layers(device: Device) -> None:
    """A group of three and one of two; the norm stays, since both read it."""
    build = Model(width=32)
    x = build.norm(build.x)
    build.output(*(layer(build, x) for _ in range(5)))
    graph = check(device, build, ["norm_linear"], build.steps(7, 1))
    assert [len(arguments["weights"]) for arguments in used(graph)] == [3, 2]
    assert names(graph)[NORM] == 1


def test_layers_of_two_forms_keep_the_norm(device: Device) -> None:
    build = Model(width=32)
    x = build.norm(build.x)
    build.output(layer(build, x, "f32"), layer(build, x, "q4gsw"), layer(build, x, "f32"))
    graph = check(device, build, ["norm_linear"], build.steps(7, 1))
    assert names(graph)[NORM] == names(graph)[FUSED_LINEAR] == names(graph)["et_vk.linear_q4gsw.default"] == 1


def test_matrices_of_two_dtypes_stay_apart(device: Device) -> None:
    """float32 layers whose weights are stored as float16 are no part of a call with others."""
    build = Model(width=32)
    x = build.norm(build.x)
    half = normal(16, 32).astype(np.float16)
    build.output(layer(build, x), build.call(LINEAR, x, half, None, build.rows(16)), layer(build, x))
    graph = check(device, build, ["norm_linear"], build.steps(7, 1))
    assert names(graph)[NORM] == names(graph)[FUSED_LINEAR] == names(graph)[LINEAR] == 1


def test_a_norm_that_the_host_asked_for_stays(device: Device) -> None:
    build = Model(width=32)
    x = build.norm(build.x)
    build.output(layer(build, x), layer(build, x), x)
    graph = check(device, build, ["norm_linear"], build.steps(7, 1))
    assert names(graph)[NORM] == names(graph)[FUSED_LINEAR] == 1


def test_a_norm_that_something_else_reads_stays(device: Device) -> None:
    build = Model(width=32)
    x = build.norm(build.x)
    build.output(layer(build, x), build.sigmoid(x))
    assert is_unchanged(build, "norm_linear")


def test_a_norm_that_is_a_bias_too_stays(device: Device) -> None:
    """The layer reads it twice, and only one of the two goes away with the norm."""
    build = Model(width=1, most=1)
    x = build.norm(build.x)
    build.output(build.call(LINEAR, x, normal(1, 1), x, build.rows()))
    assert is_unchanged(build, "norm_linear")
    check(device, build, ["norm_linear"], build.steps(1))


def test_a_layer_whose_weights_come_later_stays_apart(device: Device) -> None:
    """Its matrix is prepacked only behind the first layer."""
    build = Model(width=32)
    x = build.norm(build.x)
    first = layer(build, x)
    weight = build.call("et_vk.prepack.default", build.constant(normal(16, 32)), build.tensor((16, 32)))
    build.output(first, build.call(LINEAR, x, weight, None, build.rows(16)))
    assert is_unchanged(build, "norm_linear")
    assert not used(check(device, build, ["norm_linear"], build.steps(7)))


def test_weights_that_are_computed_stay_apart() -> None:
    build = Model(width=32)
    weight = build.call("aten.neg.default", build.constant(normal(16, 32)), build.tensor((16, 32)))
    build.output(build.call(LINEAR, build.norm(build.x), weight, None, build.rows(16)))
    assert is_unchanged(build, "norm_linear")


def test_weights_that_are_written_stay_apart() -> None:
    build = Model(width=32)
    weight = build.constant(normal(16, 32))
    build.call("aten.add.Tensor", weight, build.input((16, 32)), 1, weight)
    build.output(build.call(LINEAR, build.norm(build.x), weight, None, build.rows(16)))
    assert is_unchanged(build, "norm_linear")


def test_memory_that_is_written_is_read_in_its_time(device: Device) -> None:
    """The second layer reads a cache after a write, so it cannot move before that."""
    build = GraphBuilder()
    cache, weight = build.constant(normal(1, 8, 1, 16)), normal(5, 16)

    def read() -> Ref:
        return build.call(LINEAR, cache, weight, None, build.tensor((1, 8, 1, 5)))

    first = read()
    build.call("update_cache.default", build.input((1, 2, 1, 16)), cache, 3, build.tensor((1,)))
    build.output(first, read())
    assert is_unchanged(build, "norm_linear")
    check(device, build, ["norm_linear"], [[normal(1, 2, 1, 16)] for _ in range(2)])


# -- gates ------------------------------------------------------------------------------------------------------------


class Gate:
    """gate, sigmoid(gate) and up, and what multiplies them."""

    def __init__(self, form: str = "f32", bias: bool = False, up_first: bool = False) -> None:
        self.build = build = Model(width=32)
        x = build.norm(build.x)
        layers = [layer(build, x, form, 32, bias) for _ in range(2)]
        self.gate, self.up = layers[::-1] if up_first else layers
        self.sigmoid = build.sigmoid(self.gate)

    def finish(self, *outputs: Ref) -> Model:
        self.build.output(*outputs)
        return self.build


ORDERS: dict[str, Callable[[Model, Ref, Ref, Ref], Ref]] = {
    "silu first": lambda b, planner, s, u: b.mul(b.mul(planner, s), u),
    "turned round": lambda b, planner, s, u: b.mul(u, b.mul(s, planner)),
    "sigmoid last": lambda b, planner, s, u: b.mul(b.mul(planner, u), s),
    "up with sigmoid": lambda b, planner, s, u: b.mul(planner, b.mul(u, s)),
}


@pytest.mark.parametrize("up_first", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("passes", [("norm_linear", "gate"), ("gate",)], ids="-".join)
def test_gates_in_any_order(device: Device, passes: tuple[str, ...], order: str, up_first: bool) -> None:
    parts = Gate(up_first=up_first)
    build = parts.finish(ORDERS[order](parts.build, parts.gate, parts.sigmoid, parts.up))
    graph = check(device, build, passes, build.steps(7, 1, 3))
    (arguments,) = used(graph)
    assert arguments["gated"] and (arguments["norm_weight"] is not None) is ("norm_linear" in passes)
    assert not {"aten.mul.Tensor", "aten.sigmoid.default"} & set(names(graph))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_gates_of_every_form(device: Device, form: str, bias: bool) -> None:
    parts = Gate(form, bias)
    build = parts.finish(parts.build.mul(parts.build.mul(parts.gate, parts.sigmoid), parts.up))
    assert used(check(device, build, ["norm_linear", "gate"], build.steps(7, 1)))[0]["gated"]


@pytest.mark.parametrize("asked", ["gate", "up", "sigmoid", "product"])
def test_an_output_inside_blocks_a_gate(device: Device, asked: str) -> None:
    parts = Gate()
    product = parts.build.mul(parts.gate, parts.sigmoid)
    out = parts.build.mul(product, parts.up)
    inside = {"gate": parts.gate, "up": parts.up, "sigmoid": parts.sigmoid, "product": product}[asked]
    build = parts.finish(out, inside)
    assert names(check(device, build, ["norm_linear", "gate"], build.steps(7)))["aten.mul.Tensor"] == 2


@pytest.mark.parametrize("read", ["gate", "up", "sigmoid", "product"])
def test_another_reader_blocks_a_gate(read: str) -> None:
    parts = Gate()
    product = parts.build.mul(parts.gate, parts.sigmoid)
    out = parts.build.mul(product, parts.up)
    inside = {"gate": parts.gate, "up": parts.up, "sigmoid": parts.sigmoid, "product": product}[read]
    build = parts.finish(out, parts.build.call("aten.neg.default", inside, parts.build.rows()))
    assert names(fused(build, "norm_linear", "gate"))["aten.mul.Tensor"] == 2


@pytest.mark.parametrize("rounded", ["sigmoid", "product"])
def test_another_dtype_blocks_a_gate(rounded: str) -> None:
    """A result in float16 is rounded on the way."""
    parts = Gate()
    build, dtypes = parts.build, {rounded: "float16"}
    sigmoid, product = (build.rows(dtype=dtypes.get(name, "float32")) for name in ("sigmoid", "product"))
    build.call("aten.sigmoid.default", parts.gate, sigmoid)
    build.call("aten.mul.Tensor", parts.gate, sigmoid, product)
    build.output(build.mul(product, parts.up))
    assert is_unchanged(build, "gate")


def test_the_sigmoid_of_something_else_is_no_gate() -> None:
    parts = Gate()
    other = parts.build.sigmoid(parts.build.call("aten.neg.default", parts.gate, parts.build.rows()))
    build = parts.finish(parts.build.mul(parts.build.mul(parts.gate, other), parts.up))
    assert is_unchanged(build, "gate")


def test_squares_are_no_gate() -> None:
    parts = Gate()
    product = parts.build.mul(parts.gate, parts.sigmoid)
    build = parts.finish(parts.build.mul(product, product), parts.up)
    assert is_unchanged(build, "gate")


@pytest.mark.parametrize(("inputs", "forms"), [(2, ("f32", "f32")), (1, ("f32", "q4gsw"))])
def test_layers_that_differ_make_no_gate(inputs: int, forms: tuple[str, str]) -> None:
    build = Model(width=32)
    other = build.sigmoid(build.x) if inputs == 2 else build.x
    gate, up = layer(build, build.x, forms[0], 32), layer(build, other, forms[1], 32)
    build.output(build.mul(build.mul(gate, build.sigmoid(gate)), up))
    assert is_unchanged(build, "gate")


# -- what is added ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_residuals(device: Device, form: str, first: bool) -> None:
    build = Model(width=32)
    stream = build.norm(build.x)
    out = layer(build, build.sigmoid(stream), form, 32)
    build.output(build.add(out, stream) if first else build.add(stream, out))
    graph = check(device, build, ["residual"], build.steps(7, 1, 3))
    (arguments,) = used(graph)
    assert arguments["residual"] is not None and names(graph)[ADD] == 0


def test_the_residual_of_a_gated_layer(device: Device) -> None:
    parts = Gate()
    gated = parts.build.mul(parts.build.mul(parts.gate, parts.sigmoid), parts.up)
    build = parts.finish(parts.build.add(gated, parts.build.x))
    (arguments,) = used(check(device, build, ["norm_linear", "gate", "residual"], build.steps(7, 1)))
    assert arguments["gated"] and arguments["residual"] is not None


def test_a_sum_of_two_layers(device: Device) -> None:
    build = Model(width=32)
    build.output(build.add(layer(build, build.x, n=32), layer(build, build.x, "q4gsw", n=32)))
    graph = check(device, build, ["residual"], build.steps(7, 1))
    assert names(graph)[FUSED_LINEAR] == names(graph)[LINEAR] == 1


def test_a_second_residual_stays(device: Device) -> None:
    build = Model(width=32)
    build.output(build.add(build.add(layer(build, build.x, n=32), build.x), build.sigmoid(build.x)))
    assert names(check(device, build, ["residual"], build.steps(7, 1)))[ADD] == 1


def test_a_factor_blocks_a_residual() -> None:
    build = Model(width=32)
    build.output(build.add(build.x, layer(build, build.x, n=32), 0.5))
    assert is_unchanged(build, "residual")


@pytest.mark.parametrize("asked", ["output", "reader", "itself"])
def test_who_else_wants_the_layer_blocks_a_residual(asked: str) -> None:
    build = Model(width=32)
    out = layer(build, build.x, n=32)
    total = build.add(out, out if asked == "itself" else build.x)
    build.output(total, *([out] if asked == "output" else [build.sigmoid(out)] if asked == "reader" else []))
    assert is_unchanged(build, "residual")


def test_a_row_for_all_tokens_is_no_residual(device: Device) -> None:
    """With room for seven rows it looks like one, and in a step it may be a single row."""
    build = Model(width=32)
    build.output(build.add(build.input((1, 7, 32)), layer(build, build.x, n=32)))
    assert is_unchanged(build, "residual")
    steps = [[normal(1, n, 32), normal(1, m, 32)] for n, m in ((7, 7), (5, 1), (1, 1))]
    check(device, build, ["residual"], steps)


def test_results_of_three_layers_take_no_residual() -> None:
    build = Model(width=32)
    x = build.norm(build.x)
    q, k = layer(build, x, n=32), layer(build, x, n=32)
    build.output(build.add(build.x, q), k)
    assert names(fused(build, "norm_linear", "residual"))[ADD] == 1


def test_memory_that_is_written_is_no_residual(device: Device) -> None:
    build = GraphBuilder()
    x, total = build.input((1, 1, 16)), build.constant(normal(1, 1, 16))
    out = build.call(LINEAR, x, normal(16, 16), None, build.tensor((1, 1, 16)))
    build.output(build.call(ADD, total, out, 1, build.tensor((1, 1, 16))))
    build.call(ADD, total, x, 1, total)
    assert is_unchanged(build, "residual")
    check(device, build, ["residual"], [[normal(1, 1, 16)] for _ in range(3)])


@pytest.mark.parametrize("form", ["f32", "q8csw"])
def test_added_constants_are_biases(device: Device, form: str) -> None:
    """As 8-bit layers of models with biases have them."""
    build = Model(width=32)
    x = build.norm(build.x)
    build.output(*(build.add(layer(build, x, form, 32), build.constant(normal(32))) for _ in range(3)))
    (arguments,) = used(check(device, build, ["bias", "norm_linear"], build.steps(7, 1)))
    assert all(bias is not None for bias in arguments["biases"])


@pytest.mark.parametrize(("bias", "dims"), [(True, (32,)), (False, (1,)), (False, (7, 32)), (False, (1, 1, 32))])
def test_what_is_no_bias(bias: bool, dims: tuple[int, ...]) -> None:
    build = Model(width=32)
    build.output(build.add(layer(build, build.x, n=32, bias=bias), build.constant(normal(*dims))))
    assert is_unchanged(build, "bias")


def test_a_computed_row_is_no_bias() -> None:
    build = Model(width=32)
    build.output(build.add(layer(build, build.x, n=32), build.input((32,))))
    assert is_unchanged(build, "bias")

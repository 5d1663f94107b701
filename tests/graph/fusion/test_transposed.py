"""Products with transposed constants as linear layers."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from tests.graph_builder import GraphBuilder

from .graphs import check, is_unchanged, names, normal

LINEAR = "aten.linear.default"


def product(
    model: GraphBuilder, *, bias: tuple[int, ...] | None, order: tuple[int, ...] = (1, 0), beta: float = 1
) -> None:
    """``x`` [3, 7] times the transpose of a constant [5, 7]."""
    x, weight = model.input((3, 7)), model.constant(normal(5, 7) if order == (1, 0) else normal(7, 5))
    turned = model.call("aten.permute_copy.default", weight, list(order), model.tensor((7, 5)))
    if bias is None:
        model.output(model.call("aten.mm.default", x, turned, model.tensor((3, 5))))
    else:
        added = model.constant(normal(*bias))
        model.output(model.call("aten.addmm.default", added, x, turned, beta, 1, model.tensor((3, 5))))


@pytest.mark.parametrize("bias", [None, (5,)])
def test_becomes_a_linear_layer(device: Device, bias: tuple[int, ...] | None) -> None:
    model = GraphBuilder()
    product(model, bias=bias)
    graph = check(device, model, ["linear"], [[normal(3, 7)], [normal(3, 7)]])
    assert names(graph) == {LINEAR: 1}


@pytest.mark.parametrize(
    "change", [{"bias": (3, 5)}, {"bias": (1,)}, {"bias": (5,), "beta": 0.5}, {"bias": (5,), "order": (0, 1)}]
)
def test_stays_what_it_is(change: dict[str, object]) -> None:
    model = GraphBuilder()
    product(model, **change)  # type: ignore[arg-type]
    assert is_unchanged(model, "linear")


def test_a_transpose_that_something_else_reads_stays(device: Device) -> None:
    model = GraphBuilder()
    x, weight = model.input((3, 7)), model.constant(normal(5, 7))
    turned = model.call("aten.t_copy.default", weight, model.tensor((7, 5)))
    model.output(model.call("aten.mm.default", x, turned, model.tensor((3, 5))))
    model.output(model.call("aten.sigmoid.default", turned, model.tensor((7, 5))))
    graph = check(device, model, ["linear"], [[np.ones((3, 7), np.float32)]])
    assert names(graph) == {LINEAR: 1, "aten.t_copy.default": 1, "aten.sigmoid.default": 1}

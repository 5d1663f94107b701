"""Batch norms and bounds behind a convolution become a part of it, as an exporter that delegates it would have done."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops.values import Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, rewritten

_CONVOLUTION = "aten.convolution.default"
_NORM = "aten._native_batch_norm_legit_no_training.default"
_RELU, _RELU6 = "aten.relu.default", "aten.relu6.default"
_BOUNDS = ("aten.clamp.default", "aten.hardtanh.default")


def fuse_convolutions(graph: Graph) -> Graph:
    """The graph with convolutions that normalize by constants, and hold their results between two numbers."""
    flow = Dataflow(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        if call.name == _CONVOLUTION and _fits(call, flow):
            calls_at |= _fused(call, flow)
    return rewritten(graph, calls_at)


def _fused(call: OpCall, flow: Dataflow) -> dict[int, list[OpCall]]:
    """What comes in the place of a convolution, and of what is behind it."""
    *args, out = call.args
    gone = [call]
    norm = _only_reader(out, flow)
    params: list[Any] | None = None
    if norm is not None and norm.name == _NORM and norm.args[0] is out:
        params = _params(call, norm, flow)
        if params is not None:
            gone.append(norm)
            out = norm.outputs[0]
    bounds = _only_reader(out, flow)
    low, high = None, None
    if bounds is not None and bounds.args[0] is out and (found := _bounds(bounds)) is not None:
        (low, high), out = found, bounds.outputs[0]
        gone.append(bounds)
    if len(gone) == 1:
        return {}
    if params is None:
        made = make_call("et_vk.conv_with_clamp.default", (*args, low, high, out))
    else:
        made = make_call("et_webgpu.fused_convolution.default", (*args, *params, low, high, out))
    return {c.index: [] for c in gone} | {gone[-1].index: [made]}


def _fits(call: OpCall, flow: Dataflow) -> bool:
    floats = all(t.dtype == "float32" for t in (*call.inputs, *call.outputs))
    return floats and flow.is_stateless(call)


def _only_reader(tensor: Tensor, flow: Dataflow) -> OpCall | None:
    """The one call that sees a result."""
    if not flow.is_inner(tensor):
        return None
    (reader,) = flow.readers(tensor)
    return reader if flow.is_stateless(reader) else None


def _params(call: OpCall, norm: OpCall, flow: Dataflow) -> list[Any] | None:
    """Tensors and eps of a batch norm, if it can be computed with the weights: of constants, and by finite numbers."""
    _, weight, bias, mean, variance, _, eps, (out, *others) = norm.args
    given = [t for t in (*call.args[1:3], weight, bias, mean, variance) if t is not None]
    constant = all(t.dtype == "float32" and flow.is_constant(t) for t in given)
    unread = all(not flow.readers(t) and not flow.is_graph_output(t) for t in others)
    if not (constant and unread and out.dtype == "float32"):
        return None
    with np.errstate(all="ignore"):
        scale = (1.0 if weight is None else _array(weight, flow)) / np.sqrt(_array(variance, flow) + eps)
    return [[weight, bias, mean, variance], eps] if np.isfinite(scale).all() else None


def _array(tensor: Tensor, flow: Dataflow) -> np.ndarray:
    root = flow.root(tensor)
    return flow.graph.constants[root.id].array(root).astype(np.float64)


def _bounds(call: OpCall) -> tuple[float | None, float | None] | None:
    """Between which numbers a call holds its float32 argument."""
    if call.outputs[0].dtype != "float32":
        return None
    if call.name == _RELU:
        return 0.0, None
    if call.name == _RELU6:
        return 0.0, 6.0
    if call.name not in _BOUNDS:
        return None
    _, low, high, _ = call.args
    numbers = all(n is None or (isinstance(n, int | float) and not math.isnan(n)) for n in (low, high))
    return (low, high) if numbers else None

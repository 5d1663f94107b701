"""Linear layers whose weights a call dequantizes at every step read the codes themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...ops.values import Tensor
from ..build import Graph, OpCall
from .dataflow import Dataflow, rewritten, without_unread
from .projection import Projection

PER_CHANNEL, AFFINE = "quantized_decomposed.dequantize_per_channel.default", "torchao.dequantize_affine.default"
LINEAR, ADDMM, MM = "aten.linear.default", "aten.addmm.default", "aten.mm.default"
TRANSPOSES = ("aten.permute_copy.default", "aten.t_copy.default")
_FORMAT = "q8csw"


@dataclass(frozen=True)
class _Codes:
    """A matrix [N, K] of int8 codes, of which zero stands for zero, with a scale for each row."""

    weights: Tensor
    scales: Tensor


def read_codes(graph: Graph) -> Graph:
    """The graph whose linear layers take int8 constants as they are stored, and that dequantizes none for them."""
    flow = Dataflow(graph)
    layers = {call.index: [found.call] for call in graph.calls if (found := _layer(call, flow)) is not None}
    gone = (PER_CHANNEL, AFFINE, *TRANSPOSES)
    return without_unread(rewritten(graph, layers), graph, lambda call: call.name in gone)


def _layer(call: OpCall, flow: Dataflow) -> Projection | None:
    """A linear layer over such codes, as ``fused_linear`` computes it."""
    if not flow.is_stateless(call):
        return None
    x, codes, bias = _parts(call, flow)
    if x is None or codes is None or x.rank == 0 or x.max_dims[-1] != codes.weights.max_dims[1]:
        return None
    floats = [x, call.args[-1], *([] if bias is None else [bias])]
    rows = codes.weights.max_dims[:1]
    if any(t.dtype != "float32" for t in floats) or not (bias is None or bias.max_dims == rows):
        return None
    lists = (codes.weights,), (codes.scales,)
    return Projection(x, None, 0.0, _FORMAT, *lists, 0, (bias,), False, None, (call.args[-1],))


def _parts(call: OpCall, flow: Dataflow) -> tuple[Tensor | None, _Codes | None, Tensor | None]:
    """What a layer reads, its codes and its bias."""
    if call.name == LINEAR:
        x, weight, bias, _ = call.args
        return x, _codes(flow.producer(weight), flow), bias
    if call.name == MM:
        return call.args[0], _transposed(call.args[1], flow), None
    if call.name == ADDMM and call.args[3:5] == (1, 1):
        bias, x, columns, *_ = call.args
        return x, _transposed(columns, flow), bias
    return None, None, None


def _transposed(columns: Tensor, flow: Dataflow) -> _Codes | None:
    """The codes of which a matrix [K, N] is the transpose."""
    call = flow.producer(columns)
    if call is None or call.name not in TRANSPOSES or call.args[0].rank != 2:
        return None
    swaps = call.name == TRANSPOSES[1] or [d % 2 for d in call.args[1]] == [1, 0]
    return _codes(flow.producer(call.args[0]), flow) if swaps else None


def _codes(call: OpCall | None, flow: Dataflow) -> _Codes | None:
    """What a call dequantizes, if it is a constant matrix with a scale for each row, and zero points of 0."""
    if call is None or call.name not in (PER_CHANNEL, AFFINE) or not flow.is_stateless(call):
        return None
    named: dict[str, Any] = call.named
    weights: Tensor = call.args[0]
    by_affine = call.name == AFFINE
    scales, zeros = (named[n] for n in (("scale", "zero_point") if by_affine else ("scales", "zero_points")))
    if weights.rank != 2 or (weights.dtype, scales.dtype) != ("int8", "float32"):
        return None
    rows, width = weights.max_dims
    of_rows = list(named["block_size"]) == [1, width] if by_affine else named["axis"] in (0, -2)
    one_each = scales.max_dims in ((rows,), (rows, 1))
    constant = all(flow.is_constant(t) for t in (weights, scales))
    return _Codes(weights, scales) if of_rows and one_each and constant and _is_zero(zeros, flow) else None


def _is_zero(zeros: Tensor | None, flow: Dataflow) -> bool:
    if zeros is None:
        return True
    root = flow.root(zeros)
    return flow.is_constant(zeros) and flow.graph.constants[root.id].unless_zeros(root) is None

"""RMSNorms that an exporter wrote as single operators become the operator that they are."""

from __future__ import annotations

from ...ops.shapes import normalize_dim
from ...ops.sizes import Sizes
from ...ops.values import Tensor
from ..build import Graph, OpCall, make_call
from .dataflow import Dataflow, rewritten, sizes_of

_MUL, _ADD, _ADD_SCALAR, _DIV = "aten.mul.Tensor", "aten.add.Tensor", "aten.add.Scalar", "aten.div.Tensor"
_POW, _MEAN, _SQRT, _RSQRT = "aten.pow.Tensor_Scalar", "aten.mean.dim", "aten.sqrt.default", "aten.rsqrt.default"


def compose_norms(graph: Graph) -> Graph:
    """The graph with ``rms_norm`` for x * rsqrt(mean(x²) + eps) * weight, and for x / sqrt(mean(x²) + eps) * weight."""
    flow, sizes = Dataflow(graph), sizes_of(graph)
    calls_at: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        if call.name == _MUL and flow.is_stateless(call) and _floats(call):
            for normed, weight in (call.args[:2], call.args[1::-1]):
                calls_at |= _norm(call, normed, weight, flow, sizes)
    return rewritten(graph, calls_at)


def _floats(call: OpCall) -> bool:
    return all(t.dtype == "float32" for t in (*call.inputs, *call.outputs))


def _norm(call: OpCall, normed: Tensor, weight: Tensor, flow: Dataflow, sizes: Sizes) -> dict[int, list[OpCall]]:
    """What comes in the place of ``call`` and of all before it, if it scales a normalized tensor by a constant."""
    last = _inner(normed, flow, _MUL, _DIV)
    if last is None or not flow.is_constant(weight) or weight.rank != 1:
        return {}
    divides = last.name == _DIV
    for x, factor in (last.args[:2],) if divides else (last.args[:2], last.args[1::-1]):
        root = _inner(factor, flow, _SQRT if divides else _RSQRT)
        shifted = _inner(root.args[0], flow, _ADD, _ADD_SCALAR) if root else None
        mean, eps = _shift(shifted, flow) if shifted else (None, 0.0)
        square = _inner(mean.args[0], flow, _POW, _MUL) if mean else None
        if root is None or shifted is None or mean is None or square is None:
            continue
        if _is_square(square, x) and _is_over_rows(mean, x) and sizes.of(x)[-1:] == weight.max_dims:
            gone: dict[int, list[OpCall]] = {c.index: [] for c in (last, root, shifted, mean, square)}
            return gone | {call.index: [make_call("et_vk.rms_norm.default", (x, weight, eps, call.outputs[0]))]}
    return {}


def _inner(tensor: Tensor, flow: Dataflow, *names: str) -> OpCall | None:
    """The call to one of these operators that makes a float32 tensor which only one other call sees."""
    call = flow.producer(tensor)
    fits = call is not None and call.name in names and flow.is_inner(tensor)
    return call if fits and call is not None and flow.is_stateless(call) and _floats(call) else None


def _shift(call: OpCall, flow: Dataflow) -> tuple[OpCall | None, float]:
    """The mean that a number is added to, and the number."""
    if call.name == _ADD_SCALAR:
        x, eps, alpha, _ = call.args
        return _inner(x, flow, _MEAN), float(eps * alpha)
    a, b, alpha, _ = call.args
    for x, number in ((a, b), (b, a)):
        if alpha == 1 and flow.is_constant(number) and all(n == 1 for n in number.max_dims):
            return _inner(x, flow, _MEAN), _number(number, flow)
    return None, 0.0


def _number(tensor: Tensor, flow: Dataflow) -> float:
    """The only element of a constant."""
    root = flow.root(tensor)
    return float(flow.graph.constants[root.id].array(root).reshape(()))


def _is_square(call: OpCall, x: Tensor) -> bool:
    return call.args[0] is x and (call.args[1] == 2 if call.name == _POW else call.args[1] is x)


def _is_over_rows(mean: OpCall, x: Tensor) -> bool:
    """Whether a mean is that of each row of a tensor like ``x``, with a dimension of 1 in its place."""
    _, dims, keep, *_ = mean.args
    return bool(keep) and len(dims) == 1 and normalize_dim(dims[0], x.rank) == x.rank - 1

"""Linear layers of all formats as what ``fused_linear`` takes: how passes over them see and make calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...ops.values import Tensor
from ..build import OpCall, make_call
from .dataflow import Dataflow

FUSED_LINEAR = "et_webgpu.fused_linear.default"
_LISTS = ("weights", "scales", "biases", "outs")


@dataclass(frozen=True)
class Projection:
    """The arguments of a call to ``fused_linear``, in its order."""

    x: Tensor
    norm_weight: Tensor | None
    norm_eps: float
    weight_format: str
    weights: tuple[Tensor, ...]
    scales: tuple[Tensor, ...]
    group_size: int
    biases: tuple[Tensor | None, ...]
    gated: bool
    residual: Tensor | None
    outs: tuple[Tensor, ...]

    @property
    def is_plain(self) -> bool:
        """Whether it is products and biases only."""
        return self.norm_weight is None and not self.gated and self.residual is None

    @property
    def kind(self) -> Any:
        """What two of them must have in common to become one."""
        norm = None if self.norm_weight is None else self.norm_weight.id
        # "f32" matrices may be stored as float16.
        return self.x.id, norm, self.norm_eps, self.weight_format, self.weights[0].dtype, self.group_size

    @property
    def call(self) -> OpCall:
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        return make_call(FUSED_LINEAR, tuple((vars(self) | lists).values()))


def projection(call: OpCall | None, flow: Dataflow) -> Projection | None:
    """A linear layer with float32 activations and constant weights; None for any other call."""
    found = _arguments(call) if call is not None else None
    if call is None or found is None or not flow.is_stateless(call):
        return None
    floats = [t for t in (found.x, *found.biases, *found.outs) if t is not None]
    constant = all(flow.is_constant(t) for t in (*found.weights, *found.scales))
    return found if constant and all(t.dtype == "float32" for t in floats) else None


def _arguments(call: OpCall) -> Projection | None:
    if call.name == FUSED_LINEAR:
        given: Any = [tuple(arg) if isinstance(arg, list) else arg for arg in call.args]
        return Projection(*given)
    layer = call.op.linear
    if layer is None:
        return None
    x, *_, out = call.args
    scales = () if layer.scales is None else (call.named[layer.scales],)
    group = 0 if layer.group_size is None else call.named[layer.group_size]
    bias = None if layer.bias is None else call.named[layer.bias]
    weights = (call.named[layer.weight],)
    return Projection(x, None, 0.0, layer.weight_format, weights, scales, group, (bias,), False, None, (out,))


def merged(projections: list[Projection]) -> Projection:
    """Several of one kind as one, with all their matrices and results."""
    lists: dict[str, Any] = {name: tuple(item for p in projections for item in getattr(p, name)) for name in _LISTS}
    return replace(projections[0], **lists)

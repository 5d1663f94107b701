"""Linear layers of all formats as what ``fused_linear`` takes: how passes over them see and make calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...ops.values import Tensor
from ..build import OpCall, make_call
from .dataflow import Dataflow
from .shapes import FUSED_LINEAR

_GROUPED = {
    "et_vk.linear_q4gsw.default": "q4gsw",
    "et_webgpu.linear_q4gaw.default": "q4gaw",
    "et_webgpu.linear_q8gsw.default": "q8gsw",
}


@dataclass(frozen=True)
class Projection:
    """The arguments of a call to ``fused_linear``, by its names."""

    x: Tensor
    norm_weight: Tensor | None
    norm_eps: float
    form: str
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
        return self.x.id, norm, self.norm_eps, self.form, self.weights[0].dtype, self.group_size

    @property
    def call(self) -> OpCall:
        lists = {name: list(getattr(self, name)) for name in ("weights", "scales", "biases", "outs")}
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
    args = call.args
    if call.name == FUSED_LINEAR:
        fields: Any = [tuple(arg) if isinstance(arg, list) else arg for arg in args]
        return Projection(*fields)
    if call.name == "aten.linear.default":
        x, weight, bias, out = args
        return Projection(x, None, 0.0, "f32", (weight,), (), 0, (bias,), False, None, (out,))
    if call.name == "aten._weight_int8pack_mm.default":
        x, weight, scale, out = args
        return Projection(x, None, 0.0, "q8csw", (weight,), (scale,), 0, (None,), False, None, (out,))
    if call.name in _GROUPED:
        x, weight, scale, group, bias, out = args
        form = _GROUPED[call.name]
        return Projection(x, None, 0.0, form, (weight,), (scale,), group, (bias,), False, None, (out,))
    return None


def merged(projections: list[Projection]) -> Projection:
    """Several of one kind as one, with all their matrices and results."""
    first = projections[0]
    lists = {
        name: tuple(item for p in projections for item in getattr(p, name))
        for name in ("weights", "scales", "biases", "outs")
    }
    return Projection(**{**vars(first), **lists})

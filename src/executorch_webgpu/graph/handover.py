"""Calls that may leave rows as float16 to the one linear layer that reads them, so that no dispatch only converts.

Whoever computes the rows asks the reader what it takes of so many, and says in its plan how it has left them. The
tensor then holds that in its memory, and the reader is planned again whenever it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import Error
from ..ops.fused_linear import NAME, fused_product
from ..ops.handover import SplitForm
from ..ops.matmul import Product, most_past, split_form
from ..ops.plan import Planner, Planning
from ..ops.values import LiveTensor, Tensor
from .build import Graph, OpCall
from .fusion.dataflow import Dataflow

_LINEAR = f"et_webgpu.{NAME}.default"
_MOST_FORMS = 64


class LinearReader:
    """A linear layer as a ``Reader``. ``product`` is live."""

    def __init__(self, planning: Planning, product: Product) -> None:
        self._planning, self._product = planning, product
        self._forms: dict[int, SplitForm | None] = {}

    def form(self, rows: int, width: int) -> SplitForm | None:
        """What its plan for so many rows takes, if it sees them so: a view may make others of them."""
        if width != self._product.width:
            return None
        if rows not in self._forms:
            if len(self._forms) == _MOST_FORMS:
                self._forms.clear()
            planner = Planner(self._planning, building=False, may_alias=False)
            self._forms[rows] = split_form(planner, NAME, replace(self._product, m=rows))
        return self._forms[rows]


@dataclass(frozen=True)
class Handover:
    """Call ``writer`` may leave ``out`` in the form that ``reader``, call ``index``, takes; it reads it as ``x``.

    ``past``: bytes behind it that may be read then.
    """

    writer: int
    out: Tensor
    reader: LinearReader
    index: int
    x: LiveTensor
    past: int


def find_handovers(graph: Graph, planning: Planning, args: Sequence[tuple[Any, ...]]) -> list[Handover]:
    """Those of a graph. ``args``: of all calls, live."""
    if not planning.splits or not planning.features.subgroup_matrix:
        return []
    flow, found = Dataflow(graph), []
    for call in graph.calls:
        out = _origin(flow, planning, call.args[0]) if call.name == _LINEAR else None
        writer = None if out is None else flow.producer(out)
        if out is None or writer is None:
            continue
        planner = Planner(planning, building=True, may_alias=False)
        planner.begin(call.op, args[call.index])
        try:
            product = fused_product(planner, *args[call.index])
        except Error:  # its own plan says why
            continue
        reader, x = LinearReader(planning, product), args[call.index][0]
        found.append(Handover(writer.index, out, reader, call.index, x, most_past(planner)))
    return found


def _origin(flow: Dataflow, planning: Planning, x: Tensor) -> Tensor | None:
    """The result that lies in the memory of ``x``, if nothing reads it, or the views in between, but one call."""
    while flow.is_inner(x) and (call := flow.producer(x)) is not None:
        if not call.op.view:
            return x
        if not _is_alias(planning, call):
            return None
        x = call.inputs[0]
    return None


def _is_alias(planning: Planning, call: OpCall) -> bool:
    """Whether a view takes the memory of its one input, as ``Planner.alias`` decides."""
    (x, *others), (out, *_) = call.inputs, call.outputs
    same = x.dtype == out.dtype and out.max_nbytes == x.max_nbytes
    return not others and same and out.id not in planning.no_alias

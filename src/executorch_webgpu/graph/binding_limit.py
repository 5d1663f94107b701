"""Tensors larger than what a device binds: calls read such constants in parts, each with some of their rows.

WebGPU promises bindings of 128 MiB. A table of tokens, or the head of a language model, is often larger. The pass
knows three ways to take a call apart:

* a linear layer, by output features: a matrix of its own for each part, and the results side by side;
* a table that is read by rows: every index is looked up in each part, and then chooses among the rows found;
* any other call, along an axis of the constant where its rows are independent (the trait ``rows``).

A part is a constant like any other. Calls that share a constant share its parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import LimitError
from ..ops.fused_linear import WEIGHT_FORMATS
from ..ops.registry import Table
from ..ops.shapes import ceil_div
from ..ops.values import Tensor
from .build import PREPACK, Constant, Graph, OpCall, make_call
from .fusion.dataflow import Dataflow, new_ids, substituted, with_calls, without_unread
from .fusion.projection import Projection, projection
from .fusion.quantized_weights import read_codes
from .fusion.transposed import compose_layers
from .memory import Kind, MemoryPlan

_ADD, _CAT, _WHERE = "aten.add.Tensor", "aten.cat.default", "aten.where.self"
_GE, _UNSQUEEZE = "aten.ge.Scalar", "aten.unsqueeze_copy.default"
_INDEX_IN_PART = "et_webgpu.index_in_part.default"
_ROWS, _QUAD = 64, 4  # parts are multiples of 64 rows if they can be, else of four, which kernels pack together
_PADDED = 16  # bytes: rows may grow to a multiple when they are packed


def split_constants(graph: Graph, most_bytes: int) -> Graph:
    """The graph with every constant that a call reads in parts of at most ``most_bytes``.

    Raises LimitError with all calls that need a larger one whole.
    """
    flow = Dataflow(graph)
    if not any(_is_large(t, flow, most_bytes) for call in graph.calls for t in call.inputs):
        return graph
    # As a product with a transpose, or with what a call dequantizes, a layer would make a large tensor of its weights.
    graph = read_codes(compose_layers(graph))
    splitter = _Splitter(graph, most_bytes)
    calls = [new for call in graph.calls for new in splitter.split(call)]
    if splitter.refused:
        raise _too_large(splitter.refused, most_bytes)
    split = replace(with_calls(graph, calls), constants={**graph.constants, **splitter.constants})
    return without_unread(split, graph, lambda call: call.name == PREPACK)


def check_bindable(graph: Graph, memory: MemoryPlan, most_bytes: int) -> None:
    """Raises LimitError with everything that a device would have to bind whole, and cannot."""
    large = {i for i, s in enumerate(memory.storages) if s.nbytes > most_bytes and s.kind is not Kind.CONSTANT}
    if not large:
        return
    made_by = {tensor.id: call.name for call in graph.calls for tensor in call.outputs}
    tensors = [*(t for call in graph.calls for t in (*call.inputs, *call.outputs)), *graph.inputs]
    found = [
        f"{f'the result {t!r} of {made_by[t.id]}' if t.id in made_by else repr(t)} has {t.max_nbytes} bytes"
        for t in {t.id: t for t in tensors if isinstance(t, Tensor)}.values()
        if memory.storage_of.get(t.id) in large and t.max_nbytes > most_bytes
    ]
    raise _too_large(found, most_bytes)


def _too_large(problems: Sequence[str], most_bytes: int) -> LimitError:
    """The error that says what would have to be bound whole."""
    return LimitError(
        f"{'; '.join(problems)}; the device binds at most {most_bytes} bytes (max-storage-buffer-binding-size)"
    )


def _is_large(tensor: Tensor, flow: Dataflow, most_bytes: int) -> bool:
    return tensor.max_nbytes > most_bytes and flow.is_constant(tensor)


@dataclass(frozen=True)
class _Part:
    """Elements from ``start`` to ``stop`` along ``axis`` of a constant; of the last part, up to the constant's end."""

    axis: int
    start: int
    stop: int


class _Splitter:
    """Takes calls of one graph apart, and keeps the parts of its constants."""

    def __init__(self, graph: Graph, most_bytes: int) -> None:
        self.constants: dict[int, Constant] = {}  # by the id of a part
        self.refused: list[str] = []
        self._graph = graph
        self._flow = Dataflow(graph)
        self._most_bytes = most_bytes
        self._parts: dict[tuple[int, _Part], Tensor] = {}  # by the id of the constant
        self._ids = new_ids(graph)

    def split(self, call: OpCall) -> Sequence[OpCall]:
        """What comes in the place of a call: itself, if it reads no large constant."""
        large = [t for t in call.inputs if _is_large(t, self._flow, self._most_bytes)]
        if not large or call.name == PREPACK:
            return [call]
        layer = projection(call, self._flow)
        if layer is not None and set(large) <= {*layer.weights, *layer.scales, *layer.biases}:
            calls = list(self._layer(layer))
        elif call.op.table is not None:
            calls = list(self._table(call, call.op.table))
        else:
            calls = list(self._rows(call, large[0])) if len(large) == 1 else []
        if not calls:
            self.refused.append(f"{call.name} reads all {large[0].max_nbytes} bytes of {large[0]} at once")
            return [call]
        return calls

    # -- linear layers ----------------------------------------------------------------------------------------------

    def _layer(self, layer: Projection) -> Iterator[OpCall]:
        """One call over all parts, or one for each part of a gate, and then the whole results; nothing if none fit."""
        if layer.gated:
            yield from self._gate(layer)
            return
        spans = [self._spans(w.max_dims[0], self._matrix(layer, i)) for i, w in enumerate(layer.weights)]
        if not all(spans):
            return
        results = layer.outs if layer.residual is None else (self._tensor(layer.outs[0], layer.outs[0].max_dims),)
        lists: dict[str, list[Any]] = {"weights": [], "scales": [], "biases": [], "outs": []}
        joins: list[OpCall] = []
        for i, result in enumerate(results):
            outs = [result] if len(spans[i]) == 1 else [self._features(result, *span) for span in spans[i]]
            for start, stop in spans[i]:
                self._take_matrix(layer, i, start, stop, lists)
            lists["outs"] += outs
            if len(outs) > 1:
                joins.append(make_call(_CAT, (outs, result.rank - 1, result)))
        yield replace(layer, residual=None, **_tuples(lists)).call
        yield from joins
        if layer.residual is not None:
            yield make_call(_ADD, (results[0], layer.residual, 1, layer.outs[0]))

    def _gate(self, layer: Projection) -> Iterator[OpCall]:
        (out,) = layer.outs
        matrices = [*self._matrix(layer, 0), *self._matrix(layer, 1)]
        parts = []
        for start, stop in self._spans(layer.weights[0].max_dims[0], matrices):
            lists: dict[str, list[Any]] = {"weights": [], "scales": [], "biases": []}
            for i in range(2):
                self._take_matrix(layer, i, start, stop, lists)
            parts.append(self._features(out, start, stop))
            yield replace(layer, outs=(parts[-1],), **_tuples(lists)).call
        if parts:
            yield make_call(_CAT, (parts, out.rank - 1, out))

    def _matrix(self, layer: Projection, i: int) -> list[Tensor]:
        """All constants of the matrix ``i``."""
        return [t for t in (layer.weights[i], *layer.scales[i : i + 1], layer.biases[i]) if t is not None]

    def _take_matrix(self, layer: Projection, i: int, start: int, stop: int, lists: dict[str, list[Any]]) -> None:
        """Rows of the matrix ``i`` with their scales and biases."""
        weight, bias = layer.weights[i], layer.biases[i]
        lists["weights"].append(self._part(weight, 0, start, stop))
        if layer.scales:
            layout = WEIGHT_FORMATS[layer.weight_format]
            axis = 1 if layout is not None and layout.grouped else 0
            lists["scales"].append(self._part(layer.scales[i], axis, start, stop, weight.max_dims[0]))
        lists["biases"].append(None if bias is None else self._part(bias, 0, start, stop, weight.max_dims[0]))

    def _features(self, whole: Tensor, start: int, stop: int) -> Tensor:
        return self._tensor(whole, (*whole.max_dims[:-1], stop - start))

    # -- tables -----------------------------------------------------------------------------------------------------

    def _table(self, call: OpCall, trait: Table) -> Iterator[OpCall]:
        """Look-ups of all indices in every part, clamped to its rows, and a choice among them."""
        tables = {name: axis for name, axis in trait.rows.items() if call.named[name] is not None}
        first, axis = next(iter(tables.items()))
        indices, out, rows = call.named[trait.indices], call.args[-1], call.named[first].max_dims[axis]
        spans = self._spans(rows, [call.named[name] for name in tables])
        if not spans:
            return
        column = Tensor(next(self._ids), indices.dtype, (*indices.max_dims, 1))
        yield make_call(_UNSQUEEZE, (indices, indices.rank, column))
        found: Tensor | None = None
        for start, stop in spans:
            local = self._tensor(indices, indices.max_dims)
            yield make_call(_INDEX_IN_PART, (indices, start, stop - start, rows, local))
            here = self._tensor(out, out.max_dims)
            changed = {n: self._part(call.named[n], axis, start, stop, rows) for n, axis in tables.items()}
            changed |= {trait.indices: local, call.op.parameters[-1]: here}
            yield make_call(call.name, tuple({**call.named, **changed}.values()))
            if found is None:
                found = here
                continue
            later = Tensor(next(self._ids), "bool", column.max_dims)
            yield make_call(_GE, (column, start, later))
            chosen = out if stop == rows else self._tensor(out, out.max_dims)
            yield make_call(_WHERE, (later, here, found, chosen))
            found = chosen

    # -- other calls ------------------------------------------------------------------------------------------------

    def _rows(self, call: OpCall, constant: Tensor) -> Iterator[OpCall]:
        """A call for each part along an axis that the call's one output follows; nothing if there is none."""
        items = [item for arg in call.args for item in (arg if isinstance(arg, list) else [None])]
        fixed = all(item is None or isinstance(item, Tensor) for item in items)  # no sizes
        if not fixed or len(call.outputs) != 1 or call.mutated:
            return
        out = call.outputs[0]
        for axis in range(constant.rank):
            spans = self._spans(constant.max_dims[axis], [constant])
            to = (call.op.row_axes(call.args, {constant.id: axis}) or (None,))[0]
            if not spans or to is None or out.max_nbytes > self._most_bytes:
                continue
            parts = []
            for start, stop in spans:
                size = out.max_dims[to] if len(spans) == 1 else stop - start
                parts.append(self._tensor(out, (*out.max_dims[:to], size, *out.max_dims[to + 1 :])))
                given = {constant.id: self._part(constant, axis, start, stop)}
                yield make_call(call.name, (*(substituted(arg, given) for arg in call.args[:-1]), parts[-1]))
            yield make_call(_CAT, (parts, to, out))
            return

    # -- parts ------------------------------------------------------------------------------------------------------

    def _tensor(self, like: Tensor, dims: tuple[int, ...]) -> Tensor:
        return Tensor(next(self._ids), like.dtype, dims)

    def _spans(self, count: int, constants: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Where parts of ``count`` rows begin and end, all about as large; none if a part of few rows is too large."""
        largest = max(constant.max_nbytes for constant in constants)
        if largest <= self._most_bytes:
            return [(0, count)]
        most = self._most_bytes // (ceil_div(ceil_div(largest, count), _PADDED) * _PADDED)
        unit = _ROWS if most >= _ROWS else _QUAD
        if most < unit:
            return []
        step = ceil_div(ceil_div(count, ceil_div(count, most // unit * unit)), unit) * unit
        return list(pairwise([*range(0, count, step), count]))

    def _part(self, tensor: Tensor, axis: int, start: int, stop: int, rows: int | None = None) -> Tensor:
        """A part of a constant, which is cut as one of ``rows`` rows is: what it holds beyond them goes to the last."""
        end = tensor.max_dims[axis] if stop == rows else stop
        if (start, end) == (0, tensor.max_dims[axis]):
            return tensor
        root, part = self._flow.root(tensor), _Part(axis, start, end)
        made = self._parts.get((root.id, part))
        if made is None:
            id = next(self._ids)
            dims = (*root.max_dims[:axis], end - start, *root.max_dims[axis + 1 :])
            made = self._parts[root.id, part] = Tensor(id, root.dtype, dims, constant=id)
            self.constants[id] = _cut(self._graph.constants[root.id], root, part)
        return made


def _tuples(lists: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: tuple(items) for name, items in lists.items()}


def _cut(constant: Constant, tensor: Tensor, part: _Part) -> Constant:
    """A part's data: a view of the whole where it lies in one piece, else a copy."""
    key = (*constant.key, part)
    if not constant.data:
        return replace(constant, key=key)
    elements = np.frombuffer(constant.data, constant.dtype, math.prod(tensor.max_dims)).reshape(tensor.max_dims)
    cut = elements[(slice(None),) * part.axis + (slice(part.start, part.stop),)]
    return replace(constant, key=key, data=np.ascontiguousarray(cut).reshape(-1).view(np.uint8).data)

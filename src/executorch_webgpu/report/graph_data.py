"""A planned graph as plain data: what the page of ``inspect --html`` draws."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from ..gpu.head import write_variant
from ..graph.build import PREPACK, GraphValue, OpCall
from ..graph.memory import Kind
from ..graph.state import cache_writes
from ..ops.plan import Binding
from ..ops.registry import Op
from ..ops.sizes import Size
from ..ops.values import Repacked, Scratch, SymInt, Tensor
from ..runtime.graphs import PlannedGraph
from .repeats import Repeat, repeats

SYMBOLS = "STUVWXYZABCDEFGHIJKLMNOPQR"
MOST_TEXT, MOST_SOURCE = 400, 6000  # characters of an argument, and of a reference


@dataclass
class _Symbols:
    """Names of live sizes: one for each size that changes by itself."""

    planned: PlannedGraph
    names: dict[Size, str] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)

    def dims(self, tensor: Tensor) -> list[str]:
        """Each dim as a number, a symbol, or, where nothing names it, its bound."""
        smaller = self.planned.smaller.get(tensor.id, tensor.max_dims)
        known = self.planned.sizes.of(tensor)
        return [
            str(most) if less == most else self._name(size, most)
            for most, less, size in zip(tensor.max_dims, smaller, known, strict=True)
        ]

    def _name(self, size: Size, most: int) -> str:
        if isinstance(size, int):
            return f"≤{most}"
        if size not in self.names:
            taken = len(self.names)
            name = SYMBOLS[taken % len(SYMBOLS)] + ("" if taken < len(SYMBOLS) else str(taken // len(SYMBOLS)))
            self.names[size] = name
            self.bounds[name] = most
        return self.names[size]


def graph_data(planned: PlannedGraph, operators: dict[str, Any]) -> dict[str, Any]:
    """Calls, values, memory, and which layers are alike. Adds what it knows of operators to ``operators``, by name."""
    graph = planned.graph
    symbols = _Symbols(planned)
    for value in graph.inputs:
        if isinstance(value, Tensor):
            symbols.dims(value)  # so that inputs name them
    drawn = [call for call in graph.calls if call.name != PREPACK]
    values = _values(planned, symbols)
    calls = [_call(planned, call, operators) for call in drawn]
    labels = [_label(call, symbols) for call in drawn]
    return {
        "calls": calls,
        "values": values,
        "inputs": [value.id for value in graph.inputs],
        "positions": list(planned.by_position),
        "outputs": [value.id for value in graph.outputs],
        "repeats": [[each.start, each.period, each.count] for each in repeats(labels, partial(_is_chain, drawn))],
        "symbols": symbols.bounds,
        "memory": _memory(planned),
        "before": len(planned.before.calls),
    }


# -- values -----------------------------------------------------------------------------------------------------------


def _values(planned: PlannedGraph, symbols: _Symbols) -> dict[int, dict[str, Any]]:
    graph, memory = planned.graph, planned.memory
    packed = graph.prepacked
    caches = {t.id for write in cache_writes(graph) for t in (write.cache, write.cache.scales) if t is not None}
    given = {value.id for value in graph.inputs}
    tensors = [t for call in graph.calls for t in (*call.inputs, *call.outputs)]
    others: Iterator[GraphValue] = (v for v in (*graph.inputs, *graph.outputs, *_symints(graph.calls)))
    found: dict[int, dict[str, Any]] = {}
    for value in (*tensors, *others):
        if value.id in found:
            continue
        if isinstance(value, SymInt):
            kind = "input" if value.id in given else "number"
            found[value.id] = {"kind": kind, "dtype": "live integer", "dims": [], "bytes": 0}
            continue
        constant = packed.get(value.id, value)
        storage = memory.storages[memory.storage_of[value.id]] if value.id in memory.storage_of else None
        is_cache = value.id in caches or constant.id in caches
        kind = {None: "unused", Kind.INPUT: "input", Kind.CONSTANT: "constant", Kind.SHARED: "tensor"}.get(
            None if storage is None else storage.kind, "cache" if is_cache else "state"
        )
        entry: dict[str, Any] = {
            "kind": kind,
            "dtype": value.dtype,
            "dims": symbols.dims(value),
            "bytes": value.max_nbytes,
        }
        if constant.id != value.id:
            entry["same"] = constant.id
        found[value.id] = entry
    return found


def _symints(calls: Sequence[OpCall]) -> list[SymInt]:
    return [v for call in calls for v in (*call.reads, *call.writes) if isinstance(v, SymInt)]


# -- calls ------------------------------------------------------------------------------------------------------------


def _call(planned: PlannedGraph, call: OpCall, operators: dict[str, Any]) -> dict[str, Any]:
    plan = planned.plans[call.index]
    packed = {out: constant.id for out, constant in planned.graph.prepacked.items()}
    if call.name not in operators:
        operators[call.name] = _operator(call.op)
    before = planned.before.calls
    made: dict[str, Any] = {
        "index": call.index,
        "name": call.name,
        "reads": list(dict.fromkeys(packed.get(v.id, v.id) for v in (*call.reads, *call.inputs))),
        "writes": [value.id for value in call.writes],
        "changes": list(dict.fromkeys(packed.get(tensor.id, tensor.id) for tensor in call.mutated)),
        "args": [[name, _text(arg)] for name, arg in call.named.items()],
        "dispatches": [
            {
                "kernel": dispatch.kernel,
                "variant": write_variant(dispatch.template),
                "grid": list(dispatch.grid),
                "binds": {name: _bound(binding) for name, binding in dispatch.bindings.items()},
                "params": _text(dict(dispatch.params)) if dispatch.params else "",
                "overrides": _text(dict(dispatch.overrides)) if dispatch.overrides else "",
            }
            for dispatch in plan.dispatches
        ],
    }
    sources = planned.origins[call.index]
    if len(sources) > 1 or (sources and before[sources[0]].name != call.name):
        made["from"] = [[source, before[source].name] for source in sources]
    if plan.route is not None:
        made["route"] = plan.route
    if plan.alias_of is not None:
        made["alias"] = packed.get(plan.alias_of.id, plan.alias_of.id)
    return made


def _operator(op: Op) -> dict[str, Any]:
    """What an operator means: its docstring, and the source of its float64 reference."""
    reference: Any = op.reference
    where = f"{getattr(reference, '__module__', '')}.{getattr(reference, '__qualname__', type(reference).__name__)}"
    try:
        source = inspect.cleandoc(inspect.getsource(reference))[:MOST_SOURCE]
    except (OSError, TypeError):  # made at run time, or a function of NumPy
        source = ""
    return {
        "says": inspect.getdoc(op.plan) or "",
        "reference": where.removeprefix("executorch_webgpu."),
        "source": source,
    }


def _is_chain(calls: Sequence[OpCall], repeat: Repeat) -> bool:
    """Whether each layer goes on with what the one before it gives: else they are branches side by side."""
    layers = [calls[repeat.start + i * repeat.period :][: repeat.period] for i in range(repeat.count)]
    written = [{value.id for call in layer for value in (*call.writes, *call.mutated)} for layer in layers]
    read = [{value.id for call in layer for value in call.reads} for layer in layers]
    return all(before & after for before, after in zip(written, read[1:], strict=False))


def _label(call: OpCall, symbols: _Symbols) -> object:
    """Equal for calls that do the same to tensors of the same sizes, whichever these are."""
    return call.name, *(_alike(arg, symbols) for arg in call.args)


def _alike(arg: Any, symbols: _Symbols) -> object:
    if isinstance(arg, list):
        return ("list", *(_alike(item, symbols) for item in arg))
    if isinstance(arg, Tensor):
        live = tuple(not size.isdecimal() for size in symbols.dims(arg))
        return arg.dtype, arg.max_dims, live, arg.constant is not None
    return "live" if isinstance(arg, SymInt) else (type(arg).__name__, repr(arg))


def _text(arg: Any) -> str:
    if isinstance(arg, Tensor | SymInt):
        return f"%{arg.id}"
    if isinstance(arg, list):
        text = "[" + ", ".join(map(_text, arg)) + "]"
    elif isinstance(arg, Mapping):
        text = ", ".join(f"{name}={_text(value)}" for name, value in arg.items())
    elif isinstance(arg, np.ndarray):
        text = repr(arg.tolist())
    else:
        text = repr(arg)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"


def _bound(binding: Binding) -> str:
    match binding:
        case Tensor() | SymInt():
            return f"%{binding.id}"
        case Scratch():
            return f"scratch {binding.index}, {binding.nbytes} bytes"
        case Repacked():
            return f"constants {', '.join(f'%{t.id}' for t in binding.sources)}, packed into {binding.nbytes} bytes"
    return str(binding)


# -- memory -----------------------------------------------------------------------------------------------------------


def _memory(planned: PlannedGraph) -> dict[str, Any]:
    """Slots with the tensors that take turns in them, and how many bytes are alive at each call."""
    memory, graph = planned.memory, planned.graph
    calls = len(graph.calls)
    slots = [i for i, storage in enumerate(memory.storages) if storage.kind is Kind.SHARED]
    number = {storage: place for place, storage in enumerate(slots)}
    roots = {id: storage for id, storage in memory.storage_of.items() if id not in planned.roots}
    tenants = []
    change = [0] * (calls + 2)
    tensors = {t.id: t for call in graph.calls for t in (*call.inputs, *call.outputs)}
    tensors |= {v.id: v for v in (*graph.inputs, *graph.outputs) if isinstance(v, Tensor)}
    for root, storage in roots.items():
        tensor = tensors.get(root)
        if storage not in number or tensor is None:
            continue
        first = planned.first.get(tensor.id, 0)
        last = planned.last.get(tensor.id, first)
        tenants.append([tensor.id, number[storage], first, last, tensor.max_nbytes])
        change[first] += tensor.max_nbytes
        change[last + 1] -= tensor.max_nbytes
    return {
        "calls": calls,
        "slots": [memory.storages[slot].nbytes for slot in slots],
        "tenants": tenants,
        "alive": list(accumulate(change))[: calls + 1],
        "planned": memory.planned_bytes,
        "peak": memory.peak_bytes,
        "unshared": memory.unshared_bytes,
    }

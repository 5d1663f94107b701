"""A method's graphs as they would run, planned at their largest sizes, for those that want to look at them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..errors import Error
from ..gpu.capabilities import Features, Limits
from ..graph.binding_limit import split_constants
from ..graph.build import Graph
from ..graph.dynamic import HOST_ELEMENTS
from ..graph.execute import plan_graph
from ..graph.fusion.dataflow import sizes_of
from ..graph.fusion.origins import fused_with_origins
from ..graph.kv_cache import KV_CACHE_DTYPES, has_kv_cache, store_kv_caches
from ..graph.lowering.instructions import Value
from ..graph.lowering.segments import DeviceSegment
from ..graph.memory import MemoryPlan, lifetimes, plan_memory
from ..graph.memory import alias_roots as roots_of
from ..graph.resize import LivePlans
from ..ops.plan import OpPlan, Planning
from ..ops.sizes import Sizes
from ..ops.values import Dims, Tensor
from .metadata import MethodMetadata, method_metadata, missing_operators, unsupported_delegates, unsupported_dtypes
from .method_file import MethodFile
from .options import LoadOptions

if TYPE_CHECKING:
    from ..gpu.device import Device


@dataclass(frozen=True)
class PlannedGraph:
    """A graph after fusion. ``before``: as the program has it; ``origins``: of each call, those of its calls.

    ``plans``, ``memory``: at maximum dims. ``first``, ``last``: between which calls memory is in use, by root id, and
    ``roots``: whose memory a tensor is, by id. ``sizes``: what is known of sizes. ``smaller``: dims, by tensor id,
    where inputs of live size are one smaller: those that differ from the maximum are live. ``by_position``: for each
    input, its position among the method's, None for what comes from elsewhere.
    """

    before: Graph
    graph: Graph
    origins: tuple[tuple[int, ...], ...]
    plans: tuple[OpPlan, ...]
    memory: MemoryPlan
    roots: Mapping[int, Tensor]
    first: Mapping[int, int]
    last: Mapping[int, int]
    sizes: Sizes
    smaller: Mapping[int, Dims]
    by_position: tuple[int | None, ...]


@dataclass(frozen=True)
class HostStage:
    """Operations that the host runs: their names, and why they are there."""

    operations: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MethodGraphs:
    """A method's stages in order: graphs on the device, and what the host does between them.

    ``blocks``: the number of a block, for each stage; a method with jumps has several. ``problem``: why there are none.
    """

    metadata: MethodMetadata
    stages: tuple[PlannedGraph | HostStage, ...]
    blocks: tuple[int, ...]
    problem: str | None = None


def method_graphs(method: MethodFile, options: LoadOptions, device: Device | None) -> MethodGraphs:
    """Lower, fuse and plan a method: for a device, or, without one, for the least that WebGPU promises."""
    metadata = method_metadata(method)
    plan = method.plan
    problems = [f"it is delegated to {', '.join(foreign)}"] if (foreign := unsupported_delegates(plan)) else []
    if not foreign and (missing := missing_operators(method)):
        problems.append(f"nothing runs {', '.join(sorted(missing))}")
    if dtypes := unsupported_dtypes(plan):
        problems.append(f"it has tensors of {', '.join(dtypes)}")
    if problems:
        return MethodGraphs(metadata, (), (), " and ".join(problems))
    try:
        lowered = method.lowered(options.lower)
        places = dict(lowered.placements)
        entry = lowered.flow.blocks[0].entry
        cells = {i: cell for i, cell in enumerate(lowered.flow.inputs) if cell in entry}
        given = {entry[cell]: i for i, cell in cells.items() if cell is not None}
        bounds = {tensor.max_dims[axis] for tensor in metadata.inputs for axis in tensor.dynamic_dims}
        stages: list[PlannedGraph | HostStage] = []
        blocks = []
        for number, block in enumerate(lowered.blocks):
            for segment in block.segments:
                blocks.append(number)
                if isinstance(segment, DeviceSegment):
                    stages.append(planned_segment(segment, options, device, given, bounds))
                elif segment.operations:
                    stages.append(HostStage(tuple((str(o), places[o].why) for o in segment.operations)))
                else:
                    blocks.pop()
        return MethodGraphs(metadata, tuple(stages), tuple(blocks))
    except Error as error:
        return MethodGraphs(metadata, (), (), str(error))


def planned_segment(
    segment: DeviceSegment,
    options: LoadOptions,
    device: Device | None,
    given: Mapping[Value, int],
    bounds: Collection[int],
) -> PlannedGraph:
    """A graph as ``method_graphs`` plans it. ``given``: the method's inputs, with their positions; ``bounds``: of sizes
    of them that may be smaller.
    """
    before = segment.graph
    if options.kv_cache_dtype != "f32" and has_kv_cache(before):
        before = store_kv_caches(before, KV_CACHE_DTYPES[options.kv_cache_dtype])
    features, limits = (Features.none(), Limits.floor()) if device is None else (device.features, device.limits)
    if device is None:
        graph, origins = fused_with_origins(before, options.fusions)
    else:
        fit = partial(split_constants, most_bytes=limits.max_binding_bytes)
        graph, origins = fused_with_origins(before, options.fusions, fit)
    planning = Planning(features, limits, options.routes or {}, options.scratch_bytes, options.matmul_precision)
    plans = plan_graph(graph, planning, segment.unseen)
    largest = tuple(plans.plans)
    roots = roots_of(graph, largest)
    first, last = lifetimes(graph, roots)
    live = [isinstance(arg, Value) and arg.is_live for arg in segment.inputs]
    return PlannedGraph(
        before,
        graph,
        origins,
        largest,
        plan_memory(graph, largest),
        roots,
        first,
        last,
        sizes_of(graph),
        _smaller(plans, live, bounds),
        tuple(given.get(arg) if isinstance(arg, Value) else None for arg in segment.inputs),
    )


def _smaller(plans: LivePlans, live: Sequence[bool], bounds: Collection[int]) -> dict[int, Dims]:
    """Dims of all tensors where live sizes of inputs are one less than at most; empty if no plan allows that.

    Which dims of a graph's input are live is not said, so those that are as large as a live one of the method's inputs
    are tried: ``bounds``.
    """
    graph = plans.graph
    inputs = [v for v, may in zip(graph.inputs, live, strict=True) if may and isinstance(v, Tensor)]
    sizes = sorted({n for tensor in inputs for n in tensor.max_dims if n > 1 and n in bounds}, reverse=True)
    for value in graph.inputs:
        if isinstance(value, Tensor) and value.dtype == "int32" and value.numel <= HOST_ELEMENTS:
            plans.set_host(value, np.zeros(value.max_dims, np.int32))
    changing: list[int] = []
    for size in sizes:
        if _shrinks(plans, inputs, [*changing, size]):
            changing.append(size)
    if not changing or not _shrinks(plans, inputs, changing, back=False):
        return {}
    tensors = {t.id: t for call in graph.calls for t in (*call.inputs, *call.outputs)}
    tensors |= {v.id: v for v in (*graph.inputs, *graph.outputs) if isinstance(v, Tensor)}
    return {id: plans.tensor(tensor).dims for id, tensor in tensors.items()}


def _shrinks(plans: LivePlans, inputs: Sequence[Tensor], sizes: Sequence[int], *, back: bool = True) -> bool:
    """Whether inputs with all dims of these sizes one smaller can be planned; afterwards they are as they were."""
    try:
        for tensor in inputs:
            plans.set_dims(tensor, [n - 1 if n in sizes else n for n in tensor.max_dims])
        plans.update()
    except Error:
        back = True
        return False
    finally:
        if back:
            for tensor in inputs:
                plans.set_dims(tensor, tensor.max_dims)
            plans.update()
    return True

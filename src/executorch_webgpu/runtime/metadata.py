"""What a method takes and gives, and what a program contains, found without a GPU."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import Error, UnsupportedProgramError
from ..format import program_schema as schema
from ..format.pte import ProgramFile
from ..gpu.capabilities import Features, Limits
from ..graph.build import Graph, unsupported_message
from ..graph.dynamic import dynamic_dims
from ..graph.execute import plan_graph
from ..graph.fusion import FusionReport, fuse_graph
from ..graph.kv_cache import KV_CACHE_DTYPES, store_kv_caches
from ..graph.lowering.placement import Placement
from ..graph.lowering.segments import DeviceSegment
from ..graph.memory import Kind, plan_memory
from ..graph.traffic import StepBytes, step_bytes
from ..ops.plan import Planning
from ..ops.registry import find
from ..portable import host_kernel
from ..portable.dtypes import dtype_name, is_supported
from ..portable.names import kernel_values
from .method_file import DELEGATE_ID, MethodFile

_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output. ``dtype`` is a NumPy dtype name, or "int", "float", "bool"… for plain values, and
    "number" for one that the program does not fix.

    ``max_dims`` are upper bounds; ``dynamic_dims`` are the positions of those that may be smaller.
    """

    dtype: str
    max_dims: tuple[int, ...] = ()
    dynamic_dims: tuple[int, ...] = ()
    is_tensor: bool = True

    def __str__(self) -> str:
        if not self.is_tensor:
            return self.dtype
        dims = ", ".join(f"≤{d}" if i in self.dynamic_dims else str(d) for i, d in enumerate(self.max_dims))
        return f"{self.dtype}[{dims}]"


@dataclass(frozen=True)
class MethodMetadata:
    """Inputs and outputs of one method, in order."""

    name: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True)
class OperatorCount:
    """How often a method calls an operator, and where and why it runs there.

    ``where`` is "device", "host" or "nowhere". ``why`` is "delegated", "lowered", or what keeps it from the device.
    """

    name: str
    count: int
    supported: bool
    where: str
    why: str


@dataclass(frozen=True)
class MethodReport:
    """One method: what it calls and what memory it needs, in bytes.

    ``planned_bytes`` (intermediates, sharing memory by lifetime), ``peak_bytes`` (of them, the most that is alive at
    once) and ``unshared_bytes`` (if they did not share) are None when the method cannot be planned: for want of an
    operator, or for the reason that ``problem`` gives. ``fusions``: what each pass over its graphs did, in order.
    ``backends``: those that it is delegated to and that are not here, by name.
    """

    name: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    operators: tuple[OperatorCount, ...]
    constant_count: int
    constants_bytes: int
    mutable_bytes: int
    planned_bytes: int | None
    peak_bytes: int | None
    unshared_bytes: int | None
    problem: str | None = None
    fusions: tuple[FusionReport, ...] = ()
    backends: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProgramReport:
    """All methods of a program, the size of its file, and names of files inside it, such as a tokenizer."""

    methods: tuple[MethodReport, ...]
    file_bytes: int
    files: tuple[str, ...] = ()


def files_inside(file: ProgramFile, methods: Iterable[MethodFile]) -> tuple[str, ...]:
    """Names of the named data that no graph uses. Constants of other backends have hashes for names."""
    vkgraphs = (vkgraph for method in methods for vkgraph in method.vkgraphs)
    used = {constant.named_key for vkgraph in vkgraphs for constant in vkgraph.constants}
    return tuple(name for name in file.named_data if name not in used and not _HASH.fullmatch(name))


def method_metadata(method: MethodFile) -> MethodMetadata:
    """Inputs and outputs of a method, with the dims that may change."""
    plan, dynamic = method.plan, _dynamic_inputs(method)
    return MethodMetadata(
        plan.name,
        tuple(_describe(plan, i, dynamic.get(position, ())) for position, i in enumerate(plan.inputs)),
        tuple(_describe(plan, i, _bounded_dims(plan, i)) for i in plan.outputs),
    )


def method_report(method: MethodFile, fusions: Sequence[str], lower: str = "all") -> MethodReport:
    """What ``inspect`` shows of a method that is loaded with these fusions."""
    plan, metadata = method.plan, method_metadata(method)
    keys: dict[str, int] = {}
    problem: str | None = None
    mutable = planned = peak = unshared = 0
    fused: dict[str, FusionReport] = {}
    backends = unsupported_delegates(plan)
    plannable = not backends and not missing_operators(method)
    if dtypes := unsupported_dtypes(plan):
        plannable, problem = False, f"it has tensors of {', '.join(dtypes)}"
    for delegate, vkgraph in zip(method.our_delegates, method.vkgraphs, strict=True):
        for constant in vkgraph.constants:
            keys[constant.named_key or f"{delegate.processed.index}+{constant.offset}"] = constant.length
    graphs: Sequence[Graph] = ()
    if plannable:
        try:
            graphs = method.graphs(lower)
        except Error as error:
            plannable, problem = False, str(error)
    for unfused in graphs:
        try:
            graph, reports = fuse_graph(unfused, fusions)
            memory = plan_memory(graph, plan_graph(graph, Planning(Features.none(), Limits.floor())).plans)
        except Error as error:
            plannable, problem = False, str(error)
            continue
        mutable += memory.bytes_of(Kind.MUTABLE)
        planned += memory.planned_bytes
        peak += memory.peak_bytes
        unshared += memory.unshared_bytes
        fused |= {report.name: fused[report.name] + report if report.name in fused else report for report in reports}
    return MethodReport(
        plan.name,
        metadata.inputs,
        metadata.outputs,
        tuple(_operator_counts(method, lower)),
        len(keys),
        sum(keys.values()),
        mutable,
        planned if plannable else None,
        peak if plannable else None,
        unshared if plannable else None,
        problem,
        tuple(fused.values()),
        tuple(backends),
    )


def method_step_bytes(method: MethodFile, kv_cache_dtype: str, lower: str = "all") -> StepBytes:
    """What a decode step of a method must read, with KV caches stored as ``load_method`` is asked to."""
    graphs = method.graphs(lower)
    if kv_cache_dtype != "f32":
        graphs = [store_kv_caches(graph, KV_CACHE_DTYPES[kv_cache_dtype]) for graph in graphs]
    return step_bytes(graphs)


def missing_operators(method: MethodFile) -> dict[str, int]:
    """Every operator of a method that nothing here runs, with its number of calls."""
    return {o.name: o.count for o in _operator_counts(method) if not o.supported}


def refuse_unsupported(method: MethodFile) -> None:
    """Raises UnsupportedProgramError with everything that keeps a method from running here: one sentence."""
    plan = method.plan
    problems = []
    if foreign := unsupported_delegates(plan):
        problems.append(
            f"method {plan.name!r} is delegated to {', '.join(foreign)}; export it with the VulkanPartitioner "
            f"(delegate {DELEGATE_ID})"
        )
    missing = missing_operators(method)
    if missing:
        problems.append(unsupported_message(missing))
    if dtypes := unsupported_dtypes(plan):
        problems.append(f"method {plan.name!r} has tensors of {', '.join(dtypes)}, which are not supported")
    if problems:
        raise UnsupportedProgramError(", and ".join(problems), missing)


def unsupported_dtypes(plan: schema.ExecutionPlan) -> list[str]:
    """Names of the dtypes of a method's tensors that the host cannot hold."""
    tensors = [boxed.value for boxed in plan.values if isinstance(boxed.value, schema.Tensor)]
    return sorted({dtype_name(tensor) for tensor in tensors if not is_supported(tensor)})


def unsupported_delegates(plan: schema.ExecutionPlan) -> list[str]:
    """Backends that the method needs and that are not ours."""
    return sorted({d.id for d in plan.delegates} - {DELEGATE_ID})


def _operator_counts(method: MethodFile, lower: str = "all") -> list[OperatorCount]:
    """What a method calls, as delegates and instructions have it."""
    delegated = Counter(call.name for vkgraph in method.vkgraphs for call in vkgraph.chain)
    counts = [
        OperatorCount(n, c, find(n) is not None, "device" if find(n) is not None else "nowhere", "delegated")
        for n, c in delegated.most_common()
    ]
    others: Counter[OperatorCount] = Counter()
    for name, overload, arity, placement in _instructions(method, lower):
        hosted = host_kernel(name, overload, arity) is not None
        where = "device" if placement.on_device else "host" if hosted else "nowhere"
        full = f"{name}.{overload}" if overload else name
        others[OperatorCount(full, 1, where != "nowhere", where, placement.why)] += 1
    return counts + [replace(each, count=count) for each, count in others.most_common()]


def _instructions(method: MethodFile, lower: str) -> list[tuple[str, str, int, Placement]]:
    """Name, overload, number of inputs and place of every instruction that calls a kernel."""
    try:
        placed = method.lowered(lower).placements
        return [(o.name, o.overload, len(o.args), place) for o, place in placed if o.delegate is None]
    except Error as error:  # it cannot run, but what it calls can be told
        unplaced = Placement(False, f"the method cannot be lowered: {error}")
    plan = method.plan
    calls = [i.call for chain in plan.chains for i in chain.instructions if isinstance(i.call, schema.KernelCall)]
    operators = [(plan.operators[call.op_index], len(kernel_values(plan, call)[0])) for call in calls]
    return [(o.name, o.overload or "", arity, unplaced) for o, arity in operators]


def _describe(plan: schema.ExecutionPlan, index: int, dynamic: tuple[int, ...]) -> TensorMetadata:
    value = plan.values[index].value
    if isinstance(value, schema.Tensor):
        return TensorMetadata(dtype_name(value), tuple(value.sizes), dynamic)
    kind = {"Double": "float", "Null": "number"}.get(type(value).__name__, type(value).__name__.lower())
    return TensorMetadata(kind, is_tensor=False)


def _bounded_dims(plan: schema.ExecutionPlan, index: int) -> tuple[int, ...]:
    """Dims of a tensor that the file declares to have an upper bound: any that can be smaller at all."""
    value = plan.values[index].value
    if not isinstance(value, schema.Tensor) or value.shape_dynamism is schema.ShapeDynamism.STATIC:
        return ()
    return tuple(i for i, size in enumerate(value.sizes) if size > 1)


def _dynamic_inputs(method: MethodFile) -> Mapping[int, tuple[int, ...]]:
    """Dynamic dims by position of the input; what the file bounds, narrowed by planning where one graph does all."""
    plan = method.plan
    bounded = {p: dims for p, i in enumerate(plan.inputs) if (dims := _bounded_dims(plan, i))}
    if not bounded or unsupported_delegates(plan):
        return bounded
    try:
        lowered = method.lowered()
        ((segment,),) = (block.segments for block in lowered.blocks)
        (block,) = lowered.flow.blocks
        assert isinstance(segment, DeviceSegment)
        values = [block.entry.get(cell) for cell in lowered.flow.inputs if cell is not None]
        position_in_graph = {p: segment.inputs.index(values[p]) for p in bounded}
        found = dynamic_dims(segment.graph, list(position_in_graph.values()))
    except (Error, ValueError, IndexError, AssertionError):  # not plannable here: what the file says has to do
        return bounded
    return {p: found[q] for p, q in position_in_graph.items()}

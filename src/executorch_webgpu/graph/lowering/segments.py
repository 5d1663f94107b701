"""A method as segments that run one after another: graphs on the device, and operations on the host between them.

An operation of the host that needs nothing from the device runs before all graphs, so it costs no wait. Each further
graph begins where one needs what the host computed of an earlier one's results.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ...format import program_schema as schema
from ...format.pte import ProgramFile
from ...gpu.capabilities import Features, Limits
from ...ops.bounds import Range
from ...ops.plan import Planning
from ...ops.values import SymInt
from ..build import Graph, OpCall
from ..casts import with_casts
from ..execute import plan_graph
from ..in_place import change_in_place
from ..refusal import refusal
from .delegates import DelegateArguments
from .elements import read_elements
from .emit import Delegates, GraphWriter, host_read_inputs
from .instructions import Arg, Block, Cell, Flow, Operation, Value, read_flow
from .placement import Placement, Placer
from .scales import narrow_scales
from .values import GraphValues, graph_dtype


@dataclass(frozen=True)
class DeviceSegment:
    """A graph, with what its inputs are given and what its outputs are. ``fetched``: the values the host needs."""

    graph: Graph
    inputs: tuple[Arg, ...]
    outputs: tuple[Value, ...]
    fetched: frozenset[Value]
    unseen: frozenset[int] = frozenset()  # ids of the inputs that come from the device

    @cached_property
    def stay(self) -> frozenset[int]:
        """Positions of the outputs that stay on the device."""
        outputs = enumerate(self.outputs)
        return frozenset(i for i, v in outputs if v not in self.fetched and v.tensor is not None)


@dataclass(frozen=True)
class HostSegment:
    """Operations that the host runs."""

    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class LoweredBlock:
    """Segments, and the block's cells and end as ``Block`` has them."""

    segments: tuple[DeviceSegment | HostSegment, ...]
    block: Block


@dataclass(frozen=True)
class Lowered:
    """A method as it runs. ``state``: the cells that last, but for those that a graph keeps on the device itself.

    ``placements``: every operation, with where it runs and why.
    """

    flow: Flow
    blocks: tuple[LoweredBlock, ...]
    state: Mapping[Cell, schema.Tensor]
    placements: tuple[tuple[Operation, Placement], ...]

    @property
    def device_segments(self) -> tuple[DeviceSegment, ...]:
        """The segments with graphs, in order."""
        return tuple(s for block in self.blocks for s in block.segments if isinstance(s, DeviceSegment))


def lower_method(
    file: ProgramFile,
    plan: schema.ExecutionPlan,
    graphs: Sequence[Graph],
    delegates: Sequence[DelegateArguments],
    lower: str,
    bounds: Range | None = None,
) -> Lowered:
    """Make segments of a method. ``graphs`` and ``delegates``: its delegates, and what their arguments are.

    ``lower``: "all", or "delegates" for what was delegated only. ``bounds``: within which the caller keeps all integers
    that it gives; None: any integers may come.
    Raises UnsupportedProgramError for what can run nowhere, with everything that is missing.
    """
    flow = read_flow(plan, delegates)
    given = frozenset(
        value
        for block in flow.blocks
        for cell, value in block.entry.items()
        if cell in flow.inputs and value.tensor is not None and graph_dtype(value.tensor) == "int32"
    )
    flow = replace(flow, blocks=tuple(read_elements(block, given) for block in flow.blocks))
    narrow = frozenset(value for block in flow.blocks for value in narrow_scales(block))
    values = GraphValues(file, plan, graphs, narrow)
    placer = Placer(values, lower, given, bounds)
    places = {o: placer.place(o) for block in flow.blocks for o in block.operations}
    pairs = list(zip(graphs, delegates, strict=True))
    split = [_Splitter(block, places, values, pairs, flow) for block in flow.blocks]
    kept = split[0].kept_on_device() if len(split) == 1 else {}
    blocks = tuple(LoweredBlock(s.segments(kept), s.block) for s in split)
    state = {cell: tensor for cell, tensor in flow.state.items() if flow.blocks[0].entry.get(cell) not in kept}
    return Lowered(flow, blocks, state, tuple(places.items()))


class _Splitter:
    """Splits the operations of one block into stages: even ones on the host, odd ones on the device."""

    def __init__(
        self,
        block: Block,
        places: Mapping[Operation, Placement],
        values: GraphValues,
        delegates: Delegates,
        flow: Flow,
    ) -> None:
        self.block = block
        self._places = places
        self._values = values
        self._delegates = delegates
        self._flow = flow
        self._stage: dict[Value, int] = {}  # in which a value is set
        self._stages: defaultdict[int, list[Operation]] = defaultdict(list)
        self._at: dict[Operation, int] = {}
        for operation in block.operations:
            stage = self._at[operation] = self._stage_of(operation)
            self._stages[stage].append(operation)
            self._stage.update(dict.fromkeys(operation.results, stage))

    def _stage_of(self, operation: Operation) -> int:
        on_device = self._places[operation].on_device
        found = 1 if on_device else 0
        needed = self._needed_on_host(operation)
        for value in operation.inputs:
            stage = self._stage.get(value, 0)
            apart = stage % 2 != (1 if on_device else 0)
            found = max(found, stage + 2 if value in needed and stage % 2 else stage + apart)
        return found

    def _needed_on_host(self, operation: Operation) -> set[Value]:
        """Tensors that a call on the device takes as numbers."""
        if operation.delegate is None:
            return set()
        tensors = [v for v in operation.args if isinstance(v, Value) and v.tensor is not None and v in self._stage]
        if not any(self._stage[v] % 2 for v in tensors):
            return set()
        read = host_read_inputs(self._delegates[operation.delegate][0])
        return {v for position, v in enumerate(operation.args) if position in read and v in tensors}

    def kept_on_device(self) -> dict[Value, Cell]:
        """The buffers that one graph alone reads and writes, by what they hold when a call begins."""
        seen = {v for v in (*(self.block.outputs or ()), *self.block.exit.values()) if isinstance(v, Value)}
        kept = {}
        for cell, tensor in self._flow.state.items():
            first, last = self.block.entry[cell], self.block.exit.get(cell)
            if _name(tensor) or graph_dtype(tensor) is None or first in seen:
                continue
            versions = self._versions(first)
            users = {o for o in self.block.operations if versions & {*o.inputs, *o.results}}
            stages = {self._at[o] for o in users}
            of_last = {self._stage.get(last, 0)} if isinstance(last, Value) and last not in versions else set()
            fixed = not isinstance(last, Value) and last is not None
            if users and len(stages | of_last) == 1 and min(stages) % 2 and not fixed:
                kept[first] = cell
        return kept

    def _versions(self, first: Value) -> set[Value]:
        """A buffer's values, as one operation after the other writes a part of it."""
        found = {first}
        for operation in self.block.operations:
            found |= {v for position, v in operation.mutated if operation.args[position] in found}
        return found

    def segments(self, kept: Mapping[Value, Cell]) -> tuple[DeviceSegment | HostSegment, ...]:
        """The stages in order, each as a segment."""
        found: list[DeviceSegment | HostSegment] = []
        for stage, operations in sorted(self._stages.items()):
            if stage % 2 == 0:
                found.append(HostSegment(tuple(operations)))
            else:
                found.append(self._device_segment(stage, operations, kept))
        return tuple(found)

    def _device_segment(self, stage: int, operations: Sequence[Operation], kept: Mapping[Value, Cell]) -> DeviceSegment:
        fetched, elsewhere = self._read_elsewhere(stage, set(kept.values()))
        mine = {first: cell for first, cell in kept.items() if any(first in o.inputs for o in operations)}
        ends = {first: self.block.exit.get(cell) for first, cell in mine.items()}
        writer = GraphWriter(self._values, self._delegates, self._flow, mine)
        for operation in operations:
            writer.add(operation, self._places[operation].op)
        wanted = [v for v in elsewhere if self._stage.get(v) == stage]
        graph, inputs, outputs = writer.finish(wanted, ends)
        self._plan_for_the_largest(with_casts(graph), outputs)
        of_device = frozenset(
            v.id for v, arg in zip(graph.inputs, inputs, strict=True) if isinstance(arg, Value) and self._is_unseen(arg)
        )
        return DeviceSegment(
            with_casts(change_in_place(graph, _can_run)),
            inputs,
            outputs,
            frozenset(v for v in outputs if v in fetched),
            of_device,
        )

    def _plan_for_the_largest(self, graph: Graph, outputs: Sequence[Value]) -> None:
        """Let later graphs be planned for the largest live integers that this one gives them."""
        integers = [(v, s) for v, s in zip(outputs, graph.outputs, strict=True) if isinstance(s, SymInt)]
        if integers:
            plans = plan_graph(graph, Planning(Features.none(), Limits.floor()))
            for value, symint in integers:
                self._values.bind(value, SymInt(symint.id, plans.value(symint)))

    def _is_unseen(self, value: Value) -> bool:
        """Whether an input of a graph may come from the device: from another graph, block or call."""
        if value in self._stage:
            return self._stage[value] % 2 == 1
        return not any(self.block.entry.get(cell) is value for cell in self._flow.inputs if cell is not None)

    def _read_elsewhere(self, stage: int, kept: set[Cell]) -> tuple[set[Value], list[Value]]:
        """What the host, and what anything but this stage reads."""
        block = self.block
        on_host = [v for o in block.operations if not self._places[o].on_device for v in o.inputs]
        on_host += [v for o in block.operations for v in self._needed_on_host(o)]
        on_host += [v for v in (block.condition, *(block.outputs or ())) if isinstance(v, Value)]
        left = [v for cell, v in block.exit.items() if isinstance(v, Value) and cell not in kept]
        on_host += [v for v in left if v.tensor is None]
        others = [v for o in block.operations if self._at[o] != stage for v in o.inputs]
        return set(on_host), list(dict.fromkeys([*on_host, *others, *left]))


def _can_run(call: OpCall) -> bool:
    return refusal(call.op, call.args) is None


def _name(tensor: schema.Tensor) -> str | None:
    """The name of a buffer that other methods know."""
    extra = tensor.extra_tensor_info
    return extra.fully_qualified_name if extra is not None else None

"""A graph on a device: buffers, bind groups, and one submission a step.

The executor owns all GPU memory of one loaded graph except its read-only constants, which loads of the same program
share, and the memory that the graph writes, which every ``GraphState`` has of its own. A step writes the inputs and the
live uniforms that changed, plans again what they reach, and replays the dispatches that are recorded for its state in
a single compute pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import numpy as np

from ..errors import ClosedError, DeviceError, InvalidInputError
from ..gpu.buffers import Buffer, Readback, Slot
from ..gpu.device import Device
from ..gpu.kernel import Pipeline, Range
from ..gpu.locked import locked
from ..gpu.trace import ENCODE, spanned
from ..ops.plan import Dispatch, Planning
from ..ops.values import IntLike, LiveTensor, SymInt, Tensor, packed_uniform
from .binding_limit import check_bindable
from .bound_memory import BoundMemory
from .build import PREPACK, Graph
from .checked import CheckedSteps
from .constants import ConstantPool, HeldConstants
from .device_array import DeviceArray
from .fusion.dataflow import Dataflow
from .memory import Kind, MemoryPlan, plan_memory, unsafe_aliases
from .persistent import PersistentLayers
from .resize import LivePlans
from .state import Command, GraphState, Recorded, cache_writes, mutable_storages
from .step import Part, Step
from .timing import CallTime, StepTimes

Given = np.ndarray | DeviceArray | int  # what a graph input takes


def plan_graph(graph: Graph, planning: Planning, unseen: Collection[int] = ()) -> LivePlans:
    """Plan every call at maximum dims; aliases of memory that the graph mutates become copies.

    ``unseen``: ids of the integer inputs that come from the device, so that the host does not know their elements.
    """
    integers = {v.id for v in graph.inputs if isinstance(v, Tensor) and v.dtype == "int32"}
    host_inputs = frozenset(integers.difference(unseen))
    written = {t.id for call in graph.calls for t in (call.inputs if call.name == PREPACK else call.mutated)}
    flow, read_only = Dataflow(graph), frozenset(graph.constants) - written
    prepacked = {id: constant for id, constant in graph.prepacked.items() if flow.is_constant(constant)}
    planning = replace(planning, host_inputs=host_inputs, read_only=read_only, prepacked=prepacked)
    plans = LivePlans(graph, planning)
    unsafe = unsafe_aliases(graph, plans.plans)
    if unsafe:
        plans = LivePlans(graph, replace(planning, no_alias=unsafe))
    if unknown := set(planning.routes) - planning.families:
        raise InvalidInputError(f"nothing in this program has routes by the name of {', '.join(sorted(unknown))}")
    return plans


class GraphExecutor:
    """Runs one graph; owns its buffers. ``state`` is where it writes by default.

    What all states share (plans, live uniforms, buffers between calls) belongs to the step that runs, so it holds the
    device's lock from the first thing that it sets to the last that it reads.
    ``check`` runs steps call by call, and holds each call against its reference (``checked.py``).
    ``borrowed``: buffers, by tensor id, in place of our own, which the caller fills and frees: of memory that the
    graph writes and keeps, for all states, and of inputs and outputs. ``unseen``: see ``plan_graph``.
    """

    def __init__(
        self,
        graph: Graph,
        constants: ConstantPool,
        planning: Planning,
        *,
        profile: bool = False,
        check: bool = False,
        borrowed: Mapping[int, Buffer] = MappingProxyType({}),
        unseen: Collection[int] = (),
    ) -> None:
        self.device: Device = constants.device
        self._lock = self.device.lock
        self.graph = graph
        # References read what calls leave as the operators say it.
        planning = replace(planning, splits=False) if check else planning
        self.plans = plan_graph(graph, planning, unseen)
        self.memory: MemoryPlan = plan_memory(graph, self.plans.plans)
        check_bindable(graph, self.memory, self.device.limits.max_binding_bytes)
        self._profile = profile
        self._borrowed = borrowed
        self._readback = Readback(self.device)
        self._times: StepTimes | None = None
        self._checked = CheckedSteps(self, planning.matmul_precision == "high") if check else None
        self._params: dict[tuple[int, int], Slot] = {}  # by call and dispatch
        # Bind groups that name no memory of a state, with their buffers; see GraphState.groups.
        self._groups: dict[tuple[Any, ...], tuple[Any, list[Range]]] = {}
        writes = cache_writes(graph)
        self._mutable = mutable_storages(graph, self.memory, writes)
        self._cache_writes: dict[IntLike, list[LiveTensor]] = {}  # rows by their position
        for w in writes:
            if self.memory.storage_of[w.cache.id] in self._mutable:
                self._cache_writes.setdefault(self.plans.live(w.position), []).append(self.plans.tensor(w.rows))
        self._held: dict[int, np.ndarray] = {}  # what inputs hold, by id; see Part
        self._written = {t.id for call in graph.calls for t in call.mutated} | set(borrowed)  # beside by us
        self._states: WeakSet[GraphState] = WeakSet()
        lent = {self.memory.storage_of[id]: buffer for id, buffer in borrowed.items()}
        held = HeldConstants(constants, graph.constants)
        self._bound = BoundMemory(self.device, self.memory, held, self._mutable, lent)
        self._persistent = PersistentLayers(self.device, self.plans, planning, self._bound)
        self._closed = False
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self._times = StepTimes(self.device, self.plans) if self._profile else None
        self._symints = [self.plans.symint(s) for s in self.graph.symints]
        self._bound.see(v for v in self.graph.outputs if isinstance(v, Tensor))
        self.state = self.new_state()
        for joined in self._persistent.joined:
            self._bound.range_of(joined, self.state)  # before its parts are asked for
        with self.device.kernels.compiling(self.plans.pipelines()):
            for value in self.plans.bindings():
                self._bound.range_of(value, self.state)  # uploads constants while the engine compiles
        self._record(self.state)
        if self._checked is None and self.keeps_only_caches:  # a step may be computed again, which changes nothing else
            self._persistent.begin(self.state, self._trial)
        for index, storage in enumerate(self.memory.storages):
            if storage.kind in (Kind.INPUT, Kind.SHARED):
                self._bound.buffer(index)

    @property
    def profiling(self) -> bool:
        """Whether every step is timed, and waited for."""
        return self._profile

    @property
    def times(self) -> dict[tuple[str, str | None], CallTime]:
        """What calls have taken, by operator and route; empty unless profiling."""
        return {} if self._times is None else self._times.totals

    # -- states -----------------------------------------------------------------------------------------------------

    @locked
    def new_state(self) -> GraphState:
        """Memory for another sequence of steps, with its first contents."""
        self._check_open()
        joined = [storages for each in self._persistent.joined if (storages := self._bound.storages_of(each))]
        state = GraphState(self.device, self._mutable, len(self.graph.calls), self._borrowed, joined)
        self._states.add(state)
        return state

    @property
    def commands(self) -> list[list[Command]]:
        """What a step with the default state replays, by call."""
        return self.state.commands

    @property
    def keeps_only_caches(self) -> bool:
        """Whether all memory that lasts is KV caches, written by rows."""
        return all(memory.row_bytes is not None for memory in self._mutable.values())

    def reads_on_host(self, tensor: Tensor) -> bool:
        """Whether elements of an integer input, not only whether they are in range, decide what a step does."""
        live = self.plans.tensor(tensor)
        return any(live in plan.read_on_host for plan in self.plans.plans)

    @property
    def cache_ends(self) -> set[int]:
        """Rows of its KV caches up to where the last step wrote: one number, if it wrote them all alike."""
        sizes = ((position, {each.dims[1] for each in rows}) for position, rows in self._cache_writes.items())
        return {(p.value if isinstance(p, SymInt) else p) + size for p, each in sizes for size in each}

    # -- one step ---------------------------------------------------------------------------------------------------

    @locked
    def execute(
        self,
        inputs: Sequence[Given],
        state: GraphState | None = None,
        stay: Collection[int] = (),
        skip: Collection[int] = (),
    ) -> list[Any]:
        """Run one step.

        ``inputs``: an array of the tensor's element type and live dims, or an int, for each graph input; arrays may lie
        on the device. ``state`` is one that ``new_state`` gave. ``stay``: positions of the outputs that are to stay on
        the device; if all do, this does not wait for it. ``skip``: positions of those that nobody wants.
        Returns new arrays (device element types, live dims) and ints, one for each graph output, None for skipped ones.
        Raises InvalidInputError, before anything runs, when dims or live values are out of range.
        """
        step = self.begin_step(inputs, state)
        results: list[Any] = [self.plans.value(v) if isinstance(v, SymInt) else None for v in self.graph.outputs]
        tensors = {i: self.plans.tensor(v) for i, v in enumerate(self.graph.outputs) if isinstance(v, Tensor)}
        for i in stay:
            results[i] = DeviceArray(self.device, tensors[i].dims, tensors[i].element.numpy)
        copies = [partial(results[i].copy_from, buffer=self.buffer_of(tensors[i], state)) for i in stay]
        read = {i: tensor for i, tensor in tensors.items() if i not in stay and i not in skip}
        flags = self._persistent.flags if self._persistent.active else []
        if not read and not flags:
            step.submit(*copies)
            return results
        ranges = [*flags, *((self.buffer_of(t, state), 0, t.nbytes) for t in read.values())]
        step.submit(*copies, lambda encoder: self._readback.copy(encoder, ranges))
        found = self._readback.read()
        if flags and self._persistent.give_up(found[: len(flags)]):
            return self.execute(inputs, state, stay, skip)
        for (i, tensor), raw in zip(read.items(), found[len(flags) :], strict=True):
            results[i] = raw.view(tensor.element.numpy).reshape(tensor.dims)
        return results

    @locked
    def recover(self) -> bool:
        """Whether a step that was submitted may be wrong because workgroups did not meet; if so, steps are safe now."""
        return self._persistent.have_failed()

    @spanned("plan and record", ENCODE)
    def begin_step(self, inputs: Sequence[Given], state: GraphState | None = None) -> Step:
        """Bring plans, commands and uniforms up to date with the inputs of a step, which ``Step.submit`` then runs.

        The caller holds the device's lock from here until it has submitted the step and read its results.
        Raises InvalidInputError like ``execute``.
        """
        self._check_open()
        state = state or self.state
        for value, given in zip(self.graph.inputs, inputs, strict=True):
            self._take(value, given)
        self.plans.update()
        self._record(state)
        for symint in self._symints:
            if symint.dirty:
                self._bound.arena.write(self._bound.live(symint), packed_uniform(symint.value))
                symint.dirty = False
        checked = None if self._checked is None else partial(self._checked.run, state)
        inputs_to_write, replay = self._to_write(inputs), state.whole_replay()
        for id in self._written & self._held.keys():
            del self._held[id]
        recorded = state.commands, replay, self.plans, self._bound.arena, self._bound.scratch, self._times
        return Step(self.device, Part(inputs_to_write, self._held, *recorded, checked))

    def _take(self, value: Tensor | SymInt, given: Given) -> None:
        if isinstance(value, SymInt):
            assert isinstance(given, int | np.integer)
            self.plans.set_symint(value, int(given))
            return
        assert isinstance(given, np.ndarray | DeviceArray)
        if given.shape != self.plans.tensor(value).dims:
            if len(given.shape) != len(value.max_dims) or any(
                d > m for d, m in zip(given.shape, value.max_dims, strict=True)
            ):
                raise InvalidInputError(
                    f"an input has shape {list(given.shape)}, but the program takes at most {list(value.max_dims)}"
                )
            self.plans.set_dims(value, given.shape)
        if value.id in self.plans.host_inputs:
            host = given if isinstance(given, np.ndarray) else given.stand_in
            assert host is not None
            self.plans.set_host(value, host)

    def _to_write(self, inputs: Sequence[Given]) -> list[tuple[int, Buffer, np.ndarray | DeviceArray]]:
        """The inputs that are not only for the host: ids, buffers, and what is given."""
        return [
            (value.id, self._bound.buffer(self.memory.storage_of[value.id]), given)
            for value, given in zip(self.graph.inputs, inputs, strict=True)
            if isinstance(value, Tensor) and not isinstance(given, int | np.integer) and self._bound.is_bound(value)
        ]

    # -- recording --------------------------------------------------------------------------------------------------

    def _record(self, state: GraphState) -> None:
        """Make a state's commands of every call whose plan is newer. What fails stays stale."""
        if self.plans.changed:
            for other in self._states:
                other.stale |= self.plans.changed
            self.plans.changed.clear()
        while state.stale:
            for index in sorted(state.stale):
                commands = self._commands(state, index)
                state.stale.remove(index)
                if commands != state.commands[index]:  # a new plan may differ in its parameters only
                    state.commands[index] = commands
                    state.replay = None
            if self._bound.has_outgrown():  # all bind groups may name the old scratch buffer
                self._groups.clear()
                for other in self._states:
                    other.groups.clear()
                    other.recorded.clear()
                    other.stale.update(range(len(self.graph.calls)))

    def _commands(self, state: GraphState, call: int) -> list[Command]:
        """What a state replays for the current plan of a call; parameters are written anew."""
        plan = self.plans.plans[call]
        recorded = state.recorded.get(plan)
        if recorded is None:
            made = [self._command(state, call, i, d) for i, d in enumerate(plan.dispatches)]
            recorded = state.recorded[plan] = Recorded([c for c, _ in made], [given for _, given in made if given])
        for slot, params in recorded.params:
            self._bound.arena.write(slot, params)
        return recorded.commands

    def _command(
        self, state: GraphState, call: int, position: int, dispatch: Dispatch
    ) -> tuple[Command, tuple[Slot, bytes] | None]:
        """A dispatch as it is replayed, and its parameters with their place."""
        kernels = self.device.kernels
        pipeline: Pipeline = kernels.pipeline(dispatch.kernel, dispatch.template, dispatch.overrides)
        bindings = dispatch.bindings
        ranges = {name: self._bound.range_of(value, state) for name, value in bindings.items()}
        groups = state.groups if any(map(self._bound.is_mutable, bindings.values())) else self._groups
        params = pipeline.source.pack_params(dispatch.params)
        given = None
        if params:
            slot = self._params.get((call, position))
            if slot is None or slot.size < len(params):
                slot = self._params[call, position] = self._bound.arena.allocate(len(params))
            given = slot, params
            ranges["params"] = (slot.buffer, slot.offset, slot.size)
        key = (id(pipeline), *((name, id(b), offset, size) for name, (b, offset, size) in ranges.items()))
        if key not in groups:
            groups[key] = kernels.bind_group(pipeline, ranges), list(ranges.values())
        return Command(pipeline.raw, groups[key][0], dispatch.grid), given

    def _trial(self, state: GraphState, dispatch: Dispatch) -> Command:
        """The command of a dispatch that no call has planned."""
        command, given = self._command(state, -1, 0, dispatch)
        if given is not None:
            self._bound.arena.write(*given)
        self._bound.arena.flush()
        return command

    # -- memory -----------------------------------------------------------------------------------------------------

    def buffer_of(self, tensor: Tensor, state: GraphState | None = None) -> Buffer:
        """Where a tensor lies; ``state`` counts for memory that the graph writes and keeps."""
        return self._bound.buffer_of(tensor, state or self.state)

    def is_bound(self, tensor: Tensor) -> bool:
        """Whether a kernel or the caller sees a tensor's memory; inputs that are for the host only are not uploaded."""
        return self._bound.is_bound(tensor)

    @locked
    def close(self) -> None:
        """Free all memory of this graph, its states included. Closing twice is allowed."""
        if self._closed:
            return
        self._closed = True
        for state in list(self._states):
            state.close()
        self._bound.close(lost=self.device.closed)
        if not self.device.closed:
            for owner in (self._readback, self._persistent, self._times, self._checked):
                if owner is not None:
                    owner.close()
            with suppress(DeviceError):  # a lost device has nothing left to free
                self.device.flush()  # engines give memory back after the next submission
        self._groups.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this method is closed; load it again")

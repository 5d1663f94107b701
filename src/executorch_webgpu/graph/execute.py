"""A graph on a device: buffers, bind groups, and one submission a step.

The executor owns all GPU memory of one loaded graph except its read-only constants, which loads of the same program
share. A step writes the inputs and the live uniforms that changed, plans again what they reach, and replays the
recorded dispatches in a single compute pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ClosedError, DeviceError, InvalidInputError
from ..gpu.buffers import Buffer, Readback, ScratchPool, Slot, UniformArena, create, upload
from ..gpu.device import Device
from ..gpu.kernel import Pipeline, Range
from ..gpu.profile import Timestamps
from ..ops.plan import Binding, Dispatch, Planning
from ..ops.values import Scratch, SymInt, Tensor
from .build import ConstantKey, Graph
from .constants import ConstantPool
from .memory import Kind, MemoryPlan, Storage, plan_memory, unsafe_aliases
from .resize import LivePlans

LIVE_UNIFORM_BYTES = 16


@dataclass(frozen=True)
class Command:
    """One recorded dispatch."""

    pipeline: Any
    bind_group: Any
    grid: tuple[int, int, int]


@dataclass
class CallTime:
    """What the calls of one operator and route have taken so far."""

    calls: int = 0
    dispatches: int = 0
    gpu_ns: int = 0


def plan_graph(graph: Graph, planning: Planning) -> LivePlans:
    """Plan every call at maximum dims; aliases of memory that the graph mutates become copies."""
    host_inputs = frozenset(v.id for v in graph.inputs if isinstance(v, Tensor) and v.dtype == "int32")
    planning = replace(planning, host_inputs=host_inputs)
    plans = LivePlans(graph, planning)
    unsafe = unsafe_aliases(graph, plans.plans)
    if unsafe:
        plans = LivePlans(graph, replace(planning, no_alias=unsafe))
    if unknown := set(planning.routes) - planning.families:
        raise InvalidInputError(f"nothing in this program has routes by the name of {', '.join(sorted(unknown))}")
    return plans


class GraphExecutor:
    """Runs one graph; owns its buffers. Not safe for concurrent use."""

    def __init__(self, graph: Graph, constants: ConstantPool, planning: Planning, *, profile: bool = False) -> None:
        self.device: Device = constants.device
        self.graph = graph
        self.plans = plan_graph(graph, planning)
        self.memory: MemoryPlan = plan_memory(graph, self.plans.plans)
        self.times: dict[tuple[str, str | None], CallTime] = {}  # by operator and route, when profiling
        self._profile = profile
        self._constants = constants
        self._buffers: dict[int, Buffer] = {}  # by storage index
        self._held: list[ConstantKey] = []  # constants that we hold
        self._arena = UniformArena(self.device)
        self._scratch = ScratchPool(self.device)
        self._scratch_generations: dict[int, int] = {}
        self._readback = Readback(self.device)
        self._timestamps: Timestamps | None = None
        self._live: dict[int, Slot] = {}  # by SymInt id
        self._fixed: dict[int, Slot] = {}  # uniforms of plain ints where a kernel wants a live one
        self._params: dict[tuple[int, int], Slot] = {}  # by call and dispatch
        # Bind groups by what they bind, with the buffers, which must live as long as a group names them.
        self._groups: dict[tuple[Any, ...], tuple[Any, list[Range]]] = {}
        self.commands: list[list[Command]] = [[] for _ in graph.calls]  # what a step replays, by call
        self._closed = False
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        if self._profile and self.device.features.timestamps:
            self._timestamps = Timestamps(self.device, len(self.graph.calls))
        self._live = {s.id: self._arena.allocate(LIVE_UNIFORM_BYTES) for s in self.graph.symints}
        for name, template, overrides in self.plans.prepared:
            self.device.kernels.pipeline(name, template, overrides)
        self._record()
        for index, storage in enumerate(self.memory.storages):
            if storage.kind is not Kind.CONSTANT:
                self._buffer(index)

    # -- one step ---------------------------------------------------------------------------------------------------

    def execute(self, inputs: Sequence[np.ndarray | int]) -> list[np.ndarray | int]:
        """Run one step.

        ``inputs``: an array of the tensor's element type and live dims, or an int, for each graph input.
        Answers with new arrays (device element types, live dims) and ints, one for each graph output.
        Raises InvalidInputError, before anything runs, when dims or live values are out of range.
        """
        self._check_open()
        for value, given in zip(self.graph.inputs, inputs, strict=True):
            self._take(value, given)
        self.plans.update()
        self._record()
        for value, given in zip(self.graph.inputs, inputs, strict=True):
            if isinstance(value, Tensor) and value.id in self.memory.storage_of:
                upload(self.device, self._buffer(self.memory.storage_of[value.id]), given)
        for symint in self.graph.symints:
            if symint.dirty:
                self._arena.write(self._live[symint.id], symint.pack())
                symint.dirty = False
        self._arena.flush()
        return self._submit()

    def _take(self, value: Tensor | SymInt, given: np.ndarray | int) -> None:
        if isinstance(value, SymInt):
            self.plans.set_symint(value, int(given))
            return
        assert isinstance(given, np.ndarray)
        if len(given.shape) != len(value.max_dims) or any(
            d > m for d, m in zip(given.shape, value.max_dims, strict=True)
        ):
            raise InvalidInputError(
                f"an input has shape {list(given.shape)}, but the program takes at most {list(value.max_dims)}"
            )
        self.plans.set_dims(value, given.shape)
        if value.dtype == "int32":
            self.plans.set_host(value, given)

    def _submit(self) -> list[np.ndarray | int]:
        encoder = self.device.encoder()
        with self.device.errors("recording a step"):
            timed = self._encode_timed(encoder) if self._timestamps else self._encode(encoder)
        tensors = [v for v in self.graph.outputs if isinstance(v, Tensor)]
        self._readback.copy(encoder, [(self._buffer(self.memory.storage_of[t.id]), 0, t.nbytes) for t in tensors])
        self.device.submit([encoder.finish()])
        arrays = iter(self._readback.read())
        self._scratch.release_retired()
        if self._profile:
            self._count_time(timed)
        return [
            v.value if isinstance(v, SymInt) else next(arrays).view(v.element.numpy).reshape(v.dims)
            for v in self.graph.outputs
        ]

    def _encode(self, encoder: Any) -> list[int]:
        """All dispatches in one pass: WebGPU runs them in order."""
        compute_pass = encoder.begin_compute_pass()
        pipeline = None
        for commands in self.commands:
            for command in commands:
                if command.pipeline is not pipeline:
                    pipeline = command.pipeline
                    compute_pass.set_pipeline(pipeline)
                compute_pass.set_bind_group(0, command.bind_group)
                compute_pass.dispatch_workgroups(*command.grid)
        compute_pass.end()
        return []

    def _encode_timed(self, encoder: Any) -> list[int]:
        """A pass for each call, between two timestamps; answers with the calls in the order of their passes."""
        assert self._timestamps is not None
        timed: list[int] = []
        for index, commands in enumerate(self.commands):
            if not commands:
                continue
            writes = self._timestamps.pass_descriptor(len(timed))
            compute_pass = encoder.begin_compute_pass(timestamp_writes=writes)
            for command in commands:
                compute_pass.set_pipeline(command.pipeline)
                compute_pass.set_bind_group(0, command.bind_group)
                compute_pass.dispatch_workgroups(*command.grid)
            compute_pass.end()
            timed.append(index)
        return timed

    def _count_time(self, timed: list[int]) -> None:
        nanoseconds = dict(zip(timed, self._timestamps.resolve(len(timed)), strict=True)) if self._timestamps else {}
        for index, commands in enumerate(self.commands):
            if commands:
                key = (self.graph.calls[index].name, self.plans.plans[index].route)
                time = self.times.setdefault(key, CallTime())
                time.calls += 1
                time.dispatches += len(commands)
                time.gpu_ns += nanoseconds.get(index, 0)

    # -- recording --------------------------------------------------------------------------------------------------

    def _record(self) -> None:
        """Make the commands of every call whose plan is new. What fails stays new."""
        changed = self.plans.changed
        while changed:
            for index in sorted(changed):
                dispatches = self.plans.plans[index].dispatches
                self.commands[index] = [self._command(index, i, dispatch) for i, dispatch in enumerate(dispatches)]
                changed.remove(index)
            generations = {k: self._scratch.get(k, 0)[1] for k in self._scratch_generations}
            if generations != self._scratch_generations:  # a scratch buffer grew: all bind groups may name the old one
                self._scratch_generations = generations
                self._groups.clear()
                changed.update(range(len(self.graph.calls)))

    def _command(self, call: int, position: int, dispatch: Dispatch) -> Command:
        kernels = self.device.kernels
        pipeline: Pipeline = kernels.pipeline(dispatch.kernel, dispatch.template, dispatch.overrides)
        ranges = {name: self._range(value) for name, value in dispatch.bindings.items()}
        params = pipeline.source.pack_params(dispatch.params)
        if params:
            slot = self._params.get((call, position))
            if slot is None or slot.size < len(params):
                slot = self._params[call, position] = self._arena.allocate(len(params))
            self._arena.write(slot, params)
            ranges["params"] = (slot.buffer, slot.offset, slot.size)
        key = (id(pipeline), *((name, id(b), offset, size) for name, (b, offset, size) in ranges.items()))
        if key not in self._groups:
            self._groups[key] = kernels.bind_group(pipeline, ranges), list(ranges.values())
        return Command(pipeline.raw, self._groups[key][0], dispatch.grid)

    def _range(self, value: Binding) -> Range:
        match value:
            case Tensor():
                return self._buffer(self.memory.storage_of[value.id]), 0, padded(value.max_nbytes)
            case Scratch():
                buffer, generation = self._scratch.get(value.index, value.nbytes)
                self._scratch_generations.setdefault(value.index, generation)
                return buffer, 0, value.nbytes
            case SymInt():
                slot = self._live[value.id]
            case _:
                slot = self._fixed_uniform(value)
        return slot.buffer, slot.offset, LIVE_UNIFORM_BYTES

    # -- memory -----------------------------------------------------------------------------------------------------

    def _buffer(self, index: int) -> Buffer:
        """The buffer of a storage, made when it is first asked for."""
        buffer = self._buffers.get(index)
        if buffer is None:
            storage = self.memory.storages[index]
            if storage.kind is Kind.CONSTANT:
                assert storage.constant is not None
                buffer = self._constant(storage.constant)
            else:
                buffer = create(self.device, storage.nbytes, storage.label)
                if storage.kind is Kind.MUTABLE:
                    self._initialize(buffer, storage, fresh=True)
            self._buffers[index] = buffer
        return buffer

    def _constant(self, tensor: Tensor) -> Buffer:
        constant = self.graph.constants[tensor.id]
        buffer = self._constants.acquire(
            constant.key, constant.data, lambda: constant.array(tensor), f"constant {tensor}"
        )
        self._held.append(constant.key)
        return buffer

    def _initialize(self, buffer: Buffer, storage: Storage, *, fresh: bool) -> None:
        """Give a mutable buffer the contents that the file states; a fresh buffer is zero already."""
        assert storage.constant is not None
        array = self.graph.constants[storage.constant.id].array(storage.constant)
        if array.any():
            upload(self.device, buffer, array)
        elif not fresh:
            encoder = self.device.encoder()
            encoder.clear_buffer(buffer.raw)
            self.device.submit([encoder.finish()])

    def _fixed_uniform(self, value: int) -> Slot:
        slot = self._fixed.get(value)
        if slot is None:
            slot = self._fixed[value] = self._arena.allocate(LIVE_UNIFORM_BYTES)
            self._arena.write(slot, SymInt(-1, value).pack())
        return slot

    def mutable(self, tensor: Tensor) -> np.ndarray:
        """The current contents of a mutable tensor, such as a KV cache."""
        self._check_open()
        buffer = self._buffer(self.memory.storage_of[tensor.id])
        encoder = self.device.encoder()
        self._readback.copy(encoder, [(buffer, 0, tensor.nbytes)])
        self.device.submit([encoder.finish()])
        (raw,) = self._readback.read()
        return raw.view(tensor.element.numpy).reshape(tensor.dims)

    def reset(self) -> None:
        """Put every mutable buffer back to its initial contents."""
        self._check_open()
        for index, storage in enumerate(self.memory.storages):
            if storage.kind is Kind.MUTABLE:
                self._initialize(self._buffer(index), storage, fresh=False)

    def close(self) -> None:
        """Free all memory of this graph. Closing twice is allowed."""
        if self._closed:
            return
        self._closed = True
        if not self.device.closed:
            for index, buffer in self._buffers.items():
                if self.memory.storages[index].kind is not Kind.CONSTANT:
                    buffer.destroy()
            for owner in (self._arena, self._scratch, self._readback, self._timestamps):
                if owner is not None:
                    owner.close()
            for key in self._held:
                self._constants.release(key)
            with suppress(DeviceError):  # a lost device has nothing left to free
                self.device.flush()  # engines give memory back after the next submission
        self._buffers.clear()
        self._groups.clear()
        self.commands.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this method is closed; load it again")


def padded(nbytes: int) -> int:
    """Bytes that a tensor is bound with: vec4 kernels may touch the whole last vector."""
    return max(16, (nbytes + 15) // 16 * 16)

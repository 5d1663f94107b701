"""The memory that a graph writes and keeps from step to step, such as its KV caches. One graph may have many states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..errors import ClosedError, DeviceError
from ..gpu.buffers import Buffer, Readback, Slot, create, split, upload
from ..gpu.device import Device
from ..gpu.kernel import Range
from ..gpu.replay import Replay
from ..ops.plan import OpPlan
from ..ops.values import IntLike, Joined, Tensor
from .build import Graph
from .memory import Kind, MemoryPlan

_WORD = 4  # bytes


@dataclass(frozen=True)
class Command:
    """One recorded dispatch."""

    pipeline: Any
    bind_group: Any
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Recorded:
    """The commands of a plan, and the parameters that their uniforms hold while it is the call's."""

    commands: list[Command]
    params: list[tuple[Slot, bytes]]


@dataclass(frozen=True)
class CacheWrite:
    """A call that writes as many rows as ``rows`` [1, S, …] has into ``cache`` [1, C, …] from row ``position``."""

    call: int
    cache: Tensor
    rows: Tensor
    position: IntLike


@dataclass(frozen=True)
class Mutable:
    """One buffer of a state: the root tensor, and its first contents (None: zeros).

    ``row_bytes``: of a KV cache [1, C, …], which is written by rows only; None for any other memory.
    """

    tensor: Tensor
    label: str
    initial: np.ndarray | None
    row_bytes: int | None

    def dims(self, rows: int) -> tuple[int, ...]:
        """Of the part that ``rows`` tokens fill: of a KV cache its first rows, of other memory everything."""
        dims = self.tensor.max_dims
        return dims if self.row_bytes is None else (1, min(rows, dims[1]), *dims[2:])


def cache_writes(graph: Graph) -> tuple[CacheWrite, ...]:
    """Every write to a KV cache."""
    return tuple(
        CacheWrite(call.index, call.named[cache], call.named[rows], call.named[call.op.position])
        for call in graph.calls
        if call.op.position is not None
        for cache, rows in call.op.caches.items()
    )


def mutable_storages(graph: Graph, memory: MemoryPlan, writes: Sequence[CacheWrite]) -> dict[int, Mutable]:
    """What each state of the graph needs, by storage index."""
    by_rows = {(w.call, t.id) for w in writes for t in (w.cache, w.cache.scales) if t is not None}
    mutations = [
        (memory.storage_of[tensor.id], (call.index, tensor.id), tensor.max_dims)
        for call in graph.calls
        for tensor in call.mutated
    ]
    found = {}
    for index, storage in enumerate(memory.storages):
        if storage.kind is not Kind.MUTABLE:
            continue
        root = storage.constant
        assert root is not None
        of_this = [(mutation, dims) for target, mutation, dims in mutations if target == index]
        is_cache = all(mutation in by_rows and dims == root.max_dims for mutation, dims in of_this)
        is_cache = is_cache and root.max_dims[:1] == (1,)
        row_bytes = root.max_nbytes // max(1, root.max_dims[1]) if is_cache else 0
        found[index] = Mutable(
            root,
            storage.label,
            graph.constants[root.id].unless_zeros(root),
            row_bytes or None,
        )
    return found


class GraphState:
    """One set of a graph's mutable buffers, and the commands whose bind groups name them.

    ``borrowed``: buffers, by root tensor id, that the caller fills and frees; all others are its own. ``joined``:
    lists of storage indices whose buffers are parts of one.
    ``stale`` are the calls whose commands are older than their plans, or than the buffers that these share with other
    states; the executor records them before this state's next step. The caller of a method holds the device's lock.
    """

    def __init__(
        self,
        device: Device,
        mutable: Mapping[int, Mutable],
        calls: int,
        borrowed: Mapping[int, Buffer],
        joined: Sequence[Sequence[int]] = (),
    ) -> None:
        self.buffers: dict[int, Buffer] = {}  # by storage index
        self.commands: list[list[Command]] = [[] for _ in range(calls)]  # what a step replays, by call
        self.replay: Replay | None = None  # the commands as one list, once they are made
        self.recorded: WeakKeyDictionary[OpPlan, Recorded] = WeakKeyDictionary()  # of plans that are kept
        self.stale = set(range(calls))
        # Bind groups by what they bind, with the buffers, which must live as long as a group names them.
        self.groups: dict[tuple[Any, ...], tuple[Any, list[Range]]] = {}
        self.closed = False
        self._device = device
        self._mutable = mutable
        self._owned: list[Buffer] = []
        self.joined: dict[tuple[int, ...], Buffer] = {}  # the buffers that have parts
        try:
            for indices in joined:
                self._join(indices)
            for index, memory in mutable.items():
                if memory.tensor.id in borrowed:
                    self.buffers[index] = borrowed[memory.tensor.id]
                    continue
                if index not in self.buffers:
                    self.buffers[index] = create(device, memory.tensor.max_nbytes, memory.label)
                    self._owned.append(self.buffers[index])
                if memory.initial is not None:
                    upload(device, self.buffers[index], memory.initial)
        except BaseException:
            self.close()
            raise

    def _join(self, indices: Sequence[int]) -> None:
        """Make the buffers of these storages, as parts of one."""
        tensors = [self._mutable[index].tensor for index in indices]
        offsets = Joined(tuple(tensors)).offsets
        labels = [self._mutable[index].label for index in indices]
        whole = create(self._device, offsets[-1], f"{labels[0]} to {labels[-1]}")
        parts = split(whole, offsets[:-1], [tensor.max_nbytes for tensor in tensors], labels)
        self.joined[tuple(indices)] = whole
        self.buffers.update(zip(indices, parts, strict=True))
        self._owned += parts

    def whole_replay(self) -> Replay:
        """All commands, for one pass: WebGPU runs them in order."""
        if self.replay is None:
            commands = (command for of_call in self.commands for command in of_call)
            self.replay = Replay(self._device, ((c.pipeline, c.bind_group, c.grid) for c in commands))
        return self.replay

    def read(self, rows: int) -> dict[int, np.ndarray]:
        """The contents by root tensor id, in the device's element types; of KV caches the first ``rows`` rows."""
        return {memory.tensor.id: self.read_buffer(index, rows) for index, memory in self._mutable.items()}

    def read_buffer(self, index: int, rows: int) -> np.ndarray:
        """The contents of one storage."""
        memory = self._mutable[index]
        dims = memory.dims(rows)
        readback = Readback(self._device, memory.label)
        try:
            encoder = self._device.encoder()
            readback.copy(encoder, [(self.buffers[index], 0, math.prod(dims) * memory.tensor.element.itemsize)])
            self._device.submit([encoder.finish()])
            (raw,) = readback.read()
        finally:
            readback.close()
        return raw.view(memory.tensor.element.numpy).reshape(dims)

    def layout(self, rows: int) -> dict[int, tuple[tuple[int, ...], np.dtype]]:
        """Dims and dtype of what ``read`` gives and ``write`` takes."""
        return {m.tensor.id: (m.dims(rows), m.tensor.element.numpy) for m in self._mutable.values()}

    def write(self, contents: Mapping[int, np.ndarray]) -> None:
        """Take contents that ``read`` gave; other rows of KV caches get their first contents."""
        self.reset()
        for index, memory in self._mutable.items():
            upload(self._device, self.buffers[index], contents[memory.tensor.id])

    def reset(self) -> None:
        """Put all memory back to its first contents."""
        self._restore(dict.fromkeys(self._mutable, 0))

    def clear_rows(self, first: int) -> None:
        """Put the rows of all KV caches from ``first`` on back to their first contents."""
        begins = {i: first * m.row_bytes for i, m in self._mutable.items() if m.row_bytes is not None}
        self._restore({i: begin for i, begin in begins.items() if begin < self._mutable[i].tensor.max_nbytes})

    def _restore(self, begins: Mapping[int, int]) -> None:
        """Put buffers back to their first contents, each from a byte on."""
        # The garbage collector frees the buffers of a cycle before it ends a generator there, which comes here to take
        # back what ran ahead. To submit a buffer that is freed ends the process in wgpu-native.
        if self.closed or any(buffer.destroyed for buffer in self.buffers.values()):
            raise ClosedError("this state is closed; make a new one with the method's new_state")
        words = self._words_at({index: begin for index, begin in begins.items() if begin % _WORD})
        encoder = self._device.encoder()
        for index, begin in begins.items():
            buffer, first = self.buffers[index], begin - begin % -_WORD
            if self._mutable[index].initial is None and first < buffer.size:
                encoder.clear_buffer(buffer.raw, buffer.begin + first, buffer.size - first)
        self._device.submit([encoder.finish()])
        for index, begin in begins.items():
            initial = self._mutable[index].initial
            kept = words.get(index, np.empty(0, np.uint8))[: begin % _WORD]
            if initial is not None:
                rest = initial.reshape(-1).view(np.uint8)[begin:]
                upload(self._device, self.buffers[index], np.concatenate([kept, rest]), begin - len(kept))
            elif len(kept):
                upload(self._device, self.buffers[index], kept, begin - len(kept))

    def _words_at(self, begins: Mapping[int, int]) -> dict[int, np.ndarray]:
        """The words of buffers that hold these bytes: buffers are written by words, but rows may end within one."""
        if not begins:
            return {}
        readback = Readback(self._device, "rows that stay")
        try:
            encoder = self._device.encoder()
            readback.copy(encoder, [(self.buffers[i], b - b % _WORD, _WORD) for i, b in begins.items()])
            self._device.submit([encoder.finish()])
            return dict(zip(begins, readback.read(), strict=True))
        finally:
            readback.close()

    def close(self) -> None:
        """Free the buffers. Closing twice is allowed."""
        if self.closed:
            return
        self.closed = True
        self.groups.clear()
        self.recorded.clear()
        self.commands.clear()
        self.replay = None
        if not self._device.closed:
            for buffer in self._owned:
                buffer.destroy()
            with suppress(DeviceError):  # a lost device has nothing left to free
                self._device.flush()  # engines give memory back after the next submission
        self.buffers.clear()
        self.joined.clear()
        self._owned.clear()

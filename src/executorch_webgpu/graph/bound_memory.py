"""Where what a loaded graph binds lies: all of its GPU memory but for what its states keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ..gpu.buffers import Buffer, ScratchPool, Slot, UniformArena, create
from ..gpu.device import Device
from ..gpu.kernel import Range
from ..ops.plan import Binding
from ..ops.values import Joined, Kept, Repacked, Scratch, SymInt, Tensor, packed_uniform
from .constants import HeldConstants
from .memory import Kind, MemoryPlan
from .state import GraphState

LIVE_UNIFORM_BYTES = 16


class BoundMemory:
    """Buffers of inputs, results and intermediates, uniforms and scratch, and the constants that it holds of a pool.

    ``mutable``: the storages that each state has of its own. ``lent``: buffers, by storage index, in place of our own.
    """

    def __init__(
        self,
        device: Device,
        memory: MemoryPlan,
        constants: HeldConstants,
        mutable: Iterable[int],
        lent: Mapping[int, Buffer] = MappingProxyType({}),
    ) -> None:
        self.memory = memory
        self.constants = constants
        self.arena = UniformArena(device)
        self.scratch = ScratchPool(device)
        self._device = device
        self._mutable = frozenset(mutable)
        self._lent = lent
        self._buffers: dict[int, Buffer] = {}  # by storage index
        self._bound: set[int] = set()  # storages that a dispatch has been given, or the caller
        self._live: dict[int, Slot] = {}  # by SymInt id
        self._fixed: dict[int, Slot] = {}  # uniforms of plain ints where a kernel wants a live one
        self._kept: dict[Kept, Buffer] = {}
        self._generations: dict[int, int] = {}  # of scratch buffers that were bound

    def range_of(self, value: Binding, state: GraphState) -> Range:
        """Where a binding lies for steps of a state; it counts as bound from then on."""
        match value:
            case Tensor():
                self._bound.add(self.memory.storage_of[value.id])
                return self.buffer_of(value, state), 0, padded(value.max_nbytes)
            case Scratch():
                buffer, generation = self.scratch.get(value.index, value.nbytes)
                self._generations.setdefault(value.index, generation)
                return buffer, 0, buffer.size  # all of it, so that steps of other sizes take the same bind group
            case Repacked():
                return self.constants.repacked(value), 0, padded(value.nbytes)
            case Joined():
                buffer = self._joined(value, state)
                return buffer, 0, buffer.size
            case Kept():
                buffer = self.kept(value)
                return buffer, 0, buffer.size
            case SymInt():
                slot = self.live(value)
            case _:
                slot = self._fixed_uniform(value)
        return slot.buffer, slot.offset, LIVE_UNIFORM_BYTES

    def _joined(self, value: Joined, state: GraphState) -> Buffer:
        tensors = [part for part in value.parts if isinstance(part, Tensor)]
        if not tensors:
            return self.constants.joined(value)
        return state.joined[self.storages_of(value)]

    def storages_of(self, value: Joined) -> tuple[int, ...]:
        """Those of the tensors in a joined buffer."""
        return tuple(self.memory.storage_of[part.id] for part in value.parts if isinstance(part, Tensor))

    def kept(self, value: Kept) -> Buffer:
        """A buffer whose contents last."""
        if value not in self._kept:
            self._kept[value] = create(self._device, value.nbytes, f"what {value.name} keeps")
        return self._kept[value]

    def live(self, symint: SymInt) -> Slot:
        """The live uniform of a SymInt."""
        if symint.id not in self._live:
            self._live[symint.id] = self.arena.allocate(LIVE_UNIFORM_BYTES)
        return self._live[symint.id]

    def is_mutable(self, value: Binding) -> bool:
        """Whether each state has its own."""
        match value:
            case Tensor():
                return self.memory.storage_of[value.id] in self._mutable
            case Joined():
                return bool(self.storages_of(value))
        return False

    def buffer_of(self, tensor: Tensor, state: GraphState) -> Buffer:
        """Where a tensor lies; ``state`` counts for memory that the graph writes and keeps."""
        index = self.memory.storage_of[tensor.id]
        return state.buffers[index] if index in self._mutable else self.buffer(index)

    def is_bound(self, tensor: Tensor) -> bool:
        """Whether a kernel or the caller sees a tensor's memory; inputs that are for the host only are not uploaded."""
        return self.memory.storage_of[tensor.id] in self._bound

    def see(self, tensors: Iterable[Tensor]) -> None:
        """The caller sees the memory of these."""
        self._bound |= {self.memory.storage_of[tensor.id] for tensor in tensors}

    def buffer(self, index: int) -> Buffer:
        """The buffer of a storage that all states share, made when it is first asked for."""
        buffer = self._buffers.get(index) or self._lent.get(index)
        if buffer is None:
            storage = self.memory.storages[index]
            if storage.kind is Kind.CONSTANT:
                assert storage.constant is not None
                buffer = self.constants.plain(storage.constant)
            else:
                buffer = create(self._device, storage.nbytes, storage.label)
            self._buffers[index] = buffer
        return buffer

    def has_outgrown(self) -> bool:
        """Whether a scratch buffer has been replaced by a larger one since the last time that this was asked."""
        generations = {k: self.scratch.get(k, 0)[1] for k in self._generations}
        grown, self._generations = generations != self._generations, generations
        return grown

    def _fixed_uniform(self, value: int) -> Slot:
        slot = self._fixed.get(value)
        if slot is None:
            slot = self._fixed[value] = self.arena.allocate(LIVE_UNIFORM_BYTES)
            self.arena.write(slot, packed_uniform(value))
        return slot

    def close(self, *, lost: bool) -> None:
        """Free everything. ``lost``: the device is closed, and has done so."""
        if not lost:
            for index, buffer in self._buffers.items():
                if self.memory.storages[index].kind is not Kind.CONSTANT:
                    buffer.destroy()
            for buffer in self._kept.values():
                buffer.destroy()
            self.arena.close()
            self.scratch.close()
            self.constants.release()
        self._buffers.clear()
        self._kept.clear()


def padded(nbytes: int) -> int:
    """Bytes that a tensor is bound with: vec4 kernels may touch the whole last vector."""
    return max(16, (nbytes + 15) // 16 * 16)

"""Read-only constants on a device, shared by every load of the same program."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..gpu.buffers import Buffer, create, upload
from ..gpu.device import Device
from ..gpu.locked import locked
from ..ops.values import Repacked, Tensor
from .build import Constant


@dataclass
class _Entry:
    buffer: Buffer
    holders: int


class ConstantPool:
    """Buffers by key, with a count of holders; a buffer is destroyed when the last holder lets go.

    ``forget`` is told about every range of the file that has been uploaded, so that the operating system may drop
    those pages: a loaded program should not be in memory twice.
    """

    def __init__(self, device: Device, forget: Callable[[memoryview], None]) -> None:
        self.device = device
        self._lock = device.lock
        self._forget = forget
        self._entries: dict[Hashable, _Entry] = {}

    @locked
    def acquire(
        self, key: Hashable, data: Sequence[memoryview], content: Callable[[], np.ndarray], label: str
    ) -> Buffer:
        """The buffer of ``key``; its first holder fills it with ``content()``, of the file's ranges ``data``."""
        entry = self._entries.get(key)
        if entry is None:
            array = content()
            buffer = create(self.device, array.nbytes, label)
            try:
                upload(self.device, buffer, array)
            except BaseException:
                buffer.destroy()
                raise
            for view in data:
                self._forget(view)
            entry = self._entries[key] = _Entry(buffer, 0)
        entry.holders += 1
        return entry.buffer

    @locked
    def release(self, key: Hashable) -> None:
        """Let go of ``key``."""
        entry = self._entries[key]
        entry.holders -= 1
        if not entry.holders:
            entry.buffer.destroy()
            del self._entries[key]

    @property
    def nbytes(self) -> int:
        """Bytes of all constants on the device."""
        with self._lock:
            return sum(entry.buffer.size for entry in self._entries.values())


class HeldConstants:
    """What one loaded graph holds of a pool: constants as they lie in the file, and repacked ones."""

    def __init__(self, pool: ConstantPool, constants: Mapping[int, Constant]) -> None:
        self._pool = pool
        self._constants = constants
        self._held: list[Hashable] = []
        self._repacked: dict[Repacked, Buffer] = {}

    def plain(self, tensor: Tensor) -> Buffer:
        """The buffer of a constant; each call holds it once more."""
        constant = self._constants[tensor.id]
        return self._acquire(constant.key, [constant.data], lambda: constant.array(tensor), f"constant {tensor}")

    def repacked(self, value: Repacked) -> Buffer:
        """The buffer of ``value``, made when it is first asked for."""
        buffer = self._repacked.get(value)
        if buffer is None:
            sources = [(self._constants[t.id], t) for t in value.sources]
            key = (value.layout, *(constant.key for constant, _ in sources))
            label = f"{value.layout} of {', '.join(map(repr, value.sources))}"

            def content() -> np.ndarray:
                return value.pack(*(constant.array(t) for constant, t in sources))

            buffer = self._acquire(key, [constant.data for constant, _ in sources], content, label)
            self._repacked[value] = buffer
        return buffer

    def release(self) -> None:
        """Let go of everything."""
        for key in self._held:
            self._pool.release(key)
        self._held.clear()
        self._repacked.clear()

    def _acquire(
        self, key: Hashable, data: Sequence[memoryview], content: Callable[[], np.ndarray], label: str
    ) -> Buffer:
        buffer = self._pool.acquire(key, data, content, label)
        self._held.append(key)
        return buffer

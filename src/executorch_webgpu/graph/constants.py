"""Read-only constants on a device, shared by every load of the same program."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from ..gpu.buffers import Buffer, create, upload
from ..gpu.device import Device


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
        self._forget = forget
        self._entries: dict[Hashable, _Entry] = {}

    def acquire(self, key: Hashable, data: memoryview, content: Callable[[], np.ndarray], label: str) -> Buffer:
        """The buffer of ``key``; its first holder fills it with ``content()``. ``data`` is its range of the file."""
        entry = self._entries.get(key)
        if entry is None:
            array = content()
            buffer = create(self.device, array.nbytes, label)
            try:
                upload(self.device, buffer, array)
            except BaseException:
                buffer.destroy()
                raise
            self._forget(data)
            entry = self._entries[key] = _Entry(buffer, 0)
        entry.holders += 1
        return entry.buffer

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
        return sum(entry.buffer.size for entry in self._entries.values())

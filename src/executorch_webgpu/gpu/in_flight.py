"""Small results of submissions that overlap."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DeviceError
from .buffers import _COPY_DST, _MAP_READ, Buffer
from .device import Device


@dataclass(frozen=True)
class _Flight:
    """A submission, and the staging buffer that it copies its result to."""

    buffer: Buffer
    submission: int  # wgpu-native's number of it
    uploaded: int  # bytes, before it


class InFlight:
    """Reads a few bytes of each of several submissions, in their order, without waiting for later ones.

    ``copy(encoder, source)``, ``submitted(number)``, and some time later ``read()``. Nothing is mapped until it is
    read, so ``discard`` simply forgets results that are no longer wanted.
    """

    def __init__(self, device: Device, nbytes: int, most: int, label: str = "results in flight") -> None:
        self._device = device
        self._nbytes = nbytes
        self._free = [Buffer(device, nbytes, _MAP_READ | _COPY_DST, label) for _ in range(most)]
        self._pending: deque[_Flight] = deque()
        self._next: Buffer | None = None  # where the encoder that is not submitted yet copies to

    def __len__(self) -> int:
        """How many results can be read."""
        return len(self._pending)

    def copy(self, encoder: Any, source: Buffer) -> None:
        """Record a copy of the first bytes of ``source``. Raises DeviceError when too many are in flight."""
        if self._next is None and not self._free:
            raise DeviceError(f"{len(self._pending)} results are in flight already; read one first")
        self._next = self._next or self._free.pop()
        encoder.copy_buffer_to_buffer(source.raw, source.begin, self._next.raw, 0, self._next.size)

    def submitted(self, submission: int) -> None:
        """The encoder that ``copy`` was last given is on its way, with this number."""
        assert self._next is not None
        self._pending.append(_Flight(self._next, submission, self._device.memory.uploaded_bytes))
        self._next = None

    def read(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The oldest result, as soon as it is there."""
        flight = self._pending.popleft()
        memory = self._device.memory
        try:
            result = self._device.read(flight.buffer, self._nbytes, flight.submission)
            # What steps upload for themselves is no reason to wait for all of them.
            memory.arrived_bytes = max(memory.arrived_bytes, flight.uploaded)
            return result
        finally:
            self._free.append(flight.buffer)

    def discard(self) -> None:
        """Forget everything that has not been read."""
        self._free += [flight.buffer for flight in self._pending]
        self._pending.clear()

    def close(self) -> None:
        """Free the staging buffers."""
        self.discard()
        for buffer in self._free:
            buffer.destroy()
        self._free.clear()
        if self._next is not None:
            self._next.destroy()
            self._next = None

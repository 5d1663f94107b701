"""Small results of submissions that overlap."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DeviceError
from .buffers import _COPY_DST, _MAP_READ, Buffer, copy_bytes
from .device import Device


@dataclass(frozen=True)
class _Flight:
    """A submission, and the staging buffer that it copies ``count`` results to."""

    buffer: Buffer
    submission: int  # wgpu-native's number of it
    uploaded: int  # bytes, before it
    count: int


class InFlight:
    """Reads a few bytes of each of several submissions, in their order, without waiting for later ones.

    ``copy(encoder, source)``, ``submitted(number)``, and some time later ``read()``. A submission may have up to
    ``together`` results. Nothing is mapped until it is read, so ``discard`` simply forgets results that are no longer
    wanted.
    """

    def __init__(
        self, device: Device, nbytes: int, most: int, label: str = "results in flight", together: int = 1
    ) -> None:
        self._device = device
        self._nbytes = nbytes
        self._words = -(-nbytes // 4) * 4  # bytes that are copied
        size = self._words * together
        self._free = [Buffer(device, size, _MAP_READ | _COPY_DST, label) for _ in range(most)]
        self._pending: deque[_Flight] = deque()
        self._arrived: deque[np.ndarray[Any, np.dtype[np.uint8]]] = deque()
        self._next: Buffer | None = None  # where the encoder that is not submitted yet copies to,
        self._count = 0  # and how much

    def __len__(self) -> int:
        """How many results can be read."""
        return len(self._arrived) + sum([flight.count for flight in self._pending])

    @property
    def arrived(self) -> int:
        """How many results ``read`` gives without looking at the device."""
        return len(self._arrived)

    def copy(self, encoder: Any, source: Buffer, index: int = 0) -> None:
        """Record a copy of the first bytes of ``source``, as result ``index`` of its submission.

        Raises DeviceError when too many are in flight.
        """
        if self._next is None and not self._free:
            raise DeviceError(f"{len(self)} results are in flight already; read one first")
        self._next = self._next or self._free.pop()
        copy_bytes(self._device, encoder, source, 0, self._next, index * self._words, self._words)
        self._count = index + 1

    def submitted(self, submission: int) -> None:
        """The encoder that ``copy`` was last given is on its way, with this number."""
        assert self._next is not None
        flight = _Flight(self._next, submission, self._device.memory.uploaded_bytes, self._count)
        self._pending.append(flight)
        self._next = None

    def read(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The oldest result, as soon as it is there."""
        if not self._arrived:
            self._fetch()
        return self._arrived.popleft()

    def _fetch(self) -> None:
        flight = self._pending.popleft()
        memory = self._device.memory
        try:
            read = self._device.read(flight.buffer, flight.count * self._words, flight.submission)
            # What steps upload for themselves is no reason to wait for all of them.
            memory.arrived_bytes = max(memory.arrived_bytes, flight.uploaded)
            self._arrived += [read[at : at + self._nbytes] for at in range(0, len(read), self._words)]
        finally:
            self._free.append(flight.buffer)

    def discard(self) -> None:
        """Forget everything that has not been read."""
        self._free += [flight.buffer for flight in self._pending]
        self._pending.clear()
        self._arrived.clear()

    def close(self) -> None:
        """Free the staging buffers."""
        self.discard()
        for buffer in self._free:
            buffer.destroy()
        self._free.clear()
        if self._next is not None:
            self._next.destroy()
            self._next = None

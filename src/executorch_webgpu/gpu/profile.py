"""GPU time per compute pass, from timestamp queries."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DeviceError
from .buffers import _COPY_SRC, _QUERY_RESOLVE, Buffer, Readback
from .device import Device
from .locked import locked

_QUERIES_PER_SET = 4096  # the WebGPU limit


class Timestamps:
    """Begin and end times of up to ``capacity`` compute passes.

    Give ``pass_descriptor(i)`` to ``begin_compute_pass(timestamp_writes=...)`` of pass ``i``, submit, then
    ``resolve(n)``.  Passes are numbered from 0 without gaps.  Raises DeviceError when the device has no
    timestamps.
    """

    def __init__(self, device: Device, capacity: int) -> None:
        if not device.features.timestamps:
            raise DeviceError(f"adapter {device.info.name!r} has no timestamps; profile without GPU times")
        self._device = device
        self._lock = device.lock
        self.capacity = capacity
        self._used: set[int] = set()
        counts = [min(_QUERIES_PER_SET, 2 * capacity - at) for at in range(0, 2 * capacity, _QUERIES_PER_SET)]
        with device.lock, device.errors("creating timestamp queries"):
            self._sets = [device.raw.create_query_set(type="timestamp", count=n) for n in counts]
        self._counts = counts
        self._resolved = [Buffer(device, 8 * n, _QUERY_RESOLVE | _COPY_SRC, "timestamps") for n in counts]
        self._readback = Readback(device, "timestamp readback")

    def pass_descriptor(self, i: int) -> dict[str, Any]:
        """The ``timestamp_writes`` of pass ``i``."""
        if not 0 <= i < self.capacity:
            raise DeviceError(f"pass {i} is outside of the {self.capacity} timed ones")
        self._used.add(i)
        which, first = divmod(2 * i, _QUERIES_PER_SET)
        return {
            "query_set": self._sets[which],
            "beginning_of_pass_write_index": first,
            "end_of_pass_write_index": first + 1,
        }

    @locked
    def resolve(self, passes: int | None = None) -> list[int]:
        """Nanoseconds of the first ``passes`` passes (default: all used ones), once submitted; waits."""
        passes = len(self._used) if passes is None else passes
        # Some Vulkan drivers wait for a query that no pass writes, for ever.
        if not self._used.issuperset(range(passes)):
            raise DeviceError(f"cannot read the times of {passes} passes: some of them were not timed")
        if not passes:
            return []
        encoder = self._device.encoder()
        counts = [min(n, 2 * passes - i * _QUERIES_PER_SET) for i, n in enumerate(self._counts)]
        used = [part for part in zip(self._sets, counts, self._resolved, strict=True) if part[1] > 0]
        with self._device.errors("reading timestamps"):
            for queries, count, buffer in used:
                encoder.resolve_query_set(queries, 0, count, buffer.raw, 0)
            self._readback.copy(encoder, [(buffer, 0, 8 * count) for _, count, buffer in used])
            self._device.submit([encoder.finish()])
        ticks = np.concatenate(self._readback.read()).view(np.uint64).astype(np.int64)
        return [int(ns) for ns in ticks[1::2] - ticks[0::2]]

    @locked
    def close(self) -> None:
        """Free the queries and their buffers."""
        for queries in self._sets:
            if not self._device.closed:
                queries.destroy()
        self._sets.clear()
        for buffer in self._resolved:
            buffer.destroy()
        self._resolved.clear()
        self._readback.close()

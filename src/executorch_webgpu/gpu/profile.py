"""GPU time per compute pass, from timestamp queries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError
from .buffers import _COPY_DST, _COPY_SRC, _MAP_READ, _QUERY_RESOLVE, Buffer
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
        self._staging = Buffer(device, 16 * capacity, _MAP_READ | _COPY_DST, "timestamp readback")

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
        encoder = self._device.encoder()
        self.record(encoder, passes)
        with self._device.errors("reading timestamps"):
            commands = encoder.finish()
        submission = self._device.submit_untraced([commands])
        times = self.read(submission, passes)
        return [int(ns) for ns in times[:, 1] - times[:, 0]]

    def record(self, encoder: Any, passes: int) -> None:
        """Have a raw encoder bring the times of its first ``passes`` passes, or of earlier ones, to where ``read``
        finds them."""
        # Some Vulkan drivers wait for a query that no pass writes, for ever.
        if not self._used.issuperset(range(passes)):
            raise DeviceError(f"cannot read the times of {passes} passes: some of them were not timed")
        counts = [min(n, 2 * passes - i * _QUERIES_PER_SET) for i, n in enumerate(self._counts)]
        with self._device.errors("reading timestamps"):
            for i, (queries, count, buffer) in enumerate(zip(self._sets, counts, self._resolved, strict=True)):
                if count > 0:
                    encoder.resolve_query_set(queries, 0, count, buffer.raw, 0)
                    at = 8 * i * _QUERIES_PER_SET
                    encoder.copy_buffer_to_buffer(buffer.raw, 0, self._staging.raw, at, 8 * count)

    @locked
    def read(self, submission: int, passes: int) -> NDArray[np.int64]:
        """[passes, 2]: when each began and ended, in nanoseconds from a moment that only the GPU knows.

        ``submission``: the number of the one that has what ``record`` recorded; waits for that one.
        """
        if not passes:
            return np.empty((0, 2), np.int64)
        ticks = self._device.fetch(self._staging, 16 * passes, submission).view(np.int64).reshape(passes, 2)
        period = self._device.timestamp_period
        if period == 1:
            return ticks
        first = int(ticks[0, 0])  # what is counted from there is small enough for a float
        nanoseconds: NDArray[np.int64] = round(first * period) + np.rint((ticks - first) * period).astype(np.int64)
        return nanoseconds

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
        self._staging.destroy()

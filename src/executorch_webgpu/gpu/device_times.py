"""When the passes of a trace's submissions ran on one device, read without making anybody wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clock import Anchor, GpuClock
from .device import Device
from .profile import Timestamps
from .trace import Trace

_PENDING = 16  # submissions, more than callers have in flight: what is older has run, so reading it does not wait
_LEAST_CAPACITY = 64

Ready = Callable[[NDArray[np.int64]], None]  # takes the times of a submission's passes [passes, 2], host's clock


@dataclass(frozen=True)
class _Pending:
    timestamps: Timestamps
    submission: int
    passes: int
    begun: int  # host's clock, before it was submitted
    ready: Ready


class DeviceTimes:
    """Hands out timestamps for one submission after the other, and reads them when they have run.

    The caller holds the device's lock in each call. ``close``, when the trace ends, brings all times to the host's
    clock; only then are those that wanted them told.
    """

    def __init__(self, trace: Trace, device: Device) -> None:
        self.closed = False
        self._trace, self._device = trace, device
        self._free: list[Timestamps] = []
        self._pending: deque[_Pending] = deque()
        self._read: list[tuple[NDArray[np.int64], int, Ready]] = []  # on the GPU's clock
        self._first = self._anchor()

    def begin(self, passes: int) -> Timestamps:
        """Timestamps for so many passes, which ``submitted`` or ``give_back`` returns."""
        while len(self._pending) >= _PENDING:
            self._read_oldest()
        fitting = next((each for each in self._free if each.capacity >= passes), None)
        if fitting is not None:
            self._free.remove(fitting)
            return fitting
        return Timestamps(self._device, max(_LEAST_CAPACITY, 1 << (passes - 1).bit_length()))

    def submitted(self, timestamps: Timestamps, submission: int, passes: int, begun: int, ready: Ready) -> None:
        """The encoder that has ``Timestamps.record`` in it is on its way since ``begun``, with this number."""
        self._trace.expected += passes
        self._pending.append(_Pending(timestamps, submission, passes, begun, ready))

    def give_back(self, timestamps: Timestamps) -> None:
        """Timestamps that no submission uses."""
        self._free.append(timestamps)

    def read_now(self) -> NDArray[np.int64]:
        """The times of the latest submission on the GPU's clock; waits for it."""
        while self._pending:
            self._read_oldest()
        return self._read[-1][0]

    def close(self) -> None:
        """Read the rest, and tell all times. Raises DeviceError; what was read is told nevertheless."""
        with self._device.lock:
            if self.closed:
                return
            self.closed = True
            last = self._first
            try:
                while self._pending:
                    self._read_oldest()
                last = self._anchor()
            finally:
                clock = GpuClock(self._first, last)
                self._tell(clock)
                for timestamps in [*self._free, *(pending.timestamps for pending in self._pending)]:
                    timestamps.close()
                self._free.clear()
                self._pending.clear()

    def _read_oldest(self) -> None:
        pending = self._pending.popleft()
        self._free.append(pending.timestamps)
        times = pending.timestamps.read(pending.submission, pending.passes)
        self._read.append((times, pending.begun, pending.ready))

    def _tell(self, clock: GpuClock) -> None:
        end = np.int64(np.iinfo(np.int64).min)
        early = 0
        for times, begun, ready in self._read:
            self._trace.expected -= len(times)
            on_host = clock.to_host(times)
            early = max(early, begun - int(on_host[0, 0]))
            # A queue runs one pass after another; where a GPU begins one before the last has ended, the time counts
            # once, so that sums are those of a busy GPU.
            ends = np.maximum(np.maximum.accumulate(on_host[:, 1]), end)
            begins = np.maximum(on_host[:, 0], np.concatenate(([end], ends[:-1])))
            end = ends[-1]
            ready(np.stack([np.minimum(begins, ends), ends], axis=1))
        self._read.clear()
        doubt = f"; a pass seems to begin {early / 1000:.1f} us before it was submitted, so it is off by that at least"
        self._trace.note(
            f"times of {self._device.info.name} are on the host's clock to within {clock.uncertainty / 1000:.1f} us: "
            "empty passes were submitted and waited for when the trace began and when it ended, and the difference of "
            "the clocks is taken to change evenly in between"
            f"{doubt if early > clock.uncertainty else ''}"
        )

    def _anchor(self) -> Anchor:
        timestamps = self.begin(1)
        try:
            return Anchor.of(self._device, timestamps)
        finally:
            self.give_back(timestamps)


def timed_pass(encoder: Any, timestamps: Timestamps, number: int) -> Any:
    """A raw compute pass between the timestamps of this number."""
    return encoder.begin_compute_pass(timestamp_writes=timestamps.pass_descriptor(number))

"""Times of a GPU on the host's clock.

A GPU counts nanoseconds from a moment that nobody states. A pass that is submitted at ``t0``, begins at ``b`` and ends
at ``e`` on that clock, and is known to have ended at ``t1``, says that the host's clock is ahead of it by at least
``t0 - b`` and at most ``t1 - e``. The bounds of several empty passes together are a few microseconds to some hundred
apart. That is done when a trace begins and when it ends, and in between the difference is taken to change evenly, by no
more than clocks do: in a short trace on a busy machine, two measurements are further apart for want of exactness.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from .device import Device
from .profile import Timestamps

_ROUNDS = 8
_MOST_DRIFT = 1e-3  # of the time that passes


@dataclass(frozen=True)
class Anchor:
    """At ``gpu`` nanoseconds of a GPU's clock, the host's is ahead by ``low`` to ``high`` nanoseconds."""

    gpu: int
    low: int
    high: int

    @classmethod
    def of(cls, device: Device, timestamps: Timestamps) -> Anchor:
        """Measured now, by empty passes that are waited for. The caller holds the device's lock. Raises DeviceError."""
        bounds = []
        for _ in range(_ROUNDS):
            encoder = device.encoder()
            encoder.begin_compute_pass(timestamp_writes=timestamps.pass_descriptor(0)).end()
            timestamps.record(encoder, 1)
            commands = encoder.finish()
            before = perf_counter_ns()
            submission = device.submit_untraced([commands])
            ((begin, end),) = timestamps.read(submission, 1)
            bounds.append((int(begin), before - int(begin), perf_counter_ns() - int(end)))
        return cls(bounds[-1][0], max(low for _, low, _ in bounds), min(high for _, _, high in bounds))

    @property
    def ahead(self) -> int:
        """Nanoseconds, the middle of the bounds."""
        return (self.low + self.high) // 2

    @property
    def uncertainty(self) -> int:
        """Nanoseconds by which ``ahead`` may be off."""
        return -(-abs(self.high - self.low) // 2)


@dataclass(frozen=True)
class GpuClock:
    """Between two anchors."""

    first: Anchor
    last: Anchor

    def to_host(self, gpu: NDArray[np.int64]) -> NDArray[np.int64]:
        """The host's times of some of the GPU's."""
        length = max(1, self.last.gpu - self.first.gpu)
        measured, most = self.last.ahead - self.first.ahead, int(_MOST_DRIFT * length)
        drift = min(max(measured, -most), most)
        if not self.last.low - self.first.high <= drift <= self.last.high - self.first.low:
            drift = measured
        share = np.clip((gpu - self.first.gpu) / length, 0.0, 1.0)
        begin = (max(self.first.low, self.last.low - drift) + min(self.first.high, self.last.high - drift)) // 2
        moved: NDArray[np.int64] = gpu + begin + np.rint(share * drift).astype(np.int64)
        return moved

    @property
    def uncertainty(self) -> int:
        """Nanoseconds by which a time may be off, if the clocks drift apart evenly."""
        return max(self.first.uncertainty, self.last.uncertainty)

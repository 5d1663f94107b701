"""GPU time of recorded commands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Protocol

from .device import Device
from .profile import Timestamps

REPEATS = 20
WARM_UP, WARM_UP_PASS = 0.4, 0.02  # seconds in all, and of one pass: with gaps between short ones, clocks stay low


class Command(Protocol):
    """One recorded dispatch: raw pipeline and bind group, and how many workgroups."""

    @property
    def pipeline(self) -> Any: ...
    @property
    def bind_group(self) -> Any: ...
    @property
    def grid(self) -> tuple[int, int, int]: ...


def passes(device: Device, commands: Sequence[Command], repeats: int, warm_up: float = WARM_UP) -> list[float]:
    """Seconds of each of ``repeats`` passes over ``commands``, after ``warm_up`` seconds of passes that do not count.

    GPU time, or without timestamps from submission to completion. A GPU that had nothing to do runs at a fraction of
    its clock, for as long as tenths of a second after it gets work: an H100 was seen at a quarter.
    """
    timestamps = Timestamps(device, 1) if device.features.timestamps else None

    def once(times: int = 1) -> float:
        with device.lock:
            return pass_seconds(times)

    def pass_seconds(times: int) -> float:
        encoder = device.encoder()
        work = encoder.begin_compute_pass(timestamp_writes=timestamps.pass_descriptor(0) if timestamps else None)
        for command in [*commands] * times:
            work.set_pipeline(command.pipeline)
            work.set_bind_group(0, command.bind_group)
            work.dispatch_workgroups(*command.grid)
        work.end()
        buffer = encoder.finish()
        start = time.perf_counter()
        device.submit([buffer])
        device.wait()
        return timestamps.resolve(1)[0] / 1e9 if timestamps else time.perf_counter() - start

    longer = min(1000, int(WARM_UP_PASS / once()) + 1)  # drivers compile at the first dispatch
    begun = time.perf_counter()
    while not device.features.cpu and time.perf_counter() - begun < warm_up:
        once(longer)
    taken = [once() for _ in range(repeats)]
    if timestamps:
        timestamps.close()
    return taken


def seconds(device: Device, commands: Sequence[Command]) -> float:
    """Median time of one pass over ``commands``."""
    return median(passes(device, commands, REPEATS))

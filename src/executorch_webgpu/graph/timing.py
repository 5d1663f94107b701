"""What the calls of a graph take, by operator and route."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..gpu.device import Device
from ..gpu.profile import Timestamps
from .state import Command


@dataclass
class CallTime:
    """What the calls of one operator and route have taken so far."""

    calls: int = 0
    dispatches: int = 0
    gpu_ns: int = 0


class StepTimes:
    """Adds up the steps of one graph in ``totals``, by operator and route; without timestamps, only their counts."""

    def __init__(self, device: Device, calls: int) -> None:
        self.totals: dict[tuple[str, str | None], CallTime] = {}
        self._timestamps = Timestamps(device, calls) if device.features.timestamps else None

    @property
    def by_gpu(self) -> bool:
        """Whether the GPU tells times."""
        return self._timestamps is not None

    def encode(self, encoder: Any, commands: Sequence[Sequence[Command]]) -> list[int]:
        """A pass for each call, between two timestamps; answers with the calls in the order of their passes."""
        assert self._timestamps is not None
        timed: list[int] = []
        for index, of_call in enumerate(commands):
            if not of_call:
                continue
            writes = self._timestamps.pass_descriptor(len(timed))
            compute_pass = encoder.begin_compute_pass(timestamp_writes=writes)
            for command in of_call:
                compute_pass.set_pipeline(command.pipeline)
                compute_pass.set_bind_group(0, command.bind_group)
                compute_pass.dispatch_workgroups(*command.grid)
            compute_pass.end()
            timed.append(index)
        return timed

    def count(
        self, timed: list[int], commands: Sequence[Sequence[Command]], names: Sequence[tuple[str, str | None]]
    ) -> None:
        """Add a submitted step. ``timed`` is what ``encode`` gave, ``names`` operator and route of each call."""
        nanoseconds = dict(zip(timed, self._timestamps.resolve(len(timed)), strict=True)) if self._timestamps else {}
        for index, (of_call, name) in enumerate(zip(commands, names, strict=True)):
            if of_call:
                time = self.totals.setdefault(name, CallTime())
                time.calls += 1
                time.dispatches += len(of_call)
                time.gpu_ns += nanoseconds.get(index, 0)

    def close(self) -> None:
        """Free the queries."""
        if self._timestamps is not None:
            self._timestamps.close()

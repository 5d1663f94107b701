"""What the calls of a graph take, by operator and route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..gpu.device import Device
from ..gpu.profile import Timestamps
from .resize import LivePlans
from .state import Command


@dataclass
class CallTime:
    """What the calls of one operator and route have taken so far."""

    calls: int = 0
    dispatches: int = 0
    gpu_ns: int = 0


class StepTimes:
    """Adds up the steps of one graph in ``totals``, by operator and route; without timestamps, only their counts."""

    def __init__(self, device: Device, plans: LivePlans) -> None:
        self.totals: dict[tuple[str, str | None], CallTime] = {}
        self._plans = plans
        self._timed: list[int] = []  # the calls of the step, in the order of their passes
        self._timestamps = Timestamps(device, len(plans.graph.calls)) if device.features.timestamps else None

    @property
    def by_gpu(self) -> bool:
        """Whether the GPU tells times."""
        return self._timestamps is not None

    def encode(self, encoder: Any, commands: Sequence[Sequence[Command]]) -> None:
        """A pass for each call, between two timestamps."""
        assert self._timestamps is not None
        self._timed.clear()
        for index, of_call in enumerate(commands):
            if not of_call:
                continue
            writes = self._timestamps.pass_descriptor(len(self._timed))
            compute_pass = encoder.begin_compute_pass(timestamp_writes=writes)
            for command in of_call:
                compute_pass.set_pipeline(command.pipeline)
                compute_pass.set_bind_group(0, command.bind_group)
                compute_pass.dispatch_workgroups(*command.grid)
            compute_pass.end()
            self._timed.append(index)

    def count(self, commands: Sequence[Sequence[Command]], traced: Mapping[int, int] | None = None) -> None:
        """Add a submitted step; waits for it if the GPU tells times.

        ``traced``: nanoseconds by call, where a trace has timed it.
        """
        nanoseconds = traced
        if nanoseconds is None:
            times = self._timestamps.resolve(len(self._timed)) if self._timestamps else []
            nanoseconds = dict(zip(self._timed, times, strict=True))
        for index, of_call in enumerate(commands):
            if of_call:
                name = self._plans.graph.calls[index].name, self._plans.plans[index].route
                time = self.totals.setdefault(name, CallTime())
                time.calls += 1
                time.dispatches += len(of_call)
                time.gpu_ns += nanoseconds.get(index, 0)

    def close(self) -> None:
        """Free the queries."""
        if self._timestamps is not None:
            self._timestamps.close()

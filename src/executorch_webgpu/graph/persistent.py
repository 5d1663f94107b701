"""Dispatches whose workgroups wait for each other: how many run at once, and whether they ever failed to meet.

WebGPU promises neither that workgroups run at once nor that any of them goes on. So a load tries it with the very
kernel that steps will run, and each step hands over a flag. When workgroups do not meet, the kernel ends all the same,
and its result is NaN; then the calls take its place, for good.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..gpu.buffers import Buffer, Readback
from ..gpu.device import Device
from ..gpu.replay import Replay
from ..ops.decoder_layers.persistent.plan import FAILED
from ..ops.plan import Dispatch, Planning
from ..ops.values import Joined, Kept
from .bound_memory import BoundMemory
from .decoder_layers import FAMILY
from .resize import LivePlans
from .state import Command, GraphState

_PATIENCE, _PATIENCE_ON_CPU = 1 << 12, 1 << 22  # of a trial, which may take some milliseconds

Record = Callable[[GraphState, Dispatch], Command]


class PersistentLayers:
    """The runs of decoder layers that one loaded graph computes in a dispatch each.

    The caller holds the device's lock throughout.
    """

    def __init__(self, device: Device, plans: LivePlans, planning: Planning, memory: BoundMemory) -> None:
        self._device = device
        self._plans = plans
        self._planning = planning
        self._memory = memory
        self._dispatches = {run: run.dispatches(planning) for run in plans.runs}
        self._readback = Readback(device, "whether workgroups met")
        self.joined = [
            value
            for dispatches in self._dispatches.values()
            for dispatch in dispatches
            for value in dispatch.bindings.values()
            if isinstance(value, Joined)
        ]

    @property
    def active(self) -> bool:
        """Whether the step that is planned has such a dispatch."""
        return any(run.workgroups and run.is_one_token for run in self._plans.runs)

    def begin(self, state: GraphState, record: Record) -> None:
        """Find out by how many workgroups each run can be computed. ``record`` makes the command of a dispatch."""
        for run, dispatches in self._dispatches.items():
            most = self._most(dispatches[0], run.most_workgroups(self._planning), state, record)
            if not most and FAMILY in self._planning.routes:
                warnings.warn("workgroups do not run at once here: decoder layers take a dispatch each", stacklevel=2)
            self._plans.use_run(run, most)

    def _most(self, dispatch: Dispatch, limit: int, state: GraphState, record: Record) -> int:
        """The most workgroups of a dispatch that meet, of ``limit``; 0 if not even one does."""
        cpu = self._device.features.cpu
        limit = min(limit, os.cpu_count() or 1) if cpu else limit
        trial = replace(
            dispatch,
            params={**dispatch.params, "layers": 0, "patience": _PATIENCE_ON_CPU if cpu else _PATIENCE},
        )

        def meets(count: int) -> bool:
            command = record(state, replace(trial, grid=(count, 1, 1)))
            encoder = self._device.encoder()
            compute_pass = encoder.begin_compute_pass()
            Replay(self._device, [(command.pipeline, command.bind_group, command.grid)]).encode(compute_pass)
            compute_pass.end()
            self._readback.copy(encoder, self.flags)
            self._device.submit([encoder.finish()])
            return not self.failed(self._readback.read())

        low, high = 0, 1
        while high <= limit and meets(high):
            low, high = high, 2 * high
        high = min(high, limit + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if meets(middle) else (low, middle)
        return low

    @property
    def flags(self) -> list[tuple[Buffer, int, int]]:
        """Where the flags of all dispatches are: buffers, offsets and bytes."""
        kept = dict.fromkeys(
            value
            for dispatches in self._dispatches.values()
            for dispatch in dispatches
            for value in dispatch.bindings.values()
            if isinstance(value, Kept)
        )
        return [(self._memory.kept(value), 4 * FAILED, 4) for value in kept]

    def failed(self, flags: Sequence[np.ndarray[Any, Any]]) -> bool:
        """Whether workgroups failed to meet, by what was read at ``flags``; if so, the flags are taken back."""
        if not any(flag.view(np.uint32)[0] for flag in flags):
            return False
        encoder = self._device.encoder()
        for buffer, offset, nbytes in self.flags:
            encoder.clear_buffer(buffer.raw, buffer.begin + offset, nbytes)
        self._device.submit([encoder.finish()])
        return True

    def have_failed(self) -> bool:
        """Whether workgroups failed to meet in a step that was submitted; waits for it. Nothing is persistent then."""
        if not any(run.workgroups for run in self._plans.runs):
            return False
        encoder = self._device.encoder()
        self._readback.copy(encoder, self.flags)
        self._device.submit([encoder.finish()])
        return self.give_up(self._readback.read())

    def give_up(self, flags: Sequence[np.ndarray[Any, Any]]) -> bool:
        """As ``failed``, and from then on the calls of all runs are computed one by one."""
        if not self.failed(flags):
            return False
        warnings.warn(
            "workgroups that ran at once when the program was loaded did not meet: its decoder layers take several "
            "dispatches from now on, and the step is computed again",
            stacklevel=2,
        )
        for run in self._plans.runs:
            self._plans.use_run(run, 0)
        return True

    def close(self) -> None:
        """Free the staging buffer."""
        self._readback.close()

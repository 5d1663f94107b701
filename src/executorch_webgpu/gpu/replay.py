"""Recorded dispatches, encoded again and again at the least cost for each.

The methods of wgpu-py check and convert arguments that never change here, and look for an error after every call. So
the C functions below them are called directly; what goes wrong in a pass is reported when its encoder is finished,
which goes through wgpu-py. A step of 546 dispatches, microseconds of one core for each: wgpu-native 3.6 by the methods,
0.9 like this; Dawn 1.5 and 1.05.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

from .device import Device

Recorded = tuple[Any, Any, tuple[int, int, int]]  # raw pipeline, raw bind group, grid


class Pass:
    """A compute pass of a raw encoder, for replays."""

    __slots__ = ("_internal", "_lib")

    def __init__(self, device: Device, encoder: Any) -> None:
        native = device.native
        self._lib = native.lib
        self._internal = self._lib.wgpuCommandEncoderBeginComputePass(encoder._internal, native.ffi.NULL)

    def end(self) -> None:
        """End it; it is of no use any more."""
        self._lib.wgpuComputePassEncoderEnd(self._internal)
        self._lib.wgpuComputePassEncoderRelease(self._internal)


class Replay:
    """A list of dispatches whose bind group is all that they bind."""

    def __init__(self, device: Device, dispatches: Iterable[Recorded]) -> None:
        native = device.native
        self._set_pipeline = native.lib.wgpuComputePassEncoderSetPipeline
        self._set_bind_group = native.lib.wgpuComputePassEncoderSetBindGroup
        self._dispatch = native.lib.wgpuComputePassEncoderDispatchWorkgroups
        self._null = native.ffi.NULL
        self._recorded = list(dispatches)  # their handles die with these objects
        self._calls: list[tuple[Any, Any, int, int, int]] = []
        current = None
        self.workgroups = 0  # of all dispatches
        for pipeline, bind_group, grid in self._recorded:
            self.workgroups += prod(grid)
            self._calls.append((None if pipeline is current else pipeline._internal, bind_group._internal, *grid))
            current = pipeline

    def __len__(self) -> int:
        return len(self._calls)

    def encode(self, compute_pass: Any, start: int = 0, stop: int | None = None) -> None:
        """Add the dispatches from ``start`` to ``stop`` to a ``Pass``, or a raw one; WebGPU runs them in order."""
        set_pipeline, set_bind_group, dispatch = self._set_pipeline, self._set_bind_group, self._dispatch
        handle, null = compute_pass._internal, self._null
        if 0 < start < len(self._calls):
            set_pipeline(handle, self._recorded[start][0]._internal)
        for pipeline, bind_group, x, y, z in self._calls[start:stop]:
            if pipeline is not None:
                set_pipeline(handle, pipeline)
            set_bind_group(handle, 0, bind_group, 0, null)
            dispatch(handle, x, y, z)

"""GPU time of recorded commands, and what the device can do at best: ceilings to hold kernels against."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from executorch_webgpu.gpu.buffers import create, upload
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels
from executorch_webgpu.gpu.profile import Timestamps
from executorch_webgpu.graph.state import Command

REPEATS = 20
WARM_UP, WARM_UP_PASS = 0.4, 0.02  # seconds in all, and of one pass: with gaps between short ones, clocks stay low
_MATRIX_SHAPE = ("f16", "f32", 16, 16, 16)  # what matrix.wgsl multiplies
_FMA = {"chains": 8, "unroll": 8}
_MATRIX = {"lefts": 2, "rights": 4, "unroll": 4}


@dataclass(frozen=True)
class Ceilings:
    """Rates that no kernel of this device passes, unless it reads from a cache."""

    read: float  # bytes a second from memory
    fma: float  # float32 operations a second, of multiply-adds
    matrix: float | None  # operations a second of products of f16 tiles, summed in f32; None: no such units

    @classmethod
    def of(cls, device: Device) -> Ceilings:
        return cls(read_rate(device), fma_rate(device), matrix_rate(device))


def passes(device: Device, commands: Sequence[Command], repeats: int, warm_up: float = WARM_UP) -> list[float]:
    """Seconds of each of ``repeats`` passes over ``commands``, after ``warm_up`` seconds of passes that do not count.

    GPU time, or without timestamps from submission to completion. A GPU that had nothing to do runs at a fraction of
    its clock, for as long as tenths of a second after it gets work: an H100 was seen at a quarter.
    """
    timestamps = Timestamps(device, 1) if device.features.timestamps else None

    def once(times: int = 1) -> float:
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


def read_rate(device: Device) -> float:
    """Bytes a second of a kernel that only reads a buffer larger than any cache."""
    nbytes = 64 << 20 if device.features.cpu else min(1 << 30, device.limits.max_binding_bytes // 2**24 * 2**24)
    invocations = 1 << 16 if device.features.cpu else 1 << 20
    loads = {"loads": nbytes // 16 // invocations}
    return nbytes / _kernel_seconds(device, "read", {}, loads, nbytes, None, invocations * 16, invocations // 64)


def fma_rate(device: Device) -> float:
    """Float32 operations a second of a kernel that only multiplies and adds, each counted."""
    loops, invocations = (4, 1 << 14) if device.features.cpu else (512, 1 << 19)
    operations = 2 * 4 * _FMA["chains"] * _FMA["unroll"] * loops * invocations
    halves = np.full(8, 0.5, np.float32)
    taken = _kernel_seconds(device, "fma", _FMA, {"loops": loops}, 32, halves, invocations * 16, invocations // 64)
    return operations / taken


def matrix_rate(device: Device) -> float | None:
    """Operations a second of a kernel that only multiplies 16x16 tiles; None where the device has no matrix units."""
    if not device.features.f16 or _MATRIX_SHAPE not in device.features.subgroup_matrix_shapes:
        return None
    loops, workgroups = 512, 1 << 13
    sums = _MATRIX["lefts"] * _MATRIX["rights"]
    tiles = np.random.default_rng(0).random((_MATRIX["lefts"] + _MATRIX["rights"], 256)).astype(np.float16)
    overrides = {"loops": loops, "wg_size": device.features.subgroup_max_size}
    out_bytes = workgroups * sums * 256 * 4
    taken = _kernel_seconds(device, "matrix", _MATRIX, overrides, tiles.nbytes, tiles, out_bytes, workgroups)
    return 2 * 16**3 * sums * _MATRIX["unroll"] * loops * workgroups / taken


def _kernel_seconds(
    device: Device,
    name: str,
    template: Mapping[str, int],
    overrides: Mapping[str, int],
    x_bytes: int,
    x_data: np.ndarray | None,
    out_bytes: int,
    workgroups: int,
) -> float:
    """Best time of a kernel of this folder from ``x`` (zeros without data) to ``out``."""
    kernels = Kernels(device, [Path(__file__).parent])
    pipeline = kernels.pipeline(name, template, overrides)
    x, out = create(device, x_bytes, "x"), create(device, out_bytes, "out")
    if x_data is not None:
        upload(device, x, x_data)
    group = kernels.bind_group(pipeline, {"x": (x, 0, x.size), "out": (out, 0, out.size)})
    command = Command(pipeline.raw, group, (workgroups, 1, 1))
    taken = min(passes(device, [command], 5 if device.features.cpu else REPEATS))
    x.destroy()
    out.destroy()
    return taken

"""What a device can do at best: rates to hold kernels and models against, measured with kernels of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..buffers import create, upload
from ..device import Device
from ..kernel import Kernels
from ..timing import REPEATS, passes

_MATRIX_SHAPE = ("f16", "f32", 16, 16, 16)  # what matrix.wgsl multiplies
_FMA = {"chains": 8, "unroll": 8}
_MATRIX = {"lefts": 2, "rights": 4, "unroll": 4}


@dataclass(frozen=True)
class _Command:
    """One recorded dispatch."""

    pipeline: Any
    bind_group: Any
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Ceilings:
    """Rates that no kernel of this device passes, unless it reads from a cache."""

    read: float  # bytes a second from memory
    fma: float  # float32 operations a second, of multiply-adds
    matrix: float | None  # operations a second of products of f16 tiles, summed in f32; None: no such units

    @classmethod
    def of(cls, device: Device) -> Ceilings:
        return cls(read_rate(device), fma_rate(device), matrix_rate(device))


def read_rate(device: Device) -> float:
    """Bytes a second of a kernel that only reads a buffer larger than any cache."""
    nbytes = 64 << 20 if device.features.cpu else min(1 << 30, device.limits.max_binding_bytes // 2**24 * 2**24)
    invocations = 1 << 12 if device.features.cpu else 1 << 20
    loads = {"loads": nbytes // 16 // invocations, "runs": device.features.cpu}
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
    x_data: np.ndarray[Any, Any] | None,
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
    command = _Command(pipeline.raw, group, (workgroups, 1, 1))
    taken = min(passes(device, [command], 5 if device.features.cpu else REPEATS))
    x.destroy()
    out.destroy()
    return taken

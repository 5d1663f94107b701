"""What an adapter or a device can do.

None of this needs a GPU: ``Limits.floor()`` and ``Features.none()`` are what every WebGPU device has, to plan without
one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

KINDS = ("DiscreteGPU", "IntegratedGPU", "Unknown", "CPU")  # of adapters, the best first


@dataclass(frozen=True)
class Features:
    """Optional abilities of a device."""

    f16: bool
    subgroups: bool
    subgroup_min_size: int
    subgroup_max_size: int
    timestamps: bool
    subgroup_matrix: bool
    # (component type, result type, m, n, k), e.g. ("f16", "f32", 16, 16, 16)
    subgroup_matrix_shapes: tuple[tuple[str, str, int, int, int], ...] = ()
    byte_products: bool = True  # dot4I8Packed is an instruction; Metal has none, and takes about ten
    cpu: bool = False  # a software adapter: invocations run one after the other on a few cores
    cpu_lanes: int = 0  # of each of its subgroups, where its name tells; the sizes above may say nothing

    @property
    def subgroup_size(self) -> int:
        """Of every subgroup; 0 where that is not known, or there are none."""
        if not self.subgroups:
            return 0
        if self.subgroup_min_size == self.subgroup_max_size:
            return self.subgroup_min_size
        return self.cpu_lanes

    @classmethod
    def none(cls) -> Features:
        """What every WebGPU device has: nothing optional."""
        return cls(False, False, 4, 128, False, False, byte_products=False)

    @classmethod
    def every(cls) -> Features:
        """Everything optional, so that any kernel can be rendered."""
        return cls(True, True, 32, 32, True, True, (("f16", "f32", 16, 16, 16),))


def lanes_of_name(name: str) -> int:
    """Invocations that Mesa's llvmpipe runs as one vector, its subgroup, by the bits that its name states; else 0."""
    found = re.search(r"llvmpipe.*\b(\d+) bits\b", name)
    return int(found[1]) // 32 if found else 0


@dataclass(frozen=True)
class Limits:
    """Sizes that a device allows; bytes unless the name says otherwise."""

    max_buffer_bytes: int
    max_binding_bytes: int
    max_uniform_bytes: int
    max_workgroup_bytes: int
    max_invocations: int
    max_workgroup_size: tuple[int, int, int]
    max_workgroups: int  # per dimension
    max_storage_buffers: int  # bindings of one kernel
    uniform_alignment: int
    storage_alignment: int

    @classmethod
    def floor(cls) -> Limits:
        """The limits that every WebGPU device has at least."""
        return cls(
            max_buffer_bytes=256 << 20,
            max_binding_bytes=128 << 20,
            max_uniform_bytes=64 << 10,
            max_workgroup_bytes=16 << 10,
            max_invocations=256,
            max_workgroup_size=(256, 256, 64),
            max_workgroups=65535,
            max_storage_buffers=8,
            uniform_alignment=256,
            storage_alignment=256,
        )

    @classmethod
    def of(cls, raw: Any) -> Limits:
        """The limits of an engine's adapter or device."""
        limits = raw.limits
        return cls(
            max_buffer_bytes=limits["max-buffer-size"],
            max_binding_bytes=limits["max-storage-buffer-binding-size"],
            max_uniform_bytes=limits["max-uniform-buffer-binding-size"],
            max_workgroup_bytes=limits["max-compute-workgroup-storage-size"],
            max_invocations=limits["max-compute-invocations-per-workgroup"],
            max_workgroup_size=(
                limits["max-compute-workgroup-size-x"],
                limits["max-compute-workgroup-size-y"],
                limits["max-compute-workgroup-size-z"],
            ),
            max_workgroups=limits["max-compute-workgroups-per-dimension"],
            max_storage_buffers=limits["max-storage-buffers-per-shader-stage"],
            uniform_alignment=limits["min-uniform-buffer-offset-alignment"],
            storage_alignment=limits["min-storage-buffer-offset-alignment"],
        )


@dataclass(frozen=True)
class AdapterInfo:
    """One adapter of one engine; ``index`` is its position among that engine's adapters."""

    engine: str  # "wgpu" | "dawn"
    index: int
    name: str
    vendor: str
    kind: str  # "DiscreteGPU" | "IntegratedGPU" | "CPU" | "Unknown"
    backend: str  # "Vulkan", "Metal", "D3D12", ...
    f16: bool
    subgroups: bool
    subgroup_matrix: bool
    timestamps: bool
    max_buffer_bytes: int
    max_binding_bytes: int
    max_workgroup_bytes: int
    max_invocations: int

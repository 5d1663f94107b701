"""Kernels written to a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels

WriteKernel = Callable[[str, str], Kernels]


@pytest.fixture
def write_kernel(device: Device, tmp_path: Path) -> WriteKernel:
    """Writes WGSL under a kernel name and answers with a fresh cache whose root holds it."""

    def write(name: str, code: str) -> Kernels:
        path = tmp_path / f"{name}.wgsl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        return Kernels(device, [tmp_path])

    return write

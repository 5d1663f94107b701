"""What a device can do at best is a positive rate, of kernels that both engines take."""

from __future__ import annotations

from pathlib import Path

import pytest

from executorch_webgpu.gpu import ceilings
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device

FOLDER = [Path(ceilings.__file__).parent]


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_kernels_compile(engine: str) -> None:
    compile_check(engine, "fma", ceilings._FMA, {"loops": 1}, FOLDER)
    compile_check(engine, "read", {}, {"loads": 1}, FOLDER)


def test_matrix_kernel_compiles_where_there_are_matrices() -> None:
    compile_check("dawn", "matrix", ceilings._MATRIX, {"loops": 1}, FOLDER)


@pytest.mark.slow
def test_rates(device: Device) -> None:
    before = device.memory.live_bytes
    found = ceilings.Ceilings.of(device)
    assert found.read > 0 and found.fma > 0
    assert (found.matrix is None) == (ceilings._MATRIX_SHAPE not in device.features.subgroup_matrix_shapes)
    assert device.memory.live_bytes == before

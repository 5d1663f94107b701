from __future__ import annotations

import os
import subprocess
import sys

import pytest

from executorch_webgpu.gpu.device import list_adapters
from tests.cli.conftest import Cli


def test_lists_every_adapter(cli: Cli) -> None:
    adapters = list_adapters()
    assert adapters
    result = cli("devices")
    assert result.exit_code == 0
    for adapter in adapters:
        (line,) = (line for line in result.stdout.splitlines() if adapter.name in line and adapter.engine in line)
        assert adapter.kind in line and adapter.backend in line
        assert ("f16" in line) == adapter.f16
        assert ("subgroups" in line) == adapter.subgroups
        assert ("subgroup matrix" in line) == adapter.subgroup_matrix
        assert ("timestamps" in line) == adapter.timestamps


@pytest.mark.slow
def test_no_adapter_says_what_to_install() -> None:
    """Vulkan finds its drivers through these variables; OpenGL needs none, so it is ruled out by name."""
    nowhere = {"VK_DRIVER_FILES": "/nowhere", "VK_ICD_FILENAMES": "/nowhere", "WGPU_BACKEND_TYPE": "Vulkan"}
    result = subprocess.run(
        [sys.executable, "-c", "from executorch_webgpu.cli import main; main(['devices'])"],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert "error: no WebGPU adapter was found" in result.stderr
    assert "mesa-vulkan-drivers" in result.stderr

"""Checks that an engine adds to kernels, and who is spared them."""

from __future__ import annotations

from pathlib import Path

import pytest

from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels, head_of
from executorch_webgpu.gpu.wgsl import parse

KERNEL = """
@group(0) @binding(0) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(1)
fn main() {
  out[0] = 1u;
}
"""


@pytest.fixture
def asked(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Checks of the modules that are made from now on."""
    found: list[str] = []
    create = device.create_shader_module

    def remember(label: str, code: str, checks: str) -> object:
        found.append(checks)
        return create(label, code, checks)

    monkeypatch.setattr(device, "create_shader_module", remember)
    return found


@pytest.mark.parametrize(
    ("line", "checks"),
    [
        ("", "all"),
        ("// Loops end: there are none.", "bounds"),
        ("// Unchecked: one index.", "none"),
        ("// Checked: x", "all"),
    ],
)
def test_what_a_kernel_says_of_its_checks(line: str, checks: str) -> None:
    assert parse("sample", f"{line}\n{KERNEL}").checks == checks


def test_a_kernel_of_a_user_is_checked_whatever_it_says(device: Device, asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.wgsl").write_text(f"// Unchecked: it says so.\n{KERNEL}")
    Kernels(device, [tmp_path]).pipeline("mine")
    assert asked == ["all"]


def test_a_kernel_of_the_package_is_spared_what_it_says(device: Device, asked: list[str]) -> None:
    kernels = Kernels(device)
    for name in ("attention/large_heads/softmax", "matmul/gemm"):
        kernels.pipeline(name, head_of(name).sample)
    assert asked == ["all", "none"]


@pytest.mark.parametrize(
    ("fours", "bias", "checks"), [(True, True, "none"), (False, False, "none"), (False, True, "bounds")]
)
def test_a_bias_that_ends_within_a_quad_is_checked(device: Device, fours: bool, bias: bool, checks: str) -> None:
    template = head_of("matmul/gemm").sample | {"fours": fours, "bias": bias}
    assert Kernels(device).source("matmul/gemm", template).checks == checks


@pytest.mark.parametrize("checks", ["all", "bounds", "none"])
def test_a_module_that_does_not_compile_says_why(device: Device, checks: str) -> None:
    with pytest.raises(KernelError, match="nothing_of_that_name"), device.errors("compiling", KernelError):
        device.create_shader_module("sample", KERNEL.replace("1u", "nothing_of_that_name"), checks)

"""Adapter choice, negotiation, and what happens to a device that is closed or lost."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import (
    ClosedError,
    DeviceError,
    DeviceLostError,
    InvalidInputError,
    LimitError,
    NoAdapterError,
)
from executorch_webgpu.gpu import device as device_module
from executorch_webgpu.gpu.buffers import create, upload
from executorch_webgpu.gpu.capabilities import AdapterInfo, Features, Limits
from executorch_webgpu.gpu.device import Device, list_adapters, open_device, open_null_device
from executorch_webgpu.gpu.engine import load_engine, subgroup_range


def adapter(engine: str, index: int, name: str, kind: str) -> tuple[AdapterInfo, None]:
    info = AdapterInfo(engine, index, name, "v", kind, "Vulkan", True, True, False, True, 1, 1, 1, 1)
    return info, None


FAKE = {
    "wgpu": [
        adapter("wgpu", 0, "llvmpipe (LLVM 15)", "CPU"),
        adapter("wgpu", 1, "Radeon 780M", "IntegratedGPU"),
        adapter("wgpu", 2, "GeForce RTX 4090", "DiscreteGPU"),
    ],
    "dawn": [adapter("dawn", 0, "GeForce RTX 4090", "DiscreteGPU")],
}


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kilobytes) << 10


def choose(engine: str, wanted: int | str | None) -> tuple[str, int]:
    info, _ = device_module._choose(device_module._candidates(engine, wanted), wanted)
    return info.engine, info.index


@pytest.fixture
def fake_adapters(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[AdapterInfo, None]]]:
    adapters = {name: list(found) for name, found in FAKE.items()}
    monkeypatch.setattr(device_module, "_adapters_of", lambda name: adapters[name])
    monkeypatch.setattr(device_module, "_require_engine", lambda name: None)
    return adapters


@pytest.mark.parametrize(
    ("engine", "wanted", "expected"),
    [
        ("auto", None, ("dawn", 0)),
        ("wgpu", None, ("wgpu", 2)),
        ("wgpu", 1, ("wgpu", 1)),
        ("wgpu", "0", ("wgpu", 0)),
        ("wgpu", "radeon", ("wgpu", 1)),
        ("auto", "LLVMpipe", ("wgpu", 0)),
        ("auto", "geforce", ("dawn", 0)),
    ],
)
def test_adapter_choice(
    fake_adapters: object, engine: str, wanted: int | str | None, expected: tuple[str, int]
) -> None:
    assert choose(engine, wanted) == expected


def test_auto_prefers_wgpu_when_dawn_sees_no_gpu(
    fake_adapters: dict[str, list[tuple[AdapterInfo, None]]],
) -> None:
    fake_adapters["dawn"] = [adapter("dawn", 0, "SwiftShader", "CPU")]
    fake_adapters["wgpu"] = FAKE["wgpu"][:1]
    assert choose("auto", None) == ("wgpu", 0)
    assert choose("auto", "swift") == ("dawn", 0)
    fake_adapters["wgpu"] = []
    assert choose("auto", None) == ("dawn", 0)


def test_no_adapter_says_what_to_install(fake_adapters: dict[str, list[object]]) -> None:
    fake_adapters.update(wgpu=[], dawn=[])
    with pytest.raises(NoAdapterError, match="mesa-vulkan-drivers"):
        choose("auto", None)


@pytest.mark.parametrize("wanted", [7, "7", "Voodoo"])
def test_unmatched_adapter_lists_the_names(fake_adapters: object, wanted: int | str) -> None:
    with pytest.raises(NoAdapterError, match="Radeon 780M"):
        choose("wgpu", wanted)


def test_missing_dawn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "load_engine", lambda name: None)
    with pytest.raises(NoAdapterError, match=r"executorch-webgpu\[dawn\]"):
        open_device("dawn")


def test_unknown_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="cuda"):
        open_device("cuda")
    monkeypatch.setenv("ET_WEBGPU_ENGINE", "metal")
    with pytest.raises(InvalidInputError, match="metal"):
        open_device()


def test_environment_chooses_the_adapter(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    monkeypatch.setenv("ET_WEBGPU_ENGINE", device.engine)
    monkeypatch.setenv("ET_WEBGPU_ADAPTER", "no such adapter")
    with pytest.raises(NoAdapterError, match="no such adapter"):
        open_device()
    monkeypatch.setenv("ET_WEBGPU_ADAPTER", device.info.name[:5].upper())
    with open_device() as opened:
        assert opened.info == device.info


def test_the_device_has_what_its_adapter_has(device: Device) -> None:
    assert device.info in list_adapters()
    assert device.limits.max_buffer_bytes == device.info.max_buffer_bytes
    assert device.limits.max_invocations == device.info.max_invocations
    assert device.features.f16 == device.info.f16
    assert device.features.timestamps == device.info.timestamps
    assert device.features.subgroups == device.info.subgroups
    assert not device.info.backend.startswith("OpenGL")


def test_a_refused_optional_feature_is_left_out(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    engine = load_engine(device.engine)
    assert engine is not None
    asked: list[list[str]] = []
    request = type(engine).request_device

    def refuse_f16(self: object, adapter: object, features: list[str], *rest: Any) -> object:
        asked.append(features)
        if "timestamp-query" in features:
            raise RuntimeError("unsupported feature")
        return request(engine, adapter, features, *rest)

    monkeypatch.setattr(type(engine), "request_device", refuse_f16)
    with open_device(device.engine, device.info.index) as opened:
        assert not opened.features.timestamps
        assert opened.features.f16 == device.features.f16
        assert len(asked) >= 2


def test_the_floor_needs_no_gpu(device: Device) -> None:
    floor, none = Limits.floor(), Features.none()
    assert floor.max_workgroup_bytes <= device.limits.max_workgroup_bytes
    assert floor.max_invocations <= device.limits.max_invocations
    assert not (none.f16 or none.subgroups or none.timestamps or none.subgroup_matrix)


def test_planning_and_listing_import_no_engine() -> None:
    code = (
        "import sys; from executorch_webgpu.gpu.capabilities import Limits; Limits.floor();"
        "sys.exit('wgpu' in sys.modules or 'wgpudawn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.slow
def test_opening_prints_nothing(device: Device) -> None:
    code = f"from executorch_webgpu.gpu.device import open_device; open_device({device.engine!r}).close()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout + done.stderr == b""


def test_a_closed_device_refuses_everything() -> None:
    opened = open_device()
    buffer = create(opened, 64, "left over")
    opened.close()
    opened.close()
    assert opened.memory.live_bytes == 0 and buffer.destroyed
    for use in (opened.check, opened.encoder, lambda: opened.submit([]), lambda: create(opened, 16, "x")):
        with pytest.raises(ClosedError):
            use()


@pytest.mark.parametrize("free", [Device.close, lambda opened: opened.flush()])
def test_memory_is_freed_while_handles_live(free: Callable[[Device], None]) -> None:
    opened = open_device()
    data = np.ones(64 << 20, np.uint8)
    before = resident_bytes()
    buffer = create(opened, data.nbytes, "big")
    upload(opened, buffer, data)
    if opened.info.kind == "CPU":  # a real GPU's memory is not in this process
        assert resident_bytes() - before > data.nbytes * 3 // 4
    buffer.destroy()
    free(opened)
    assert resident_bytes() - before < data.nbytes // 4
    opened.close()


def test_a_lost_device_is_reported_and_not_submitted_to() -> None:
    """wgpu-native aborts the process when work is submitted to a lost device."""
    opened = open_device()
    opened.raw.destroy()
    with pytest.raises(DeviceLostError, match="load the program again"):
        create(opened, 64, "x")
    for use in (opened.check, lambda: opened.submit([]), opened.encoder):
        with pytest.raises(DeviceLostError):
            use()
    opened.close()


def test_a_logged_loss_is_found_before_a_submission() -> None:
    opened = open_device()
    opened.raw.destroy()
    opened._engine.log.messages.append("The WGPU device was lost (unknown)")
    with pytest.raises(DeviceLostError):
        opened.submit([])
    opened.close()


def test_another_lost_device_does_not_matter(device: Device) -> None:
    device._engine.log.messages.append("The WGPU device was lost (unknown)")
    device.check()
    device._engine.log.messages.append("something else went wrong")
    with pytest.raises(DeviceError, match="something else"):
        device.check()
    device.check()


def test_tensors_that_are_too_large(device: Device) -> None:
    with pytest.raises(LimitError, match=r"cache_k has \d+ bytes.*max-storage-buffer-binding-size"):
        create(device, device.limits.max_binding_bytes + 4, "cache_k")
    assert "cache_k" not in [b.label for b in device.buffers]


def test_the_null_device_has_every_feature() -> None:
    with open_null_device() as null:
        assert null.info.backend == "Null"
        assert null.features.f16 and null.features.subgroups and null.features.subgroup_matrix
    gc.collect()


@pytest.mark.parametrize(
    ("said", "vendor", "known"),
    [
        ((8, 32), 0x8086, (8, 32)),
        ((32, 32), 0x10DE, (32, 32)),
        ((4, 128), 0x10DE, (32, 32)),
        ((0, 0), 0x106B, (32, 32)),
        ((4, 128), 0x8086, (4, 128)),
        ((64, 32), 0x1002, (4, 128)),
    ],
)
def test_subgroup_sizes(said: tuple[int, int], vendor: int, known: tuple[int, int]) -> None:
    """What an engine says counts, if it says something; else vendors whose hardware has one size are known."""
    assert subgroup_range(*said, vendor) == known

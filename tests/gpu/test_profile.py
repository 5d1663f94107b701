"""GPU timestamps: a long pass takes longer than a short one, in every query set."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import pytest

from executorch_webgpu.errors import DeviceError
from executorch_webgpu.gpu.buffers import create
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels
from executorch_webgpu.gpu.profile import Timestamps

SPIN = """
override steps: u32;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(1) fn main() {
  var x = out[0];
  for (var i = 0u; i < steps; i++) { x = sin(x) + 1.0; }
  out[0] = x;
}
"""


@pytest.fixture
def timed_device(device: Device) -> Iterator[Device]:
    assert device.features.timestamps, "run these tests on an adapter with timestamps"
    yield device


def test_a_pass_with_more_work_takes_longer(timed_device: Device, write_kernel: Callable[[str, str], Kernels]) -> None:
    device = timed_device
    kernels = write_kernel("t/spin", SPIN)
    out = create(device, 16, "out")
    # Passes from 2048 on are in the second query set.
    pipelines = {n: kernels.pipeline("t/spin", {}, {"steps": n}) for n in (10, 100_000)}
    groups = {n: kernels.bind_group(p, {"out": (out, 0, 16)}) for n, p in pipelines.items()}
    timestamps = Timestamps(device, 3000)
    for _ in range(2):  # drivers compile at the first dispatch
        begin = time.perf_counter_ns()
        encoder = device.encoder()
        for i in range(2050):
            steps = 100_000 if i in (1, 2048) else 10
            compute_pass = encoder.begin_compute_pass(timestamp_writes=timestamps.pass_descriptor(i))
            compute_pass.set_pipeline(pipelines[steps].raw)
            compute_pass.set_bind_group(0, groups[steps])
            compute_pass.dispatch_workgroups(1)
            compute_pass.end()
        device.submit([encoder.finish()])
        nanoseconds = timestamps.resolve()
        elapsed = time.perf_counter_ns() - begin
    assert len(nanoseconds) == 2050
    assert min(nanoseconds) >= 0
    assert min(nanoseconds[1], nanoseconds[2048]) > 3 * sorted(nanoseconds)[1025]
    assert sum(nanoseconds) <= elapsed
    assert timestamps.resolve(2) == nanoseconds[:2]
    with pytest.raises(DeviceError, match="2051 passes"):  # its queries were never written
        timestamps.resolve(2051)
    timestamps.close()
    out.destroy()


def test_passes_outside_the_capacity(timed_device: Device) -> None:
    timestamps = Timestamps(timed_device, 4)
    for i in (-1, 4):
        with pytest.raises(DeviceError, match=f"pass {i}"):
            timestamps.pass_descriptor(i)
    timestamps.close()


def test_a_device_without_timestamps(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "features", dataclasses.replace(device.features, timestamps=False))
    with pytest.raises(DeviceError, match="no timestamps"):
        Timestamps(device, 1)

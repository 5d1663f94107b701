"""What several tests of operators need of an adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu.gpu.buffers import Readback, create
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels

SUBGROUP_SIZE = """
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(128)
fn main(@builtin(subgroup_size) size: u32, @builtin(local_invocation_index) index: u32) {
  out[index] = size;
}
"""


@pytest.fixture(scope="module")
def features(device: Device, tmp_path_factory: pytest.TempPathFactory) -> Features:
    """The device's, with the size that its subgroups turn out to have where the engine does not say."""
    known = device.features
    if not known.subgroups or known.subgroup_min_size == known.subgroup_max_size:
        return known
    sizes = set(subgroup_sizes(device, tmp_path_factory.mktemp("kernels")))
    return replace(known, subgroup_min_size=min(sizes), subgroup_max_size=max(sizes))


def subgroup_sizes(device: Device, folder: Path) -> list[int]:
    (folder / "size.wgsl").write_text(SUBGROUP_SIZE)
    kernels = Kernels(device, [folder])
    pipeline, out, readback = kernels.pipeline("size"), create(device, 512, "sizes"), Readback(device, "sizes")
    try:
        encoder = device.encoder()
        work = encoder.begin_compute_pass()
        work.set_pipeline(pipeline.raw)
        work.set_bind_group(0, kernels.bind_group(pipeline, {"out": (out, 0, 512)}))
        work.dispatch_workgroups(1)
        work.end()
        readback.copy(encoder, [(out, 0, 512)])
        device.submit([encoder.finish()])
        (raw,) = readback.read()
        return [int(n) for n in np.asarray(raw).view(np.uint32)]
    finally:
        readback.close()
        out.destroy()


@pytest.fixture(scope="module")
def fixed(features: Features) -> Features:
    """Features with subgroups of one size."""
    if not features.subgroups or features.subgroup_min_size != features.subgroup_max_size:
        pytest.skip("this adapter has no subgroups of one size")
    return features

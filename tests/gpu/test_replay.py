"""Dispatches recorded once, and results of submissions that overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import ClosedError, DeviceError
from executorch_webgpu.gpu.buffers import Buffer, create, upload
from executorch_webgpu.gpu.device import Device, open_null_device
from executorch_webgpu.gpu.in_flight import InFlight
from executorch_webgpu.gpu.kernel import Kernels, Pipeline
from executorch_webgpu.gpu.replay import Replay

# x = a x + b; two of them do not commute.
AFFINE = """
override a: u32 = 1;
override b: u32 = 0;
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) { x[id.x] = a * x[id.x] + b; }
"""
OTHER = """
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1) fn main() { y[0] = x[0]; }
"""


@pytest.fixture
def x(device: Device) -> Iterator[Buffer]:
    buffer = create(device, 16, "x")
    upload(device, buffer, np.arange(4, dtype=np.uint32))
    yield buffer
    buffer.destroy()


def affine(kernels: Kernels, a: int, b: int) -> Pipeline:
    return kernels.pipeline("t/affine", overrides={"a": a, "b": b})


def recorded(kernels: Kernels, x: Buffer, *steps: tuple[int, int]) -> list[Any]:
    pipelines = [affine(kernels, *step) for step in steps]
    return [(p.raw, kernels.bind_group(p, {"x": (x, 0, 16)}), (1, 1, 1)) for p in pipelines]


def run(device: Device, replay: Replay, results: InFlight, x: Buffer) -> None:
    encoder = device.encoder()
    compute_pass = encoder.begin_compute_pass()
    replay.encode(compute_pass)
    compute_pass.end()
    results.copy(encoder, x)
    results.submitted(device.submit([encoder.finish()]))


def test_dispatches_run_in_order_and_each_result_is_that_of_its_submission(
    device: Device, write_kernel: Callable[[str, str], Kernels], x: Buffer
) -> None:
    replay = Replay(device, recorded(write_kernel("t/affine", AFFINE), x, (2, 1), (3, 0), (3, 0), (1, 5)))
    assert len(replay) == 4
    results = InFlight(device, 16, 3)
    wanted, at = [], np.arange(4, dtype=np.uint32)
    read = []
    for step in range(12):
        while len(results) == 3:
            read.append(results.read().view(np.uint32).copy())
        run(device, replay, results, x)
        at = ((2 * at + 1) * 9 + 5).astype(np.uint32)
        wanted.append(at)
        if step % 5 == 0:
            read.append(results.read().view(np.uint32).copy())
    while results:
        read.append(results.read().view(np.uint32).copy())
    np.testing.assert_array_equal(read, wanted)
    results.close()


def test_what_is_discarded_is_not_read_and_its_buffers_serve_again(
    device: Device, write_kernel: Callable[[str, str], Kernels], x: Buffer
) -> None:
    replay = Replay(device, recorded(write_kernel("t/affine", AFFINE), x, (1, 1)))
    before = device.memory.live_buffers
    results = InFlight(device, 4, 2)
    for count in range(1, 5):
        run(device, replay, results, x)
        run(device, replay, results, x)
        with pytest.raises(DeviceError, match="2 results are in flight already"):
            results.copy(device.encoder(), x)
        results.discard()
        assert len(results) == 0
        run(device, replay, results, x)
        assert results.read().view(np.uint32).tolist() == [3 * count]
    assert device.memory.live_buffers == before + 2
    results.close()
    assert device.memory.live_buffers == before


def test_several_results_of_a_submission(
    device: Device, write_kernel: Callable[[str, str], Kernels], x: Buffer
) -> None:
    replay = Replay(device, recorded(write_kernel("t/affine", AFFINE), x, (1, 1)))
    results = InFlight(device, 3, 2, together=4)

    def submit(count: int) -> None:
        encoder = device.encoder()
        for index in range(count):
            compute_pass = encoder.begin_compute_pass()
            replay.encode(compute_pass)
            compute_pass.end()
            results.copy(encoder, x, index)
        results.submitted(device.submit([encoder.finish()]))

    submit(4)
    submit(1)
    assert len(results) == 5 and results.arrived == 0
    assert [results.read().tolist() for _ in range(2)] == [[1, 0, 0], [2, 0, 0]]
    assert len(results) == 3 and results.arrived == 2
    submit(3)  # into the buffer whose results have arrived
    assert [results.read().tolist() for _ in range(3)] == [[3, 0, 0], [4, 0, 0], [5, 0, 0]]
    assert results.read().tolist() == [6, 0, 0]
    results.discard()
    assert len(results) == 0
    submit(2)
    assert [results.read()[0] for _ in range(2)] == [9, 10]
    results.close()


def test_a_recording_that_is_wrong_is_reported_when_its_encoder_is_finished(
    device: Device, write_kernel: Callable[[str, str], Kernels], x: Buffer
) -> None:
    write_kernel("t/other", OTHER)
    kernels = write_kernel("t/affine", AFFINE)
    y = create(device, 16, "y")
    group = kernels.bind_group(kernels.pipeline("t/other"), {"x": (x, 0, 16), "y": (y, 0, 16)})
    replay = Replay(device, [(affine(kernels, 1, 1).raw, group, (1, 1, 1))])
    encoder = device.encoder()
    with pytest.raises(DeviceError, match="recording"), device.errors("recording"):
        compute_pass = encoder.begin_compute_pass()
        replay.encode(compute_pass)
        compute_pass.end()
        encoder.finish()
    y.destroy()


def test_dawn_checks_a_replay_too(write_kernel: Callable[[str, str], Kernels]) -> None:
    write_kernel("t/other", OTHER)
    roots = write_kernel("t/affine", AFFINE)._roots
    with open_null_device() as null:
        kernels = Kernels(null, roots)
        x, y = create(null, 16, "x"), create(null, 16, "y")
        right = recorded(kernels, x, (2, 1), (3, 0))
        group = kernels.bind_group(kernels.pipeline("t/other"), {"x": (x, 0, 16), "y": (y, 0, 16)})
        for dispatches in (right, [(right[0][0], group, (1, 1, 1))]):
            encoder = null.encoder()
            compute_pass = encoder.begin_compute_pass()
            Replay(null, dispatches).encode(compute_pass)
            compute_pass.end()
            if dispatches is right:
                results = InFlight(null, 4, 1)
                results.copy(encoder, x)
                results.submitted(null.submit([encoder.finish()]))
                assert len(results.read()) == 4
                continue
            with pytest.raises(DeviceError, match="recording"), null.errors("recording"):
                encoder.finish()


def test_a_closed_device_gives_no_results() -> None:
    with open_null_device() as null:
        x, results = create(null, 16, "x"), InFlight(null, 4, 1)
        encoder = null.encoder()
        results.copy(encoder, x)
        results.submitted(null.submit([encoder.finish()]))
    with pytest.raises(ClosedError):
        results.read()
    results.close()

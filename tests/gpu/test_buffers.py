"""Uploads, readback, the uniform arena and scratch buffers, on a real device."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import DeviceError
from executorch_webgpu.gpu import buffers as buffers_module
from executorch_webgpu.gpu.buffers import Buffer, Readback, ScratchPool, UniformArena, create, upload
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.mail import Mail


@pytest.fixture(autouse=True)
def everything_is_freed(device: Device) -> Iterator[None]:
    before = device.memory.live_bytes, device.memory.live_buffers
    yield
    assert (device.memory.live_bytes, device.memory.live_buffers) == before


def read(device: Device, *ranges: tuple[Buffer, int, int]) -> list[np.ndarray[Any, Any]]:
    readback = Readback(device)
    encoder = device.encoder()
    readback.copy(encoder, ranges)
    device.submit([encoder.finish()])
    result = readback.read()
    readback.close()
    return result


def test_sizes_and_accounting(device: Device) -> None:
    before = device.memory.live_bytes
    buffer = create(device, 17, "odd")
    assert (buffer.nbytes, buffer.size) == (17, 32)
    assert device.memory.live_bytes == before + 32
    assert not read(device, (buffer, 0, 32))[0].any()  # zero-filled
    buffer.destroy()
    buffer.destroy()
    assert device.memory.live_bytes == before
    empty = create(device, 0, "empty")
    assert empty.size == 16
    empty.destroy()


@pytest.mark.parametrize("nbytes", [1, 2, 3, 4, 5, 101, 4095, 4097, 2 * 4096 + 1])
@pytest.mark.parametrize("offset", [0, 12])
def test_upload_of_any_size(device: Device, monkeypatch: pytest.MonkeyPatch, nbytes: int, offset: int) -> None:
    monkeypatch.setattr(buffers_module, "_UPLOAD_CHUNK", 4096)
    data = np.random.default_rng(nbytes).integers(1, 255, nbytes, dtype=np.uint8)
    buffer = create(device, offset + nbytes, "odd")
    upload(device, buffer, data, offset)
    (back,) = read(device, (buffer, 0, buffer.size))
    np.testing.assert_array_equal(back[offset : offset + nbytes], data)
    assert not back[:offset].any() and not back[offset + nbytes :].any()
    buffer.destroy()


def test_upload_takes_any_buffer(device: Device, tmp_path: Path) -> None:
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    path = tmp_path / "data.bin"
    path.write_bytes(values.tobytes())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        for data in (
            values,
            values.tobytes(),
            bytearray(values.tobytes()),
            view,
            values.T.copy().T,
            values.T.T,
        ):
            buffer = create(device, values.nbytes, "x")
            upload(device, buffer, data)
            (back,) = read(device, (buffer, 0, values.nbytes))
            np.testing.assert_array_equal(back.view(np.float32), values.reshape(-1))
            buffer.destroy()
        view.release()


def test_upload_of_nothing(device: Device) -> None:
    buffer = create(device, 0, "empty")
    upload(device, buffer, np.empty((0, 3), np.float32))
    upload(device, buffer, b"")
    buffer.destroy()


def test_uploads_wait_before_staging_grows(device: Device) -> None:
    chunk = buffers_module._UPLOAD_CHUNK
    data = np.zeros(chunk // 2 + 4, np.uint8)
    made = [create(device, data.nbytes, f"b{i}") for i in range(5)]
    for buffer in made:
        upload(device, buffer, data)
        assert device.memory.staged_bytes < chunk
    for buffer in made:
        buffer.destroy()


@pytest.mark.parametrize(("nbytes", "offset"), [(33, 0), (4, 32), (4, 2), (4, -4)])
def test_upload_outside(device: Device, nbytes: int, offset: int) -> None:
    buffer = create(device, 32, "small")
    with pytest.raises(DeviceError, match=f"cannot write {nbytes} bytes at offset {offset} of small"):
        upload(device, buffer, bytes(nbytes), offset)
    buffer.destroy()


def test_readback_of_several_ranges_is_reused_and_grows(device: Device) -> None:
    data = np.arange(200, dtype=np.uint8)
    buffer = create(device, 200, "x")
    upload(device, buffer, data)
    readback = Readback(device)
    for spans in ([(0, 3)], [(4, 5), (0, 0), (8, 192), (100, 1)], [], [(0, 0)], [(196, 4)]):
        encoder = device.encoder()
        readback.copy(encoder, [(buffer, offset, nbytes) for offset, nbytes in spans])
        device.submit([encoder.finish()])
        arrays = readback.read()
        assert len(arrays) == len(spans)
        for array, (offset, nbytes) in zip(arrays, spans, strict=True):
            np.testing.assert_array_equal(array, data[offset : offset + nbytes])
            assert array.flags.owndata and array.flags.writeable
    readback.close()
    buffer.destroy()


def test_a_copy_out_of_range_is_our_error(device: Device) -> None:
    buffer = create(device, 16, "x")
    readback = Readback(device)
    with pytest.raises(DeviceError):
        encoder = device.encoder()
        readback.copy(encoder, [(buffer, 0, 64)])
        with device.errors("recording"):
            encoder.finish()
    readback.close()
    buffer.destroy()


def test_arena_slots_are_aligned_and_never_move(device: Device) -> None:
    arena = UniformArena(device)
    slots = [arena.allocate(nbytes) for nbytes in (4, 16, 17, 300, 0, 70_000, 16)]
    alignment = device.limits.uniform_alignment
    assert [s.size for s in slots] == [16, 16, 32, 304, 16, 70_000, 16]
    assert all(s.offset % alignment == 0 and s.offset + s.size <= s.buffer.size for s in slots)
    for a in slots:
        for b in slots:
            if a is not b and a.buffer is b.buffer:
                assert a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
    before = [(s.buffer, s.offset) for s in slots]
    for _ in range(3000):
        arena.allocate(64)
    assert [(s.buffer, s.offset) for s in slots] == before
    arena.close()


def test_arena_sends_only_what_changed(device: Device) -> None:
    arena = UniformArena(device)
    slots = [arena.allocate(16) for _ in range(4000)]
    assert arena.flush() == 0
    for slot in slots[:50]:
        arena.write(slot, b"\1" * 16)
    assert arena.flush() == 1  # neighbours are joined
    for slot in slots[:50]:
        arena.write(slot, b"\1" * 16)
    assert arena.flush() == 0  # the same bytes again
    arena.write(slots[0], b"\2" * 16)
    arena.write(slots[1000], b"\2" * 16)
    arena.write(slots[-1], b"\2" * 4)
    assert arena.flush() == 3
    with pytest.raises(DeviceError, match="17 bytes do not fit"):
        arena.write(slots[0], bytes(17))
    arena.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(0, 39), st.binary(max_size=48)), max_size=12), max_size=4))
def test_arena_on_the_gpu_is_what_was_written(
    device: Device, monkeypatch: pytest.MonkeyPatch, rounds: list[list[tuple[int, bytes]]]
) -> None:
    # Only here: uniform buffers cannot be copied from, and a kernel per slot would test the kernel.
    monkeypatch.setattr(buffers_module, "_UNIFORM", buffers_module._UNIFORM | buffers_module._COPY_SRC)
    monkeypatch.setattr(buffers_module, "_UNIFORM_CHUNK", 1024)
    monkeypatch.setattr(UniformArena, "_JOIN", 64)
    arena = UniformArena(device)
    slots = [arena.allocate(48) for _ in range(40)]
    expected = [bytearray(48) for _ in slots]
    for writes in rounds:
        for i, data in writes:
            arena.write(slots[i], data)
            expected[i][: len(data)] = data
        arena.flush()
        for slot, array, want in zip(
            slots, read(device, *((s.buffer, s.offset, s.size) for s in slots)), expected, strict=True
        ):
            assert array.tobytes() == want, slot
    arena.close()


def is_destroyed(buffer: Buffer) -> bool:
    """Asked anew: a type checker takes an attribute for what it was before."""
    return buffer.destroyed


def test_scratch_only_grows_and_keeps_the_old_buffer_for_recorded_work(device: Device) -> None:
    pool = ScratchPool(device)
    first, generation = pool.get(0, 1000)
    assert pool.get(0, 10) == (first, generation)
    other, _ = pool.get(3, 64)
    assert other is not first
    grown, later = pool.get(0, 5000)
    assert grown is not first and later > generation and grown.size >= 5000
    assert not is_destroyed(first)
    encoder = device.encoder()
    encoder.copy_buffer_to_buffer(first.raw, 0, grown.raw, 0, 16)
    device.submit([encoder.finish()])
    pool.release_retired()
    assert is_destroyed(first) and not is_destroyed(grown)
    assert pool.get(0, 1000) == (grown, later)
    pool.close()
    assert is_destroyed(grown) and is_destroyed(other)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 39), st.binary(max_size=48)), max_size=12), max_size=5),
    st.sampled_from([64, 1024]),
)
def test_uniforms_that_change_within_an_encoder(
    device: Device, monkeypatch: pytest.MonkeyPatch, rounds: list[list[tuple[int, bytes]]], nbytes: int
) -> None:
    """Each round finds its own, whether it came by a copy or, where the mail was full, after a submission."""
    monkeypatch.setattr(buffers_module, "_UNIFORM", buffers_module._UNIFORM | buffers_module._COPY_SRC)
    monkeypatch.setattr(buffers_module, "_UNIFORM_CHUNK", 1024)
    monkeypatch.setattr(UniformArena, "_JOIN", 64)
    arena, mail = UniformArena(device), Mail(device, nbytes)
    slots = [arena.allocate(48) for _ in range(40)]
    expected = np.zeros((len(rounds), len(slots), 48), np.uint8)
    seen = create(device, expected.nbytes, "seen")
    encoder = device.encoder()
    for number, writes in enumerate(rounds):
        expected[number] = expected[max(0, number - 1)]
        for i, data in writes:
            arena.write(slots[i], data)
            expected[number, i, : len(data)] = list(data)
        if not arena.record(encoder, mail):
            mail.send()
            device.submit([encoder.finish()])
            encoder = device.encoder()
            arena.flush()
        for i, slot in enumerate(slots):
            at = (number * len(slots) + i) * 48
            encoder.copy_buffer_to_buffer(slot.buffer.raw, slot.offset, seen.raw, at, 48)
    mail.send()
    device.submit([encoder.finish()])
    if rounds:
        (found,) = read(device, (seen, 0, expected.nbytes))
        np.testing.assert_array_equal(found, expected.reshape(-1))
    for each in (arena, mail):
        each.close()
    seen.destroy()

"""GPU memory: storage buffers, uploads, readback, uniforms and scratch."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DeviceError, LimitError
from .device import Device
from .locked import locked
from .trace import WAIT, spanned

if TYPE_CHECKING:
    from .mail import Mail

# WebGPU's flags have the same numbers in every engine.
_MAP_READ, _COPY_SRC, _COPY_DST, _UNIFORM, _STORAGE = 0x1, 0x4, 0x8, 0x40, 0x80
_QUERY_RESOLVE = 0x200

# An engine keeps a copy of written data until a submission after it is done, so uploads are cut into chunks
# and waited for. Measured on Mesa's CPU driver with wgpu, memory above the buffers' own and time, for one
# buffer of 113 MiB / for 40 of 2 MiB:
#   one write_buffer each              114 MiB 309 ms  /   81 MiB 652 ms
#   chunks of 8 MiB, not waited for     25 MiB 190 ms  /   35 MiB 192 ms
#   chunks of 8 MiB                      9 MiB 164 ms  /   11 MiB 241 ms
#   chunks of 2 MiB                      3 MiB 177 ms  /    3 MiB 238 ms
#   a mapped staging buffer of 8 MiB     9 MiB 250 ms  /    9 MiB 354 ms
#   buffers mapped at creation         114 MiB 338 ms  /   81 MiB 286 ms
_UPLOAD_CHUNK = 2 << 20
_UNIFORM_CHUNK = 64 << 10


class Buffer:
    """A GPU buffer that counts its bytes in ``device.memory`` until it is destroyed or collected.

    ``begin``: where it begins in ``raw``; above 0 in parts of another one only (see ``split``).
    """

    __slots__ = ("__weakref__", "_free", "_lock", "begin", "label", "nbytes", "raw", "size")

    def __init__(self, device: Device, nbytes: int, usage: int, label: str) -> None:
        self.label = label
        self.nbytes = nbytes
        self.begin = 0
        self.size = max(16, -(-nbytes // 16) * 16)
        self._lock = device.lock
        if self.size > device.limits.max_buffer_bytes:
            raise LimitError(
                f"{label} has {nbytes} bytes and the device's buffers have at most "
                f"{device.limits.max_buffer_bytes} (max-buffer-size)"
            )
        with device.lock:
            device.require_usable()
            device.memory.free_unused()
            with device.errors(f"allocating {nbytes} bytes for {label}"):
                self.raw = device.raw.create_buffer(label=label, size=self.size, usage=usage)
            device.memory.add(self.size)
            device.buffers.add(self)
            self._free: weakref.finalize[..., Any] = weakref.finalize(self, device.memory.free, self.size, self.raw)
            self._free.atexit = False

    def __repr__(self) -> str:
        return f"<Buffer {self.label!r} {self.nbytes} bytes>"

    @property
    def destroyed(self) -> bool:
        return not self._free.alive

    @locked
    def destroy(self) -> None:
        """Free the memory once submitted work is done and waited for.  A second call does nothing."""
        self._free()


class _Part(Buffer):
    """A part of another buffer; that one is destroyed with the last of its parts."""

    __slots__ = ("_whole",)

    def __init__(self, whole: Buffer, begin: int, nbytes: int, label: str, parts: set[int]) -> None:
        self.label = label
        self.nbytes = nbytes
        self.begin = begin
        self.size = max(16, -(-nbytes // 16) * 16)
        self.raw = whole.raw
        self._lock = whole._lock
        self._whole = whole
        self._free = weakref.finalize(self, _leave, whole, begin, parts)
        self._free.atexit = False

    @property
    def destroyed(self) -> bool:
        return not self._free.alive or self._whole.destroyed


def _leave(whole: Buffer, begin: int, parts: set[int]) -> None:
    parts.discard(begin)
    if not parts:
        whole._free()


def split(whole: Buffer, offsets: Sequence[int], sizes: Sequence[int], labels: Sequence[str]) -> list[Buffer]:
    """Buffers that are parts of ``whole``, which lives until the last of them is destroyed.

    ``offsets``, multiples of the device's alignment of bindings, and ``sizes``: bytes; parts do not overlap.
    """
    parts = set(offsets)
    return [_Part(whole, at, nbytes, label, parts) for at, nbytes, label in zip(offsets, sizes, labels, strict=True)]


def create(device: Device, nbytes: int, label: str) -> Buffer:
    """A zero-filled storage buffer that can be copied from and to; its size is rounded up to 16 bytes.

    Raises LimitError when the device cannot hold or bind that many bytes, DeviceError when it is out of
    memory; ``label`` names the tensor in the message.
    """
    if nbytes > device.limits.max_binding_bytes:
        raise LimitError(
            f"{label} has {nbytes} bytes and the device binds at most {device.limits.max_binding_bytes} "
            f"(max-storage-buffer-binding-size)"
        )
    return Buffer(device, nbytes, _STORAGE | _COPY_SRC | _COPY_DST, label)


def copy_bytes(device: Device, encoder: Any, source: Buffer, begin: int, target: Buffer, at: int, nbytes: int) -> None:
    """Record a copy of bytes of ``source`` from ``begin`` on to ``target`` from ``at`` on, all multiples of 4.

    By the engine's C function, since each step has some. What is wrong is said when the encoder is finished.
    """
    begin, at = source.begin + begin, target.begin + at
    record = device.native.lib.wgpuCommandEncoderCopyBufferToBuffer
    record(encoder._internal, source.raw._internal, begin, target.raw._internal, at, nbytes)


def upload(device: Device, buffer: Buffer, data: Any, offset: int = 0) -> None:
    """Write ``data`` (any C-contiguous buffer: array, bytes, memory map) to ``buffer`` at ``offset``.

    ``offset`` is a multiple of 4.  A size that is not one is padded with zeros up to the next multiple.
    Raises DeviceError when the bytes do not fit.
    """
    view = _bytes_of(data)
    if offset % 4 or offset < 0 or offset + len(view) > buffer.size:
        raise DeviceError(f"cannot write {len(view)} bytes at offset {offset} of {buffer.label} ({buffer.size} bytes)")
    whole = len(view) // 4 * 4
    with device.lock, device.errors(f"uploading {buffer.label}"):
        for start in range(0, whole, _UPLOAD_CHUNK):
            end = min(start + _UPLOAD_CHUNK, whole)
            device.queue.write_buffer(buffer.raw, buffer.begin + offset + start, view[start:end])
            device.memory.uploaded_bytes += end - start
            if device.memory.staged_bytes >= _UPLOAD_CHUNK:
                device.flush()
        if whole < len(view):
            tail = bytes(view[whole:]).ljust(4, b"\0")
            device.queue.write_buffer(buffer.raw, buffer.begin + offset + whole, tail)


def _bytes_of(data: Any) -> memoryview:
    """The memory of ``data``, without a copy when it is C-contiguous."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    return memoryview(data).cast("B")


class Readback:
    """Brings buffer ranges back to the host through one reusable staging buffer.

    ``copy(encoder, ranges)``, then submit the encoder, then ``read()``; the caller holds the device's lock throughout.
    """

    def __init__(self, device: Device, label: str = "readback") -> None:
        self._device = device
        self._label = label
        self._buffer: Buffer | None = None
        self._pending: list[tuple[int, int]] = []  # (offset in staging, bytes)

    def copy(self, encoder: Any, ranges: Sequence[tuple[Buffer, int, int]]) -> None:
        """Record copies of (buffer, offset, nbytes), offsets multiples of 4, in place of earlier ones."""
        self._pending = []
        end = 0
        for _, _, nbytes in ranges:
            self._pending.append((end, nbytes))
            end += -(-nbytes // 16) * 16
        self._reserve(end)
        if self._buffer is None:
            return
        with self._device.errors(f"copying to {self._label}"):
            for (buffer, offset, nbytes), (at, _) in zip(ranges, self._pending, strict=True):
                if nbytes:
                    size = -(-nbytes // 4) * 4
                    encoder.copy_buffer_to_buffer(buffer.raw, buffer.begin + offset, self._buffer.raw, at, size)

    @spanned("readback", WAIT)
    def read(self) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
        """The copied ranges as fresh uint8 arrays, after the encoder was submitted; waits for the GPU."""
        if self._buffer is None or not any(n for _, n in self._pending):
            return [np.empty(0, np.uint8) for _ in self._pending]
        end = max(at + n for at, n in self._pending)
        raw = self._buffer.raw
        with self._device.lock, self._device.errors("reading results back"):
            raw.map_async("READ", 0, -(-end // 16) * 16).sync_wait()
            try:
                mapped = np.frombuffer(raw.read_mapped(0, -(-end // 16) * 16, copy=False), np.uint8)
                result = [mapped[at : at + n].copy() for at, n in self._pending]
                del mapped
            finally:
                raw.unmap()
        self._device.check()
        return result

    def close(self) -> None:
        """Free the staging buffer."""
        if self._buffer is not None:
            self._buffer.destroy()
            self._buffer = None

    def _reserve(self, nbytes: int) -> None:
        if nbytes and (self._buffer is None or self._buffer.size < nbytes):
            self.close()
            self._buffer = Buffer(self._device, nbytes, _MAP_READ | _COPY_DST, self._label)


@dataclass(frozen=True)
class Slot:
    """A range of a uniform buffer."""

    buffer: Buffer
    offset: int
    size: int


class _UniformChunk:
    """One uniform buffer, its host copy, and which bytes of it differ."""

    def __init__(self, device: Device, nbytes: int) -> None:
        self.buffer = Buffer(device, nbytes, _UNIFORM | _COPY_DST, "uniforms")
        self.host = bytearray(self.buffer.size)
        self.used = 0
        self.dirty: set[tuple[int, int]] = set()  # (begin, end)


class UniformArena:
    """Uniform slots, written on the host and sent in few calls by ``flush``.  Slots never move."""

    # Two dirty spans this close are sent as one: a call costs more than these bytes.
    _JOIN = 1024

    def __init__(self, device: Device) -> None:
        self._device = device
        self._alignment = max(16, device.limits.uniform_alignment)
        self._chunks: list[_UniformChunk] = []
        self._chunk_of: dict[int, _UniformChunk] = {}  # by id of the buffer

    def allocate(self, nbytes: int) -> Slot:
        """A zero-filled slot of ``nbytes``, rounded up to 16."""
        size = max(16, -(-nbytes // 16) * 16)
        step = -(-size // self._alignment) * self._alignment
        if not self._chunks or self._chunks[-1].used + step > self._chunks[-1].buffer.size:
            chunk = _UniformChunk(self._device, max(_UNIFORM_CHUNK, step))
            self._chunks.append(chunk)
            self._chunk_of[id(chunk.buffer)] = chunk
        chunk = self._chunks[-1]
        slot = Slot(chunk.buffer, chunk.used, size)
        chunk.used += step
        return slot

    def write(self, slot: Slot, data: bytes) -> None:
        """Set the first bytes of a slot on the host; bytes that stay the same cost nothing at ``flush``."""
        if len(data) > slot.size:
            raise DeviceError(f"{len(data)} bytes do not fit a uniform slot of {slot.size}")
        chunk = self._chunk_of[id(slot.buffer)]
        end = slot.offset + len(data)
        if chunk.host[slot.offset : end] != data:
            chunk.host[slot.offset : end] = data
            chunk.dirty.add((slot.offset, slot.offset + slot.size))

    def flush(self) -> int:
        """Send what changed to the GPU, before the next submission.  Returns the number of writes."""
        writes = 0
        try:
            for buffer, begin, data in self._changed():
                with self._device.lock, self._device.errors("writing uniforms"):
                    self._device.queue.write_buffer(buffer.raw, begin, data)
                writes += 1
        except BaseException:
            self.send_again()
            raise
        return writes

    def record(self, encoder: Any, mail: Mail) -> bool:
        """Have the raw encoder bring what changed to its place, after what it has recorded.

        Returns False, and records nothing, where ``mail`` has no room for it.
        """
        spans = list(self._changed())
        if sum(len(data) for _, _, data in spans) > mail.room:
            for buffer, begin, data in spans:
                self._chunk_of[id(buffer)].dirty.add((begin, begin + len(data)))
            return False
        for buffer, begin, data in spans:
            mail.add(encoder, buffer, begin, data)
        return True

    def send_again(self) -> None:
        """What was recorded may never arrive: send everything with the next step."""
        for chunk in self._chunks:
            chunk.dirty.add((0, chunk.used))

    def _changed(self) -> Iterator[tuple[Buffer, int, memoryview]]:
        """Buffer, place and contents of what changed since it was asked last."""
        for chunk in self._chunks:
            if chunk.dirty:
                host, spans = memoryview(chunk.host), _joined(sorted(chunk.dirty), self._JOIN)
                chunk.dirty.clear()
                for begin, end in spans:
                    yield chunk.buffer, begin, host[begin:end]

    def close(self) -> None:
        """Free all slots."""
        for chunk in self._chunks:
            chunk.buffer.destroy()
        self._chunks.clear()
        self._chunk_of.clear()


def _joined(spans: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Sorted spans, joined where at most ``gap`` bytes lie between them."""
    joined: list[tuple[int, int]] = []
    for begin, end in spans:
        if joined and begin - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


class ScratchPool:
    """Numbered scratch buffers that only grow.

    A grown buffer is a new one with a higher generation, so bind groups know that they are stale.  The old
    one lives until ``release_retired()``, because recorded but unsubmitted work may still name it.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffers: dict[int, tuple[Buffer, int]] = {}
        self._retired: list[Buffer] = []

    def get(self, k: int, nbytes: int) -> tuple[Buffer, int]:
        """Scratch buffer ``k`` with at least ``nbytes``, and its generation."""
        buffer, generation = self._buffers.get(k, (None, 0))
        if buffer is None or buffer.size < nbytes:
            grown = create(self._device, nbytes, f"scratch {k}")
            if buffer is not None:
                self._retired.append(buffer)
            self._buffers[k] = grown, generation + 1
        return self._buffers[k]

    def release_retired(self) -> None:
        """Free outgrown buffers; call it after a submission."""
        for buffer in self._retired:
            buffer.destroy()
        self._retired.clear()

    def close(self) -> None:
        """Free everything."""
        self.release_retired()
        for buffer, _ in self._buffers.values():
            buffer.destroy()
        self._buffers.clear()

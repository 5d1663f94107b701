"""Read-only constants on a device, shared by every load of the same program."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..gpu.buffers import Buffer, create, split, upload
from ..gpu.device import Device
from ..gpu.locked import locked
from ..ops.values import Joined, Repacked, Tensor
from .build import Constant


@dataclass
class _Entry:
    buffer: Buffer
    holders: int
    parts: list[Buffer] = field(default_factory=list)  # of a joined one


@dataclass(frozen=True)
class _Source:
    """How a constant comes to the device: its key, the ranges of the file that it is made of, and what it becomes."""

    key: Hashable
    data: Sequence[memoryview]
    content: Callable[[], np.ndarray]
    label: str


class ConstantPool:
    """Buffers by key, with a count of holders; a buffer is destroyed when the last holder lets go.

    ``forget`` is told about every range of the file that has been uploaded, so that the operating system may drop
    those pages: a loaded program should not be in memory twice.
    """

    def __init__(self, device: Device, forget: Callable[[memoryview], None]) -> None:
        self.device = device
        self._lock = device.lock
        self._forget = forget
        self._entries: dict[Hashable, _Entry] = {}
        self._parts: dict[Hashable, tuple[Hashable, Buffer]] = {}  # of joined ones, with the key of the whole

    @locked
    def acquire(self, source: _Source) -> Buffer:
        """The buffer of a constant, which its first holder fills, unless it is a part of one that is there."""
        entry = self._entries.get(source.key)
        if entry is None and source.key in self._parts:
            whole, buffer = self._parts[source.key]
            self._entries[whole].holders += 1
            return buffer
        if entry is None:
            array = source.content()
            buffer = create(self.device, array.nbytes, source.label)
            self._fill([buffer], [lambda: array], [source])
            entry = self._entries[source.key] = _Entry(buffer, 0)
        entry.holders += 1
        return entry.buffer

    @locked
    def acquire_joined(self, key: Hashable, sources: Sequence[_Source], joined: Joined) -> tuple[Buffer, list[Buffer]]:
        """One buffer of several constants, which its first holder fills, and its parts."""
        entry = self._entries.get(key)
        if entry is None:
            offsets, labels = joined.offsets, [source.label for source in sources]
            whole = create(self.device, offsets[-1], f"{labels[0]} to {labels[-1]}")
            sizes = [part.nbytes for part in joined.parts]
            entry = _Entry(whole, 0, split(whole, offsets[:-1], sizes, labels))
            self._fill(entry.parts, [source.content for source in sources], sources)
            self._entries[key] = entry
            for source, part in zip(sources, entry.parts, strict=True):
                self._parts.setdefault(source.key, (key, part))
        entry.holders += 1
        return entry.buffer, entry.parts

    def _fill(
        self, buffers: Sequence[Buffer], contents: Sequence[Callable[[], np.ndarray]], sources: Sequence[_Source]
    ) -> None:
        """Bring constants to their buffers; if one cannot be brought, none stays."""
        try:
            for buffer, content, source in zip(buffers, contents, sources, strict=True):
                upload(self.device, buffer, content())
                for view in source.data:
                    self._forget(view)
        except BaseException:
            for buffer in buffers:
                buffer.destroy()
            raise

    @locked
    def release(self, key: Hashable) -> None:
        """Let go of ``key``."""
        if key not in self._entries:  # what is a part when it is acquired stays one: nobody makes another buffer of it
            key, _ = self._parts[key]
        entry = self._entries[key]
        entry.holders -= 1
        if not entry.holders:
            for buffer in entry.parts or [entry.buffer]:
                buffer.destroy()
            del self._entries[key]
            self._parts = {part: place for part, place in self._parts.items() if place[0] != key}

    @property
    def nbytes(self) -> int:
        """Bytes of all constants on the device."""
        with self._lock:
            return sum(entry.buffer.size for entry in self._entries.values())


class HeldConstants:
    """What one loaded graph holds of a pool: constants as they lie in the file, and repacked ones."""

    def __init__(self, pool: ConstantPool, constants: Mapping[int, Constant]) -> None:
        self._pool = pool
        self._constants = constants
        self._held: list[Hashable] = []
        self._repacked: dict[Repacked, Buffer] = {}
        self._joined: dict[Joined, Buffer] = {}

    def plain(self, tensor: Tensor) -> Buffer:
        """The buffer of a constant; each call holds it once more."""
        constant = self._constants[tensor.id]
        return self._acquire(
            _Source(constant.key, [constant.data], lambda: constant.array(tensor), f"constant {tensor}")
        )

    def repacked(self, value: Repacked) -> Buffer:
        """The buffer of ``value``, made when it is first asked for."""
        buffer = self._repacked.get(value)
        if buffer is None:
            buffer = self._repacked[value] = self._acquire(self._source(value))
        return buffer

    def joined(self, value: Joined) -> Buffer:
        """The buffer of several repacked constants; each that was not asked for alone before is its part of it."""
        buffer = self._joined.get(value)
        if buffer is None:
            repacked = [part for part in value.parts if isinstance(part, Repacked)]
            sources = [self._source(part) for part in repacked]
            key = "joined", *(source.key for source in sources)
            buffer, parts = self._pool.acquire_joined(key, sources, value)
            self._held.append(key)
            self._joined[value] = buffer
            self._repacked = dict(zip(repacked, parts, strict=True)) | self._repacked
        return buffer

    def _source(self, value: Repacked) -> _Source:
        sources = [(self._constants[t.id], t) for t in value.sources]
        key = (value.layout, *(constant.key for constant, _ in sources))
        label = f"{value.layout} of {', '.join(map(repr, value.sources))}"

        def content() -> np.ndarray:
            return value.pack(*(constant.array(t) for constant, t in sources))

        return _Source(key, [constant.data for constant, _ in sources], content, label)

    def release(self) -> None:
        """Let go of everything."""
        for key in self._held:
            self._pool.release(key)
        self._held.clear()
        self._repacked.clear()
        self._joined.clear()

    def _acquire(self, source: _Source) -> Buffer:
        buffer = self._pool.acquire(source)
        self._held.append(source.key)
        return buffer

"""What steps that share a submission find changed between them."""

from __future__ import annotations

from typing import Any

from .buffers import _COPY_DST, _COPY_SRC, Buffer, copy_bytes
from .device import Device


class Mail:
    """Bytes that copies of an encoder bring to buffers between its dispatches.

    What the queue writes is there before all of a submission. So several steps in one submission find their uniforms
    by copies, from one buffer, which ``send`` writes before the encoder's commands are submitted.
    """

    def __init__(self, device: Device, nbytes: int) -> None:
        self._device = device
        self._buffer = Buffer(device, nbytes, _COPY_SRC | _COPY_DST, "uniforms of several steps")
        self._host = bytearray(self._buffer.size)
        self._used = 0

    @property
    def room(self) -> int:
        """Bytes that can be added before they are sent."""
        return len(self._host) - self._used

    def add(self, encoder: Any, buffer: Buffer, begin: int, data: memoryview) -> None:
        """Record a copy of ``data``, a multiple of 4 bytes, to ``buffer`` from byte ``begin`` on."""
        end = self._used + len(data)
        self._host[self._used : end] = data
        copy_bytes(self._device, encoder, self._buffer, self._used, buffer, begin, len(data))
        self._used = end

    def send(self) -> None:
        """Write what was added; the encoder that it was added for is submitted next."""
        used, self._used = self._used, 0
        if used:
            with self._device.lock, self._device.errors("writing uniforms"):
                self._device.queue.write_buffer(self._buffer.raw, 0, memoryview(self._host)[:used])

    def close(self) -> None:
        """Free the buffer. Closing twice is allowed."""
        self._buffer.destroy()

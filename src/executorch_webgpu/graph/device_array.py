"""An array on a device."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np

from ..errors import ClosedError
from ..gpu.buffers import Buffer, Readback, copy_bytes, create, upload
from ..gpu.device import Device
from ..gpu.locked import locked

_FLOAT32: np.dtype[Any] = np.dtype(np.float32)


class DeviceArray:
    """An array [shape], row-major, in a GPU buffer of its own, which goes with it or with ``close``.

    ``dtype``: how its elements lie there; float32 by default.
    """

    stand_in: np.ndarray | None = None  # of integers: what the host sees in their place when it checks an input

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: np.dtype[Any] = _FLOAT32) -> None:
        self.shape = shape
        self.dtype = dtype
        self._device = device
        self._lock = device.lock
        self._buffer = create(device, self.nbytes, f"array {list(shape)}")

    @staticmethod
    def upload(device: Device, array: np.ndarray) -> DeviceArray:
        """A copy of ``array``, which is float32."""
        result = DeviceArray(device, array.shape)
        upload(device, result._buffer, array)
        return result

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def _words(self) -> int:
        """Bytes that are copied: whole words, which a buffer always holds."""
        return -(-self.nbytes // 4) * 4

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def buffer(self) -> Buffer:
        """Where the elements lie."""
        return self._buffer

    @property
    def device(self) -> Device:
        """The device that it lies on."""
        return self._device

    @locked
    def numpy(self) -> np.ndarray:
        """A copy on the host; waits for the device."""
        self._check_open()
        readback = Readback(self._device)
        try:
            encoder = self._device.encoder()
            readback.copy(encoder, [(self._buffer, 0, self.nbytes)])
            self._device.submit([encoder.finish()])
            (raw,) = readback.read()
        finally:
            readback.close()
        return raw.view(self.dtype).reshape(self.shape)

    def copy_to(self, encoder: Any, buffer: Buffer) -> None:
        """Record a copy of the elements to the beginning of ``buffer``."""
        self._check_open()
        copy_bytes(self._device, encoder, self._buffer, 0, buffer, 0, self._words)

    def copy_from(self, encoder: Any, buffer: Buffer) -> None:
        """Record a copy of the elements from the beginning of ``buffer``."""
        copy_bytes(self._device, encoder, buffer, 0, self._buffer, 0, self._words)

    def reshaped(self, shape: tuple[int, ...]) -> DeviceArray:
        """The same elements, in the same buffer, under another shape."""
        result = copy(self)
        result.shape = shape
        return result

    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""
        self._buffer.destroy()

    def __repr__(self) -> str:
        return f"DeviceArray{list(self.shape)}"

    def _check_open(self) -> None:
        if self._buffer.destroyed:
            raise ClosedError("this device array is closed; make a new one")


class DeviceTokens(DeviceArray):
    """Token ids [shape], int32, of a vocabulary of ``vocab``, which the host does not know."""

    def __init__(self, device: Device, shape: tuple[int, ...], vocab: int) -> None:
        super().__init__(device, shape, np.dtype(np.int32))
        self.stand_in = np.full(shape, vocab - 1, np.int32)  # if the largest id is right, all are

"""Every exception that this package raises on purpose.

    Error
    ├── InvalidProgramError       the file is not a readable ``.pte`` program or delegate blob
    ├── UnsupportedProgramError   the program is well-formed but asks for something that we do not run
    ├── InvalidInputError         wrong number, dtype, shape or value of inputs (also a ``ValueError``)
    ├── DeviceError               anything about the GPU
    │   ├── NoAdapterError        no usable adapter, or none that matches the request
    │   ├── LimitError            the adapter is too small for this program
    │   └── DeviceLostError       the device went away; load the program again
    ├── KernelError               a kernel and its caller disagree, or its WGSL does not compile: a bug of ours
    ├── ClosedError               use after ``close()``
    └── InUseError                what belongs to one thread at a time was used by another one meanwhile

Each message is one sentence that says what is wrong and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping


class Error(Exception):
    """Base of all exceptions of executorch_webgpu."""


class InvalidProgramError(Error):
    """The bytes are not a readable ExecuTorch program or delegate blob."""


class UnsupportedProgramError(Error):
    """The program is well-formed, but needs operators or delegates that are not here.

    ``operators`` maps every missing operator's name to the number of calls.
    """

    def __init__(self, message: str, operators: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.operators = dict(operators or {})


class InvalidInputError(Error, ValueError):
    """The caller's inputs do not fit the method."""


class DeviceError(Error):
    """Something about the GPU, its driver or its engine."""


class NoAdapterError(DeviceError):
    """There is no adapter to run on, or none that fits the request."""


class LimitError(DeviceError):
    """The adapter's limits are too small; the message names the tensor and the limit."""


class DeviceLostError(DeviceError):
    """The device was lost (driver reset, removed, out of memory)."""


class KernelError(Error):
    """A kernel's WGSL and the values that its caller gave do not match, or it does not compile."""


class ClosedError(Error):
    """The object was used after it was closed."""


class InUseError(Error):
    """Another thread is in the middle of a call of this object, or has taken it over; see the docs on threads."""

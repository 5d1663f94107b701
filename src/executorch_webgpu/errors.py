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
    ├── DivergenceError           a checked call on the device gives something else than its reference
    ├── ClosedError               use after ``close()``
    └── InUseError                what belongs to one thread at a time was used by another one meanwhile

Each message is one sentence that says what is wrong and what to do about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Divergence:
    """The first operator call of a checked step that is not what its reference says.

    ``call`` counts the calls of the method's graph, after fusion; ``node`` has it with its arguments, tensors as
    ``%id:dtype[dims]``. ``value`` is what differs, [``shape``] of ``dtype``: a result, other memory that the call
    writes, or an argument that has ``changed`` since it was computed. ``index`` is where the worst element lies, which
    is ``got`` and should be within ``allowed`` of ``wanted``; ``off`` elements are further off than they may be.
    ``kernels`` are those that the call dispatched.
    """

    operator: str
    call: int
    node: str
    value: str
    shape: tuple[int, ...]
    dtype: str
    index: tuple[int, ...]
    got: float
    wanted: float
    allowed: float
    off: int
    kernels: tuple[str, ...]
    changed: bool

    def __str__(self) -> str:
        source = "it was written as" if self.changed else "the reference gives"
        kernels = f"; kernels: {', '.join(self.kernels)}" if self.kernels else ""
        return (
            f"{self.node}: element {list(self.index)} of {self.value} is {self.got!r} where {source} {self.wanted!r}, "
            f"within {self.allowed:.3g} ({self.off} of {math.prod(self.shape)} elements are off){kernels}"
        )


class DivergenceError(Error):
    """A checked call on the device gives something else than its reference; ``divergence`` says where.

    ``divergence`` is None where the reference refuses values that the device took.
    """

    def __init__(self, message: str, divergence: Divergence | None = None) -> None:
        super().__init__(message)
        self.divergence = divergence


class ClosedError(Error):
    """The object was used after it was closed."""


class InUseError(Error):
    """Another thread is in the middle of a call of this object, or has taken it over; see the docs on threads."""


def copied(error: BaseException) -> BaseException:
    """An error like this one, to be raised in another thread as well: each raise writes a trace into its own.

    Where an exception cannot be copied, as where its constructor takes other arguments than it keeps, it is an
    ``Error`` that says the same, and has it as its cause.
    """
    try:
        made = copy(error)
        if type(made) is type(error) and str(made) == str(error):
            return made
    except Exception:  # of a constructor of others
        pass
    made = Error(f"{type(error).__name__}: {error}")
    made.__cause__ = error
    return made

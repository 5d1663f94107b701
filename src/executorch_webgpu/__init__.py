"""ExecuTorch programs (``.pte``) on any GPU through WebGPU, from Python."""

from .errors import (
    ClosedError,
    DeviceError,
    DeviceLostError,
    Error,
    InUseError,
    InvalidInputError,
    InvalidProgramError,
    KernelError,
    LimitError,
    NoAdapterError,
    UnsupportedProgramError,
)
from .runtime import Method, Program, Runtime, State

__version__ = "0.1.0"

__all__ = [
    "ClosedError",
    "DeviceError",
    "DeviceLostError",
    "Error",
    "InUseError",
    "InvalidInputError",
    "InvalidProgramError",
    "KernelError",
    "LimitError",
    "Method",
    "NoAdapterError",
    "Program",
    "Runtime",
    "State",
    "UnsupportedProgramError",
]

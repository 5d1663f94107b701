"""ExecuTorch programs (``.pte``) on any GPU through WebGPU, from Python.

Names are imported when they are first asked for, so that a command starts at once, and can be interrupted at once.
"""

from importlib import import_module

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes longer than all of this
if TYPE_CHECKING:
    from .errors import (
        ClosedError,
        DeviceError,
        DeviceLostError,
        DivergenceError,
        Error,
        InUseError,
        InvalidInputError,
        InvalidProgramError,
        KernelError,
        LimitError,
        NoAdapterError,
        UnsupportedProgramError,
    )
    from .runtime import LoadOptions, Method, Program, Runtime, State, Trace, trace

__version__ = "0.1.0"

__all__ = [
    "ClosedError",
    "DeviceError",
    "DeviceLostError",
    "DivergenceError",
    "Error",
    "InUseError",
    "InvalidInputError",
    "InvalidProgramError",
    "KernelError",
    "LimitError",
    "LoadOptions",
    "Method",
    "NoAdapterError",
    "Program",
    "Runtime",
    "State",
    "Trace",
    "UnsupportedProgramError",
    "trace",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(".errors" if name.endswith("Error") else ".runtime", __name__), name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]

"""Numbers of a model's configuration that decide whether what it computes is finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidProgramError, UnsupportedProgramError

LARGEST_ANGLE = float(1 << 24)  # beyond it float32 cannot tell a position from the next one


def check_eps(value: float, name: str) -> float:
    """The norm's epsilon, which float32 must hold as a positive number. ``name`` is for the message."""
    if not 0 < _rounded(value) < np.inf:
        raise InvalidProgramError(f"{name} is {value}, and must be a small positive number: correct it.")
    return value


def check_rope_base(value: float, name: str) -> float:
    """The base of the rope's frequencies, which float32 must hold as a positive number."""
    if not 0 < _rounded(value) < np.inf:
        raise InvalidProgramError(f"{name} is {value}, and must be a positive number: correct it.")
    return value


def _rounded(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def check_angles(angles: NDArray[np.float32]) -> None:
    """The angles by which positions turn; UnsupportedProgramError if float32 cannot hold them."""
    if not np.all(np.abs(angles) < LARGEST_ANGLE):
        raise UnsupportedProgramError(
            "The rope turns by angles that float32 does not hold: its base or its scaling is too small for this "
            "context length."
        )

"""Numbers of a model's configuration that decide whether what it computes is finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidProgramError, UnsupportedProgramError

LARGEST_FREQUENCY = 8.0  # in models it is 1, or less where the rope is scaled


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


def check_frequencies(frequencies: NDArray[np.float32]) -> None:
    """By how much a position turns; UnsupportedProgramError if float32 does not hold the angles of many of them."""
    if not np.all(np.abs(frequencies) <= LARGEST_FREQUENCY):
        raise UnsupportedProgramError(
            "The rope turns by more in a position than float32 can count up: its base, or a factor of its scaling, is "
            "too small."
        )

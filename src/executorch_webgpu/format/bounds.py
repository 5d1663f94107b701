"""Checks that every reader of this package makes before it believes a number from a file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..errors import InvalidProgramError

MAX_RANK = 16  # ExecuTorch's own limit on the number of dimensions
MAX_NBYTES = 2**63 - 1


def damaged(what: str) -> InvalidProgramError:
    """The error for bytes that no exporter writes."""
    return InvalidProgramError(
        f"{what}; the file is truncated, damaged or not a program, so export or download it again."
    )


def extent(data: memoryview, offset: int, size: int, what: str) -> memoryview:
    """The ``size`` bytes of ``data`` from ``offset``, or InvalidProgramError if they are not all there."""
    if not (0 <= offset <= len(data) and 0 <= size <= len(data) - offset):
        raise damaged(f"{what} (offset {offset}, {size} bytes) is outside its {len(data)} bytes")
    return data[offset : offset + size]


def check_index(index: int, count: int, what: str) -> None:
    if not 0 <= index < count:
        raise damaged(f"{what} is {index}, but there are only {count}")


def check_indices(indices: Iterable[int], count: int, what: str) -> None:
    for index in indices:
        check_index(index, count, what)


def tensor_nbytes(dims: Sequence[int], itemsize: int, what: str) -> int:
    """Bytes of a dense tensor; InvalidProgramError for a shape that no tensor can have."""
    if len(dims) > MAX_RANK:
        raise damaged(f"{what} has {len(dims)} dimensions, more than {MAX_RANK}")
    if any(dim < 0 for dim in dims):
        raise damaged(f"{what} has a negative size in {list(dims)}")
    # Zero dims do not excuse the others: the product of the rest is what an overflow check must see.
    if math.prod(dim for dim in dims if dim) * itemsize > MAX_NBYTES:
        raise damaged(f"{what} with sizes {list(dims)} is larger than any memory")
    return math.prod(dims) * itemsize

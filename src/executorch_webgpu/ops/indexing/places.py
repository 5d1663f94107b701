"""Where a list of index tensors leads: torch's and NumPy's advanced indexing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..rows import Cut
from ..shapes import broadcast, row_major_strides
from ..values import Tensor


@dataclass(frozen=True)
class Places:
    """The dims of ``x[indices]``, in three groups: those of ``x`` ``before``, the ``joint`` ones of all index tensors,
    and those of ``x`` ``after`` them.

    ``dims`` are those of ``x``, ``indexed`` its dimensions with an index tensor. ``kept`` are the others, in the order
    of the result.
    """

    dims: tuple[Any, ...]
    joint: tuple[Any, ...]
    indexed: tuple[int, ...]
    kept: tuple[int, ...]
    front: int  # how many of ``kept`` come before the joint dimensions

    @property
    def before(self) -> tuple[Any, ...]:
        return tuple(self.dims[a] for a in self.kept[: self.front])

    @property
    def after(self) -> tuple[Any, ...]:
        return tuple(self.dims[a] for a in self.kept[self.front :])

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of ``x``, whose dims must be numbers."""
        return row_major_strides(self.dims)

    @property
    def outer_strides(self) -> tuple[int, ...]:
        """Along every dimension of the result, how far apart elements of ``x`` lie: 0 along the joint ones."""
        kept = [self.strides[a] for a in self.kept]
        return (*kept[: self.front], *(0 for _ in self.joint), *kept[self.front :])


def places_of(dims: tuple[Any, ...], indices: Sequence[tuple[Any, ...] | None]) -> Places:
    """The places that index tensors of these dims name in a tensor of ``dims``."""
    indexed = tuple(axis for axis, index in enumerate(indices) if index is not None)
    kept = tuple(axis for axis in range(len(dims)) if axis not in indexed)
    side_by_side = bool(indexed) and indexed[-1] - indexed[0] == len(indexed) - 1
    joint = broadcast(*(index for index in indices if index is not None)) if indexed else ()
    return Places(dims, joint, indexed, kept, indexed[0] if side_by_side else 0)


def advanced(indices: Sequence[np.ndarray | None]) -> tuple[Any, ...]:
    """The same index for NumPy. Masks may have come as the words of a device."""
    return tuple(
        slice(None) if index is None else index != 0 if index.dtype.kind in "bu" else index for index in indices
    )


def index_reference(x: np.ndarray, indices: Sequence[np.ndarray | None]) -> np.ndarray:
    return x[advanced(indices)]


def place_rows(cut: Cut, x: Tensor, indices: Sequence[Tensor | None], out: Tensor) -> int | None:
    """Dimensions of ``x`` without an index, or those along which all index tensors are cut."""
    if len(indices) > x.rank:
        return None
    found = places_of(x.max_dims, [None if i is None else i.max_dims for i in indices])
    if (axis := cut.only(x)) is not None:
        if axis in found.indexed:
            return None
        place = found.kept.index(axis)
        return place if place < found.front else place + len(found.joint)
    joint = joint_rows(cut, [i for i in indices if i is not None])
    return None if joint is None else found.front + joint


def joint_rows(cut: Cut, indices: Sequence[Tensor]) -> int | None:
    """The axis of what index tensors broadcast to along which they are cut, if nothing else is."""
    given = {i.id: i for i in indices}
    if cut.counts or not cut.axes or not cut.axes.keys() <= given.keys():
        return None
    rank = max(i.rank for i in given.values())
    (axis, *others) = {axis + rank - given[id].rank for id, axis in cut.axes.items()}
    rest = [((1,) * (rank - t.rank) + t.max_dims)[axis] for id, t in given.items() if id not in cut.axes]
    return axis if not others and all(n == 1 for n in rest) else None

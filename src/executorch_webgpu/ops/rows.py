"""Whether rows are independent of each other: what an operator makes of tensors that are cut along an axis.

Rows are independent along an axis where cutting, joining or permuting the inputs along their axes does the same to the
outputs along theirs, row for row, while all that is not cut stays as it is. A rule answers for one ``Cut``, as the
batching rules of ``vmap`` do for one choice of axes; it is called like the plan function of its operator, with the cut
in place of the planner. It returns the axis of every output, or a tuple with one for each of them (None: that output
stays whole), or None: rows are not independent of each other.

A rule speaks of maximum dims: only the number of rows is taken to change, and a size of 1 may become several rows. It
speaks of activations: that columns of a constant matrix could be cut, too, is not stated. A SymInt holds the number of
rows if its value, by the trait ``sizes``, is the size of a cut axis.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .shapes import normalize_dim
from .values import IntLike, SymInt, Tensor

RowAxes = tuple[int | None, ...]
RowRule = Callable[..., "int | RowAxes | None"]


@dataclass(frozen=True)
class Cut:
    """Which tensors of a call are cut into rows, and along which axis, by id; all others stay whole.

    All have the same number of rows, and ``counts`` are the ids of the SymInts that hold it.
    """

    axes: Mapping[int, int]
    counts: Collection[int] = ()

    def only(self, x: Tensor) -> int | None:
        """The axis of ``x``, if it alone is cut, and no number follows."""
        return self.together([x])

    def together(self, tensors: Sequence[Tensor]) -> int | None:
        """The one axis of all of these, if nothing else is cut, and no number follows."""
        (axis, *others) = {self.axes.get(t.id) for t in tensors} or (None,)
        alone = self.axes.keys() == {t.id for t in tensors} and not self.counts
        return axis if alone and not others else None


# -- rules that several operators share -------------------------------------------------------------------------------


def each_row(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    """Every row along the last dimension for itself, whatever the dimensions before it are.

    For operators whose other arguments name no dimension: passes move views past them.
    """
    axis = cut.only(x)
    return axis if axis != x.rank - 1 else None


def any_axis(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    """Every element of the first argument stays in its place."""
    return cut.only(x)


def broadcast(cut: Cut, *args: Any) -> int | None:
    """Elements of all tensors that come together by NumPy's rule, and nothing else."""
    out, given = args[-1], {t.id: t for t in args[:-1] if isinstance(t, Tensor)}
    if cut.counts or not cut.axes.keys() <= given.keys() or any(t.rank > out.rank for t in given.values()):
        return None
    (axis, *others) = {axis + out.rank - given[id].rank for id, axis in cut.axes.items()} or {None}
    if axis is None or others:
        return None
    dims = {id: ((1,) * (out.rank - t.rank) + t.max_dims)[axis] for id, t in given.items()}
    alike = len({dims[id] for id in cut.axes}) == 1
    return axis if alike and all(n == 1 for id, n in dims.items() if id not in cut.axes) else None


def other_dims(cut: Cut, x: Tensor, dim: int | Sequence[int] | None, *rest: Any) -> int | None:
    """Every dimension but ``dim``, which may be several, or all."""
    axis = cut.only(x)
    dims = range(x.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    return None if axis in {normalize_dim(d, x.rank) for d in dims} else axis


def permuted(cut: Cut, x: Tensor, order: Sequence[int], *rest: Any) -> int | None:
    """Dimension i of the result is dimension ``order[i]``."""
    axis = cut.only(x)
    places = [normalize_dim(d, x.rank) for d in order]
    return places.index(axis) if axis in places else None


def without(axis: int | None, gone: Collection[int]) -> int | None:
    """Where a dimension is once some are gone, of which it must be none."""
    return None if axis is None or axis in gone else axis - sum(0 <= g < axis for g in set(gone))


def repeated(cut: Cut, x: Tensor, sizes: Sequence[IntLike], kept: int, out: Tensor) -> int | None:
    """Where dimensions repeat, new ones in front: those whose size is said to be ``kept``, and the number of rows.

    Of what is cut, the size may be the number of rows as well, unless ``kept`` is a number of repetitions.
    """
    new = out.rank - x.rank
    if not cut.axes:  # all rows are the same
        return counted(cut, sizes)
    axis = cut.axes.get(x.id)
    if axis is None or len(cut.axes) > 1 or not 0 <= new == len(sizes) - x.rank:
        return None
    counts = [place for place, size in enumerate(sizes) if isinstance(size, SymInt) and size.id in cut.counts]
    if counts:
        return axis + new if kept == -1 and counts == [axis + new] else None
    return axis + new if sizes[axis + new] == kept else None


def counted(cut: Cut, sizes: Sequence[IntLike]) -> int | None:
    """Of a result whose elements are alike along every dimension: where its size is the number of rows."""
    found = [axis for axis, size in enumerate(sizes) if isinstance(size, SymInt) and size.id in cut.counts]
    return found[0] if len(found) == 1 and not cut.axes else None

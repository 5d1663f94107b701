"""What sorting means, in NumPy: NaN is above all numbers, and equals keep their order."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def order_of(x: Array, dim: int, descending: bool) -> Array:
    """The indices that sort ``x`` along ``dim``."""
    if x.ndim == 0:
        return np.zeros((), np.int64)
    if not descending:
        return np.argsort(x, axis=dim, kind="stable")
    backwards = np.flip(np.argsort(np.flip(x, dim), axis=dim, kind="stable"), dim)
    return x.shape[dim] - 1 - backwards


def sort_reference(x: Array, dim: int = -1, descending: bool = False) -> tuple[Array, Array]:
    """Sorted values and where they were."""
    order = order_of(x, dim, descending)
    return (np.take_along_axis(x, order, dim) if x.ndim else np.array(x)), order


def topk_reference(x: Array, k: int, dim: int, largest: bool, sort: bool) -> tuple[Array, Array]:
    """The ``k`` largest or smallest values, sorted, and where they are; of equals, the first ones."""
    values, order = sort_reference(x, dim, largest)
    if x.ndim == 0:
        return values, order
    if not 0 <= k <= x.shape[dim]:
        raise IndexError(f"{k} of {x.shape[dim]} elements are asked for")
    part = np.arange(k)
    return np.take(values, part, axis=dim), np.take(order, part, axis=dim)


def kthvalue_reference(x: Array, k: int, dim: int, keepdim: bool) -> tuple[Array, Array]:
    """The ``k``-th smallest value, counted from 1, and where it is; of equals, in their order."""
    values, order = sort_reference(x, dim)
    if x.ndim == 0:
        return values, order
    if not 1 <= k <= x.shape[dim]:
        raise IndexError(f"element {k} of {x.shape[dim]} is asked for")
    return _at(values, np.full((), k - 1), dim, keepdim), _at(order, np.full((), k - 1), dim, keepdim)


def median_reference(x: Array, dim: int, keepdim: bool, ignore_nan: bool = False) -> tuple[Array, Array]:
    """The lower one of those in the middle, and where it is; the first NaN if there is one, unless that is ignored."""
    if x.ndim == 0:
        return np.array(x), np.zeros((), np.int64)
    values, order = sort_reference(x, dim)
    length = x.shape[dim]
    if not length:
        raise IndexError("the median of nothing is asked for")
    numbers = (values == values).sum(axis=dim, keepdims=True)
    middle = (np.maximum(numbers, 1) - 1) // 2
    if not ignore_nan:
        middle = np.where(numbers == length, middle, numbers)
    found = [np.take_along_axis(a, middle, dim) for a in (values, order)]
    first, second = found if keepdim else [a.squeeze(dim) for a in found]
    return first, second


def median_of_all_reference(x: Array, ignore_nan: bool = False) -> Array:
    """The median of all elements; of nothing, NaN."""
    flat = x.reshape(-1)
    return median_reference(flat, 0, False, ignore_nan)[0] if flat.size else np.asarray(np.nan)


def mode_reference(x: Array, dim: int, keepdim: bool) -> tuple[Array, Array]:
    """The most frequent value, or the smallest of these, and where the last of it is; no NaN equals another."""
    if x.ndim == 0:
        return np.array(x), np.zeros((), np.int64)
    values, order = (np.moveaxis(a, dim, -1) for a in sort_reference(x, dim))
    length = x.shape[dim]
    if not length:
        raise IndexError("the mode of nothing is asked for")
    same = values[..., 1:] == values[..., :-1]
    run = np.ones(values.shape, np.int64)
    for i in range(1, length):
        run[..., i] = np.where(same[..., i - 1], run[..., i - 1] + 1, 1)
    # The first longest run is that of the smallest value, and its largest count stands at its end.
    best = np.argmax(run, axis=-1)[..., None]
    found = [np.moveaxis(np.take_along_axis(a, best, -1), -1, dim) for a in (values, order)]
    first, second = found if keepdim else [a.squeeze(dim) for a in found]
    return first, second


def _at(x: Array, place: Array, dim: int, keepdim: bool) -> Array:
    return np.take(x, place[None] if keepdim else place, axis=dim)

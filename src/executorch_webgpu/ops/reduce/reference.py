"""What reductions mean, in NumPy: float64 for floats, exact for integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .axes import Axes

Array = np.ndarray
# Numbers of torch's dtypes that are not floats.
_INTEGERS = {0: np.uint8, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.int64, 11: np.bool_}


def numpy_axes(x: Array, dims: Axes) -> tuple[int, ...] | None:
    """Axes for NumPy; no dims are all of them, and a scalar has a dimension 0 that it does not have for NumPy."""
    given = [dims] if isinstance(dims, int) else list(dims or [])
    return tuple(given) if given and x.ndim else None


def count(x: Array, dims: Axes) -> int:
    """How many elements make one of the result."""
    axes = numpy_axes(x, dims)
    return x.size if axes is None else math.prod(x.shape[a] for a in axes)


def cast(x: Array, dtype: Any) -> Array:
    """``x`` in a dtype of torch's: integers and bools as such, anything else as it is."""
    wanted = _INTEGERS.get(dtype) if isinstance(dtype, int) else None
    if wanted is None:
        return x
    with np.errstate(invalid="ignore"):
        return (x != 0) if wanted is np.bool_ else np.asarray(x).astype(wanted)


def sum_reference(x: Array, dims: Axes = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """The sum over ``dims``, of nothing 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(cast(x, dtype).sum(axis=numpy_axes(x, dims), keepdims=keepdim))


def nansum_reference(x: Array, dims: Axes, keepdim: bool, dtype: Any = None) -> Array:
    """The sum over ``dims`` of what is not NaN."""
    return sum_reference(np.where(x != x, 0, x), dims, keepdim, dtype)


def mean_reference(x: Array, dims: Axes = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """The mean over ``dims``, of nothing NaN."""
    total = np.asarray(sum_reference(x, dims, keepdim), np.float64)
    return total / count(x, dims) if count(x, dims) else total * np.nan


def prod_reference(x: Array, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """The product along ``dim``, of nothing 1; integers wrap."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(cast(x, dtype).prod(axis=numpy_axes(x, dim), keepdims=keepdim))


def amax_reference(x: Array, dims: Axes = None, keepdim: bool = False) -> Array:
    """The largest element, or NaN if there is one."""
    return np.asarray(x.max(axis=numpy_axes(x, dims), keepdims=keepdim))


def amin_reference(x: Array, dims: Axes = None, keepdim: bool = False) -> Array:
    """The smallest element, or NaN if there is one."""
    return np.asarray(x.min(axis=numpy_axes(x, dims), keepdims=keepdim))


def place_reference(place: Callable[..., Any]) -> Callable[..., Any]:
    """Where the first extreme lies, by ``np.argmax`` or ``np.argmin``."""

    def reference(x: Array, dim: int | None, keepdim: bool) -> Array:
        found = place(x, axis=None if dim is None or x.ndim == 0 else dim, keepdims=keepdim)
        return np.asarray(found, np.int64)

    return reference


def any_reference(x: Array, dims: Axes = None, keepdim: bool = False) -> Array:
    """Whether an element is not 0; NaN is not."""
    return np.asarray(np.any(x != 0, axis=numpy_axes(x, dims), keepdims=keepdim))


def all_reference(x: Array, dims: Axes = None, keepdim: bool = False) -> Array:
    """Whether no element is 0."""
    return np.asarray(np.all(x != 0, axis=numpy_axes(x, dims), keepdims=keepdim))


def count_nonzero_reference(x: Array, dims: Axes = None) -> Array:
    """How many elements are not 0."""
    return np.asarray((x != 0).sum(axis=numpy_axes(x, dims)), np.int64)


def var_reference(x: Array, dims: Axes, correction: float | None, keepdim: bool) -> Array:
    """The sum of squares of distances to the mean, over the count less ``correction`` (None: 1), but at least 0."""
    wide, axes = np.asarray(x, np.float64), numpy_axes(x, dims)
    with np.errstate(all="ignore"):
        mean = wide.sum(axis=axes, keepdims=True) / np.float64(count(x, dims))
        squares = np.square(wide - mean).sum(axis=axes, keepdims=keepdim)
        return np.asarray(squares / np.float64(max(count(x, dims) - (1 if correction is None else correction), 0)))


def norm_reference(x: Array, order: float | None, dims: Axes = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """(sum(|x|^order))^(1/order), by default of order 2; of infinite orders the extremes, of 0 a count."""
    size, axes = np.abs(np.asarray(x, np.float64)), numpy_axes(x, dims)
    order = 2.0 if order is None else float(order)
    if math.isinf(order):
        return np.asarray((size.max if order > 0 else size.min)(axis=axes, keepdims=keepdim))
    with np.errstate(all="ignore"):
        if order == 0:
            return np.asarray((size != 0).sum(axis=axes, keepdims=keepdim), np.float64)
        return np.asarray((size**order).sum(axis=axes, keepdims=keepdim) ** (1 / order))


def logsumexp_reference(x: Array, dims: Axes, keepdim: bool) -> Array:
    """log(sum(exp(x))), of nothing -inf, without overflow."""
    wide, axes = np.asarray(x, np.float64), numpy_axes(x, dims)
    largest = wide.max(axis=axes, keepdims=True, initial=-np.inf)
    largest = np.where(np.isinf(largest), 0.0, largest)
    with np.errstate(all="ignore"):
        total = np.log(np.exp(wide - largest).sum(axis=axes, keepdims=True)) + largest
    return total if keepdim else total.squeeze(tuple(range(x.ndim)) if axes is None else axes)

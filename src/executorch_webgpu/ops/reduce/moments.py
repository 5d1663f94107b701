"""Variances, deviations, norms and log-sum-exp; of floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..plan import Planner
from ..registry import op
from ..values import Tensor
from . import reference
from .axes import Axes, all_sizes, checked_axes, reduced_rows, reduced_sizes, two_sizes
from .passes import Outs, Reduction, dispatch
from .sums import is_float, keep_nan, nonzero, reduce_to

Array = np.ndarray


def _check_floats(planner: Planner, name: str, *tensors: Tensor) -> None:
    planner.check(all(is_float(t) for t in tensors), f"{name} takes and gives floats, not {list(tensors)}")


# -- moments ----------------------------------------------------------------------------------------------------------


def _moments(planner: Planner, name: str, x: Tensor, dims: Axes, correction: float | None, outs: list[Tensor]) -> None:
    """The variance or deviation, and the mean if there are two results. Merged as by Chan, Golub and LeVeque (1979)."""
    _check_floats(planner, name, x, *outs)
    planner.check(len({o.dtype for o in outs}) == 1, f"{name} gives tensors of one dtype, not {outs}")
    axes = checked_axes(planner, name, x, dims)
    for out in outs:
        planner.resize(out)
    finish = "sqrt(v)" if name == "std" else "v"
    less = 1.0 if correction is None else float(correction)
    dispatch(planner, Reduction("var", finish=finish, p=less), x, axes, Outs(*outs))


def _register_moments(name: str, finish: Callable[[Any], Any]) -> None:
    """Operators named ``var`` or ``std``; ``finish`` makes the result of a variance."""

    def by_correction(x: Array, dims: Axes, correction: float | None, keepdim: bool) -> Any:
        return finish(reference.var_reference(x, dims, correction, keepdim))

    def by_flag(x: Array, dims: Axes, unbiased: bool, keepdim: bool) -> Any:
        return by_correction(x, dims, int(unbiased), keepdim)

    def with_mean(compute: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, dims, how, keepdim: (
            compute(x, dims, how, keepdim),
            reference.mean_reference(x, dims, keepdim),
        )

    def rows(cut: Any, x: Tensor, dims: Axes, how: Any, keepdim: bool, *rest: Any) -> int | None:
        return reduced_rows(cut, x, dims, keepdim)

    def sizes(s: Any, x: Tensor, dims: Axes, how: Any, keepdim: bool, *rest: Any) -> Any:
        return reduced_sizes(s, x, dims, keepdim)

    def sizes_of_two(s: Any, x: Tensor, dims: Axes, how: Any, keepdim: bool, *rest: Any) -> Any:
        return two_sizes(s, x, dims, keepdim)

    @op(f"aten.{name}.correction", reference=by_correction, sizes=sizes, rows=rows)
    def correction(
        planner: Planner, x: Tensor, dims: list[int] | None, correction: float | None, keepdim: bool, out: Tensor
    ) -> None:
        """Variance or standard deviation of x over ``dims``; divided by the count less ``correction``, or less 1."""
        _moments(planner, name, x, dims, correction, [out])

    @op(f"aten.{name}.dim", reference=by_flag, sizes=sizes, rows=rows)
    def unbiased(
        planner: Planner, x: Tensor, dims: list[int] | None, unbiased: bool, keepdim: bool, out: Tensor
    ) -> None:
        """Variance or standard deviation of x over ``dims``; with ``unbiased`` the divisor is the count less 1."""
        _moments(planner, name, x, dims, float(unbiased), [out])

    @op(f"aten.{name}.default", reference=lambda x, unbiased: by_flag(x, None, unbiased, False), sizes=all_sizes)
    def over_all(planner: Planner, x: Tensor, unbiased: bool, out: Tensor) -> None:
        """Variance or standard deviation of all elements of x."""
        _moments(planner, name, x, None, float(unbiased), [out])

    @op(f"aten.{name}_mean.correction", reference=with_mean(by_correction), sizes=sizes_of_two, rows=rows)
    def correction_mean(
        planner: Planner, x: Tensor, dims: list[int] | None, correction: float | None, keepdim: bool, outs: list[Tensor]
    ) -> None:
        """Variance or standard deviation of x over ``dims``, and the mean."""
        planner.check(len(outs) == 2, f"{name}_mean has two results, not {len(outs)}")
        _moments(planner, name, x, dims, correction, outs)

    @op(f"aten.{name}_mean.dim", reference=with_mean(by_flag), sizes=sizes_of_two, rows=rows)
    def unbiased_mean(
        planner: Planner, x: Tensor, dims: list[int] | None, unbiased: bool, keepdim: bool, outs: list[Tensor]
    ) -> None:
        """Variance or standard deviation of x over ``dims``, and the mean."""
        planner.check(len(outs) == 2, f"{name}_mean has two results, not {len(outs)}")
        _moments(planner, name, x, dims, float(unbiased), outs)


_register_moments("var", lambda variance: variance)
_register_moments("std", np.sqrt)


# -- norms ------------------------------------------------------------------------------------------------------------


def _norm_of(order: float, x: Tensor) -> Reduction:
    """What is reduced for a norm of ``order``."""
    if math.isinf(order):
        return Reduction("max" if order > 0 else "min", of="abs(v)")
    if order == 0:
        return Reduction("sum", of=f"select(0.0, 1.0, {nonzero(x)})")
    if order == 1:
        return Reduction("sum", of="abs(v)")
    if order == 2:
        return Reduction("sum", of="v * v", finish="sqrt(v)")
    size = abs(order)
    # Some drivers' pow loses NaN, and gives 0 for a negative power of 0.
    power, root = ("pow(abs(v), p)", "pow(v, p)") if order > 0 else ("1.0 / pow(abs(v), p)", "1.0 / pow(v, p)")
    return Reduction("sum", of=keep_nan(power), finish=keep_nan(root), p=size, scale=1 / size)


def _norm(planner: Planner, x: Tensor, order: float | None, dims: Axes, out: Tensor) -> None:
    _check_floats(planner, "norm", x, out)
    order = 2.0 if order is None else float(order)
    planner.check(not math.isnan(order), "norm: the order is not a number")
    length = math.prod(x.dims[a] for a in checked_axes(planner, "norm", x, dims))
    needed = order < 0 or math.isinf(order)
    planner.check(length > 0 or not needed or out.numel == 0, f"norm: {x} has no elements for the order {order}")
    reduce_to(planner, "norm", _norm_of(order, x), x, dims, out)


def _norm_sizes(s: Any, x: Tensor, order: Any, dims: Axes, keepdim: bool, *rest: Any) -> Any:
    return reduced_sizes(s, x, dims, keepdim)


def _norm_rows(cut: Any, x: Tensor, order: Any, dims: Axes, keepdim: bool, *rest: Any) -> int | None:
    return reduced_rows(cut, x, dims, keepdim)


@op(
    "aten.linalg_vector_norm.default",
    "aten.norm.ScalarOpt_dim_dtype",
    reference=reference.norm_reference,
    sizes=_norm_sizes,
    rows=_norm_rows,
)
def vector_norm(
    planner: Planner, x: Tensor, order: float | None, dims: list[int] | None, keepdim: bool, dtype: Any, out: Tensor
) -> None:
    """Norm of x over ``dims`` of any order, by default 2."""
    _norm(planner, x, order, dims, out)


@op("aten.norm.ScalarOpt_dim", reference=reference.norm_reference, sizes=_norm_sizes, rows=_norm_rows)
def norm_dims(planner: Planner, x: Tensor, order: float | None, dims: list[int], keepdim: bool, out: Tensor) -> None:
    """Norm of x over ``dims`` of any order, by default 2."""
    _norm(planner, x, order, dims, out)


@op("aten.norm.Scalar", reference=lambda x, order: reference.norm_reference(x, order), sizes=all_sizes)
def norm_all(planner: Planner, x: Tensor, order: float, out: Tensor) -> None:
    """Norm of all elements of x of any order."""
    _norm(planner, x, order, None, out)


@op("aten.norm.ScalarOpt_dtype", reference=lambda x, order, dtype: reference.norm_reference(x, order), sizes=all_sizes)
def norm_all_dtype(planner: Planner, x: Tensor, order: float | None, dtype: Any, out: Tensor) -> None:
    """Norm of all elements of x of any order, by default 2."""
    _norm(planner, x, order, None, out)


@op("aten.logsumexp.default", reference=reference.logsumexp_reference, sizes=reduced_sizes, rows=reduced_rows)
def logsumexp(planner: Planner, x: Tensor, dims: list[int], keepdim: bool, out: Tensor) -> None:
    """log(sum(exp(x))) over ``dims``, without overflow; of nothing -inf."""
    planner.check(is_float(out), f"logsumexp gives floats, not {out}")
    reduce_to(planner, "logsumexp", Reduction("lse"), x, dims, out)

"""Resampling of one to three dimensions: nearest, linear and cubic, in sizes or by scale factors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Planner
from ..pool.window import check_input, spatial
from ..registry import op
from ..rows import Cut, other_dims
from ..shapes import ceil_div
from ..sizes import Found, Size, Sizes
from ..values import Dims, IntLike, SymInt, Tensor
from . import reference as resampled

Array = np.ndarray
WORKGROUP = 128  # fewer workgroups: a device begins about one a clock
Scales = Sequence[float | None] | None


@dataclass(frozen=True)
class Mode:
    """How elements between others come about. ``corners``: whether operators say what lies on what."""

    kernel: str
    mode: str
    corners: bool
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")


NEAREST = Mode("resample/resample", "nearest", False, ("float32", "float16", "bfloat16", "uint8"))
EXACT = Mode("resample/resample", "nearest-exact", False, ("float32", "float16", "bfloat16", "uint8"))
LINEAR = Mode("resample/resample", "linear", True)
CUBIC = Mode("resample/resample", "cubic", True)
LINEAR_AA = Mode("resample/antialias", "linear", True)
CUBIC_AA = Mode("resample/antialias", "cubic", True)

# By name: the mode, and how many dimensions.
OPERATORS = {
    "upsample_nearest1d": (NEAREST, 1),
    "upsample_nearest2d": (NEAREST, 2),
    "upsample_nearest3d": (NEAREST, 3),
    "_upsample_nearest_exact1d": (EXACT, 1),
    "_upsample_nearest_exact2d": (EXACT, 2),
    "_upsample_nearest_exact3d": (EXACT, 3),
    "upsample_linear1d": (LINEAR, 1),
    "upsample_bilinear2d": (LINEAR, 2),
    "upsample_trilinear3d": (LINEAR, 3),
    "upsample_bicubic2d": (CUBIC, 2),
    "_upsample_bilinear2d_aa": (LINEAR_AA, 2),
    "_upsample_bicubic2d_aa": (CUBIC_AA, 2),
}


def step(size: int, out: int, scale: float | None, *, corners: bool) -> float:
    """Elements of the input between two of the output, as torch computes it."""
    if corners:
        return (size - 1) / (out - 1) if out > 1 else 0.0
    return 1 / scale if scale is not None and scale > 0 else size / out


def _steps(sizes: Sequence[int], outs: Sequence[int], scales: Scales, mode: Mode, corners: bool) -> list[float]:
    """Of some modes, torch does not ask for the scale where a size stays, or is doubled."""
    given = scales if scales is not None else [None] * len(outs)
    images = mode is NEAREST and len(outs) == 2
    copies = images or mode in (LINEAR, LINEAR_AA, CUBIC_AA)

    def of(size: int, out: int, scale: float | None) -> float:
        if copies and size == out:
            return 1.0
        return 0.5 if images and 2 * size == out else step(size, out, scale, corners=corners)

    return [of(*each) for each in zip(sizes, outs, given, strict=True)]


def scaled(size: Size, scale: float) -> Size | None:
    """A size times a scale factor, cut off; of one that is not known, only itself."""
    if isinstance(size, int):
        found = size * scale if math.isfinite(scale) else -1.0
        return int(found) if abs(found) < 2**31 else None
    return size if scale == 1 else None


def out_sizes(s: Sizes, x: Tensor, size: Sequence[IntLike] | None, factors: Scales, n: int) -> Found | None:
    """Those of ``x``, at last the ``n`` that are asked for, or those of ``x`` by factors."""
    if x.rank != n + 2:
        return None
    kept, last = s.of(x)[:2], s.of(x)[2:]
    if size is not None:
        return (*kept, *map(s.value, size)) if len(size) == n else None
    if factors is None or len(factors) != n or None in factors:
        return None
    return (
        *kept,
        *(scaled(length, factor) for length, factor in zip(last, factors, strict=True) if factor is not None),
    )


def resample_rows(cut: Cut, x: Tensor, *rest: Any) -> int | None:
    return other_dims(cut, x, range(2, x.rank))


def _reference(
    x: Array, size: Sequence[int] | None, factors: Scales, scales: Scales, mode: Mode, corners: bool
) -> Array:
    sizes = x.shape[2:]
    if size is None:
        assert factors is not None
        size = [int(length * (factor or 1)) for length, factor in zip(sizes, factors, strict=True)]
    steps = _steps(sizes, size, scales, mode, corners)
    each = list(zip(size, sizes, steps, strict=True))
    if not mode.corners:
        exact = mode is EXACT
        return resampled.take_nearest(x, [resampled.nearest_index(*how, exact=exact) for how in each])
    if mode.kernel == "resample/antialias":
        matrices = [resampled.antialias_matrix(*how, cubic=mode is CUBIC_AA) for how in each]
    else:
        matrix = resampled.linear_matrix if mode is LINEAR else resampled.cubic_matrix
        matrices = [matrix(*how, corners=corners) for how in each]
    return resampled.apply_matrices(x, matrices)


def _resample(planner: Planner, name: str, x: Tensor, dims: Dims, scales: Scales, corners: bool, out: Tensor) -> None:
    mode, n = OPERATORS[name]
    planner.resize(out, dims)
    if 0 in x.dims[:2]:
        return
    planner.check(min(dims[2:]) > 0, f"{name}: {x} in sizes {list(dims[2:])} has no elements")
    steps = _steps(x.dims[2:], dims[2:], scales, mode, corners)
    template: dict[str, Any] = {"mode": mode.mode, "dtype": x.dtype}
    if mode.kernel == "resample/resample":
        template |= {"n": n, "corners": corners}
    planner.dispatch(
        mode.kernel,
        planner.grid_1d(ceil_div(out.numel, 4), WORKGROUP),
        {"x": x, "out": out},
        {
            "x_dims": spatial(x.dims, n, 1),
            "out_dims": spatial(dims, n, 1),
            "scale": [*reversed(steps), *(1.0,) * (4 - n)],
            "n": out.numel,
        },
        overrides={"wg_size": WORKGROUP},
        template=template,
    )


def _plan(
    planner: Planner,
    name: str,
    x: Tensor,
    size: Sequence[IntLike] | None,
    scales: Scales,
    corners: bool,
    out: Tensor,
) -> None:
    mode, n = OPERATORS[name]
    planner.check(
        x.dtype == out.dtype and x.dtype in mode.dtypes,
        f"{name} takes {', '.join(mode.dtypes)} and gives the same, not {x} into {out}",
    )
    planner.check(x.rank == n + 2, f"{name}: {x} must have {n + 2} dimensions")
    check_input(planner, name, x, n)
    counts = (None if size is None else len(size), None if scales is None else len(scales))
    planner.check(
        counts in ((n, None), (None, n), (n, n)) and (size is not None or all(f is not None for f in scales or ())),
        f"{name}: there must be {n} sizes, or {n} scale factors, not {size} and {scales}",
    )
    if size is not None and planner.building and any(isinstance(v, SymInt) and v.value == 0 for v in size):
        dims = out.max_dims  # a size that an input holds is not known yet at load
        planner.values(size)
        planner.check(len(dims) == n + 2, f"{name}: {out} must have {n + 2} dimensions")
    else:
        sized = planner.dims_of(out) if size is not None or _finite(x, scales) else ()
        planner.check(len(sized) == n + 2 and min(sized[2:]) >= 0, f"{name}: {x} cannot be scaled by {scales}")
        dims = sized
    _resample(planner, name, x, dims, scales, corners, out)


def _finite(x: Tensor, factors: Scales) -> bool:
    return all(f is not None and scaled(n, f) is not None for n, f in zip(x.dims[2:], factors or (), strict=True))


def _register(name: str) -> None:
    mode, n = OPERATORS[name]
    corners: dict[str, Any] = {"align_corners": bool} if mode.corners else {}
    floats = ", ".join(mode.dtypes)

    def split(*args: Any) -> tuple[bool, Sequence[Any]]:
        """Whether corners lie on each other, and the arguments that follow."""
        return (bool(args[0]), args[1:]) if mode.corners else (False, args)

    def vec_reference(x: Array, size: Sequence[int] | None, *how: Any) -> Array:
        aligned, (factors,) = split(*how)
        return _reference(x, size, factors, factors if size is None else None, mode, aligned)

    def vec_sizes(s: Sizes, x: Tensor, size: Any, *how: Any) -> Found | None:
        _, (factors, _) = split(*how)
        return out_sizes(s, x, size, factors, n)

    def vec(planner: Planner, x: Tensor, size: Sequence[IntLike] | None, *how: Any) -> None:
        aligned, (factors, out) = split(*how)
        _plan(planner, name, x, size, factors if size is None else None, aligned, out)

    vec.__doc__ = f"""``x`` [N, C, ...] in ``size``, or in its sizes times ``scale_factors``; {floats}."""
    parameters = {"x": Tensor, "size": list[IntLike] | None, **corners, "scale_factors": list[float] | None}
    register = op(f"aten.{name}.vec", reference=vec_reference, sizes=vec_sizes, rows=resample_rows)
    register(_with_signature(vec, {**parameters, "out": Tensor}))

    def plain_reference(x: Array, size: Sequence[int], *how: Any) -> Array:
        aligned, scales = split(*how)
        return _reference(x, size, None, scales, mode, aligned)

    def plain_sizes(s: Sizes, x: Tensor, size: Any, *how: Any) -> Found | None:
        return out_sizes(s, x, size, None, n)

    def plain(planner: Planner, x: Tensor, size: Sequence[IntLike], *how: Any) -> None:
        aligned, (*scales, out) = split(*how)
        _plan(planner, name, x, size, scales, aligned, out)

    plain.__doc__ = f"""``x`` [N, C, ...] in ``size``; steps are by scales, or else by the ratio of sizes; {floats}."""
    scales = {f"scales_{axis}" if n > 1 else "scales": float | None for axis in "dhw"[3 - n :]}
    register = op(f"aten.{name}.default", reference=plain_reference, sizes=plain_sizes, rows=resample_rows)
    register(_with_signature(plain, {"x": Tensor, "size": list[IntLike], **corners, **scales, "out": Tensor}))


def _with_signature(plan: Callable[..., None], hints: dict[str, Any]) -> Callable[..., None]:
    """``plan`` with these arguments after the planner, whose number depends on the operator."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    all_hints = {"planner": Planner, **hints}
    signature = inspect.Signature([inspect.Parameter(each, kind, annotation=hint) for each, hint in all_hints.items()])
    plan.__signature__ = signature  # type: ignore[attr-defined]
    plan.__annotations__ = all_hints
    return plan


for _name in OPERATORS:
    _register(_name)

"""Which kernels pool: reductions of equal parts, one whose neighbours share loads, or one for any windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..plan import Binding, Planner
from ..reduce.passes import WORDS, Outs, Pass, Reduction, dispatch_passes, prepare, prepare_finish
from ..shapes import ceil_div
from ..values import Scratch, Tensor
from .window import Windows, spatial

WORKGROUP = 256  # fewer workgroups: a device begins about one a clock
OVERRIDES = {"wg_size": WORKGROUP}
LARGE = 64  # elements of windows that are reduced, at least
UNROLLED = 64  # places of windows that are unrolled, at most
TALL = 2  # rows that an invocation takes where their windows overlap
EXACT = 2**24  # integers that float32 holds


@dataclass(frozen=True)
class Pooling:
    """What is computed of ``x``, whose last ``n`` dimensions become windows: sliding ones, or None for adaptive ones.

    ``kind`` is one of pool.wgsl; ``divisor`` (0: none) and ``padded`` are those of an average.
    """

    x: Tensor
    out: Tensor
    n: int
    found: Windows | None
    kind: str
    indices: Tensor | None = None
    divisor: int = 0
    padded: int = 0

    @property
    def template(self) -> dict[str, Any]:
        return {"kind": self.kind, "indices": self.indices is not None, "dtype": self.x.dtype}


def dispatch_pool(planner: Planner, pooling: Pooling) -> None:
    """Pool by the first kernel that can."""
    ways = _ways(pooling)
    for how in ways:  # live widths choose among them
        planner.prepare(_KERNELS["rows"], template=pooling.template | how, overrides=OVERRIDES)
    rows = next((how for how in ways if _fits(pooling, how)), None)
    routes = {"reduction": _is_reduction(pooling), "rows": rows is not None, "windows": True}
    other = "rows" if rows is not None else "windows"
    if planner.building and _may_be_reduction(pooling) and not _is_always_reduction(pooling):
        how = rows or {"adaptive": pooling.found is None}
        # Live sizes may take the other route.
        planner.prepare(_KERNELS[other], template=pooling.template | how, overrides=OVERRIDES)
        _prepare_reduction(planner, pooling)
    route = planner.choose("pool", routes)
    if route == "reduction":
        dispatch_passes(planner, _reduction(pooling), pooling.x, _passes(pooling), Outs(pooling.out))
    else:
        _dispatch(planner, pooling, route, (rows if route == "rows" else None) or {"adaptive": pooling.found is None})


_KERNELS = {"rows": "pool/rows", "windows": "pool/pool"}


def _dispatch(planner: Planner, pooling: Pooling, route: str, how: dict[str, Any]) -> None:
    x, out, n, found = pooling.x, pooling.out, pooling.n, pooling.found
    bindings: dict[str, Binding] = {"x": x, "out": out}
    if pooling.indices is not None:
        bindings["indices"] = pooling.indices
    params: dict[str, Any] = {"x_dims": spatial(x.dims, n, 1), "out_dims": spatial(out.dims, n, 1)}
    units = ceil_div(out.numel, 4)
    if route == "rows":
        height = out.dims[-2] if n > 1 else 1
        units = units // height * ceil_div(height, how["tall"]) if how["tall"] > 1 and height else units
        params["units"] = units
    else:
        params["n"] = out.numel
    if found is not None:
        params["stride"], params["padding"] = spatial(found.stride, n, 1), spatial(found.padding, n, 0)
        if route == "windows":
            params["kernel"], params["dilation"] = spatial(found.kernel, n, 1), spatial(found.dilation, n, 1)
    if pooling.kind == "average":
        params |= {"divisor": pooling.divisor, "padded": pooling.padded}
    planner.dispatch(
        _KERNELS[route],
        planner.grid_1d(units, WORKGROUP),
        bindings,
        params,
        overrides=OVERRIDES,
        template=pooling.template | how,
    )


def _ways(pooling: Pooling) -> list[dict[str, Any]]:
    """Templates of small windows, the fastest first: rows of quads on both sides, of out, or any. Else none."""
    tall, low = _unrolled(pooling, TALL), _unrolled(pooling, 1)
    if pooling.found is None or tall is None or low is None:
        return []
    ahead = -pooling.found.padding[-1] % 4
    whole = [{**tall, "whole": True, "ahead": None}] if tall["tall"] > 1 else []
    return [{**tall, "whole": True, "ahead": ahead}, *whole, {**low, "whole": False, "ahead": None}]


def _fits(pooling: Pooling, how: dict[str, Any]) -> bool:
    whole = not how["whole"] or pooling.out.dims[-1] % 4 == 0
    return whole and (how["ahead"] is None or pooling.x.dims[-1] % 4 == 0)


def _unrolled(pooling: Pooling, tall: int) -> dict[str, Any] | None:
    """The template of small windows, whose places are constants; None of others.

    An invocation takes ``tall`` rows at most: one where windows of neighbouring rows share nothing, or have places.
    """
    found, n = pooling.found, pooling.n
    if found is None or math.prod(found.kernel) > UNROLLED:
        return None
    kernel, dilation = spatial(found.kernel, n, 1), spatial(found.dilation, n, 1)
    stride = spatial(found.stride, n, 1)

    def taken(axis: int, count: int) -> list[int]:
        steps = {j * stride[axis] + k * dilation[axis] for j in range(count) for k in range(kernel[axis])}
        return sorted(steps)

    places, lines = taken(0, 4), taken(1, tall)
    if pooling.indices is not None or n == 1 or len(lines) == tall * kernel[1]:
        tall, lines = 1, taken(1, 1)
    if max(places[-1], lines[-1], *dilation) > 2**16 or len(places) * len(lines) * kernel[2] > 4 * UNROLLED:
        return _unrolled(pooling, 1) if tall > 1 else None
    return {
        "kernel": kernel[:3],
        "dilation": dilation[:3],
        "stride": stride[:2],
        "places": places,
        "tall": tall,
        "lines": lines,
    }


# -- windows that lie side by side and cover everything, as reductions ------------------------------------------------


def _sizes(pooling: Pooling) -> list[tuple[int, int, int]]:
    """Of each axis, its size, the number of windows, and the elements of one, or 0 if windows are not equal parts."""
    x, out, n, found = pooling.x, pooling.out, pooling.n, pooling.found

    def part(axis: int, size: int, parts: int) -> int:
        if parts == 0 or size % parts:
            return 0
        if found is None:
            return size // parts
        kernel = found.kernel[axis]
        apart = found.stride[axis] == kernel or parts == 1
        side_by_side = apart and found.padding[axis] == 0 and (found.dilation[axis] == 1 or kernel == 1)
        return kernel if side_by_side and parts * kernel == size else 0

    lasts = zip(x.dims[x.rank - n :], out.dims[out.rank - n :], strict=True)
    return [(size, parts, part(axis, size, parts)) for axis, (size, parts) in enumerate(lasts)]


def _is_reduction(pooling: Pooling) -> bool:
    volume = math.prod(part for _, _, part in _sizes(pooling))
    if _is_always_reduction(pooling):
        return True
    return _may_be_reduction(pooling) and volume >= LARGE


def _is_always_reduction(pooling: Pooling) -> bool:
    """The average of everything, whatever the sizes."""
    x, out, n = pooling.x, pooling.out, pooling.n
    whole = pooling.found is None and all(size == 1 for size in out.max_dims[out.rank - n :])
    return whole and pooling.indices is None and x.dtype in ("float32", "float16", "bfloat16")


def _may_be_reduction(pooling: Pooling) -> bool:
    """Whether there are sizes of which it is one."""
    x, out, n, found = pooling.x, pooling.out, pooling.n, pooling.found
    if pooling.indices is not None or x.dtype not in ("float32", "float16", "bfloat16", "int32"):
        return False
    if found is None:
        most = zip(x.max_dims[x.rank - n :], out.max_dims[out.rank - n :], strict=True)
        return math.prod(ceil_div(size, max(parts, 1)) for size, parts in most) >= LARGE
    exact = x.dtype != "int32" or max(math.prod(found.kernel), abs(pooling.divisor)) <= EXACT
    padded = any(found.padding) or any(d > 1 and k > 1 for d, k in zip(found.dilation, found.kernel, strict=True))
    return exact and not padded and math.prod(found.kernel) >= LARGE


def _reduction(pooling: Pooling) -> Reduction:
    compute = "i32" if pooling.x.dtype == "int32" else "f32"
    if pooling.kind == "max":
        return Reduction("max", compute)
    count = math.prod(part for _, _, part in _sizes(pooling))
    finish = "v / p" if compute == "f32" else "v / i32(p)"
    return Reduction("sum", compute, finish=finish, scale=float(pooling.divisor or count))


def _prepare_reduction(planner: Planner, pooling: Pooling) -> None:
    """Have the kernels made that equal parts need, whether or not parts are equal at load."""
    reduction, outs, passes = _reduction(pooling), Outs(pooling.out), _passes(pooling)
    source: Tensor | Scratch = pooling.x
    for each in passes[:-1]:
        prepare(planner, reduction, source, each, None)
        source = planner.scratch(0)
    direct = pooling.out.dtype in WORDS
    prepare(planner, reduction, source, passes[-1], outs if direct else None)
    if not direct:
        prepare_finish(planner, reduction, outs)


def _passes(pooling: Pooling) -> list[Pass]:
    """Passes from the last axis on; axes of one window each go with the next one before them."""
    x, out, n = pooling.x, pooling.out, pooling.n
    outer = x.rank - n
    most_sizes, most_parts = x.max_dims[outer:], out.max_dims[out.rank - n :]
    passes: list[Pass] = []
    inner = most_inner = length = most_length = 1
    for axis, (_, parts, part) in reversed(list(enumerate(_sizes(pooling)))):
        length *= part
        most_length *= _most(pooling, axis, most_sizes)
        if most_parts[axis] > 1 or (axis == 0 and (most_length > 1 or not passes)):
            before = math.prod(x.dims[: outer + axis]) * parts
            passes.append(Pass(before, length, inner, most_length, most_inner))
            inner, most_inner = inner * parts, most_inner * most_parts[axis]
            length = most_length = 1
    return passes


def _most(pooling: Pooling, axis: int, most_sizes: Sequence[int]) -> int:
    return most_sizes[axis] if pooling.found is None else pooling.found.kernel[axis]

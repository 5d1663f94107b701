"""Sums, means and maxima of the rows of a table that bags of indices name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ...errors import InvalidInputError
from ..indexing.bounds import check_indices, in_range
from ..plan import Planner
from ..registry import op
from ..shapes import ceil_div
from ..sizes import Found, Sizes
from ..values import Tensor

WORKGROUP = 64
MODES = ("sum", "mean", "max")


def embedding_bag_reference(
    weight: np.ndarray,
    indices: np.ndarray,
    offsets: np.ndarray,
    scale_grad: bool,
    mode: int,
    sparse: bool,
    weights: np.ndarray | None,
    include_last: bool,
    padding: int,
    training: bool = False,
) -> tuple[np.ndarray, ...]:
    count, bags = len(indices), len(offsets) - include_last
    places = in_range(indices, len(weight), wraps=False)
    starts = [*(int(o) for o in offsets[:bags]), int(offsets[-1]) if include_last else count]
    if starts and not (starts[0] == 0 and all(a <= b for a, b in zip(starts, [*starts[1:], count], strict=True))):
        raise IndexError(f"the offsets {starts} do not divide {count} indices into bags")
    result = np.zeros((bags, weight.shape[1]), weight.dtype)
    rows = np.zeros((bags, weight.shape[1]) if mode == 2 else bags, np.int64)
    sizes = np.zeros(bags if training else len(offsets), np.int64)
    for bag in range(bags):
        taken = np.arange(starts[bag], starts[bag + 1])
        taken = taken[places[taken] != padding]
        values = weight[places[taken]]
        if weights is not None:
            values = values * weights[taken, None]
        if len(taken):
            result[bag] = (np.sum, np.mean, np.max)[mode](values, axis=0)
            if mode == 2:
                rows[bag] = places[taken][np.argmax(values, axis=0)]
        sizes[bag] = len(taken) if mode else 0
    in_bags = np.maximum(np.searchsorted(starts[:bags], np.arange(count), "right") - 1, 0)
    return result, in_bags[: 0 if _is_plain_sum(mode, padding) else count], sizes, rows


def _is_plain_sum(mode: int, padding: int) -> bool:
    """Whether torch says nothing of the bags of indices."""
    return mode == 0 and padding < 0


def bag_sizes(
    s: Sizes,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad: bool,
    mode: int,
    sparse: bool,
    weights: Tensor | None,
    include_last: bool,
    padding: int,
    outs: Sequence[Tensor],
    training: bool = False,
) -> list[Found]:
    bags: Found = s.of(offsets)[:1]
    if include_last:
        bags = tuple(n - 1 if isinstance(n, int) else None for n in bags)
    rows: Found = (*bags, *s.of(weight)[1:])
    in_bags: Found = (0,) if _is_plain_sum(mode, padding) else s.of(indices)
    return [rows, in_bags, bags if training else s.of(offsets), rows if mode == 2 else bags]


@op("aten._embedding_bag_forward_only.default", reference=embedding_bag_reference, sizes=bag_sizes)
def embedding_bag(
    planner: Planner,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad: bool,
    mode: int,
    sparse: bool,
    weights: Tensor | None,
    include_last: bool,
    padding: int,
    outs: Sequence[Tensor],
) -> None:
    """For each bag of ``indices`` [N], which begins at its offset, the sum (``mode`` 0) of rows of ``weight`` [V, D].

    Mode 1: their mean; mode 2: their maximum. ``weights`` [N] multiply rows in sums. ``include_last``: the last offset
    is where the last bag ends. Indices that are ``padding`` do not count; a bag without rows is 0. ``outs`` are the
    result [bags, D]; the bag of each index, of none for sums without padding; the number of indices of each bag, 0 in
    sums; and the rows of maxima [bags, D], or zeros [bags]. Indices and offsets that are no input of the program are
    clamped.
    """
    name = "embedding_bag"
    vectors = weight.rank == 2 and indices.rank == offsets.rank == 1
    planner.check(vectors, f"{name}: {weight} must be a matrix, and {indices} and {offsets} vectors")
    planner.check(mode in (0, 1, 2) and len(outs) == 4, f"{name}: there is no mode {mode} with {len(outs)} results")
    out, bags_of, sizes, rows = outs
    floats = weight.element.is_float and weight.dtype == out.dtype
    planner.check(floats, f"{name}: {weight} and {out} must have the same float dtype")
    planner.check(offsets.dtype == "int32", f"{name}: the offsets {offsets} must be integers")
    integers = all(t.dtype == "int32" for t in (bags_of, sizes, rows))
    planner.check(integers, f"{name}: {bags_of}, {sizes} and {rows} must hold integers")
    if weights is not None:
        fits = mode == 0 and weights.dims == indices.dims and weights.dtype == weight.dtype
        planner.check(fits, f"{name}: the weights {weights} must be those of a sum, one for each index")
    check_indices(planner, name, indices, weight.dims[0], wraps=False)
    _check_offsets(planner, offsets, indices.numel)
    for each in outs:
        planner.resize(each)
    bags = offsets.numel - include_last
    planner.check(bags >= 0, f"{name}: {offsets} is without the offset where the last bag ends")
    padding = padding + weight.dims[0] if padding < -1 else padding
    shape = {"count": indices.numel, "offsets": offsets.numel, "padding": padding}
    results = [("values", out), *([("rows", rows)] if mode == 2 else [])]
    for result, target in results:
        planner.dispatch(
            "embedding/bag",
            planner.grid_1d(ceil_div(target.numel, 4), WORKGROUP),
            {"table": weight, "indices": indices, "offsets": offsets, "out": target}
            | ({"weights": weights} if weights is not None else {}),
            {"n": target.numel, "width": max(weight.dims[1], 1), "rows": weight.dims[0], **shape},
            overrides={"wg_size": WORKGROUP},
            template={
                "mode": MODES[mode],
                "result": result,
                "dtype": weight.dtype,
                "weighted": weights is not None,
            },
        )
    if mode != 2:
        quads = ceil_div(rows.numel, 4)
        planner.dispatch("fill/fill", planner.grid_1d(quads, 64), {"out": rows}, {"quads": quads, "word": 0})
    n = max(sizes.numel, bags_of.numel)
    planner.dispatch(
        "embedding/bag_sizes",
        planner.grid_1d(n, WORKGROUP),
        {"indices": indices, "offsets": offsets, "bags": bags_of, "sizes": sizes},
        {"n": n, "bags": bags, "sizes": sizes.numel, "indices": bags_of.numel, "counted": int(mode > 0), **shape},
        overrides={"wg_size": WORKGROUP},
    )


@op(
    "aten._embedding_bag.default",
    reference=partial(embedding_bag_reference, training=True),
    sizes=partial(bag_sizes, training=True),
)
def embedding_bag_for_training(
    planner: Planner,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad: bool,
    mode: int,
    sparse: bool,
    weights: Tensor | None,
    include_last: bool,
    padding: int,
    outs: Sequence[Tensor],
) -> None:
    """``_embedding_bag_forward_only`` with as many numbers of indices as there are bags."""
    embedding_bag(planner, weight, indices, offsets, scale_grad, mode, sparse, weights, include_last, padding, outs)


def _check_offsets(planner: Planner, offsets: Tensor, count: int) -> None:
    """Refuse offsets that divide no ``count`` indices into bags, if they are an input of the program."""

    def check(given: np.ndarray | None) -> bool:
        if given is not None and given.size:
            rising = int(given[0]) == 0 and bool((np.diff(given) >= 0).all()) and int(given[-1]) <= count
            if not rising:
                raise InvalidInputError(
                    f"embedding_bag: offsets must begin with 0, rise, and end by {count}, the number of indices"
                )
        return True

    planner.inspect(offsets, check)

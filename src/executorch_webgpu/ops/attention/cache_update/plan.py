"""New rows of KV caches: copied, rounded to float16, or quantized to int8 codes and a scale of each row and head."""

from __future__ import annotations

from ...plan import Binding, Planner
from ...values import IntLike, Tensor
from ..paging import Paging


def update_caches(
    planner: Planner, pairs: list[tuple[Tensor, Tensor]], input_pos: IntLike | None, paging: Paging | None = None
) -> None:
    """One dispatch that writes every source's rows into its cache; all pairs have the same shape and dtypes.

    Rows lie one after the other from ``input_pos`` on, or each where ``paging`` says.
    """
    source, cache = pairs[0]
    heads, head_dim = cache.dims[2:]
    bindings: dict[str, Binding] = {} if input_pos is None else {"input_pos": input_pos}
    where: dict[str, int] = {}
    if paging is not None:
        bindings |= paging.bindings
        where = paging.params
    for i, (rows, target) in enumerate(pairs):
        bindings |= {f"rows{i}": rows, f"cache{i}": target}
        if target.scales is not None:
            bindings[f"scales{i}"] = target.scales
    row_length = heads * head_dim
    width = 4 if row_length % 4 == 0 else 1
    unit, workgroup = (head_dim, 1) if cache.dtype == "int8" else (width, 64)  # elements that are made together
    n = source.numel // unit
    planner.dispatch(
        "attention/cache_update",
        planner.grid_1d(n, workgroup),
        bindings,
        {"n": n, "row_length": row_length // unit, "vectors": head_dim // 4, **where},
        template={"count": len(pairs), "width": width, "cache": cache.dtype, "paged": paging is not None},
    )

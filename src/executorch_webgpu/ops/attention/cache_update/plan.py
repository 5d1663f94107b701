"""New rows of KV caches: copied, rounded to float16, or quantized to int8 codes and a scale a row and head."""

from __future__ import annotations

from ...plan import Planner
from ...values import IntLike, Tensor


def update_caches(g: Planner, pairs: list[tuple[Tensor, Tensor]], input_pos: IntLike) -> None:
    """One dispatch that writes every source's rows into its cache; all pairs have the same shape and dtypes."""
    source, cache = pairs[0]
    heads, head_dim = cache.dims[2:]
    bindings: dict[str, Tensor | IntLike] = {"input_pos": input_pos}
    for i, (rows, target) in enumerate(pairs):
        bindings |= {f"rows{i}": rows, f"cache{i}": target}
        if target.scales is not None:
            bindings[f"scales{i}"] = target.scales
    if cache.dtype == "int8":
        n = source.dims[1] * heads
        params = {"n": n, "heads": heads, "vectors": head_dim // 4}
        template = {"count": len(pairs)}
        g.dispatch("attention/cache_update/int8", g.grid_1d(n, 1), bindings, params, template=template)
        return
    row_length = heads * head_dim
    width = 4 if row_length % 4 == 0 else 1
    n = source.numel // width
    g.dispatch(
        "attention/cache_update",
        g.grid_1d(n, 64),
        bindings,
        {"n": n, "row_length": row_length // width},
        template={"count": len(pairs), "width": width, "cache": cache.dtype},
    )

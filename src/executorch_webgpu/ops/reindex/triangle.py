"""The triangles of matrices: elements beyond a diagonal become 0."""

from __future__ import annotations

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import other_dims as other_rows
from ..shapes import ceil_div
from ..sizes import like_first
from ..values import IntLike, Tensor

WORKGROUP = 64


def _triangle(planner: Planner, name: str, x: Tensor, diagonal: IntLike, lower: bool, out: Tensor) -> None:
    planner.check(x.rank >= 2 and x.dtype == out.dtype, f"{name}: {x} must be matrices of the dtype of {out}")
    planner.resize(out)
    lanes = max(1, 4 // x.element.itemsize)
    rows, columns = x.dims[-2:]
    planner.dispatch(
        "reindex/triangle",
        planner.grid_1d(ceil_div(x.numel, lanes), WORKGROUP),
        {"x": x, "out": out},
        {"n": x.numel, "rows": rows, "columns": columns, "diagonal": planner.value(diagonal)},
        overrides={"wg_size": WORKGROUP},
        template={"lanes": lanes, "lower": lower},
    )


@op(
    "aten.tril.default",
    reference=np.tril,
    sizes=like_first,
    rows=lambda cut, x, diagonal, out: other_rows(cut, x, (-2, -1)),
)
def tril(planner: Planner, x: Tensor, diagonal: IntLike, out: Tensor) -> None:
    """[..., rows, columns]: ``x`` where column - row is at most ``diagonal``, else 0."""
    _triangle(planner, "tril", x, diagonal, True, out)


@op(
    "aten.triu.default",
    reference=np.triu,
    sizes=like_first,
    rows=lambda cut, x, diagonal, out: other_rows(cut, x, (-2, -1)),
)
def triu(planner: Planner, x: Tensor, diagonal: IntLike, out: Tensor) -> None:
    """[..., rows, columns]: ``x`` where column - row is at least ``diagonal``, else 0."""
    _triangle(planner, "triu", x, diagonal, False, out)

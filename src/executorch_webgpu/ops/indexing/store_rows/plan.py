"""New rows of a tensor of any dtype, from a live row on, as they are: codes, scales, zero points, halves."""

from __future__ import annotations

import math

from ...plan import Planner
from ...shapes import ceil_div
from ...values import IntLike, Tensor

_WORD, _QUAD, WORKGROUP = 4, 16, 64  # bytes, bytes, invocations


def store_rows(planner: Planner, name: str, rows: Tensor, x: Tensor, start: IntLike, axis: int = 1) -> None:
    """``rows`` into ``x`` from index ``start`` of dimension ``axis`` on; the caller has checked that they fit there."""
    batches, capacity = math.prod(x.dims[:axis]), x.dims[axis]
    elements = math.prod(x.dims[axis + 1 :])  # of a row
    width = elements * x.element.itemsize  # bytes of it
    whole = next((unit for unit in (_QUAD, _WORD) if width % unit == 0), 0)
    apart = batches == 1 or capacity * width % _WORD == 0
    planner.check(bool(whole) or apart, f"{name}: batches of {x} must begin at whole words")
    unit, lanes = ("vec4<u32>" if whole == _QUAD else "u32"), 1 if whole else _WORD // x.element.itemsize
    elements = width // whole if whole else elements
    count = rows.numel // max(math.prod((*x.dims[:axis], *x.dims[axis + 1 :])), 1)  # new rows of a batch
    n = count * elements
    words = n if lanes == 1 else ceil_div(n, lanes) + 1  # a run may begin and end within words
    planner.dispatch(
        "indexing/store_rows",
        planner.grid_1d(batches * words if n else 0, WORKGROUP),
        {"rows": rows, "x": x, "start": start},
        {"batches": batches, "words": words, "n": n, "row": elements, "capacity": capacity},
        template={"unit": unit, "lanes": lanes},
        overrides={"wg_size": WORKGROUP},
    )

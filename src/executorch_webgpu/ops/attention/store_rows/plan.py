"""New rows of a tensor of any dtype, from a live row on, as they are: codes, scales, zero points, halves."""

from __future__ import annotations

from ...plan import Planner
from ...shapes import ceil_div
from ...values import IntLike, Tensor

_WORD, _QUAD, WORKGROUP = 4, 16, 64  # bytes, bytes, invocations


def store_rows(planner: Planner, name: str, rows: Tensor, x: Tensor, start: IntLike) -> None:
    """``rows`` [B, S, …] into ``x`` [B, C, …] from row ``start``, which the caller has checked."""
    batches, capacity = x.dims[:2]
    width = x.numel // max(batches * capacity, 1) * x.element.itemsize  # bytes of a row
    per_word = _WORD // x.element.itemsize
    whole = next((unit for unit in (_QUAD, _WORD) if width % unit == 0), 0)
    apart = batches == 1 or capacity * width % _WORD == 0
    planner.check(bool(whole) or apart, f"{name}: batches of {x} must begin at whole words")
    if whole:
        unit, lanes = {_QUAD: "vec4<u32>", _WORD: "u32"}[whole], 1
        elements = width // whole
    else:
        unit, lanes, elements = "u32", per_word, width // x.element.itemsize
    n = rows.dims[1] * elements  # of a batch
    words = n if lanes == 1 else ceil_div(n, lanes) + 1  # a run may begin and end within words
    planner.dispatch(
        "attention/store_rows",
        planner.grid_1d(batches * words if n else 0, WORKGROUP),
        {"rows": rows, "x": x, "start": start},
        {"batches": batches, "words": words, "n": n, "row": elements, "capacity": capacity},
        template={"unit": unit, "lanes": lanes},
        overrides={"wg_size": WORKGROUP},
    )

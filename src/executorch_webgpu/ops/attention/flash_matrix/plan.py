"""The tensor-core routes: many new tokens over float16 or int8 caches, by subgroup matrices of 16 x 16.

By ``flash_matrix`` Q goes in as the sum of two float16 matrices, which keeps large scores exact; ``flash_matrix_f16``
rounds it to one, as ``matmul_precision="high"`` allows. Probabilities, and the values of an int8 cache, are rounded to
float16 by both. What moved the speed is in bench/NOTES.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...handover import SplitForm, SplitRows
from ...plan import Binding, Planner
from ...shapes import ceil_div
from ...values import Repacked
from ..call import AttentionCall

SHAPE = ("f16", "f32", 16, 16, 16)  # component type, result type, m, n, k
SUBGROUP = 32
LOG2_E = math.log2(math.e)
MIN_LENGTH = 9  # fewer tokens are decoding
MAX_HEAD_DIM = 256
# The result is a mean of values that float16 holds, and is as exact in float16 as these were, whatever their size.
_NO_POWER = Repacked("no power of two", (), 16, lambda: np.array([1, 1, 0, 0], np.float32))


@dataclass(frozen=True)
class Tile:
    """A workgroup of ``subgroups``: ``split`` of them, each with its part of D, have 16 packed rows.

    ``keys`` columns are computed at a time.
    """

    subgroups: int = 8
    keys: int = 32
    split: int = 1
    workgroup_bytes: int = 48 << 10  # that a device must have

    @property
    def rows(self) -> int:
        return 16 * self.subgroups // self.split

    @property
    def template(self) -> dict[str, Any]:
        return {"subgroups": self.subgroups, "keys": self.keys, "split": self.split}


def choose_tile(head_dim: int) -> Tile:
    """The best of those that were measured. Above 128 one subgroup's registers cannot hold all sums."""
    return Tile(subgroups=4) if head_dim <= 64 else Tile() if head_dim <= 128 else Tile(keys=16, split=2)


def fits(planner: Planner, call: AttentionCall) -> bool:
    return possible(planner, call) and call.length >= MIN_LENGTH


def prepare(planner: Planner, call: AttentionCall, exact: bool) -> None:
    most = call.q.max_dims[1]
    if possible(planner, call) and most >= MIN_LENGTH and exact != planner.rounds:
        for form in {None, _form_of_output(planner, call, most)}:
            planner.prepare("attention/flash_matrix", template=template_of(planner, call, exact, form=form))


def run(planner: Planner, call: AttentionCall, exact: bool) -> None:
    """``exact``: as the sum of two matrices."""
    rows = call.length * call.group
    form = _form_of_output(planner, call, call.length)
    out: dict[str, Binding] = {"out": call.out}
    given: dict[str, Any] = {}
    if form is not None:
        planner.result.splits[call.out.id] = SplitRows(form, _NO_POWER)
        out, given = {"split_out": call.out}, {"out_words": form.depth // 8}
    planner.dispatch(
        "attention/flash_matrix",
        (ceil_div(rows, tile_of(planner, call).rows), call.kv_heads),
        {
            "q": call.q,
            **out,
            "input_pos": call.input_pos,
            **call.caches,
        },
        {
            "group_size": call.group,
            "kv_heads": call.kv_heads,
            "tokens": call.length,
            "scale": call.scale * LOG2_E,
            "table_width": 0,
            "page_shift": 0,
            **given,
        },
        template=template_of(planner, call, exact, form=form),
    )


def _form_of_output(planner: Planner, call: AttentionCall, rows: int) -> SplitForm | None:
    """How who reads so many rows of the result takes them, if they are as exact in float16."""
    reader = planner.reader(call.out) if call.k_cache.dtype == "float16" and call.head_dim % 8 == 0 else None
    return None if reader is None else reader.form(rows, call.kv_heads * call.group * call.head_dim)


def possible(planner: Planner, call: AttentionCall) -> bool:
    """Whether the device can run the kernel over caches like those of a call."""
    return (
        _has_matrices(planner)
        and call.k_cache.dtype in ("float16", "int8")
        and call.head_dim <= MAX_HEAD_DIM
        and planner.limits.max_workgroup_bytes >= tile_of(planner, call).workgroup_bytes
    )


def tile_of(planner: Planner, call: AttentionCall) -> Tile:
    return planner.tuning("attention/flash_matrix", choose_tile(call.head_dim))


def template_of(
    planner: Planner, call: AttentionCall, exact: bool, paged: bool = False, form: SplitForm | None = None
) -> dict[str, Any]:
    """``form``: that of the result, if it is not float32."""
    cache = {"cache": call.k_cache.dtype, "head_dim": call.head_dim, "width": _load_width(call)}
    out = {"out_parts": 0 if form is None else form.parts, "out_pairs": 0 if form is None else form.pairs}
    return {"exact": exact, **tile_of(planner, call).template, **cache, "paged": paged, **out}


def _has_matrices(planner: Planner) -> bool:
    """Whether a device has subgroup matrices of ``SHAPE`` and subgroups of a size that is known at load."""
    features = planner.features
    fixed = features.subgroup_min_size == features.subgroup_max_size == SUBGROUP
    return (
        features.subgroup_matrix
        and SHAPE in features.subgroup_matrix_shapes
        and fixed
        and features.f16
        and features.subgroups
    )


def _load_width(call: AttentionCall) -> int:
    """Elements of a head that one load of the cache brings: 16 bytes, or fewer where no head is a multiple of it."""
    widest = 16 // call.k_cache.element.itemsize
    return next(width for width in (16, 8, 4) if width <= widest and call.head_dim % width == 0)

"""What rows of a step go together, found on the device, and counted on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...plan import Planner
from ...values import Scratch, Tensor

_WORKGROUP = 256

Array = np.ndarray


@dataclass(frozen=True)
class Cut:
    """Runs of at least ``least`` consecutive rows of a sequence are cut into spans of up to ``rows``."""

    rows: int
    least: int


@dataclass(frozen=True)
class SpanList:
    """A list of a step's spans and single rows, on the device; ``last`` is the entry where spans begin."""

    entries: Scratch
    last: int


def counts(places: Array, cut: Cut) -> tuple[Array, int]:
    """Of ``places`` [T, 2]: which rows are single ones, [T], and how many spans the others are."""
    position, sequence = places[:, 0], places[:, 1]
    begins = np.ones(len(places), bool)
    begins[1:] = (sequence[1:] != sequence[:-1]) | (position[1:] != position[:-1] + 1)
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=len(places))
    whole = lengths >= cut.least
    single: Array = np.repeat(~whole, lengths)
    return single, int((-(-lengths[whole] // cut.rows)).sum())


def new_list(planner: Planner, places: Tensor) -> SpanList:
    """Memory for the list of any step; it has an entry for every row at most."""
    rows = places.max_dims[0]
    return SpanList(planner.scratch(16 * (rows + 1)), rows)


def prepare(planner: Planner, places: Tensor) -> None:
    planner.prepare("attention/spans", overrides=_overrides(places))


def find(planner: Planner, places: Tensor, cut: Cut, spans: SpanList) -> None:
    """Dispatch what fills the list of this step."""
    planner.dispatch(
        "attention/spans",
        (1,),
        {"places": places, "list": spans.entries},
        {"rows": places.dims[0], "span": cut.rows, "least": cut.least, "last": spans.last},
        overrides=_overrides(places),
    )


def _overrides(places: Tensor) -> dict[str, int]:
    return {"wg_size": _WORKGROUP, "words": places.max_dims[0] // 32 + 1}

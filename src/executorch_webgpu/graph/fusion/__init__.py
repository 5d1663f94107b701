"""Passes that put several operator calls into one, over a graph that is not planned yet.

Each pass is a pure function from a graph to a graph that computes the same. It matches by structure: who produces a
value and who reads it, never by names of tensors or sizes of a model. What blocks all of them: a value that something
else reads too, an output that the host asked for, memory that the graph writes, a dtype that the kernels do not take,
and sizes that are not known to be equal whatever the inputs are (see ``ops/sizes.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...errors import InvalidInputError
from ..build import Graph
from . import (
    convolution,
    dynamic_linear,
    elementwise,
    epilogue,
    gate,
    last_row,
    norm_linear,
    rms_norm,
    rope_cache,
    transposed,
    views,
)


@dataclass(frozen=True)
class FusionReport:
    """What one pass did: ``fused`` calls became ``made`` new ones; ``before`` and ``after`` count all calls."""

    name: str
    fused: int
    made: int
    before: int
    after: int

    def __add__(self, other: FusionReport) -> FusionReport:
        """The same pass over two graphs."""
        pairs = ((getattr(r, n) for r in (self, other)) for n in ("fused", "made", "before", "after"))
        return FusionReport(self.name, *map(sum, pairs))

    def __str__(self) -> str:
        return f"{self.name}: {self.fused} calls became {self.made}, {self.before} → {self.after}"


# In this order: later passes match what earlier ones leave.
FUSIONS: dict[str, Callable[[Graph], Graph]] = {
    "linear": transposed.compose_layers,
    "views": views.drop_views,
    "convolution": convolution.fuse_convolutions,
    "rms_norm": rms_norm.compose_norms,
    "dynamic_linear": dynamic_linear.fuse_choices,
    "last_row": last_row.select_early,
    "bias": epilogue.fuse_biases,
    "norm_linear": norm_linear.fuse_norm_and_projections,
    "gate": gate.fuse_gates,
    "residual": epilogue.fuse_residuals,
    "rope_cache": rope_cache.fuse_rope_and_cache,
    "elementwise": elementwise.fuse_chains,
}


def chosen_fusions(fuse: bool | Iterable[str]) -> tuple[str, ...]:
    """Names of passes, in the order in which they run: all, none, or those that are named.

    Raises InvalidInputError for a name that is none.
    """
    if isinstance(fuse, bool):
        return tuple(FUSIONS) if fuse else ()
    named = [fuse] if isinstance(fuse, str) else list(fuse)
    if unknown := [name for name in named if name not in FUSIONS]:
        raise InvalidInputError(f"there is no fusion {unknown[0]!r}; choose {', '.join(FUSIONS)}")
    return tuple(name for name in FUSIONS if name in named)


def fuse_graph(graph: Graph, names: Iterable[str]) -> tuple[Graph, tuple[FusionReport, ...]]:
    """The graph after the passes of these names, and what each of them did."""
    reports = []
    for name in names:
        fused = FUSIONS[name](graph)
        old, new = (Counter(call.name for call in g.calls) for g in (graph, fused))
        gone, made = (old - new).total(), (new - old).total()
        reports.append(FusionReport(name, gone, made, len(graph.calls), len(fused.calls)))
        graph = fused
    return graph, tuple(reports)

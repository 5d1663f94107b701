"""A run that was traced, and what is known about it besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..gpu.trace import Trace
from .timings import Distribution, Row, StepTime, Timings, timings

STEP_TIMES: dict[str, Callable[[StepTime], int | None]] = {
    "from step to step": lambda step: step.interval,
    "host": lambda step: step.host,
    "waiting": lambda step: step.wait or None,
    "GPU busy": lambda step: step.gpu,
    "GPU, first to last dispatch": lambda step: step.gpu_span,
}


@dataclass(frozen=True)
class ProfileReport:
    """``trace`` of ``what`` was run of ``source`` on ``adapter``, with ``options``, in words.

    ``traced_seconds``: how long it took, by default as long as the trace; ``untraced_seconds`` without one, None if
    that is not known.
    ``read_rate``: bytes a second that the device reads from memory at best; None where no GPU tells times.
    """

    trace: Trace
    source: str
    what: str = "what a trace has recorded"
    adapter: str = "this machine"
    options: str = "options as they were"
    traced_seconds: float | None = None
    untraced_seconds: float | None = None
    read_rate: float | None = None

    @cached_property
    def timings(self) -> Timings:
        return timings(self.trace)

    @property
    def cost(self) -> str:
        """What tracing cost, as a sentence."""
        seconds = (self.trace.end - self.trace.begin) / 1e9 if self.traced_seconds is None else self.traced_seconds
        took = f"the traced run took {seconds * 1000:.1f} ms"
        if self.untraced_seconds is None:
            return f"{took}, in which drivers may have compiled"
        more = seconds / self.untraced_seconds - 1
        passes = "each dispatch has a compute pass of its own, between two timestamps" if self.timings.gpu else ""
        changed = f"{abs(more):.0%} {'longer' if more >= 0 else 'less'}"
        return f"{took}, {changed} than one without a trace ({self.untraced_seconds * 1000:.1f} ms)" + (
            f": {passes}" if passes else ""
        )

    def step_distributions(self, name: str) -> list[tuple[str, Distribution]]:
        """What the steps of a name took, by what is measured."""
        found = []
        for what, of in STEP_TIMES.items():
            distributions = self.timings.distributions(of)
            if name in distributions:
                found.append((what, distributions[name]))
        return found

    def rate(self, row: Row) -> float | None:
        """Bytes a second that its calls move at least; None where nothing is known to be moved."""
        return row.bytes / (row.gpu / 1e9) if row.gpu and row.bytes else None

    def roofline(self, row: Row) -> float | None:
        """``rate`` as a share of what the device reads at best; above 1 where data comes from a cache."""
        rate = self.rate(row)
        return None if rate is None or not self.read_rate else rate / self.read_rate

    def bytes_rate(self, step: StepTime) -> float | None:
        """Bytes a second of a step."""
        return step.bytes / (step.gpu / 1e9) if step.gpu else None

"""Plots of step times as marks that a template draws: bars by step, and histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .page import digits
from .timings import StepTime, called

LEFT, RIGHT, TOP, BOTTOM = 48.0, 552.0, 12.0, 168.0  # of the plot, in its 560 by 200
MOST_BARS, BINS = 120, 36


@dataclass(frozen=True)
class Mark:
    """A rectangle; ``kind`` is a class of the style, ``says`` what it is, in words."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    says: str


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Plot:
    title: str
    marks: tuple[Mark, ...]
    labels: tuple[Label, ...]
    legend: tuple[tuple[str, str], ...] = ()


def step_bars(name: str, steps: Sequence[StepTime]) -> Plot:
    """Host and GPU time of each step side by side, of at most the first ``MOST_BARS``."""
    shown = steps[:MOST_BARS]
    most = max(max(step.host + step.wait, step.gpu or 0) for step in shown)
    slot = (RIGHT - LEFT) / len(shown)
    width = min(28.0, slot * 0.42)
    marks = []
    for place, step in enumerate(shown):
        x = LEFT + slot * (place + 0.5) - width
        host, wait = (_height(value, most) for value in (step.host, step.wait))
        says = f"step {step.number}: "
        marks.append(_bar("fill-host", x, host, 0, width, f"{says}host {step.host / 1e6:.3f} ms"))
        if step.wait:
            marks.append(_bar("fill-wait", x, wait, host, width, f"{says}waiting {step.wait / 1e6:.3f} ms"))
        if step.gpu is not None:
            gpu = _height(step.gpu, most)
            marks.append(_bar("fill-gpu", x + width, gpu, 0, width, f"{says}GPU {step.gpu / 1e6:.3f} ms"))
    labels = [*_scale(most), Label(LEFT, 184, f"step {shown[0].number}", "start")]
    if len(shown) > 1:
        labels.append(Label(RIGHT, 184, f"step {shown[-1].number}", "end"))
    first = f", the first {MOST_BARS}" if len(steps) > MOST_BARS else ""
    legend = (("fill-host", "host works"), ("fill-wait", "host waits"), ("fill-gpu", "GPU is busy"))
    return Plot(f"Each {called(name)}, ms{first}", tuple(marks), tuple(labels), legend)


def histogram(title: str, times: Sequence[int]) -> Plot:
    """How many times (nanoseconds) lie in each of equal ranges."""
    counts, edges = np.histogram(times, bins=min(BINS, max(4, 2 * math.isqrt(len(times)))))
    most = int(counts.max())
    slot = (RIGHT - LEFT) / len(counts)
    marks = tuple(
        _bar(
            "fill-bar",
            LEFT + slot * place + 0.5,
            _height(int(count), most),
            0,
            slot - 1,
            f"{edges[place] / 1e6:.3f} to {edges[place + 1] / 1e6:.3f} ms: {count}",
        )
        for place, count in enumerate(counts)
        if count
    )
    ends = (
        Label(LEFT, 184, f"{digits(edges[0] / 1e6)} ms", "start"),
        Label(RIGHT, 184, f"{digits(edges[-1] / 1e6)} ms", "end"),
    )
    middle = Label((LEFT + RIGHT) / 2, 184, digits((edges[0] + edges[-1]) / 2e6))
    scale = Label(LEFT - 6, TOP + 8, str(most), "end"), Label(LEFT - 6, BOTTOM, "0", "end")
    return Plot(title, marks, (*ends, middle, *scale))


def _scale(most: int) -> list[Label]:
    return [
        Label(LEFT - 6, TOP + 8, digits(most / 1e6), "end"),
        Label(LEFT - 6, (TOP + BOTTOM) / 2 + 4, digits(most / 2e6), "end"),
        Label(LEFT - 6, BOTTOM, "0", "end"),
    ]


def _height(value: int, most: int) -> float:
    return (BOTTOM - TOP) * value / max(1, most)


def _bar(kind: str, x: float, height: float, above: float, width: float, says: str) -> Mark:
    return Mark(kind, round(x, 2), round(BOTTOM - above - height, 2), round(width, 2), round(height, 2), says)

"""Measurements of models as lines: of a table, of a CSV file, of a plot."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Protocol

from ...gpu.device import Device
from ...runtime import LoadOptions
from .speed import Report

OURS = "executorch-webgpu"
MIB = 1 << 20


@dataclass(frozen=True)
class Line:
    """One measurement; ``rate`` in tokens a second, by wall clock. None: not known, or not measured.

    ``spread``: slowest less fastest repeat, over the median. ``step_mib``: what a decode step must read.
    ``roofline``: the rate at which ``read_gbs``, measured in the same run, would let it decode, and ``share`` the part
    of it that was reached. ``gpu_ms`` and ``dispatches`` are of a decode step. ``step_50_ms``, ``step_99_ms`` and
    ``step_worst_ms``: percentiles of the waits from one token to the next. ``host_ms``: of processors, a token.
    """

    date: str
    version: str
    model: str
    adapter: str
    engine: str
    implementation: str
    kv_cache: str
    phase: str
    context: int
    tokens: int
    rate: float | None
    spread: float | None
    step_mib: float | None
    read_gbs: float
    roofline: float | None
    share: float | None
    gpu_ms: float | None
    dispatches: int | None
    step_50_ms: float | None
    step_99_ms: float | None
    step_worst_ms: float | None
    host_ms: float | None
    load_s: float | None
    file_mib: float | None
    resident_mib: float | None
    device_mib: float | None
    note: str = ""


def lines_of(report: Report, device: Device, model: str, *, version: str) -> list[Line]:
    """The report as lines, numbers rounded; a note names the matmul precision where it is not the default."""
    load = report.load
    lines = []
    for speed in report.speeds:
        share = speed.share(report.read_ceiling)
        half, late, worst = (None if ms is None else rounded(ms) for ms in map(speed.wait_ms, (0.5, 0.99, 1.0)))
        lines.append(
            Line(
                date=datetime.date.today().isoformat(),
                version=version,
                model=model,
                adapter=device.info.name,
                engine=device.engine,
                implementation=OURS,
                kv_cache=report.options.kv_cache_dtype,
                phase=speed.phase,
                context=speed.context,
                tokens=speed.tokens,
                rate=rounded(speed.rate),
                spread=rounded(speed.spread),
                step_mib=None if speed.step_bytes is None else rounded(speed.step_bytes / MIB),
                read_gbs=rounded(report.read_ceiling / 1e9),
                roofline=None if speed.step_bytes is None else rounded(report.read_ceiling / speed.step_bytes),
                share=None if share is None else rounded(share),
                gpu_ms=None if speed.gpu_ms is None else rounded(speed.gpu_ms),
                dispatches=speed.dispatches,
                step_50_ms=half,
                step_99_ms=late,
                step_worst_ms=worst,
                host_ms=rounded(speed.host_ms),
                load_s=rounded(load.seconds),
                file_mib=rounded(load.file_bytes / MIB),
                resident_mib=rounded(load.resident_bytes / MIB),
                device_mib=rounded(load.device_bytes / MIB),
                note=options_note(report.options),
            )
        )
    return lines


def options_note(options: LoadOptions) -> str:
    """The matmul precision, if it is not the default, and routes that were asked for."""
    precision = options.matmul_precision
    notes = [] if precision == "highest" else [f"matmul precision {precision}"]
    notes += [f"{name} by {route}" for name, route in (options.routes or {}).items()]
    return ", ".join(notes)


class Measured(Protocol):
    """A line of any measurement: who was measured."""

    @property
    def implementation(self) -> str: ...

    @property
    def engine(self) -> str: ...


def name_of(line: Measured) -> str:
    """Who was measured."""
    return f"{OURS}, {line.engine}" if line.implementation == OURS else line.implementation


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")

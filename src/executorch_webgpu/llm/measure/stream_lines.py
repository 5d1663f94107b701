"""Measurements of many texts at once as lines: of a table, of a CSV file, of a plot."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...gpu.device import Device
from .lines import MIB, OURS, options_note, rounded
from .streams import PERCENTILES, StreamReport

MS = 1e3


@dataclass(frozen=True)
class StreamLine:
    """``streams`` texts of ``prompt`` tokens that begin together, each continued by ``steps``. None: not measured.

    ``rate``: tokens a second of all texts while all of them decode, the median of repeats; ``each``: of one of them;
    ``spread``: fastest less slowest repeat, over the median. ``total``: new tokens a second of all, prompts and all.
    ``first_…`` and ``between_…``: milliseconds from when a text was submitted to its first token, and between tokens,
    at percentiles, while prompts of others are still read. ``rows``: the most rows of a step. ``step_mib``: what a
    decode step of all texts must read; ``roofline``: the rate at which ``read_gbs``, measured in the same run, would
    let them decode, and ``share`` the part of it that was reached.
    """

    date: str
    version: str
    model: str
    adapter: str
    engine: str
    implementation: str
    kv_cache: str
    streams: int
    prompt: int
    steps: int
    rows: int | None
    rate: float | None
    each: float | None
    spread: float | None
    total: float | None
    first_50_ms: float | None
    first_95_ms: float | None
    first_99_ms: float | None
    between_50_ms: float | None
    between_95_ms: float | None
    between_99_ms: float | None
    step_mib: float | None
    read_gbs: float
    roofline: float | None
    share: float | None
    load_s: float | None
    file_mib: float | None
    resident_mib: float | None
    device_mib: float | None
    note: str = ""


def stream_lines(report: StreamReport, device: Device, model: str, *, version: str, note: str = "") -> list[StreamLine]:
    """The report as lines, numbers rounded; ``note`` besides what the options say that is not the default."""
    load, options = report.load, report.options
    notes = ", ".join(filter(None, (options_note(options), note)))
    lines = []
    for speed in report.speeds:
        roofline = report.read_ceiling / speed.step_bytes * speed.streams
        rate = speed.rate
        lines.append(
            StreamLine(
                date=datetime.date.today().isoformat(),
                version=version,
                model=model,
                adapter=device.info.name,
                engine=device.engine,
                implementation=OURS,
                kv_cache=options.kv_cache_dtype,
                streams=speed.streams,
                prompt=speed.prompt,
                steps=speed.steps,
                rows=report.sizes.max_rows,
                rate=None if rate is None else rounded(rate),
                each=None if rate is None else rounded(rate / speed.streams),
                spread=None if speed.spread is None else rounded(speed.spread),
                total=rounded(median(speed.totals)),
                **_milliseconds("first", speed.first),
                **_milliseconds("between", speed.between),
                step_mib=rounded(speed.step_bytes / MIB),
                read_gbs=rounded(report.read_ceiling / 1e9),
                roofline=rounded(roofline),
                share=None if rate is None else rounded(rate / roofline),
                load_s=rounded(load.seconds),
                file_mib=rounded(load.file_bytes / MIB),
                resident_mib=rounded(load.resident_bytes / MIB),
                device_mib=rounded(load.device_bytes / MIB),
                note=notes,
            )
        )
    return lines


def _milliseconds(name: str, seconds: tuple[float, ...] | None) -> dict[str, Any]:
    return {
        f"{name}_{percentile}_ms": None if seconds is None else rounded(MS * seconds[i])
        for i, percentile in enumerate(PERCENTILES)
    }

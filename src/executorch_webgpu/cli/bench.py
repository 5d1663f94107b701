"""``et-webgpu bench SOURCE``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FILE, cache_option, device_options, profile_option
from .source import chosen_options, conversion_options, program_path, progress_bar

if TYPE_CHECKING:
    from ..gpu.device import Device
    from ..llm.measure import Report
    from ..runtime import Runtime

OURS = "executorch-webgpu"
MIB = 1 << 20
LISTS = ("--prompts", "--contexts")


class Command(click.Command):
    """Takes all numbers behind an option of ``LISTS``: ``--prompts 128 512`` is ``--prompts 128,512``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        joined: list[str] = []
        inside = False  # of a list that has its first number
        for arg in args:
            if inside and arg.isdecimal():
                joined[-1] += f",{arg}"
                continue
            inside = bool(joined) and joined[-1] in LISTS
            joined.append(arg)
        return super().parse_args(ctx, joined)


def numbers(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    try:
        return None if value is None else tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value} is not a list of whole numbers like 128 512") from error


@dataclass(frozen=True)
class Line:
    """One measurement; ``rate`` in tokens a second, by wall clock. None: not known, or not measured.

    ``spread``: slowest less fastest repeat, over the median. ``step_mib``: what a decode step must read.
    ``roofline``: the rate at which ``read_gbs``, measured in the same run, would let it decode, and ``share`` the part
    of it that was reached. ``gpu_ms`` and ``dispatches`` are of a decode step.
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
    load_s: float | None
    file_mib: float | None
    resident_mib: float | None
    device_mib: float | None
    note: str = ""


@click.command("bench", cls=Command)
@click.argument("source")
@click.option("--prompts", callback=numbers, metavar="N …", help="Tokens of prompts  [default: 128 512, on a CPU 128]")
@click.option(
    "--contexts",
    callback=numbers,
    metavar="N …",
    help="Tokens before decode  [default: 0 128 512 1024, to 512 on a CPU]",
)
@click.option("--steps", type=int, help="Tokens that are decoded  [default: 64, on a CPU 16]")
@click.option("--repeats", type=int, help="Measurements, of which the median counts  [default: 5, on a CPU 3]")
@click.option("--csv", "csv_file", type=FILE, help="Append the lines to this file")
@click.option("--plot", type=FILE, help="Draw the rates to this file (.png, .svg, .pdf)")
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: in the program]")
@conversion_options
@cache_option
@device_options
@profile_option
def command(
    source: str,
    csv_file: Path | None,
    plot: Path | None,
    tokenizer_file: Path | None,
    weights: str | None,
    max_context_len: int | None,
    kv_cache_dtype: str,
    engine: str | None,
    adapter: int | str | None,
    profile: bool,
    **sizes: Any,
) -> None:
    """Measure how fast a language model reads prompts and writes text.

    SOURCE is a model as the generate command takes it. A rate is the median of several, by wall clock, from tokens to
    text; the roofline is what reading all weights and the visible KV cache once a token would allow, at the rate at
    which the device was seen to read memory in the same run.
    """
    from .. import __version__
    from ..runtime import Runtime
    from ..text.tokenizer import Tokenizer
    from .history import append
    from .tables import print_profile

    if plot is not None:
        from .plot import require_matplotlib

        require_matplotlib()
    tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_file is not None else None
    path = program_path(source, chosen_options(weights, max_context_len))
    runtime = Runtime.get(engine, adapter)
    report = run(runtime, path, sizes, tokenizer=tokenizer, kv_cache_dtype=kv_cache_dtype)
    lines = lines_of(report, runtime.device, Path(source).name, kv_cache_dtype, __version__)
    show(lines)
    if profile:
        print_profile(report.profile)
    if csv_file is not None:
        append(csv_file, [asdict(line) for line in lines])
    if plot is not None:
        from .plot import draw

        draw(plot, lines)


def run(runtime: Runtime, path: Path, sizes: dict[str, Any], **options: Any) -> Report:
    """``measure`` with a progress bar; ``sizes`` are fields of ``Sizes``, None where the default will do."""
    from ..llm.measure import measure

    given = {name: value for name, value in sizes.items() if value is not None}
    with progress_bar(bytes=False) as bar:
        return measure(runtime, path, given, on_progress=lambda *counts: bar("Measuring", *counts), **options)


def lines_of(report: Report, device: Device, model: str, kv_cache: str, version: str) -> list[Line]:
    """The report as lines, numbers rounded."""
    load = report.load
    lines = []
    for speed in report.speeds:
        share = speed.share(report.read_ceiling)
        lines.append(
            Line(
                date=datetime.date.today().isoformat(),
                version=version,
                model=model,
                adapter=device.info.name,
                engine=device.engine,
                implementation=OURS,
                kv_cache=kv_cache,
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
                load_s=rounded(load.seconds),
                file_mib=rounded(load.file_bytes / MIB),
                resident_mib=rounded(load.resident_bytes / MIB),
                device_mib=rounded(load.device_bytes / MIB),
            )
        )
    return lines


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def show(lines: Sequence[Line]) -> None:
    """Lines of one model as a table, with what they have in common above it."""
    from .tables import console, table

    first = next(line for line in lines if line.implementation == OURS)
    out = console()
    out.print(f"{first.model} on {first.adapter} ({first.engine}), KV cache {first.kv_cache}", style="bold")
    out.print(
        f"loaded in {first.load_s} s; memory grew by {first.resident_mib} MiB on the host and by {first.device_mib} "
        f"MiB on the device, for a file of {first.file_mib} MiB; the device reads {first.read_gbs} GB/s"
    )
    others = any(line.implementation != OURS for line in lines)
    columns = ("Phase", "Context>", "Tokens>", "Tokens/s>", "±>", "MiB a step>", "Roofline>", "Share>")
    made = table((*columns, "GPU ms>", "Dispatches>", *(("By", "") if others else ())))
    for line in lines:
        spread = "" if line.spread is None else f"{line.spread / 2:.1%}"
        share = "" if line.share is None else f"{line.share:.1%}"
        numbers = (line.rate, spread, line.step_mib, line.roofline, share, line.gpu_ms, line.dispatches)
        by = (line.implementation, line.note) if others else ()
        made.add_row(line.phase, str(line.context), str(line.tokens), *map(shown, numbers), *by)
    out.print(made)


def shown(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"

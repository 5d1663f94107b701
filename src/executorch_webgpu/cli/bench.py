"""``et-webgpu bench SOURCE``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FILE, device_options, load_options, profile_option
from .source import chosen_options, conversion_options, program_path, progress_bar

if TYPE_CHECKING:
    from ..llm.measure import Report, StreamReport
    from ..llm.measure.lines import Line
    from ..llm.measure.stream_lines import StreamLine
    from ..runtime import LoadOptions, Runtime

LISTS = ("--prompts", "--contexts", "--streams")


class Command(click.Command):
    """Takes all numbers after an option of ``LISTS``: ``--prompts 128 512`` is ``--prompts 128,512``."""

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


@click.command("bench", cls=Command)
@click.argument("source")
@click.option(
    "--streams",
    callback=numbers,
    metavar="N …",
    help="Measure this many texts at once instead, each prompt continued by --steps tokens",
)
@click.option(
    "--prompts",
    callback=numbers,
    metavar="N …",
    help="Tokens of prompts  [default: 128 512, on a CPU 128; with --streams 512, on a CPU 32]",
)
@click.option(
    "--contexts",
    callback=numbers,
    metavar="N …",
    help="Tokens before decode  [default: 0 128 512 1024, to 512 on a CPU]",
)
@click.option(
    "--steps", type=int, help="Tokens that are decoded  [default: 64, on a CPU 16; with --streams 128, on a CPU 16]"
)
@click.option(
    "--repeats",
    type=int,
    help="Measurements, of which the median counts  [default: 5, on a CPU 3; with --streams 3]",
)
@click.option("--max-rows", type=int, help="With --streams: rows of a step at most  [default: 512]")
@click.option("--csv", "csv_file", type=FILE, help="Append the lines to this file")
@click.option("--plot", type=FILE, help="Draw the rates to this file (.png, .svg, .pdf)")
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: in the program]")
@conversion_options
@load_options("kv_cache_dtype", "matmul_precision", "routes")
@device_options
@profile_option
def command(
    source: str,
    csv_file: Path | None,
    plot: Path | None,
    tokenizer_file: Path | None,
    weights: str | None,
    max_context_len: int | None,
    loading: LoadOptions,
    engine: str | None,
    adapter: int | str | None,
    profile: bool,
    streams: tuple[int, ...] | None,
    **sizes: Any,
) -> None:
    """Measure how fast a language model reads prompts and writes text.

    SOURCE is a model as the generate command takes it. A rate is the median of several, by wall clock, from tokens to
    text; the roofline is what reading all weights and the visible KV cache once a token would allow, at the rate at
    which the device was seen to read memory in the same run.

    With --streams, that many texts begin together. The rate is that of all while all of them decode; waits for the
    first token and between tokens are at the 50th, 95th and 99th percentile, while prompts are still read.
    """
    from ..llm.measure.plot import draw, draw_streams, require_matplotlib
    from ..runtime import Runtime
    from ..text.tokenizer import Tokenizer

    _check_belong_together(streams, sizes, profile)
    if plot is not None:
        require_matplotlib()
    tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_file is not None else None
    path = program_path(source, chosen_options(weights, max_context_len), tokenizer)
    runtime = Runtime.get(engine, adapter)
    model = Path(source).name
    if streams is None:
        lines = _speed(runtime, path, sizes, model, profile, tokenizer=tokenizer, options=loading)
        _keep(csv_file, lines)
        if plot is not None:
            draw(plot, lines)
    else:
        many = _stream_speed(runtime, path, sizes | {"streams": streams}, model, loading)
        _keep(csv_file, many)
        if plot is not None:
            draw_streams(plot, many)


def _check_belong_together(streams: tuple[int, ...] | None, sizes: dict[str, Any], profile: bool) -> None:
    """Options that mean nothing beside each other are refused. What belongs to the other figure leaves ``sizes``."""
    for name in ("max_rows",) if streams is None else ("contexts",):
        if sizes.pop(name) is not None:
            raise click.UsageError(
                f"--{name.replace('_', '-')} says nothing {'without' if streams is None else 'with'} --streams"
            )
    if streams is not None and profile:
        raise click.UsageError("--profile measures one text, so it cannot be given with --streams")


def _speed(
    runtime: Runtime, path: Path, sizes: dict[str, Any], model: str, profile: bool, **options: Any
) -> Sequence[Line]:
    """Measure one text, and print the lines."""
    from .. import __version__
    from ..llm.measure.lines import lines_of
    from .tables import print_lines, print_profile

    report = run(runtime, path, sizes, **options)
    lines = lines_of(report, runtime.device, model, version=__version__)
    print_lines(lines)
    if profile:
        print_profile(report.profile)
    return lines


def _stream_speed(
    runtime: Runtime, path: Path, sizes: dict[str, Any], model: str, options: LoadOptions
) -> Sequence[StreamLine]:
    """Measure many texts at once, and print the lines."""
    from .. import __version__
    from ..llm.measure.stream_lines import stream_lines
    from .tables import print_stream_lines

    report = run_streams(runtime, path, sizes, options=options)
    lines = stream_lines(report, runtime.device, model, version=__version__)
    print_stream_lines(lines)
    return lines


def _keep(csv_file: Path | None, lines: Sequence[Line] | Sequence[StreamLine]) -> None:
    from ..llm.measure.history import append

    if csv_file is not None:
        append(csv_file, [asdict(line) for line in lines])


def run(runtime: Runtime, path: Path, sizes: dict[str, Any], **options: Any) -> Report:
    """``measure`` with a progress bar; ``sizes`` are fields of ``Sizes``, None where the default will do."""
    from ..llm.measure import measure

    with progress_bar(bytes=False) as bar:
        return measure(runtime, path, _given(sizes), on_progress=partial(bar, "Measuring"), **options)


def run_streams(runtime: Runtime, path: Path, sizes: dict[str, Any], **options: Any) -> StreamReport:
    """``measure_streams`` with a progress bar; ``sizes`` are fields of ``StreamSizes``, None for the default."""
    from ..llm.measure import measure_streams

    with progress_bar(bytes=False) as bar:
        return measure_streams(runtime, path, _given(sizes), on_progress=partial(bar, "Measuring"), **options)


def _given(sizes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sizes.items() if value is not None}

"""``et-webgpu bench SOURCE``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FILE, device_options, load_options, profile_option
from .source import chosen_options, conversion_options, program_path, progress_bar

if TYPE_CHECKING:
    from ..llm.measure import Report
    from ..runtime import LoadOptions, Runtime

LISTS = ("--prompts", "--contexts")


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
@load_options("kv_cache_dtype", "matmul_precision")
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
    **sizes: Any,
) -> None:
    """Measure how fast a language model reads prompts and writes text.

    SOURCE is a model as the generate command takes it. A rate is the median of several, by wall clock, from tokens to
    text; the roofline is what reading all weights and the visible KV cache once a token would allow, at the rate at
    which the device was seen to read memory in the same run.
    """
    from .. import __version__
    from ..llm.measure.history import append
    from ..llm.measure.lines import lines_of
    from ..runtime import Runtime
    from ..text.tokenizer import Tokenizer
    from .tables import print_lines, print_profile

    if plot is not None:
        from ..llm.measure.plot import require_matplotlib

        require_matplotlib()
    tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_file is not None else None
    path = program_path(source, chosen_options(weights, max_context_len), tokenizer)
    runtime = Runtime.get(engine, adapter)
    report = run(runtime, path, sizes, tokenizer=tokenizer, options=loading)
    lines = lines_of(report, runtime.device, Path(source).name, version=__version__)
    print_lines(lines)
    if profile:
        print_profile(report.profile)
    if csv_file is not None:
        append(csv_file, [asdict(line) for line in lines])
    if plot is not None:
        from ..llm.measure.plot import draw

        draw(plot, lines)


def run(runtime: Runtime, path: Path, sizes: dict[str, Any], **options: Any) -> Report:
    """``measure`` with a progress bar; ``sizes`` are fields of ``Sizes``, None where the default will do."""
    from ..llm.measure import measure

    given = {name: value for name, value in sizes.items() if value is not None}
    with progress_bar(bytes=False) as bar:
        return measure(runtime, path, given, on_progress=lambda *counts: bar("Measuring", *counts), **options)

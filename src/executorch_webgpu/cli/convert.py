"""``et-webgpu convert SOURCE -o MODEL.pte``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import click

from .options import FILE

FORMATS = click.Choice(["f32", "q4gsw"])


@click.command("convert")
@click.argument("source", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The program to write")
@click.option("--weights", type=FORMATS, default="q4gsw", show_default=True, help="Format of the linear layers")
@click.option("--head", type=FORMATS, help="Format of the last layer  [default: that of the others]")
@click.option(
    "--embedding", type=click.Choice(["f32"]), default="f32", show_default=True, help="Format of the embedding"
)
@click.option(
    "--group",
    type=click.Choice(["32", "64", "128"]),
    default="32",
    show_default=True,
    help="Weights to a scale in q4gsw",
)
@click.option("--max-seq-len", type=int, default=512, show_default=True, help="One more than the tokens of a call")
@click.option("--max-context-len", type=int, default=2048, show_default=True, help="Tokens of the whole text")
def command(
    source: Path,
    output: Path,
    weights: Literal["f32", "q4gsw"],
    head: Literal["f32", "q4gsw"] | None,
    embedding: str,
    group: str,
    max_seq_len: int,
    max_context_len: int,
) -> None:
    """Make a program of a GGUF model.

    Takes Llama, Mistral, SmolLM2, Qwen2.5 and Qwen3. The output appears when it is complete.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from ..models.convert import convert
    from ..models.llama import LlamaOptions

    options = LlamaOptions(weights, head, int(group), max_seq_len, max_context_len)
    console = Console(stderr=True)
    start = time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"Converting {source.name}", total=None)
        convert(source, output, options, lambda done, total: progress.update(bar, completed=done, total=total))
    seconds = time.monotonic() - start
    click.echo(f"Wrote {output}: {output.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s", err=True)

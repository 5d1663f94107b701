"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)


def device_options(command: Command) -> Command:
    """Add ``--engine`` and ``--adapter``, which ``Runtime.get`` takes."""
    engine = click.option(
        "--engine",
        type=click.Choice(["auto", "wgpu", "dawn"]),
        help="WebGPU implementation.  [default: ET_WEBGPU_ENGINE, else auto]",
    )
    adapter = click.option(
        "--adapter",
        metavar="INDEX|NAME",
        callback=_index_or_name,
        help="Adapter by index or part of its name, see the devices command.  [default: ET_WEBGPU_ADAPTER]",
    )
    return engine(adapter(command))


def profile_option(command: Command) -> Command:
    """Add ``--profile``."""
    return click.option("--profile", is_flag=True, help="Print the time that each kind of op takes.")(command)


def cache_option(command: Command) -> Command:
    """Add ``--kv-cache``."""
    option = click.option(
        "--kv-cache",
        "kv_cache_dtype",
        type=click.Choice(["f32", "f16", "int8"]),
        default="f32",
        show_default=True,
        help="Store the KV cache as float16 or int8, in a half or a quarter of the memory.",
    )
    return option(command)


def precision_option(command: Command) -> Command:
    """Add ``--matmul-precision``."""
    option = click.option(
        "--matmul-precision",
        type=click.Choice(["highest", "high"]),
        default="highest",
        show_default=True,
        help="high: tensor cores multiply numbers rounded to float16, which reads prompts faster.",
    )
    return option(command)


def fuse_option(command: Command) -> Command:
    """Add ``--no-fuse``."""
    option = click.option(
        "--fuse/--no-fuse",
        default=True,
        show_default=True,
        help="Run several operator calls as one where that computes the same.",
    )
    return option(command)


def sampling_options(
    *, max_new_tokens: int = 256, temperature: float = 0.0, top_p: float = 1.0
) -> Callable[[Command], Command]:
    """Add an option for each field of ``SamplingParams``, by its name; what is given here are the defaults."""
    options = (
        click.option("--max-new-tokens", type=int, default=max_new_tokens, show_default=True),
        click.option(
            "--temperature", type=float, default=temperature, show_default=True, help="0 takes the likeliest token"
        ),
        click.option("--top-k", type=int, default=0, show_default=True, help="Sample among the k likeliest; 0: all"),
        click.option("--top-p", type=float, default=top_p, show_default=True, help="Sample within this probability"),
        click.option("--seed", type=int, help="Repeat a sampled text"),
    )
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


def _index_or_name(ctx: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isdecimal() else value

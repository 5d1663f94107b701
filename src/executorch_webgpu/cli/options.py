"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
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


def _index_or_name(ctx: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isdecimal() else value

"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

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
        help="Adapter by index or part of its name, see the devices command; reference: none, NumPy computes "
        "everything.  [default: ET_WEBGPU_ADAPTER]",
    )
    return engine(adapter(command))


def _routes(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [value.partition("=") for value in values]
    for (name, equals, route), value in zip(pairs, values, strict=True):
        if not (name and equals and route):
            raise click.BadParameter(f"{value!r} is not FAMILY=NAME", ctx, option)
    return {name: route for name, _, route in pairs} or None


profile_option = click.option("--profile", is_flag=True, help="Print the time that each kind of op takes.")
fuse_option = click.option(
    "--fuse/--no-fuse",
    default=True,
    show_default=True,
    help="Run several operator calls as one where that computes the same.",
)
_LOAD_OPTIONS = {
    "kv_cache_dtype": click.option(
        "--kv-cache",
        "kv_cache_dtype",
        type=click.Choice(["f32", "f16", "int8"]),
        default="f32",
        show_default=True,
        help="Store the KV cache as float16 or int8, in a half or a quarter of the memory.",
    ),
    "matmul_precision": click.option(
        "--matmul-precision",
        type=click.Choice(["highest", "high"]),
        default="highest",
        show_default=True,
        help="high: products take numbers of 16 bits, which reads prompts faster on tensor cores.",
    ),
    "routes": click.option(
        "--route",
        "routes",
        multiple=True,
        metavar="FAMILY=NAME",
        callback=_routes,
        help="Compute a family of operators by these kernels, as sdpa_with_kv_cache=flash; may be repeated.",
    ),
    "fuse": fuse_option,
    "profile": profile_option,
    "check": click.option(
        "--check",
        is_flag=True,
        help="Hold every operator call against its float64 reference; end at the first one that differs. Slow.",
    ),
}


def load_options(*fields: str) -> Callable[[Command], Command]:
    """Add an option for each of these fields of ``LoadOptions``; the command gets them together, as ``loading``."""

    def add(command: Command) -> Command:
        @wraps(command)
        def run(**arguments: Any) -> Any:
            from ..runtime import LoadOptions

            given = {field: arguments.pop(field) for field in fields}
            return command(loading=LoadOptions(**given), **arguments)

        return reduce(lambda inner, field: _LOAD_OPTIONS[field](inner), reversed(fields), cast(Command, run))

    return add


def sampling_options(*, max_new_tokens: int = 256, temperature: str = "0") -> Callable[[Command], Command]:
    """Add an option for each field of ``SamplingParams``, by its name.

    ``temperature``: how it is drawn when neither the user nor the model says, in words.
    """
    option = click.option
    options = (
        option("--max-new-tokens", type=int, default=max_new_tokens, show_default=True),
        option(
            "--temperature",
            type=float,
            help=f"0 takes the likeliest token.  [default: the model's, of its generation_config; else {temperature}]",
        ),
        option("--top-k", type=int, help="Sample among the k likeliest; 0: all.  [default: the model's, else 0]"),
        option("--top-p", type=float, help="Sample within this probability; 1: all.  [default: the model's, else 1]"),
        option(
            "--min-p",
            type=float,
            help="Sample among tokens with this share of the likeliest one's probability; 0: all.  "
            "[default: the model's, else 0]",
        ),
        option(
            "--repetition-penalty",
            type=float,
            help="Divide logits of tokens that the text has; 1: none.  [default: the model's, else 1]",
        ),
        option("--stop", multiple=True, metavar="TEXT", help="End the text before this string; may be repeated."),
        option("--seed", type=int, help="Repeat a sampled text"),
    )
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


def given_sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """What ``sampling_options`` were given, by names of ``SamplingParams``.

    Raises InvalidInputError for values outside their range, before anything long has begun.
    """
    from ..llm.sample import SamplingParams

    given = {name: value for name, value in options.items() if value is not None}
    SamplingParams(**given)
    return given


def _index_or_name(ctx: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isdecimal() else value

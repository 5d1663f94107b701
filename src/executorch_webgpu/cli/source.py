"""The models that commands take, by file, folder or name, with what is shown while they are made ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..models.matrix import WEIGHT_FORMATS

if TYPE_CHECKING:
    from ..llm.model import LanguageModel
    from ..models.library import Options, Progress
    from ..models.llama import LlamaOptions
    from ..runtime import LoadOptions, Program
    from ..text.tokenizer import Tokenizer

Command = TypeVar("Command", bound=Callable[..., Any])


def conversion_options(command: Command) -> Command:
    """Add ``--weights`` and ``--max-context-len``, which say how a model that is no program yet becomes one."""
    weights = click.option(
        "--weights",
        type=click.Choice(WEIGHT_FORMATS),
        help="Format of the weights of a model that is converted.  [default: native]",
    )
    context = click.option(
        "--max-context-len", type=int, help="Tokens of the whole text, of a model that is converted.  [default: 2048]"
    )
    return weights(context(command))


def chosen_options(weights: Any, max_context_len: int | None) -> LlamaOptions | None:
    """What ``conversion_options`` were given; None if none was."""
    from dataclasses import replace

    from ..models.library import NATIVE

    if weights is None and max_context_len is None:
        return None
    return replace(NATIVE, weights=weights or NATIVE.weights, max_context_len=max_context_len)


def program_path(source: str, options: Options | None = None, tokenizer: Tokenizer | None = None) -> Path:
    """The program of what the user named, converted if necessary, with a progress bar on a terminal.

    ``tokenizer``: what a program that is made carries, instead of the model's own.
    """
    from ..models.library import find_program

    with progress_bar() as show:
        return find_program(source, options, show, tokenizer=tokenizer)


@contextmanager
def progress_bar(*, bytes: bool = True) -> Iterator[Progress]:
    """A bar on standard error that is there while something takes long; without a terminal, nothing.

    ``bytes``: what is counted.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    counter = DownloadColumn() if bytes else MofNCompleteColumn()
    columns = TextColumn("{task.description}"), BarColumn(), counter, TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bars.update(task, visible=False)
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


@contextmanager
def open_program(
    source: str,
    tokenizer_file: Path | None,
    *,
    options: Options | None = None,
    engine: str | None = None,
    adapter: int | str | None = None,
) -> Iterator[tuple[Program, Tokenizer]]:
    """The program of a language model and its tokenizer: the program's own, unless ``tokenizer_file`` is given."""
    from ..llm.program_tokenizer import tokenizer_of
    from ..runtime import Runtime
    from ..text.tokenizer import Tokenizer

    # What is quick to check comes first: making a model ready takes seconds.
    tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_file is not None else None
    with Runtime.get(engine=engine, adapter=adapter).load_program(program_path(source, options, tokenizer)) as program:
        if tokenizer is None:
            tokenizer = tokenizer_of(program, source=source)
        yield program, tokenizer


@contextmanager
def open_language_model(
    source: str, tokenizer_file: Path | None, *, loading: LoadOptions | None = None, **chosen: Any
) -> Iterator[tuple[LanguageModel, Tokenizer]]:
    """The loaded model and its tokenizer; ``chosen``: as ``open_program`` takes it."""
    from ..llm.model import LanguageModel

    with (
        open_program(source, tokenizer_file, **chosen) as (program, tokenizer),
        LanguageModel(program, loading) as model,
    ):
        yield model, tokenizer

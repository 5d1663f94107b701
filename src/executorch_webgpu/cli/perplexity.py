"""``et-webgpu perplexity SOURCE TEXT``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InvalidInputError
from .options import FILE, device_options, load_options
from .source import chosen_options, conversion_options, open_language_model, progress_bar
from .streams import note, write

if TYPE_CHECKING:
    from ..runtime import LoadOptions


@click.command("perplexity")
@click.argument("source")
@click.argument("text", type=FILE)
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: in the program]")
@click.option("--window", type=int, help="Tokens predicted from one beginning  [default: 1024, or the context]")
@conversion_options
@load_options("kv_cache_dtype", "matmul_precision", "fuse")
@device_options
def command(
    source: str,
    text: Path,
    tokenizer_file: Path | None,
    window: int | None,
    weights: str | None,
    max_context_len: int | None,
    loading: LoadOptions,
    engine: str | None,
    adapter: int | str | None,
) -> None:
    """Measure how well a model predicts a text file: the perplexity, lower is better.

    SOURCE is a model as the generate command takes it; a program (.pte) must have been converted with --full-logits.
    """
    from dataclasses import replace

    from ..format.pte import is_program
    from ..llm.perplexity import perplexity
    from ..models.library import NATIVE, find_model

    try:
        content = text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{text} is not UTF-8 text; save it as such") from error
    options = chosen_options(weights, max_context_len)
    with progress_bar() as show:
        path = find_model(source, show)
    if path.is_dir() or not is_program(path):
        options = replace(options or NATIVE, full_logits=True)
    with open_language_model(
        str(path), tokenizer_file, options=options, engine=engine, adapter=adapter, loading=loading
    ) as (model, tokenizer):
        tokens = tokenizer.encode(content)
        window = window or min(1024, model.context_len)
        start = time.monotonic()
        with progress_bar(bytes=False) as show:
            found = perplexity(model, tokens, window, lambda *counts: show("Predicting", *counts))
        rate = (len(tokens) - 1) / (time.monotonic() - start)
    write(f"{found:.4f}\n")
    note(f"{len(tokens)} tokens, {rate:.1f} tokens/s")

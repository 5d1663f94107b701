"""``et-webgpu embed SOURCE TEXT…``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..models.matrix import WEIGHT_FORMATS
from ..models.sentence_transformers import POOLINGS
from .options import FILE, device_options, load_options
from .prompts import read_prompts
from .source import open_program
from .streams import note, write

if TYPE_CHECKING:
    from ..runtime import LoadOptions


@click.command("embed")
@click.argument("source")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--file", "texts_file", type=FILE, help="A text a line of this file, but for empty ones")
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: in the program]")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each text: text, tokens, embedding")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long, instead of refusing them")
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    help="How vectors of tokens become one, where a program gives those  [default: as the model's files say]",
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Give vectors length one  [default: as the model's files say]"
)
@click.option(
    "--weights",
    type=click.Choice(WEIGHT_FORMATS),
    help="Format of the weights of a model that is converted.  [default: native]",
)
@load_options("matmul_precision")
@device_options
def command(
    source: str,
    texts: tuple[str, ...],
    texts_file: Path | None,
    tokenizer_file: Path | None,
    as_json: bool,
    truncate: bool,
    weights: Any,
    loading: LoadOptions,
    engine: str | None,
    adapter: int | str | None,
    **chosen: Any,
) -> None:
    """Print the vectors of texts, a line each: numbers with tabs between them, or JSON.

    SOURCE is a program (.pte) of an encoder, a GGUF file, a folder with safetensors, all-minilm-l6-v2, or org/name of
    the Hugging Face Hub. What is no program is converted once, and kept in the cache folder.
    """
    from ..llm.embedder import Embedder
    from ..models.encoder import EncoderOptions

    if bool(texts) == (texts_file is not None):
        raise click.UsageError("give texts to embed, or name a file of them with --file")
    given = read_prompts(None, texts, texts_file)
    options = EncoderOptions(weights=weights) if weights is not None else None
    with (
        open_program(source, tokenizer_file, options=options, engine=engine, adapter=adapter) as (program, tokenizer),
        Embedder(program, tokenizer, loading, **chosen) as embedder,
    ):
        encoded = [embedder.encode(text) for text in given]
        start = time.perf_counter()
        vectors = embedder.embed(encoded, truncate=truncate)
        seconds = time.perf_counter() - start
    for text, tokens, vector in zip(given, encoded, vectors, strict=True):
        numbers = [float(str(number)) for number in vector]  # the shortest decimals that mean the same float32
        line = {"text": text, "tokens": len(tokens), "embedding": numbers}
        write((json.dumps(line, ensure_ascii=False) if as_json else "\t".join(map(str, vector))) + "\n")
    note(f"{len(given)} texts, {sum(map(len, encoded))} tokens in {seconds:.2f} s; vectors of {vectors.shape[1]}")

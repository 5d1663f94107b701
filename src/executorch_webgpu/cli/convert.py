"""``et-webgpu convert SOURCE -o MODEL.pte``."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError
from ..models.matrix import EMBEDDING_FORMATS, GROUPS, WEIGHT_FORMATS
from ..models.sentence_transformers import POOLINGS
from .options import FILE
from .source import progress_bar
from .streams import note

if TYPE_CHECKING:
    from ..models.stages import Stages


def _stages(ctx: click.Context, option: click.Parameter, value: str | None) -> Stages | None:
    if value is None:
        return None
    try:
        first, *more = (int(each) for each in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number of stages nor a list of numbers of layers") from None
    return [first, *more] if more else first


@click.command("convert")
@click.argument("source")
@click.option("-o", "--output", type=FILE, required=True, help="The program to write")
@click.option(
    "--weights",
    type=click.Choice(WEIGHT_FORMATS),
    help="Format of the linear layers  [default: q4gsw; native for encoders]",
)
@click.option(
    "--head",
    type=click.Choice(WEIGHT_FORMATS),
    help="Format of the last layer  [default: q8csw beside q4gsw, else that of the others]",
)
@click.option(
    "--embedding",
    type=click.Choice(EMBEDDING_FORMATS),
    help="Format of the embedding  [default: native beside native, else f32]",
)
@click.option(
    "--group",
    type=click.Choice([str(group) for group in GROUPS]),
    default="32",
    show_default=True,
    help="Weights that share a scale",
)
@click.option(
    "--max-seq-len",
    type=int,
    help="One more than the tokens of a call  [default: 512]; for encoders, tokens of a text  [default: the model's]",
)
@click.option("--max-context-len", type=int, help="Tokens of the whole text  [default: 2048, or what the model can]")
@click.option("--full-logits", is_flag=True, help="Return the logits of every position, not of the last one")
@click.option(
    "--stages",
    callback=_stages,
    metavar="K|N,N,…",
    help="Write K methods over parts of the layers, or one of N layers each, for a GPU each  [default: one over all]",
)
@click.option("--max-batch", type=int, help="Texts of a call of an encoder  [default: up to 64, by the model's size]")
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    help="How an encoder's vectors of tokens become one  [default: the model's, else mean]",
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Give an encoder's vectors length one  [default: as the model's]"
)
@click.option("--tokenizer", type=FILE, help="A .gguf or tokenizer.json to put inside  [default: the source's own]")
def command(
    source: str, output: Path, tokenizer: Path | None, stages: Stages | None, group: str, **options: Any
) -> None:
    """Make a program of a model.

    SOURCE is a GGUF file, a folder with safetensors, smollm2-135m, all-minilm-l6-v2, or org/name of the Hugging Face
    Hub: of Llama, Mistral, SmolLM2, Qwen2.5 or Qwen3, or an encoder of texts, of BERT, RoBERTa, XLM-RoBERTa,
    CamemBERT, DistilBERT or MPNet. The formats f32, q8csw and q4gsw are those of other ExecuTorch runtimes, too;
    native keeps what is stored in 4 or 8 bits as it is. The output appears when it is complete.
    """
    from ..models.convert import check_target, convert, is_encoder
    from ..models.library import find_model

    check_target(output)
    given = {name: value for name, value in options.items() if value not in (None, False)} | {"group": int(group)}
    if options["normalize"] is False:
        given["normalize"] = False
    with progress_bar() as show:
        model = find_model(source, show)
        start = time.monotonic()
        convert(
            model,
            output,
            _options(is_encoder(model), given),
            tokenizer=tokenizer,
            stages=stages,
            on_progress=lambda *counts: show("Converting", *counts),
        )
    seconds = time.monotonic() - start
    note(f"Wrote {output}: {output.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s")


def _options(encoder: bool, given: dict[str, Any]) -> Any:
    """The options of the model's kind; InvalidInputError, which names them, for those of the other kind."""
    from ..models.encoder import EncoderOptions
    from ..models.llama import LlamaOptions

    mine = EncoderOptions if encoder else LlamaOptions
    if foreign := [name for name in given if name not in {field.name for field in fields(mine)}]:
        words = " and ".join("--" + name.replace("_", "-") for name in foreign)
        raise InvalidInputError(f"only {'language models' if encoder else 'encoders'} take {words}: leave that out")
    return mine(**given)

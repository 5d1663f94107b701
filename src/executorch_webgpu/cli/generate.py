"""``et-webgpu generate SOURCE``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError
from .options import (
    FILE,
    device_options,
    given_sampling,
    load_options,
    sampling_options,
)
from .source import chosen_options, conversion_options, open_language_model
from .streams import note, standard_input, write

if TYPE_CHECKING:
    from ..llm.generate import GenerationStats
    from ..runtime import LoadOptions
    from ..text.tokenizer import Tokenizer

FINISHED = {
    "eos": "the model ended its text",
    "stop": "reached a stop string",
    "length": "reached --max-new-tokens",
    "context": "the context is full",
}


@click.command("generate")
@click.argument("source")
@click.argument("text", required=False, metavar="[PROMPT]")
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: in the program]")
@click.option("--prompt", metavar="TEXT|-", help="The same as PROMPT; - reads standard input")
@click.option("--chat", is_flag=True, help="Put the prompt into the model's chat template")
@click.option("--system", metavar="TEXT", help="System message, with --chat")
@sampling_options()
@conversion_options
@load_options("kv_cache_dtype", "matmul_precision", "fuse", "profile")
@device_options
def command(
    source: str,
    text: str | None,
    tokenizer_file: Path | None,
    prompt: str | None,
    chat: bool,
    system: str | None,
    weights: str | None,
    max_context_len: int | None,
    loading: LoadOptions,
    engine: str | None,
    adapter: int | str | None,
    **sampling: Any,
) -> None:
    """Continue a prompt with a language model.

    SOURCE is a program (.pte), a GGUF file, a folder with safetensors, smollm2-135m, or org/name of the Hugging Face
    Hub. What is no program is converted once, and kept in the cache folder.
    The text goes to standard output as it is made; rates and the profile go to standard error.
    """
    from ..llm.generate import generate
    from ..llm.sample import sampling_params
    from .tables import print_profile

    if system is not None and not chat:
        raise click.UsageError("--system needs --chat: a plain prompt has no system message")
    given = given_sampling(sampling)
    if (text is None) == (prompt is None):
        raise click.UsageError("give one prompt to continue, as PROMPT or with --prompt")
    text = text or prompt or ""
    text = _read_stdin() if text == "-" else text
    options = chosen_options(weights, max_context_len)
    with open_language_model(
        source,
        tokenizer_file,
        options=options,
        engine=engine,
        adapter=adapter,
        loading=loading,
    ) as (model, tokenizer):
        params = sampling_params(tokenizer.settings.sampling, given)
        tokens = encode_prompt(tokenizer, text, chat=chat, system=system)
        for piece in generate(model, tokenizer, tokens, params):
            write(piece.text)
            if piece.stats is not None:
                write("\n")
                note(describe(piece.stats))
        if loading.profile:
            print_profile(model.profile())


def encode_prompt(tokenizer: Tokenizer, text: str, *, chat: bool, system: str | None) -> list[int]:
    """Token ids of a plain prompt, or of one user message in the model's chat template."""
    from ..text.chat import encode_chat, user_message

    return encode_chat(tokenizer, user_message(text, system)) if chat else tokenizer.encode_prompt(text)


def _read_stdin() -> str:
    """Standard input, less the newline that ends its last line."""
    try:
        return standard_input().read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidInputError("the prompt on standard input is not UTF-8 text") from error


def describe(stats: GenerationStats) -> str:
    """One line: both rates, why the text ended, and why the GPU did not draw the tokens, if it did not."""
    return (
        f"prefill {stats.prompt_tokens} tokens, {stats.prefill_rate:.1f} tokens/s; "
        f"decode {stats.new_tokens} tokens, {stats.decode_rate:.1f} tokens/s; {FINISHED[stats.finish_reason]}"
        + ("" if stats.host_reason is None else f"; tokens were drawn on the host: {stats.host_reason}")
    )

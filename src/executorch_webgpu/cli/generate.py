"""``et-webgpu generate SOURCE``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..exit_codes import BAD_INPUT
from .options import (
    FILE,
    device_options,
    given_sampling,
    load_options,
    sampling_options,
)
from .prompts import (
    continued,
    describe,
    encode_prompt,
    goes_by_engine,
    json_line,
    read_prompts,
    tokens_of,
    write_json,
    write_texts,
)
from .source import chosen_options, conversion_options, open_program
from .streams import note, write

if TYPE_CHECKING:
    from ..llm.sample import SamplingParams
    from ..runtime import LoadOptions, Program
    from ..text.tokenizer import Tokenizer


@click.command("generate")
@click.argument("source")
@click.argument("text", required=False, metavar="[PROMPT]")
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: in the program]")
@click.option(
    "--prompt",
    "prompt",
    multiple=True,
    metavar="TEXT|-",
    help="The same as PROMPT; - reads standard input. May be repeated: all go on at once, in an engine",
)
@click.option("--prompts", "prompts_file", type=FILE, help="A prompt a line of this file, but for empty ones; likewise")
@click.option(
    "--json", "as_json", is_flag=True, help="A line of JSON for each prompt, with its text when that has ended"
)
@click.option("--chat", is_flag=True, help="Put the prompt into the model's chat template")
@click.option("--system", metavar="TEXT", help="System message, with --chat")
@sampling_options()
@conversion_options
@load_options("kv_cache_dtype", "matmul_precision", "routes", "fuse", "profile")
@device_options
def command(
    source: str,
    text: str | None,
    tokenizer_file: Path | None,
    prompt: tuple[str, ...],
    prompts_file: Path | None,
    as_json: bool,
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
    Of several prompts, texts are written in their order; each is the one that its prompt gives alone. What is wrong
    with one of them is told, and the others go on; the exit code is then 2.
    """
    from ..llm.sample import sampling_params

    if system is not None and not chat:
        raise click.UsageError("--system needs --chat: a plain prompt has no system message")
    given = given_sampling(sampling)
    if [text is not None, bool(prompt), prompts_file is not None].count(True) != 1:
        raise click.UsageError("give one prompt to continue, as PROMPT or with --prompt, or several with --prompts")
    prompts = read_prompts(text, prompt, prompts_file)
    many = goes_by_engine(prompts)
    if many and loading.profile:
        raise click.UsageError("--profile measures one text, so it cannot be given with several prompts")
    options = chosen_options(weights, max_context_len)
    with open_program(source, tokenizer_file, options=options, engine=engine, adapter=adapter) as (program, tokenizer):
        params = sampling_params(tokenizer.settings.sampling, given)
        encode = partial(encode_prompt, tokenizer, chat=chat, system=system)
        if not many:
            _write_one(program, tokenizer, prompts[0], encode, params, loading, as_json)
            return
        with continued(program, tokenizer, params, loading, tokens_of(prompts, encode)) as texts:
            if not (write_json(prompts, texts) if as_json else write_texts(texts)):
                raise click.exceptions.Exit(BAD_INPUT)


def _write_one(
    program: Program,
    tokenizer: Tokenizer,
    prompt: str,
    encode: Callable[[str], list[int]],
    params: SamplingParams,
    loading: LoadOptions,
    as_json: bool,
) -> None:
    """One prompt, on a model of its own. Raises InvalidInputError if it cannot be continued."""
    from ..llm.generate import generate
    from ..llm.model import LanguageModel
    from .tables import print_profile

    with LanguageModel(program, loading) as model:
        pieces = generate(model, tokenizer, encode(prompt), params)
        if as_json:
            write(json_line(prompt, pieces))
        else:
            for piece in pieces:
                write(piece.text)
                if piece.stats is not None:
                    write("\n")
                    note(describe(piece.stats))
        if loading.profile:
            print_profile(model.profile())

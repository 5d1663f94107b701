"""``et-webgpu generate FILE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InvalidInputError
from .options import FILE, device_options, profile_option

if TYPE_CHECKING:
    from ..llm.generate import GenerationStats
    from ..text.tokenizer import Tokenizer

FINISHED = {
    "eos": "the model ended its text",
    "length": "reached --max-new-tokens",
    "context": "the context is full",
}


@click.command("generate")
@click.argument("file", type=FILE)
@click.option("--tokenizer", "tokenizer_file", type=FILE, required=True, help="A .gguf or a tokenizer.json")
@click.option("--prompt", required=True, metavar="TEXT|-", help="Text to continue; - reads standard input")
@click.option("--chat", is_flag=True, help="Put the prompt into the model's chat template")
@click.option("--system", metavar="TEXT", help="System message, with --chat")
@click.option("--max-new-tokens", type=int, default=256, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 takes the likeliest token")
@click.option("--top-k", type=int, default=0, show_default=True, help="Sample among the k likeliest; 0: all")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Sample within this probability")
@click.option("--seed", type=int, help="Repeat a sampled text")
@device_options
@profile_option
def command(
    file: Path,
    tokenizer_file: Path,
    prompt: str,
    chat: bool,
    system: str | None,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int | None,
    engine: str | None,
    adapter: int | str | None,
    profile: bool,
) -> None:
    """Continue a prompt with a language model.

    The text goes to standard output as it is made; rates and the profile go to standard error.
    """
    from ..llm.generate import generate
    from ..llm.model import LanguageModel
    from ..llm.sample import SamplingParams
    from ..runtime import Runtime
    from ..text.tokenizer import Tokenizer
    from .tables import print_profile

    if system is not None and not chat:
        raise click.UsageError("--system needs --chat: a plain prompt has no system message")
    # What is quick to check comes first: loading the program takes seconds.
    params = SamplingParams(max_new_tokens, temperature, top_k, top_p, seed)
    tokenizer = Tokenizer.from_file(tokenizer_file)
    text = _read_stdin() if prompt == "-" else prompt
    tokens = encode_prompt(tokenizer, text, chat=chat, system=system)
    with (
        Runtime.get(engine=engine, adapter=adapter).load_program(file) as program,
        LanguageModel(program, profile=profile) as model,
    ):
        for piece in generate(model, tokenizer, tokens, params):
            click.echo(piece.text, nl=False)
            if piece.stats is not None:
                click.echo()
                click.echo(describe(piece.stats), err=True)
        if profile:
            print_profile(model.profile())


def encode_prompt(tokenizer: Tokenizer, text: str, *, chat: bool, system: str | None) -> list[int]:
    """Token ids of a plain prompt, or of one user message in the model's chat template."""
    from ..text.chat import encode_chat, user_message

    return encode_chat(tokenizer, user_message(text, system)) if chat else tokenizer.encode(text)


def _read_stdin() -> str:
    """Standard input, less the newline that ends its last line."""
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidInputError("the prompt on standard input is not UTF-8 text") from error


def describe(stats: GenerationStats) -> str:
    """One line: both rates, and why the text ended."""
    return (
        f"prefill {stats.prompt_tokens} tokens, {stats.prefill_rate:.1f} tokens/s; "
        f"decode {stats.new_tokens} tokens, {stats.decode_rate:.1f} tokens/s; {FINISHED[stats.finish_reason]}"
    )

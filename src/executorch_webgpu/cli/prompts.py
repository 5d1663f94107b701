"""The prompts of ``et-webgpu generate``, and what becomes of them: alone on a model, several at once in an engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Error, InvalidInputError, NoAdapterError, UnsupportedProgramError
from .streams import note, standard_input, write

if TYPE_CHECKING:
    from ..llm.generate import GenerationStats, Piece
    from ..llm.sample import SamplingParams
    from ..runtime import LoadOptions, Program
    from ..text.tokenizer import Tokenizer

    Pieces = Generator[Piece]
    Tokens = list[int] | Error  # of a prompt, or why it has none

FINISHED = {
    "eos": "the model ended its text",
    "stop": "reached a stop string",
    "length": "reached --max-new-tokens",
    "context": "the context is full",
}
TEXTS, CONTEXTS = 64, 4  # that run at once at most, and whole contexts that their KV caches hold at most
PAGE_ROWS = 16


def read_prompts(text: str | None, prompts: Sequence[str], file: Path | None) -> list[str]:
    """What was given, by one of the three ways; ``-`` is standard input, and a file has a prompt a line."""
    if file is None:
        given = list(prompts) or [text or ""]
        return [_read_stdin().removesuffix("\n") if prompt == "-" else prompt for prompt in given]
    try:
        content = _read_stdin() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file} is not UTF-8 text; save it as such") from error
    found = [line for line in content.split("\n") if line.strip()]
    if not found:
        raise InvalidInputError(f"{file} has no prompts; write one a line")
    return found


def _read_stdin() -> str:
    """All of standard input."""
    try:
        return standard_input().read()
    except UnicodeDecodeError as error:
        raise InvalidInputError("the prompt on standard input is not UTF-8 text") from error


def goes_by_engine(prompts: Sequence[str]) -> bool:
    """Whether an engine continues these prompts: several at once. One alone needs no pages and no batch."""
    return len(prompts) > 1


def encode_prompt(tokenizer: Tokenizer, text: str, *, chat: bool, system: str | None) -> list[int]:
    """Token ids of a plain prompt, or of one user message in the model's chat template."""
    from ..text.chat import encode_chat, user_message

    return encode_chat(tokenizer, user_message(text, system)) if chat else tokenizer.encode_prompt(text)


def tokens_of(prompts: Sequence[str], encode: Callable[[str], list[int]]) -> list[Tokens]:
    """The tokens of each prompt, or why it has none."""

    def encoded(prompt: str) -> Tokens:
        try:
            return encode(prompt)
        except InvalidInputError as error:
            return error

    return [encoded(prompt) for prompt in prompts]


@contextmanager
def continued(
    program: Program, tokenizer: Tokenizer, params: SamplingParams, loading: LoadOptions, prompts: Sequence[Tokens]
) -> Iterator[list[Pieces | Error]]:
    """The text of each prompt, or what is wrong with it: of an engine, in which all go on at once.

    If the program or the adapter allows no engine, each is made when it is taken, which gives the same texts.
    """
    from ..llm.engine import Engine
    from ..llm.generate import generate
    from ..llm.model import LanguageModel
    from ..llm.stream_text import submit_text

    known = [tokens for tokens in prompts if isinstance(tokens, list)]
    sizes: dict[str, Any] = engine_sizes(program, known, params.max_new_tokens)
    made: Engine | LanguageModel
    try:
        made = Engine(program, loading, **sizes)
    except (UnsupportedProgramError, NoAdapterError) as error:
        made = LanguageModel(program, loading)
        note(f"one text after the other: {error}")
    with made:

        def begun(tokens: Tokens) -> Pieces | Error:
            try:
                if isinstance(tokens, Error):
                    return tokens
                if isinstance(made, Engine):
                    return submit_text(made, tokenizer, tokens, params)
                return generate(made, tokenizer, tokens, params)
            except Error as error:
                return error

        yield [begun(tokens) for tokens in prompts]


def engine_sizes(program: Program, prompts: Sequence[list[int]], max_new_tokens: int) -> dict[str, int]:
    """Sizes of an engine for these prompts: pages for all that run at once, but for no more than ``CONTEXTS``."""
    from ..llm.signature import Signature

    context = Signature.of(program).context_len
    rows = sorted((min(len(tokens) + max_new_tokens, context) for tokens in prompts), reverse=True)
    texts = min(TEXTS, len(prompts))
    most = CONTEXTS * -(-context // PAGE_ROWS)
    pages = sum(-(-each // PAGE_ROWS) for each in rows[:texts])
    return {"kv_pages": max(1, min(pages, most)), "page_rows": PAGE_ROWS, "max_sequences": max(1, texts)}


def write_texts(texts: Sequence[Pieces | Error]) -> bool:
    """Write texts in order, each as it is made, and a line about each to standard error. Whether all could be made."""
    begun, new_tokens, all_made = time.perf_counter(), 0, True
    for number, text in enumerate(texts, 1):
        try:
            for piece in _pieces(text):
                write(piece.text)
                if piece.stats is not None:
                    write("\n")
                    note(f"prompt {number}: {describe(piece.stats)}")
                    new_tokens += piece.stats.new_tokens
        except Error as error:
            all_made = False
            write("\n")  # so that what follows is not taken for it
            note(f"error: prompt {number}: {' '.join(str(error).split())}")
    seconds = time.perf_counter() - begun
    note(f"{len(texts)} prompts, {new_tokens} tokens, {new_tokens / seconds:.1f} tokens/s in all")
    return all_made


def write_json(prompts: Sequence[str], texts: Sequence[Pieces | Error]) -> bool:
    """Write a line of JSON for each prompt, in order, as soon as its text has ended. Whether all could be made."""
    all_made = True
    for prompt, text in zip(prompts, texts, strict=True):
        try:
            write(json_line(prompt, _pieces(text)))
        except Error as error:
            all_made = False
            write(json.dumps({"prompt": prompt, "error": str(error)}) + "\n")
    return all_made


def json_line(prompt: str, pieces: Iterable[Piece]) -> str:
    """A prompt and all of its text, in ASCII, which every encoding of a stream has."""
    made = list(pieces)
    stats = made[-1].stats
    assert stats is not None
    line = {
        "prompt": prompt,
        "text": "".join(piece.text for piece in made),
        "finish_reason": stats.finish_reason,
        "prompt_tokens": stats.prompt_tokens,
        "new_tokens": stats.new_tokens,
    }
    return json.dumps(line) + "\n"


def _pieces(text: Pieces | Error) -> Pieces:
    if isinstance(text, Error):
        raise text
    return text


def describe(stats: GenerationStats) -> str:
    """One line: both rates, why the text ended, and why the GPU did not draw the tokens, if it did not."""
    return (
        f"prefill {stats.prompt_tokens} tokens, {stats.prefill_rate:.1f} tokens/s; "
        f"decode {stats.new_tokens} tokens, {stats.decode_rate:.1f} tokens/s; {FINISHED[stats.finish_reason]}"
        + ("" if stats.host_reason is None else f"; tokens were drawn on the host: {stats.host_reason}")
    )

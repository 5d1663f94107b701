"""From a file of weights to a program, in one pass that holds a piece of one tensor in memory."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from ..errors import InvalidInputError
from ..format.gguf import is_gguf, open_gguf_header
from ..format.pte import save_program
from ..text.generation import folder_generation
from ..text.tokenizer import TOKENIZER, Tokenizer
from .gguf import open_gguf
from .huggingface import open_huggingface
from .llama import LlamaConfig, LlamaOptions, build_llama
from .program import Constants, assemble

REVISION = 2  # counts up when the same source and options make another program: cached ones are then made again


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    options: LlamaOptions | None = None,
    *,
    tokenizer: str | PathLike[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes the program of ``source`` to ``target``, which appears when it is complete.

    ``source``: a GGUF file, or a folder with ``config.json`` and safetensors. The program carries the tokenizer and
    the chat template of ``tokenizer`` (a GGUF file, a ``tokenizer.json`` or a folder with one), by default those of
    the source, if it has any. ``on_progress`` gets the bytes written and all bytes, again and again.
    InvalidInputError if the options do not fit the model, or the tokenizer is of an unknown kind; for what is wrong
    with ``source`` see ``open_gguf`` and ``open_huggingface``; OSError if ``target`` cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidInputError(f"{target} is the source itself: name another file to write")
    options = options or LlamaOptions()
    with open_huggingface(source) if source.is_dir() else open_gguf(source) as model:
        graph = build_llama(model.config, model.weights, options)
        text = _given_tokenizer(tokenizer, source) if tokenizer is not None else own_tokenizer(source)
        ends = text.eos_ids if text else folder_generation(source).eos_ids if source.is_dir() else frozenset()
        constants, files = metadata(model.config, options, text, ends), text.files() if text else {}
        program, segments = assemble(graph, ["input_pos"], constants, files)
        total = sum(len(s) if isinstance(s, bytes) else s.size for s in segments)
        done = 0

        def count(written: int) -> None:
            nonlocal done
            done += written
            on_progress(done, total)

        save_program(target, program, segments, count)


def _given_tokenizer(path: str | PathLike[str], source: Path) -> Tokenizer:
    """A tokenizer that may lie elsewhere: what a folder says about the model's end tokens counts all the same."""
    return Tokenizer.from_file(Path(path), model=source if source.is_dir() else None)


def own_tokenizer(source: Path) -> Tokenizer | None:
    """The tokenizer that a source brings along; None if it has none."""
    if source.is_dir():
        return Tokenizer.from_file(source) if (source / TOKENIZER).exists() else None
    has_one = is_gguf(source) and "tokenizer.ggml.model" in open_gguf_header(source).metadata
    return Tokenizer.from_file(source) if has_one else None


def metadata(
    config: LlamaConfig, options: LlamaOptions, tokenizer: Tokenizer | None, eos_ids: frozenset[int]
) -> dict[str, Constants]:
    """What a language model's constant methods say, by the names of stock exports."""
    max_seq_len, max_context_len = options.lengths(config)
    stated: dict[str, Constants] = {
        "get_max_seq_len": max_seq_len,
        "get_max_context_len": max_context_len,
        "get_n_layers": config.layers,
        "get_vocab_size": config.vocab,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }
    if tokenizer is not None and tokenizer.settings.bos_id is not None:
        stated["get_bos_id"] = tokenizer.settings.bos_id
    if eos_ids:
        stated["get_eos_ids"] = sorted(eos_ids)
    return stated

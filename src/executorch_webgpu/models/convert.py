"""From a file of weights to a program, in one pass that holds a piece of one tensor in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path

import tokenizers

from ..errors import InvalidInputError
from ..format.gguf import is_gguf, open_gguf_header
from ..format.gguf_parts import gguf_parts
from ..format.program_schema import Program
from ..format.pte import LazySegment, save_program
from ..text.generation import folder_generation
from ..text.tokenizer import TOKENIZER, Tokenizer
from .encoder import EncoderConfig, EncoderOptions, build_encoder
from .gguf import open_gguf
from .gguf_config import GGUF_ENCODERS
from .gguf_encoder import open_gguf_encoder
from .huggingface import open_huggingface, read_json
from .huggingface_config import ENCODER_TYPES
from .huggingface_encoder import open_huggingface_encoder
from .llama import LlamaConfig, LlamaOptions, build_llama
from .program import Constants, assemble
from .sentence_transformers import SentenceSettings
from .stages import Stages, build_stages

Given = str | PathLike[str] | Tokenizer
Assembled = tuple[Program, list[bytes | LazySegment]]
REVISION = 2  # counts up when the same source and options make another program: cached ones are then made again


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    options: LlamaOptions | EncoderOptions | None = None,
    *,
    tokenizer: Given | None = None,
    stages: Stages | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the program of ``source`` to ``target``, which appears when it is complete.

    ``source``: a GGUF file (any part, if it was split), or a folder with ``config.json`` and safetensors, of a language
    model or of an encoder; ``options``: those of its kind. What a LlamaOptions says counts for an encoder as well. The
    program carries the tokenizer and the chat template of ``tokenizer`` (a Tokenizer, a GGUF file, a
    ``tokenizer.json`` or a folder with one), by default those of the source, if it has any. ``stages``: how
    many methods to write over parts of a language model's layers, or how many layers each has, instead of one
    ``forward`` over all; see ``models.stages``. ``on_progress`` gets the bytes written and all bytes, again and again.
    InvalidInputError if the options do not fit the model, the tokenizer is of an unknown kind, or ``target`` cannot be
    a file; InvalidProgramError or UnsupportedProgramError for what is wrong with ``source``, its weights included, see
    ``open_gguf`` and ``open_huggingface``; OSError if ``target`` cannot be written.
    """
    source, target = Path(source), Path(target)
    check_target(target)
    check_is_no_source(target, source)
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        check_is_no_source(target, Path(tokenizer))
    if is_encoder(source):
        if stages is not None:
            raise InvalidInputError("only language models are written in stages: leave them out for an encoder")
        opened = _encoder(source, tokenizer, options)
    else:
        opened = _language_model(source, tokenizer, options, stages)
    with opened as assembled:
        program, segments = assembled
        total = sum(len(s) if isinstance(s, bytes) else s.size for s in segments)
        done = 0

        def count(written: int) -> None:
            nonlocal done
            done += written
            on_progress(done, total)

        save_program(target, program, segments, count)


def is_encoder(source: Path) -> bool:
    """Whether a file or folder that can be converted is an encoder; InvalidProgramError if it cannot be read."""
    if source.is_dir():
        return read_json(source / "config.json").get("model_type") in ENCODER_TYPES
    architecture = "general.architecture"
    return is_gguf(source) and open_gguf_header(gguf_parts(source)[0]).metadata.get(architecture) in GGUF_ENCODERS


@contextmanager
def _language_model(
    source: Path, tokenizer: Given | None, options: LlamaOptions | EncoderOptions | None, stages: Stages | None
) -> Iterator[Assembled]:
    """Program and segments, which can be written while the source is open."""
    if isinstance(options, EncoderOptions):
        raise InvalidInputError(
            f"{source} is no encoder of {', '.join(ENCODER_TYPES)}: give LlamaOptions for a language model"
        )
    options = options or LlamaOptions()
    with open_huggingface(source) if source.is_dir() else open_gguf(source) as model:
        staged = {} if stages is None else build_stages(model.config, model.weights, options, stages)
        graph = staged or build_llama(model.config, model.weights, options)
        text = own_tokenizer(source) if tokenizer is None else as_tokenizer(tokenizer, source)
        ends = (text.eos_ids if text else frozenset()) | (
            folder_generation(source).eos_ids if source.is_dir() else frozenset()
        )
        constants, files = metadata(model.config, options, text, ends), text.files() if text else {}
        if staged:
            constants["get_n_stages"] = len(staged)
        yield assemble(graph, ["input_pos"], constants, files)


@contextmanager
def _encoder(
    source: Path, tokenizer: Given | None, options: LlamaOptions | EncoderOptions | None
) -> Iterator[Assembled]:
    if isinstance(options, LlamaOptions):
        options = EncoderOptions.of(options)
    options = options or EncoderOptions()
    with open_huggingface_encoder(source) if source.is_dir() else open_gguf_encoder(source) as model:
        graph = build_encoder(model, options)
        text = own_tokenizer(source) if tokenizer is None else as_tokenizer(tokenizer, source)
        settings = options.applied(model.settings)
        constants = encoder_metadata(model.config, options, settings)
        settings = replace(settings, max_tokens=constants["get_max_seq_len"])
        files = settings.files() | (with_lowercase(text, settings).files() if text else {})
        yield assemble(graph, ["attention_mask"], constants, files)


def check_target(target: Path) -> None:
    """A program can be written there; InvalidInputError, before anything is done, if not."""
    if target.is_dir():
        raise InvalidInputError(f"{target} is a folder: name a file to write, such as {target / 'model.pte'}")
    if target.exists() and not target.is_file():
        raise InvalidInputError(f"{target} is not a regular file: name another file to write")
    if not target.parent.is_dir():
        raise InvalidInputError(
            f"{target.parent}: No such file or directory, to write {target.name} into: make it first"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InvalidInputError(f"files cannot be written into the folder {target.parent}: choose another one")


def check_is_no_source(target: Path, source: Path) -> None:
    """The program does not take the place of a file that it is made of; InvalidInputError if it would."""
    if not target.exists() or not source.exists():
        return
    files = source.iterdir() if source.is_dir() else gguf_parts(source) if is_gguf(source) else [source]
    if any(file.is_file() and target.samefile(file) for file in files):
        raise InvalidInputError(f"{target} is the source itself, or a part of a source: name another file to write")


def as_tokenizer(given: Given, source: Path) -> Tokenizer:
    """A tokenizer, read if it is a path; what a folder of weights says about end tokens counts all the same."""
    if isinstance(given, Tokenizer):
        return given
    return Tokenizer.from_file(Path(given), model=source if source.is_dir() else None)


def own_tokenizer(source: Path) -> Tokenizer | None:
    """The tokenizer that a source brings along; None if it has none."""
    if source.is_dir():
        return Tokenizer.from_file(source) if (source / TOKENIZER).exists() else None
    has_one = is_gguf(source) and "tokenizer.ggml.model" in open_gguf_header(gguf_parts(source)[0]).metadata
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


def encoder_metadata(config: EncoderConfig, options: EncoderOptions, settings: SentenceSettings) -> dict[str, int]:
    """What an encoder's constant methods say, by the names of stock exports."""
    _, length = options.lengths(config, settings)
    return {"get_max_seq_len": length, "get_n_layers": config.layers, "get_vocab_size": config.vocab}


def with_lowercase(tokenizer: Tokenizer, settings: SentenceSettings) -> Tokenizer:
    """The tokenizer, which puts texts into lower case first if the settings say so."""
    if not settings.lowercase:
        return tokenizer
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    own = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Lowercase(), *own])
    return Tokenizer(backend, tokenizer.settings, tokenizer.spelled)

"""From a file of weights to a program, in one pass that holds a piece of one tensor in memory."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from ..errors import InvalidInputError
from ..format.pte import save_program
from .gguf import open_gguf
from .llama import LlamaConfig, LlamaOptions, build_llama
from .program import assemble


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    options: LlamaOptions | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes the program of the GGUF file ``source`` to ``target``, which appears when it is complete.

    ``on_progress`` gets the bytes written and all bytes, again and again. InvalidInputError if the options do not
    fit the model; for what is wrong with ``source`` see ``open_gguf``; OSError if ``target`` cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidInputError(f"{target} is the source itself: name another file to write")
    options = options or LlamaOptions()
    with open_gguf(source) as model:
        graph = build_llama(model.config, model.weights, options)
        program, segments = assemble(graph, ["input_pos"], metadata(model.config, options))
        total = sum(len(s) if isinstance(s, bytes) else s.size for s in segments)
        done = 0

        def count(written: int) -> None:
            nonlocal done
            done += written
            on_progress(done, total)

        save_program(target, program, segments, count)


def metadata(config: LlamaConfig, options: LlamaOptions) -> dict[str, int | bool]:
    """What a language model's constant methods say, by the names of stock exports."""
    return {
        "get_max_seq_len": options.max_seq_len,
        "get_max_context_len": options.max_context_len,
        "get_n_layers": config.layers,
        "get_vocab_size": config.vocab,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }

"""Exports SmolLM2-135M-Instruct with ExecuTorch's stock tools, once, and prints where it is.

Standard output gets two lines: the path of the program and the path of the GGUF file, which also holds the
tokenizer and the chat template. What is going on goes to standard error. Needs the extra ``export``.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import rich.console
import rich.progress

from executorch_webgpu.errors import Error
from executorch_webgpu.models.library import REGISTRY, find_model
from stock_export import (
    ExportError,
    ExportOptions,
    Params,
    cache_entry,
    exit_on_terminate,
    export_program,
)

PACKAGE = REGISTRY["smollm2-135m"]
OPTIONS = ExportOptions(model_class="smollm2")
TYPICAL_SECONDS = 240  # of the export, on two cores of a server

# From llama.cpp's tensor names to those of Meta's checkpoints, which the exporter expects.
TOP_NAMES = {"token_embd": "tok_embeddings", "output_norm": "norm", "output": "output"}
LAYER_NAMES = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2",
    "ffn_up": "feed_forward.w3",
}


def fetch_gguf() -> Path:
    """The model's GGUF file in the cache, fetched when it is not there yet."""
    return find_model("smollm2-135m")


def read_params(path: Path) -> Params:
    """The exporter's model parameters, from the metadata of a llama-architecture GGUF file."""
    reader = gguf.GGUFReader(path)

    def field(key: str) -> Any:
        return reader.fields[key].contents()

    if (architecture := field("general.architecture")) != "llama":
        raise ExportError(f"{path} has architecture {architecture!r}; only 'llama' is understood")
    return {
        "dim": field("llama.embedding_length"),
        "hidden_dim": field("llama.feed_forward_length"),
        "n_layers": field("llama.block_count"),
        "n_heads": field("llama.attention.head_count"),
        "n_kv_heads": field("llama.attention.head_count_kv"),
        "head_dim": field("llama.rope.dimension_count"),
        "vocab_size": field("llama.vocab_size"),
        # Stored as float32; the shortest decimal that means the same is what was written in the first place.
        "norm_eps": float(str(np.float32(field("llama.attention.layer_norm_rms_epsilon")))),
        "rope_theta": float(field("llama.rope.freq_base")),
        "use_scaled_rope": False,
        "use_hf_rope": False,
    }


def write_checkpoint(source: Path, target: Path) -> None:
    """Dequantizes a GGUF file into a torch checkpoint: float32, Meta's names, a tied output spelled out."""
    import torch

    weights = {}
    for tensor in gguf.GGUFReader(source).tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))  # GGUF has the fastest dimension first
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        weights[meta_name(tensor.name)] = torch.from_numpy(values)
    weights.setdefault("output.weight", weights["tok_embeddings.weight"])
    torch.save(weights, target)


def meta_name(name: str) -> str:
    """``blk.3.attn_q.weight`` -> ``layers.3.attention.wq.weight``."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.{parts[3]}"
    return f"{TOP_NAMES[parts[0]]}.{parts[1]}"


def cached_program() -> Path:
    """Where the exported program lies in the cache, or will lie."""
    # Count up when this file derives other weights or parameters from the same package.
    return cache_entry("smollm2-135m", OPTIONS, f"{PACKAGE.name}=={PACKAGE.version} derivation 1") / "model.pte"


def export(path: Path, on_phase: Callable[[str], None]) -> Path:
    """Exports the program unless that was done before; its path."""
    model = cached_program()
    export_program(model.parent, OPTIONS, read_params(path), functools.partial(write_checkpoint, path), on_phase)
    return model


def export_with_progress(path: Path) -> Path:
    """export(), telling on standard error what happens: a bar on a terminal, else a line for each phase."""
    console = rich.console.Console(stderr=True)
    minutes = TYPICAL_SECONDS // 60
    console.print(f"Exporting SmolLM2-135M-Instruct with ExecuTorch, once: about {minutes} minutes on 2 cores.")
    start = time.monotonic()
    with rich.progress.Progress(
        rich.progress.TextColumn("  {task.description:<30}"),
        rich.progress.BarColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn(f"of about {minutes}:{TYPICAL_SECONDS % 60:02}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("", total=TYPICAL_SECONDS)
        shown = ""

        def show(phase: str) -> None:
            nonlocal shown
            elapsed = time.monotonic() - start
            progress.update(bar, description=phase, completed=min(elapsed, 0.99 * TYPICAL_SECONDS))
            if phase != shown and not console.is_terminal:
                console.print(f"  {elapsed:4.0f} s  {phase}")
            shown = phase

        model = export(path, show)
    megabytes = model.stat().st_size / 1e6
    seconds = time.monotonic() - start
    console.print(f"Exported {megabytes:.0f} MB in {seconds:.0f} s; kept in {model.parent}", soft_wrap=True)
    return model


def main() -> int:
    exit_on_terminate()
    try:
        path = fetch_gguf()
        model = cached_program()
        if not model.exists():
            model = export_with_progress(path)
    except (ExportError, Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing was left half-made.", file=sys.stderr)
        return 130
    print(model)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Small Llamas with random weights, exported by the stock command.

Run as a program (``PYTHONPATH=examples python -m tests.models.tiny_llama [NAME...]``), it exports them into
the cache. Importing this needs no torch; making weights does.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stock_export import ExportOptions, Params, cache_entry, exit_on_terminate, export_program

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Geometry:
    """The sizes that a Llama is made of, by the exporter's names."""

    dim: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    vocab_size: int
    n_layers: int = 2
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class TinyLlama:
    name: str
    geometry: Geometry
    options: ExportOptions
    seed: int = 0

    @property
    def program(self) -> Path:
        """Where the exported program lies in the cache, or will lie."""
        source = f"{asdict(self.geometry)} seed {self.seed} derivation 1"
        return cache_entry(f"tiny-llama-{self.name}", self.options, source) / "model.pte"

    @property
    def params(self) -> Params:
        return asdict(self.geometry) | {"use_scaled_rope": False}

    def write_checkpoint(self, path: Path) -> None:
        """Saves the float32 weights, by Meta's names."""
        import torch

        torch.save(random_weights(self.geometry, self.seed), path)

    def export(self) -> Path:
        """Exports the program unless that was done before; its path."""
        announce = functools.partial(print, f"tiny-llama-{self.name}:", file=sys.stderr)
        if not self.program.exists():
            announce("exporting")
            export_program(
                self.program.parent, self.options, self.params, self.write_checkpoint, on_phase=lambda _: None
            )
        return self.program


def _options(group_size: int | None = None, embedding_group_size: int | None = None) -> ExportOptions:
    return ExportOptions("llama3_2", group_size, embedding_group_size, max_seq_length=32, max_context_length=64)


# Sizes are no powers of two where that is free. Where weights are 4-bit, the exporter needs input sizes (dim,
# n_heads * head_dim, hidden_dim) that are multiples of the group size, and a vocabulary that is one of 4.
TINY_LLAMAS = {
    tiny.name: tiny
    for tiny in (
        # group 3, odd vocabulary, float32 linears
        TinyLlama("fp32", Geometry(72, 6, 2, 20, 100, 509), _options()),
        # group 2, 4-bit linears
        TinyLlama("4w", Geometry(64, 4, 2, 16, 96, 516), _options(group_size=32)),
        # group 1 (as many key/value heads as query heads), 4-bit linears and embedding
        TinyLlama("4w-embedding", Geometry(96, 8, 8, 12, 160, 508), _options(32, embedding_group_size=32)),
    )
}


def random_weights(geometry: Geometry, seed: int) -> dict[str, torch.Tensor]:
    """float32 weights by Meta's names, scaled so that activations stay near one through the layers."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def linear(outputs: int, inputs: int) -> torch.Tensor:
        return normal(outputs, inputs) / inputs**0.5

    def norm() -> torch.Tensor:
        return 1 + 0.1 * normal(geometry.dim)

    query, key_value = geometry.n_heads * geometry.head_dim, geometry.n_kv_heads * geometry.head_dim
    dim, hidden = geometry.dim, geometry.hidden_dim
    weights = {
        "tok_embeddings.weight": normal(geometry.vocab_size, dim),
        "norm.weight": norm(),
        "output.weight": linear(geometry.vocab_size, dim),
    }
    for layer in range(geometry.n_layers):
        weights |= {
            f"layers.{layer}.attention_norm.weight": norm(),
            f"layers.{layer}.attention.wq.weight": linear(query, dim),
            f"layers.{layer}.attention.wk.weight": linear(key_value, dim),
            f"layers.{layer}.attention.wv.weight": linear(key_value, dim),
            f"layers.{layer}.attention.wo.weight": linear(dim, query),
            f"layers.{layer}.ffn_norm.weight": norm(),
            f"layers.{layer}.feed_forward.w1.weight": linear(hidden, dim),
            f"layers.{layer}.feed_forward.w2.weight": linear(dim, hidden),
            f"layers.{layer}.feed_forward.w3.weight": linear(hidden, dim),
        }
    return weights


def main(names: Iterable[str]) -> None:
    exit_on_terminate()
    for name in names or TINY_LLAMAS:
        print(TINY_LLAMAS[name].export())


if __name__ == "__main__":
    main(sys.argv[1:])

"""Exports the sentence encoder all-MiniLM-L6-v2 with ExecuTorch's stock tools, once, and compares texts with it.

    python examples/export_encoder.py "How do I reset my password?" "I forgot my login." "Interest rates rose."

prints the path of the program and how close the texts are to the first one. Needs the extra ``export`` and
transformers. ``et-webgpu convert all-minilm-l6-v2`` makes a program of the same model without torch.
"""

from __future__ import annotations

import logging
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from executorch_webgpu import Error, Runtime
from executorch_webgpu.llm.embedder import Embedder
from executorch_webgpu.models.cache import cache_folder, digest, exclusive
from executorch_webgpu.models.library import find_model
from executorch_webgpu.text.tokenizer import Tokenizer

MODEL = "all-minilm-l6-v2"
MOST_TEXTS, MOST_TOKENS = 32, 256  # of one call


def sentence_encoder(folder: Path) -> Any:
    """The model in torch: ``(tokens [B, S], attention_mask [B, S]) -> embedding [B, 384]``, int64 and float32.

    The embedding is the mean of the vectors of the tokens that the mask has, divided by its length.
    """
    import torch
    from transformers import BertModel

    class SentenceEncoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = BertModel.from_pretrained(folder, add_pooling_layer=False)

        def forward(self, tokens: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(input_ids=tokens, attention_mask=attention_mask, return_dict=False)[0]
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, dim=1)

    return SentenceEncoder().eval()


def export(folder: Path) -> bytes:
    """The bytes of the program, for any number of texts and any length up to the bounds."""
    import torch
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from torch.export import Dim

    logging.getLogger().setLevel(logging.WARNING)  # the exporter lists every operator that it delegates
    example = torch.zeros(MOST_TEXTS, MOST_TOKENS, dtype=torch.long), torch.ones(MOST_TEXTS, MOST_TOKENS).long()
    sizes = {0: Dim("texts", min=1, max=MOST_TEXTS), 1: Dim("tokens", min=2, max=MOST_TOKENS)}
    with torch.no_grad():
        program = torch.export.export(sentence_encoder(folder), example, dynamic_shapes=(sizes, sizes))
        manager = to_edge_transform_and_lower(
            program,
            partitioner=[VulkanPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        return bytes(manager.to_executorch().buffer)


def cached_program(folder: Path) -> Path:
    """Where the exported program lies in the cache, or will lie. Its name covers what decides its content."""
    versions = "-".join(version(package) for package in ("torch", "executorch", "transformers"))
    content = digest([folder / "model.safetensors"])[:12]
    return cache_folder() / "encoders" / f"{MODEL}-{MOST_TEXTS}x{MOST_TOKENS}-{versions}-{content}.pte"


def exported(folder: Path) -> Path:
    """The program, exported unless that was done before."""
    path = cached_program(folder)
    with exclusive(path):
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.write_bytes(export(folder))
            partial.rename(path)
    return path


def main(texts: list[str]) -> int:
    try:
        folder = find_model(MODEL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = exported(folder)
        print(path)
        with Runtime.get().load_program(path) as program, Embedder(program, Tokenizer.from_file(folder)) as embedder:
            vectors = embedder.embed_texts(texts)
    except Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for text, closeness in zip(texts, vectors @ vectors[0], strict=True):
        print(f"{closeness:6.3f}  {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["How do I reset my password?", "I forgot my login.", "Interest rates rose."]))

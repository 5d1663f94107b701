"""Encoders as the stock exporter leaves them, small: ``python -m tests.llm.exported_encoders`` writes their programs.

The files are kept, with torch's vectors of some texts, each computed by itself.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "encoders"
VOCAB, DIM, MOST, BATCH = 31, 8, 9, 3
PAD = 0
TEXTS = ([3, 9, 4, 11, 5, 2, 8, 30, 1], [5], [21, 22, 23], [7, 6, 5, 4], [3, 9, 4, 11, 5], [21, 22, 23], [2, 30])


@dataclass(frozen=True)
class Export:
    """``inputs``: dtypes of the tokens, the mask and the token types. ``batch``, ``live``: which sizes change."""

    make: Callable[[], Any]
    inputs: tuple[str, ...] = ("int64", "int64")
    batch: int = BATCH
    live: tuple[str, ...] = ("batch", "length")
    delegated: bool = True
    constants: tuple[tuple[str, int], ...] = ()


def bert(pooled: bool, types: bool = False) -> Any:
    """transformers' own BERT, with its pooler's output beside the last hidden state, or pooled by their mean."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=MOST,
    )
    model = BertModel(config, add_pooling_layer=not pooled)

    def vectors(model: Any, tokens: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor | None) -> Any:
        mask = mask.to(torch.long)
        out = model(input_ids=tokens, attention_mask=mask, token_type_ids=kinds, return_dict=False)
        if not pooled:
            return out[:2]
        weights = mask.unsqueeze(-1).to(torch.float32)
        return (out[0] * weights).sum(1) / weights.sum(1)

    class Forward(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> Any:
            return vectors(self.model, tokens, mask, None)

    class ForwardOfTypes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor) -> Any:
            return vectors(self.model, tokens, mask, kinds)

    return _randomized(ForwardOfTypes() if types else Forward())


def unmasked(result: str, finds_padding: bool = False) -> Any:
    """Tokens alone, in a layer that mixes them. ``result``: "states", "flat" ([S, dim] of one text) or "mean"."""
    import torch

    class Forward(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mix = torch.nn.Embedding(VOCAB, DIM), torch.nn.Linear(DIM, DIM)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.table(tokens)
            text = (tokens != PAD).unsqueeze(-1).to(x.dtype) if finds_padding else torch.ones_like(x[..., :1])
            mean = (x * text).sum(1, keepdim=True) / text.sum(1, keepdim=True)
            hidden = torch.tanh(self.mix(x) + mean)
            if result == "mean":
                return (hidden * text).sum(1) / text.sum(1)
            return hidden[0] if result == "flat" else hidden

    return _randomized(Forward())


def _randomized(model: Any) -> Any:
    import torch

    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.requires_grad_(False).copy_(torch.randn_like(parameter) * 0.5)
    return model.eval()


EXPORTS = {
    "states": Export(lambda: bert(pooled=False)),
    "pooled": Export(lambda: bert(pooled=True), constants=(("get_vocab_size", VOCAB),)),
    "types_fixed": Export(lambda: bert(pooled=False, types=True), ("int64",) * 3, live=()),
    "pooled_fixed_one": Export(lambda: bert(pooled=True), batch=1, live=(), delegated=False),
    "bool_mask": Export(lambda: bert(pooled=True), ("int64", "bool"), live=("length",), delegated=False),
    "float_mask": Export(lambda: bert(pooled=True), ("int32", "float32"), live=("batch",), delegated=False),
    "no_mask": Export(lambda: unmasked("mean"), ("int64",)),
    "no_mask_flat": Export(lambda: unmasked("flat"), ("int64",), batch=1, live=("length",)),
    "no_mask_fixed": Export(lambda: unmasked("states"), ("int64",), live=()),
    "finds_padding": Export(lambda: unmasked("mean", finds_padding=True), ("int64",), live=()),
}


def write(name: str) -> list[list[float]]:
    """Export a model to its file. Returns torch's mean-pooled vector of each text, computed without padding."""
    import torch
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from torch.export import Dim

    export = EXPORTS[name]
    model = export.make()

    def inputs(rows: list[list[int]]) -> tuple[Any, ...]:
        tokens = torch.tensor(rows)
        others = [torch.ones_like(tokens), torch.zeros_like(tokens)][: len(export.inputs) - 1]
        return tuple(t.to(getattr(torch, d)) for t, d in zip([tokens, *others], export.inputs, strict=True))

    bounds = {"batch": (0, export.batch), "length": (1, MOST)}
    live = {bounds[size][0]: Dim(size, min=1, max=bounds[size][1]) for size in export.live}
    with torch.no_grad():
        example = inputs([list(range(1, MOST + 1))] * export.batch)
        shapes = (live,) * len(example) if live else None
        program = torch.export.export(model, example, dynamic_shapes=shapes, strict=False)
        manager = to_edge_transform_and_lower(
            program,
            partitioner=[VulkanPartitioner()] if export.delegated else None,
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods=dict(export.constants) or None,
        )
        (FOLDER / f"{name}.pte").write_bytes(bytes(manager.to_executorch().buffer))
        results = []
        for text in TEXTS:
            out = model(*inputs([text]))
            out = out[0] if isinstance(out, tuple) else out
            out = out.reshape(-1, DIM)
            results.append([float(x) for x in out.mean(0)])
        return results


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "vectors.json"
    vectors = json.loads(path.read_text()) if path.exists() else {}
    for name in sys.argv[1:] or EXPORTS:
        vectors[name] = write(name)
        print(name, (FOLDER / f"{name}.pte").stat().st_size, vectors[name][0][:3], flush=True)
        path.write_text(json.dumps(vectors, indent=1, sort_keys=True) + "\n")

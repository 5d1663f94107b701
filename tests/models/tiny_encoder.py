"""Small encoders with random weights, in folders as transformers writes them, and what it computes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

# Model type -> name of its classes.
CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "mpnet": "MPNet",
    "distilbert": "DistilBert",
}
SIZES = {
    "vocab_size": 97,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "max_position_embeddings": 41,
}
_DISTILBERT = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "last": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class TinyEncoder:
    """``fields``: of the configuration, by BERT's names. ``poolings``: None writes no files of sentence-transformers.

    ``dense``: outputs of a layer behind the pooling, and its activation.
    """

    kind: str = "bert"
    fields: dict[str, Any] = field(default_factory=dict)
    poolings: tuple[str, ...] | None = None
    normalize: bool = False
    dense: tuple[int, str] | None = None
    max_seq_length: int | None = None

    def model(self) -> Any:
        """The model in torch, the same at every call."""
        given = SIZES | self.fields
        if self.kind == "distilbert":
            given = {_DISTILBERT.get(key, key): value for key, value in given.items()}
        name = CLASSES[self.kind]
        config = getattr(transformers, f"{name}Config")(**given, attn_implementation="eager")
        extra = {} if self.kind == "distilbert" else {"add_pooling_layer": False}
        model = getattr(transformers, f"{name}Model")(config, **extra).eval()
        torch.manual_seed(len(json.dumps(given)))
        for key, parameter in model.named_parameters():
            scale, centre = (0.1, 1.0) if "orm" in key and key.endswith("weight") else (0.3, 0.0)
            parameter.requires_grad_(False).copy_(torch.randn_like(parameter) * scale + centre)
        return model

    def layer(self) -> torch.nn.Linear:
        """The layer behind the pooling."""
        assert self.dense is not None and self.poolings is not None
        torch.manual_seed(5)
        return torch.nn.Linear((SIZES | self.fields)["hidden_size"] * len(self.poolings), self.dense[0])

    def write(self, folder: Path, **saving: Any) -> Path:
        """Makes the folder, and gives it."""
        self.model().save_pretrained(folder, **saving)
        if self.poolings is not None:
            self._write_modules(folder)
        return folder

    def _write_modules(self, folder: Path) -> None:
        assert self.poolings is not None
        kinds = ["", "1_Pooling", *(["2_Dense"] if self.dense else []), *(["3_Normalize"] if self.normalize else [])]
        modules = [
            {
                "idx": i,
                "name": str(i),
                "path": path,
                "type": f"sentence_transformers.models.{path[2:] or 'Transformer'}",
            }
            for i, path in enumerate(kinds)
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": self.max_seq_length}))
        (folder / "1_Pooling").mkdir(exist_ok=True)
        flags = {flag: pooling in self.poolings for pooling, flag in _FLAGS.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
        if self.dense:
            (folder / "2_Dense").mkdir(exist_ok=True)
            layer, kind = self.layer(), f"torch.nn.modules.activation.{self.dense[1]}"
            sizes = {"in_features": layer.in_features, "out_features": layer.out_features, "bias": True}
            (folder / "2_Dense" / "config.json").write_text(json.dumps(sizes | {"activation_function": kind}))
            save_file(
                {f"linear.{k}": v for k, v in layer.state_dict().items()}, folder / "2_Dense" / "model.safetensors"
            )

    def embeddings(self, texts: Sequence[Sequence[int]], *, double: bool = False) -> np.ndarray:
        """Each text by itself, without padding; ``double``: in float64."""
        model = self.model().double() if double else self.model()
        with torch.no_grad():
            return np.stack([self._pooled(model(torch.tensor([list(text)]))[0][0]).numpy() for text in texts])

    def _pooled(self, hidden: torch.Tensor) -> torch.Tensor:
        by_name = {
            "cls": lambda: hidden[0],
            "max": lambda: hidden.max(0).values,
            "mean": lambda: hidden.mean(0),
            "mean_sqrt_len": lambda: hidden.sum(0) / len(hidden) ** 0.5,
            "last": lambda: hidden[-1],
        }
        pooled = torch.cat([by_name[name]() for name in self.poolings or ("mean",)])
        if self.dense:
            pooled = self.layer()(pooled)
            pooled = pooled.tanh() if self.dense[1] == "Tanh" else pooled
        return torch.nn.functional.normalize(pooled, dim=0) if self.normalize else pooled


def random_texts(
    lengths: Sequence[int], vocab: int = SIZES["vocab_size"], seed: int = 0, low: int = 0
) -> list[list[int]]:
    """Texts of these lengths, of any tokens from ``low`` on."""
    random = np.random.default_rng(seed)
    return [random.integers(low, vocab, length).tolist() for length in lengths]

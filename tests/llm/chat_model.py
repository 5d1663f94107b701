"""A real program with random weights that answers in capital letters, with a tokenizer that has a chat template.

The head's other rows are zero, so the likeliest token is always a letter: answers never end by themselves, and they
become the same tokens again when they are encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

import gguf

from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.models.tiny_gguf import TinyGguf
from tests.text.tiny_vocabulary import BPE_TOKENS, write_bpe


@dataclass(frozen=True)
class ChatModel:
    program: Path
    tokenizer: Path
    context_len: int


def write_chat_model(folder: Path, context_len: int, *, tokenizer_inside: bool = False) -> ChatModel:
    """The program takes up to 32 tokens at once. ``tokenizer_inside``: whether it carries its tokenizer."""
    weights = folder / f"model-{context_len}.gguf"
    TinyGguf(layers=1, vocab=len(BPE_TOKENS), context_len=context_len).write(weights)
    letters = [BPE_TOKENS.index(letter) for letter in ascii_uppercase]
    head = next(tensor for tensor in gguf.GGUFReader(weights, "r+").tensors if tensor.name == "output.weight")
    head.data[[token for token in range(len(BPE_TOKENS)) if token not in letters]] = 0
    head.data.flush()

    model = ChatModel(weights.with_suffix(".pte"), write_bpe(folder / f"vocabulary-{context_len}.gguf"), context_len)
    options = LlamaOptions("f32", max_seq_len=33, max_context_len=context_len)
    convert(weights, model.program, options, tokenizer=model.tokenizer if tokenizer_inside else None)
    return model

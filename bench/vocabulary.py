"""A tokenizer for programs with random weights, of any size."""

from __future__ import annotations

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from executorch_webgpu.text.detokenizer import BYTE_LEVEL
from executorch_webgpu.text.tokenizer import Tokenizer, TokenizerSettings

PUNCTUATION = ('"', ",", ":", "{", "}", "[", "]", '",', '":', ' "', '", "', '": "', "},", " {", " [", '"}', '"]', "0.")


def random_tokenizer(size: int) -> Tokenizer:
    """A byte-level vocabulary: bytes, numbers up to 999, punctuation of JSON, white space, and random words."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlcumwfgypbvkjxqz"))
    shares = 1 / np.arange(3, 3 + len(letters))
    texts = dict.fromkeys(
        [*PUNCTUATION, *(f"{n}" for n in range(1000)), *(" " * n for n in range(2, 33)), "\n", "\r\n"]
    )
    vocab = {character: index for index, character in enumerate(BYTE_LEVEL)}
    words = iter(texts)
    while len(vocab) < size - 1:
        text = next(words, None)
        if text is None:
            length = int(random.integers(2, 10))
            text = " " * int(random.integers(0, 2)) + "".join(random.choice(letters, length, p=shares / shares.sum()))
        vocab.setdefault("".join(BYTE_LEVEL[byte] for byte in text.encode()), len(vocab))
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|end|>", special=True)])
    return Tokenizer(backend, TokenizerSettings(eos_ids=frozenset({size - 1})))

"""A unigram vocabulary with byte fallback, as T5 and newer SentencePiece models have."""

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from executorch_webgpu.text.tokenizer import Tokenizer, TokenizerSettings


def unigram_tokenizer() -> Tokenizer:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"<0x{byte:02X}>", -10.0) for byte in range(256))]
    pieces += [("▁hello", -1.0), ("hello", -2.0), ("▁he", -2.5), ("ll", -3.0), ("12", -3.0), ("▁", -4.0)]
    pieces += [(letter, -5.0) for letter in "helowrd12"]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    backend.add_special_tokens([AddedToken(text, special=True) for text in ("<unk>", "<s>", "</s>")])
    return Tokenizer(backend, TokenizerSettings(eos_ids=frozenset({2})))

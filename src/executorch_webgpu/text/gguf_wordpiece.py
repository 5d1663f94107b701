"""WordPiece vocabularies of GGUF files ("bert") as a ``tokenizers`` pipeline.

llama.cpp's converter writes a lower one eighth block before a piece that begins a word, and takes the ``##`` from one
that goes on; control tokens stay as they are. Its tokenizer puts texts into lower case and drops accents, whatever the
model does, and so does this one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

WORD = "\u2581"
_CONTINUES = "##"


def wordpiece_backend(texts: Sequence[str], control: Collection[int], unknown: str) -> tokenizers.Tokenizer:
    """The pipeline, but for special tokens and the post-processor. ``control``: ids whose text is no piece."""
    vocabulary = {
        text if index in control or text.startswith(" ") else _piece(text): index for index, text in enumerate(texts)
    }
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(_CONTINUES)
    return backend


def around(before: tuple[str, int], after: tuple[str, int]) -> processors.TemplateProcessing:
    """[CLS] before every text and [SEP] after it, by their texts and ids."""
    (first, _), (last, _) = before, after
    return processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[before, after],
    )


def _piece(text: str) -> str:
    return text.removeprefix(WORD) if text.startswith(WORD) else _CONTINUES + text

"""A vocabulary of a few hundred tokens, as GGUF files that the ``gguf`` library writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, GGUFWriter
from tokenizers import pre_tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BOS, EOS, END_OF_TURN, USER = "<s>", "</s>", "<|im_end|>", "<tool>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<s>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
# Byte-level BPE: 3 control tokens, a user-defined one, one token a byte, then the results of the merges.
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2"]
BPE_TOKENS = [BOS, EOS, END_OF_TURN, USER, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
BPE_TYPES = [CONTROL] * 3 + [USER_DEFINED] + [NORMAL] * (len(BYTES) + len(MERGES))
# SentencePiece BPE: the unknown and 2 control tokens, one token a byte, then pieces, best score first.
PIECES = ["▁he", "he", "ll", "▁hell", "hell", "hello", "▁hello", *"helowrd▁aé"]
SPM_TOKENS = ["<unk>", BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
SPM_TYPES = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(PIECES)
SPM_SCORES = [0.0] * 259 + [-float(rank) for rank in range(len(PIECES))]


def write_bpe(
    path: Path,
    *,
    pre: str | None = "smollm",
    template: str = CHATML,
    extra: Callable[[GGUFWriter], None] | None = None,
) -> Path:
    """A byte-level BPE vocabulary with a chat template; ``extra`` may add more keys."""
    writer = GGUFWriter(path, "llama")
    for key, value, kind in bpe_keys(pre, template):
        writer.add_key_value(key, value, kind)
    return _finish(writer, path, extra)


def bpe_keys(pre: str | None = "smollm", template: str = CHATML) -> tuple[tuple[str, Any, GGUFValueType], ...]:
    """(key, value, type) of that vocabulary, for a file that holds more."""
    keys = (
        ("tokenizer.ggml.model", "gpt2", GGUFValueType.STRING),
        ("tokenizer.ggml.pre", pre, GGUFValueType.STRING),
        ("tokenizer.ggml.tokens", BPE_TOKENS, GGUFValueType.ARRAY),
        ("tokenizer.ggml.token_type", BPE_TYPES, GGUFValueType.ARRAY),
        ("tokenizer.ggml.merges", MERGES, GGUFValueType.ARRAY),
        ("tokenizer.ggml.bos_token_id", BPE_TOKENS.index(BOS), GGUFValueType.UINT32),
        ("tokenizer.ggml.eos_token_id", BPE_TOKENS.index(EOS), GGUFValueType.UINT32),
        ("tokenizer.chat_template", template, GGUFValueType.STRING),
    )
    return tuple(key for key in keys if key[1] is not None)


def write_spm(path: Path, *, extra: Callable[[GGUFWriter], None] | None = None) -> Path:
    """A SentencePiece BPE vocabulary with scores and byte fallback."""
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(SPM_TOKENS)
    writer.add_token_types(SPM_TYPES)
    writer.add_token_scores(SPM_SCORES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return _finish(writer, path, extra)


def _finish(writer: GGUFWriter, path: Path, extra: Callable[[GGUFWriter], None] | None) -> Path:
    if extra is not None:
        extra(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path

"""A byte-level BPE vocabulary that shows where text was cut: nearly all pairs of the alphabet's bytes are merges."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter

from executorch_webgpu.text.detokenizer import BYTE_LEVEL

ALPHABET = "aZtskK 019\t\n\r'STREVm.,<|>é日本ſǅ🙂\u0301\u00a0²한กक\u0985\u09be\u0085\u2028／(-_\u0900٣Ж!\u3000。ー"
CONTROL = ("<s>", "</s>", "<|im_end|>")


def merges() -> list[str]:
    """Pairs of bytes in an order that no text prefers."""
    found = sorted({byte for character in ALPHABET for byte in character.encode()})
    pairs = sorted(((a * 31 + b * 17) % 257, a, b) for a in found for b in found)
    return [f"{BYTE_LEVEL[a]} {BYTE_LEVEL[b]}" for order, a, b in pairs if order < 200]


def write_pairs(path: Path, pre: str) -> Path:
    """The vocabulary with that pre-tokenizer, in a GGUF file that llama.cpp loads as a vocabulary."""
    tokens = [*CONTROL, *sorted(BYTE_LEVEL), *(merge.replace(" ", "") for merge in merges())]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)))
    writer.add_token_merges(merges())
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path

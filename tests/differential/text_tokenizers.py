"""Random small tokenizers: folders of Hugging Face's files, and vocabularies of GGUF files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

import tokenizers
from gguf import GGUFWriter
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from executorch_webgpu.text.detokenizer import BYTE_LEVEL

ALPHABET = "abehlot 01 \n\t'.,<|>[]/é日🙂\u0301\u00a0ß▁"
WORDS = ("hello", " the", "  ", "'s", "12", "日本", "\n\n", "<0x41>", "Ġ")
SPECIAL = ("<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "<|user|>", "<|bot|>", "<|stop|>", "<|x y|>", "<é>")
# Ends of texts by their text; one of them is often flagged as ordinary text.
ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "[EOS]", "<|call|>", "<|return|>", "<|end|>")
ORDINARY = ("<tool>", "hello world", "<think>", "日本")
SPLITS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": None,  # transformers has these patterns itself
    "llama3": None,
    "qwen2": None,
    "deepseek-r1-qwen": None,
    "qwen35": None,
    "falcon3": None,
}


@dataclass
class Case:
    """A tokenizer on disk. ``mistyped``: end tokens that its file flags as ordinary text. ``ends``: ids that the
    files state."""

    path: Path
    tokens: dict[str, int]
    kind: str
    special: tuple[str, ...] = ()
    mistyped: tuple[str, ...] = ()
    ends: frozenset[int] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def random_text(rng: Random, tokens: tuple[str, ...] = (), most: int = 12) -> str:
    """Text with, now and then, the text of one of these tokens."""
    return "".join(_part(rng, tokens) for _ in range(rng.randrange(most + 1)))


def _part(rng: Random, tokens: tuple[str, ...]) -> str:
    chance = rng.random()
    if tokens and chance < 0.15:
        return rng.choice(tokens)
    return rng.choice(WORDS) if chance < 0.35 else rng.choice(ALPHABET)


def folder(rng: Random, path: Path) -> Case:
    """A tokenizer.json with or without the files that usually stand beside it."""
    path.mkdir(parents=True, exist_ok=True)
    kind = rng.choice(("byte-level", "byte-fallback", "metaspace", "unigram", "words"))
    special = tuple(rng.sample(SPECIAL, rng.randrange(2, 7)))
    mistyped = tuple(rng.sample(ENDS, rng.randrange(3))) if rng.random() < 0.4 else ()
    ordinary = tuple(rng.sample(ORDINARY, rng.randrange(3)))
    backend = _backend(rng, kind)
    added = [AddedToken(text, special=True, normalized=False, **_spaces(rng)) for text in special]
    added += [AddedToken(text, special=False, normalized=False) for text in (*mistyped, *ordinary)]
    rng.shuffle(added)
    for token in added:
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    ids = {text: cast(int, backend.token_to_id(text)) for text in (*special, *mistyped, *ordinary)}
    backend.post_processor = _post_processor(rng, {text: ids[text] for text in special})
    backend.save(str(path / "tokenizer.json"))
    case = Case(path, ids, kind, special, mistyped)
    _config(rng, case)
    _ends(rng, case)
    return case


def _spaces(rng: Random) -> dict[str, bool]:
    """Some special tokens take the white space around them along."""
    return {"rstrip": rng.random() < 0.15, "lstrip": rng.random() < 0.1}


def _pieces(rng: Random, alphabet: list[str], count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Random merges over an alphabet, each of two pieces that are there before it."""
    pieces, merges = list(alphabet), []
    for _ in range(count):
        left, right = rng.choice(pieces[-60:]), rng.choice(pieces)
        if left + right not in pieces and len(left + right) < 9:
            merges.append((left, right))
            pieces.append(left + right)
    return pieces, merges


def _backend(rng: Random, kind: str) -> tokenizers.Tokenizer:
    if kind == "byte-level":
        return _byte_level(rng)
    if kind == "unigram":
        return _unigram(rng)
    return _words(rng) if kind == "words" else _byte_fallback(rng, metaspace=kind == "metaspace")


def _unigram(rng: Random) -> tokenizers.Tokenizer:
    pieces, _ = _pieces(rng, ["▁", *dict.fromkeys(c for c in ALPHABET if c not in " ▁é")], rng.randrange(5, 60))
    backend = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), *((p, -rng.random() * 9) for p in pieces)], 0))
    scheme = rng.choice(("first", "always", "never"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace("▁", prepend_scheme=scheme)
    return backend


def _words(rng: Random) -> tokenizers.Tokenizer:
    """Without a decoder: words with spaces between them."""
    known = rng.sample(["hello", "the", "12", ",", "a", "b", "'", "s", "日本", "\ufffd"], rng.randrange(1, 10))
    vocab = {word: index for index, word in enumerate(["<unk>", *known])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


def _byte_level(rng: Random) -> tokenizers.Tokenizer:
    common = [BYTE_LEVEL[byte] for byte in sorted({byte for c in ALPHABET for byte in c.encode()})]
    alphabet = [*(c for c in BYTE_LEVEL if c not in common), *common]
    pieces, merges = _pieces(rng, alphabet, rng.randrange(5, 60))
    backend = tokenizers.Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, ignore_merges=rng.random() < 0.3)
    )
    if rng.random() < 0.2:
        backend.normalizer = rng.choice((normalizers.NFC(), normalizers.NFKC(), normalizers.Lowercase()))
    split = rng.choice((SPLITS["gpt-2"], r"\p{N}", r"\s+"))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.2, use_regex=rng.random() < 0.3)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(tokenizers.Regex(cast(str, split)), "isolated"), to_bytes]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _byte_fallback(rng: Random, *, metaspace: bool) -> tokenizers.Tokenizer:
    characters = [c for c in dict.fromkeys(ALPHABET) if c != " " and rng.random() < 0.8]
    alphabet = [*(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(["▁", *characters])]
    pieces, merges = _pieces(rng, alphabet[256:], rng.randrange(5, 60))
    vocab = {piece: i for i, piece in enumerate(["<unk>", *alphabet[:256], *pieces])}
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    prefix = rng.random() < 0.7
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    if metaspace:
        scheme = rng.choice(("first", "always", "never"))
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=rng.random() < 0.5)
    else:
        prepend = [normalizers.Prepend("▁")] if prefix else []
        backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return backend


def _post_processor(rng: Random, ids: dict[str, int]) -> Any:
    first, last = rng.choice(list(ids.items())), rng.choice(list(ids.items()))
    before, after = ([first] if rng.random() < 0.7 else []), ([last] if rng.random() < 0.4 else [])
    template = processors.TemplateProcessing(
        single=[*(text for text, _ in before), "$A", *(text for text, _ in after)],
        pair=["$A", "$B"],
        special_tokens=[*{first, last}],
    )
    byte_level = processors.ByteLevel(trim_offsets=False)
    return rng.choice(
        (
            None,
            byte_level,
            template,
            template,
            processors.Sequence([byte_level, template]),
            processors.RobertaProcessing(last, first),
            processors.BertProcessing(last, first),
        )
    )


def _config(rng: Random, case: Case) -> None:
    """tokenizer_config.json, sometimes with what transformers ignores beside a tokenizer.json."""
    if rng.random() < 0.15:
        return
    names = ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "image_token")
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name in names:
        if rng.random() < 0.5:
            text = rng.choice(case.special)
            # A token of a name of its own is a string in these files.
            config[name] = {"content": text, "__type": "AddedToken"} if rng.random() < 0.2 else text
    if rng.random() < 0.3:
        config["bos_token"] = None
    for name in ("add_bos_token", "add_eos_token"):
        if rng.random() < 0.3:
            config[name] = rng.random() < 0.5
    if rng.random() < 0.2:
        config["additional_special_tokens"] = rng.sample(case.special, 1)
    (case.path / "tokenizer_config.json").write_text(json.dumps(config))


def _ends(rng: Random, case: Case) -> None:
    """generation_config.json and config.json, either, both or none of them; the ids that count."""

    def some() -> Any:
        ids = rng.sample(range(300), rng.randrange(1, 3))
        return rng.choice((ids[0], ids, None))

    files: dict[str, dict[str, Any]] = {}
    if rng.random() < 0.5:
        files["generation_config.json"] = {"eos_token_id": some(), "bos_token_id": 1, "temperature": 0.5}
    if rng.random() < 0.7:
        files["config.json"] = {"model_type": "llama", "eos_token_id": some()}
    for name, values in files.items():
        (case.path / name).write_text(json.dumps(values))
    stated = [values["eos_token_id"] for values in files.values() if values["eos_token_id"] is not None]
    found = stated[0] if stated else []
    case.ends = frozenset(found if isinstance(found, list) else [found])
    case.notes["files"] = files


def gguf(rng: Random, path: Path) -> Case:
    """A GGUF file with a vocabulary and nothing else."""
    path.mkdir(parents=True, exist_ok=True)
    family = rng.choice(("gpt2", "gpt2", "llama"))
    writer = GGUFWriter(path / "model.gguf", "qwen2" if family == "gpt2" else "phi3")
    writer.add_tokenizer_model(family)
    special = tuple(rng.sample([text for text in SPECIAL[:-2] if text != "<unk>"], rng.randrange(2, 6)))
    ordinary = tuple(rng.sample(ORDINARY[:1] + ORDINARY[2:3], rng.randrange(3)))
    named = (
        _gguf_byte_level(rng, writer, special, ordinary)
        if family == "gpt2"
        else _gguf_spm(rng, writer, special, ordinary)
    )
    writer.add_bos_token_id(named[special[0]])
    writer.add_eos_token_id(named[special[1]])
    if family == "gpt2" or rng.random() < 0.5:  # transformers does not know the habits of pre-tokenizers
        writer.add_add_bos_token(rng.random() < 0.5)
    if rng.random() < 0.3:
        writer.add_add_eos_token(rng.random() < 0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return Case(path, named, family, special)


def _gguf_byte_level(
    rng: Random, writer: GGUFWriter, special: tuple[str, ...], ordinary: tuple[str, ...]
) -> dict[str, int]:
    pieces, merges = _pieces(rng, list(BYTE_LEVEL), rng.randrange(5, 60))
    tokens = [*pieces, *special, *ordinary]
    writer.add_tokenizer_pre(rng.choice(list(SPLITS)))
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(pieces) + [3] * len(special) + [4] * len(ordinary))
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    return {text: tokens.index(text) for text in (*special, *ordinary)}


def _gguf_spm(rng: Random, writer: GGUFWriter, special: tuple[str, ...], ordinary: tuple[str, ...]) -> dict[str, int]:
    characters = ["▁", *(c for c in dict.fromkeys(ALPHABET) if c not in " ▁" and rng.random() < 0.8)]
    pieces, _ = _pieces(rng, characters, rng.randrange(5, 60))
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *special, *ordinary, *pieces]
    writer.add_token_list(tokens)
    writer.add_token_types([2] + [6] * 256 + [3] * len(special) + [4] * len(ordinary) + [1] * len(pieces))
    scores = [-float(rank) for rank in range(len(pieces))]
    rng.shuffle(scores)
    writer.add_token_scores([0.0] * (len(tokens) - len(pieces)) + scores)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(True)
    return {text: tokens.index(text) for text in (*special, *ordinary)}

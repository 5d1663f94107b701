"""What Hugging Face's files say about a tokenizer beside its ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from .end_tokens import END_TEXTS, ends_by_text, ordinary_ends

# Tokens that before every text, and after it.
Affixes = tuple[tuple[int, ...], tuple[int, ...]]
# A token id that no vocabulary has.
_NO_TOKEN = 0xFFFFFFFF
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def affixes(backend: tokenizers.Tokenizer) -> Affixes:
    """What the post-processor puts before and after every text."""
    if backend.post_processor is None:
        return (), ()
    probe = tokenizers.Tokenizer(models.WordLevel({"x": _NO_TOKEN}, unk_token="x"))
    probe.post_processor = backend.post_processor
    ids = probe.encode("x").ids
    at = ids.index(_NO_TOKEN)
    return tuple(ids[:at]), tuple(ids[at + 1 :])


def named_tokens(config: Mapping[str, Any], special_tokens_map: Mapping[str, Any]) -> dict[str, str]:
    """Texts of named tokens ("bos_token", ...), of tokenizer_config.json and, in old folders, special_tokens_map.json:
    that one comes first, but only where the config does not list all added tokens."""
    sources = [config] if "added_tokens_decoder" in config else [config, special_tokens_map]
    named: dict[str, str] = {}
    for source in sources:
        extra = source.get("extra_special_tokens")
        for values in (source, extra if isinstance(extra, dict) else {}):
            for name, token in values.items():
                text = _text(token)
                is_name = name in _NAMES or name.endswith("_token") or values is extra
                if is_name and text is not None:
                    named[name] = text
    return named


def mark_special_tokens(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], named: Mapping[str, str]
) -> frozenset[int]:
    """Make tokens special that are so by name or by their text, whatever the file's flag; returns the end tokens' ids.

    An end token that is flagged as ordinary text would otherwise be written out, and a user could type it.
    """
    added = {token.content: (index, token) for index, token in backend.get_added_tokens_decoder().items()}
    ids = {text: index for text, (index, _) in added.items()}
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens")
    listed = [_text(token) for token in extra] if isinstance(extra, list) else []
    wanted = {*named.values(), *(text for text in listed if text)} | (END_TEXTS & ids.keys() - ordinary_ends(ids))
    for text in sorted(wanted):
        if text in added and not added[text][1].special:
            token = added[text][1]
            token.special = True
            backend.add_special_tokens([token])
        elif text not in added and backend.token_to_id(text) is not None:
            backend.add_special_tokens([AddedToken(text, special=True, normalized=False)])
    return ends_by_text(ids)


def spelled_tokens(config: Mapping[str, Any]) -> dict[int, str]:
    """Texts that ``Tokenizer.files`` wrote beside the vocabulary, by id."""
    spelled = config.get("spelled_tokens")
    pairs = spelled.items() if isinstance(spelled, dict) else ()
    return {int(index): text for index, text in pairs if str(index).isdecimal() and isinstance(text, str)}


def _text(token: Any) -> str | None:
    """A special token is written as its text, or as an object with its text in "content"."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None

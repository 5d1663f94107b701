"""A generated tokenizer, or a generated template, here and in ``transformers``: both must say the same."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random
from typing import Any

from transformers import AutoTokenizer, GenerationConfig

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.text.chat import encode_chat, render_chat
from executorch_webgpu.text.detokenizer import BYTE_LEVEL, BYTE_TOKEN
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.differential import text_templates, text_tokenizers
from tests.differential.text_tokenizers import Case, random_text

logging.getLogger("transformers").setLevel(logging.ERROR)
TEXTS = 8


def check_folder(rng: Random, path: Path) -> None:
    """Ids, text, end tokens and named tokens of a folder with a tokenizer.json."""
    case = text_tokenizers.folder(rng, path)
    theirs, ours = AutoTokenizer.from_pretrained(path), Tokenizer.from_file(path)
    _check_coding(rng, case, theirs, ours)
    _check_ends(case, ours)
    for name, text in theirs.special_tokens_map.items():
        assert ours.settings.special_tokens.get(name) == text, (name, text, ours.settings.special_tokens)
    assert ours.settings.special_tokens.keys() == theirs.special_tokens_map.keys()
    _check_files(rng, case, ours)


def check_gguf(rng: Random, path: Path) -> None:
    """Ids and text of a GGUF file's vocabulary."""
    case = text_tokenizers.gguf(rng, path)
    theirs = AutoTokenizer.from_pretrained(path, gguf_file="model.gguf")
    ours = Tokenizer.from_file(path / "model.gguf")
    _check_coding(rng, case, theirs, ours)
    assert theirs.eos_token_id in ours.eos_ids
    assert (theirs.bos_token, theirs.eos_token) == (ours.settings.bos_token, ours.settings.eos_token)
    _check_files(rng, case, ours)


def check_template(rng: Random, path: Path) -> None:
    """Text and ids of a conversation, with and without special tokens that a user typed."""
    case = text_tokenizers.folder(rng, path)
    special = tuple(text for text in case.special if "'" not in text)
    source = text_templates.template(rng, special)
    (path / "chat_template.jinja").write_text(source)
    theirs, ours = AutoTokenizer.from_pretrained(path), Tokenizer.from_file(path)
    typed = case.special if rng.random() < 0.6 else ()
    given = text_templates.conversation(rng, typed)
    try:
        text = theirs.apply_chat_template(_copy(given["messages"]), tokenize=False, **_rest(given))
    except Exception as error:
        _check_refused(source, given, ours, error)
        return
    assert render_chat(source, **{**ours.settings.special_tokens, **given}) == text, source
    ids = theirs.apply_chat_template(_copy(given["messages"]), return_dict=False, **_rest(given))
    assert encode_chat(ours, parse_special=True, **given) == ids, (source, text)
    safe = encode_chat(ours, **given)
    if not any(token in str(given) for token in case.special):
        assert safe == ids, (source, text)
        return
    _check_typed(case, source, given, ours, safe, text)


def _check_typed(case: Case, source: str, given: dict[str, Any], ours: Tokenizer, safe: list[int], text: str) -> None:
    """Special tokens in the ids are those that the template writes for a conversation that holds none."""
    # Characters that a vocabulary lacks become the unknown token, too.
    named = {text: case.tokens[text] for text in case.special if text != "<unk>"}
    blank = _map(given, lambda value: _blanked(value, named))
    count = [index for index in safe if index in named.values()]
    expected = encode_chat(ours, parse_special=True, **blank)
    assert count == [index for index in expected if index in named.values()], (source, text, safe)
    # What is not a special token is still all there: the text is that of the template.
    prefix = (
        b'"add_prefix_space":true' in ours.backend.pre_tokenizer.__getstate__() if ours.backend.pre_tokenizer else 0
    )
    if case.kind == "byte-level" and ours.backend.normalizer is None and not _strips(ours) and not prefix:
        kept = ours.decode(safe, keep_special=True)
        if source.count("content") == source.count("message['content'] }}"):
            assert kept == text, (source, kept, text)


def _check_coding(rng: Random, case: Case, theirs: Any, ours: Tokenizer) -> None:
    every = tuple(case.tokens)
    before = theirs("").input_ids
    for _ in range(TEXTS):
        text = random_text(rng, every)
        parsed = theirs(text).input_ids
        mine = ours.encode(text, parse_special=True)
        # A text that begins with BOS gets no second one here.
        assert mine == parsed or [*before[:1], *mine] == parsed, (text, mine, parsed)
        bare = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text, parse_special=True, add_special=False) == bare, (text, bare)
        if not any(token in text for token in case.mistyped):
            plain = theirs(text, split_special_tokens=True).input_ids
            assert ours.encode(text) == plain, (text, ours.encode(text), plain)
            prompt = ours.encode_prompt(text)
            assert plain[: len(prompt)] == prompt
        if "<é>" not in case.tokens and "日本" not in case.tokens:
            assert ours.decode(bare, keep_special=True) == theirs.decode(bare), (text, bare)
            if not case.mistyped:
                skipped = theirs.decode(bare, skip_special_tokens=True)
                assert ours.decode(bare) == skipped, (text, bare)
        _check_stream(rng, ours)
    if case.kind not in ("unigram", "words"):
        _check_bytes(rng, case, ours)


def _check_stream(rng: Random, ours: Tokenizer) -> None:
    """Streamed text is the whole text, piece by piece."""
    ids = [rng.randrange(ours.vocab_size) for _ in range(rng.randrange(20))]
    stream, shown = ours.stream(), ""
    for position, index in enumerate(ids):
        shown += stream.push(index)
        assert ours.decode(ids[: position + 1]).startswith(shown)
    assert shown + stream.finish() == ours.decode(ids)


def _check_bytes(rng: Random, case: Case, ours: Tokenizer) -> None:
    """Random tokens without added ones decode as their bytes do."""
    ordinary = [i for i in range(ours.vocab_size) if i not in case.tokens.values()]
    ids = [rng.choice(ordinary) for _ in range(rng.randrange(20))]
    tokens = [ours.backend.id_to_token(index) or "" for index in ids]
    if case.kind in ("byte-level", "gpt2"):
        raw = b"".join(bytes([BYTE_LEVEL.index(character)]) for token in tokens for character in token)
        assert ours.decode(ids) == raw.decode("utf-8", "replace"), tokens
        return
    raw = b"".join(_piece(token) for token in tokens if token != "<unk>" or case.kind != "llama")  # special there
    text = raw.decode("utf-8", "replace")
    assert ours.decode(ids) in (text, text.removeprefix(" ")), (tokens, ours.decode(ids), text)


def _piece(token: str) -> bytes:
    byte = BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()


def _check_ends(case: Case, ours: Tokenizer) -> None:
    """End tokens: those that generation_config.json or else config.json states, and those known by their text."""
    if not case.notes["files"]:
        assert not case.ends
    elif case.notes["files"].get("generation_config.json", {}).get("eos_token_id") or len(case.notes["files"]) == 1:
        name = next(iter(case.notes["files"]))
        stated = GenerationConfig.from_pretrained(
            case.path, config_file_name=name, **({"_from_model_config": True} if name == "config.json" else {})
        ).eos_token_id
        assert case.ends == frozenset(stated if isinstance(stated, list) else [] if stated is None else [stated])
    assert case.ends is not None and case.ends <= ours.eos_ids
    harmony = {"<|return|>", "<|call|>"} <= case.tokens.keys()
    known = {case.tokens[text] for text in case.mistyped if not (harmony and text == "<|end|>")}
    assert known <= ours.eos_ids
    named = ours.settings.special_tokens.get("eos_token")
    others = ours.eos_ids - case.ends - known
    assert {ours.backend.id_to_token(index) for index in others} <= {named, "</s>"}


def _check_files(rng: Random, case: Case, ours: Tokenizer) -> None:
    """What a program carries along is the same tokenizer."""
    again = Tokenizer.from_files(ours.files())
    assert again.settings == ours.settings
    text = random_text(rng, tuple(case.tokens))
    for parse in (False, True):
        assert again.encode(text, parse_special=parse) == ours.encode(text, parse_special=parse)
    ids = [rng.randrange(ours.vocab_size) for _ in range(9)]
    assert again.decode(ids, keep_special=True) == ours.decode(ids, keep_special=True)
    assert again.decode(ids) == ours.decode(ids)


def _check_refused(source: str, given: dict[str, Any], ours: Tokenizer, error: Exception) -> None:
    try:
        render_chat(source, **{**ours.settings.special_tokens, **given})
    except InvalidInputError:
        return
    raise AssertionError(f"transformers refuses ({error}), and here it is rendered: {source}")


def _blanked(text: str, special: dict[str, int]) -> str:
    """The text with every special token's letters gone: as long as before, and nothing of it is special."""
    for token in sorted(special, key=len, reverse=True):
        text = text.replace(token, "x" * len(token))
    return text


def _strips(ours: Tokenizer) -> bool:
    return any(token.lstrip or token.rstrip for token in ours.backend.get_added_tokens_decoder().values())


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    return [_map(item, change) for item in value] if isinstance(value, list) else value


def _copy(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [dict(message) for message in messages]


def _rest(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "messages"}

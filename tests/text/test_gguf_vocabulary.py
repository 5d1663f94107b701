from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.text.gguf_vocabulary import GgufVocabulary
from executorch_webgpu.text.pre_tokenizers import PRE_TOKENIZERS, REFUSED
from executorch_webgpu.text.tokenizer import Tokenizer, TokenizerSettings
from tests.text.pair_vocabulary import write_pairs
from tests.text.tiny_vocabulary import (
    BPE_TOKENS,
    BPE_TYPES,
    MERGES,
    SPM_SCORES,
    SPM_TOKENS,
    SPM_TYPES,
    write_bpe,
    write_spm,
)

# What llama.cpp itself makes of these texts, by pre-tokenizer.
RECORDED = json.loads((Path(__file__).parents[1] / "data/llama_cpp_pre_tokenizers.json").read_text(encoding="utf-8"))
BPE: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": BPE_TOKENS,
    "tokenizer.ggml.token_type": BPE_TYPES,
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.pre": "gpt-2",
}
SPM: dict[str, Any] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": SPM_TOKENS,
    "tokenizer.ggml.token_type": SPM_TYPES,
    "tokenizer.ggml.scores": SPM_SCORES,
}


def made_of(metadata: dict[str, Any]) -> Tokenizer:
    vocabulary = GgufVocabulary(metadata)
    return Tokenizer(vocabulary.backend(), TokenizerSettings(), vocabulary.spelled)


@pytest.mark.parametrize("kind", RECORDED["kinds"], ids=lambda kind: kind["names"][0])
def test_pre_tokenizers_cut_as_llama_cpp_does(tmp_path: Path, kind: dict[str, Any]) -> None:
    for number, name in enumerate(kind["names"]):
        assert name in PRE_TOKENIZERS
        if number and PRE_TOKENIZERS[name] == PRE_TOKENIZERS[kind["names"][number - 1]]:
            continue
        tokenizer = Tokenizer.from_file(write_pairs(tmp_path / f"{number}.gguf", name))
        assert [tokenizer.encode(text) for text in RECORDED["texts"]] == kind["ids"]


def test_every_name_is_recorded() -> None:
    recorded = {name for kind in RECORDED["kinds"] for name in kind["names"]}
    # The recorded build has no glm5 yet, which is glm4's.
    assert recorded == PRE_TOKENIZERS.keys() - {"glm5"}
    assert PRE_TOKENIZERS["glm5"] is PRE_TOKENIZERS["glm4"]
    assert {"deepseek-r1-qwen", "llama-v3", "llama3", "falcon3", "pixtral"} <= recorded


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f'pre-tokenizer is "{name}", which .* not supported: .*--tokenizer'):
        made_of({**BPE, "tokenizer.ggml.pre": name})


@pytest.mark.parametrize("base", [BPE, SPM], ids=["bpe", "spm"])
def test_one_text_at_two_ids(base: dict[str, Any]) -> None:
    """Both decode; a text is encoded to the last, where llama.cpp's table of tokens has it."""
    tokens, kinds = base["tokenizer.ggml.tokens"], base["tokenizer.ggml.token_type"]
    first, special = tokens.index("hello"), tokens.index("</s>")
    twice = {
        **base,
        "tokenizer.ggml.tokens": [*tokens, "hello", "</s>"],
        "tokenizer.ggml.token_type": [*kinds, kinds[first], kinds[special]],
        "tokenizer.ggml.scores": [*SPM_SCORES, SPM_SCORES[SPM_TOKENS.index("hello")], 0.0],
    }
    tokenizer = made_of(twice)
    again = Tokenizer.from_files(tokenizer.files())
    for one in (tokenizer, again):
        assert one.decode([first]) == one.decode([len(tokens)]) == "hello"
        assert one.decode([special, len(tokens) + 1]) == ""
        assert one.decode([special, len(tokens) + 1], keep_special=True) == "</s></s>"
        assert one.vocab_size == len(tokens) + 2
        assert first not in one.encode("hello hello")
        assert one.decode(one.encode("hello hello 12")) == "hello hello 12"


@pytest.mark.parametrize("base", [BPE, SPM], ids=["bpe", "spm"])
def test_tokens_that_are_not_utf8(base: dict[str, Any]) -> None:
    """As the reader of GGUF files gives them: stray bytes as ``surrogateescape`` writes them."""
    halves = [half.decode("utf-8", "surrogateescape") for half in (b"\xc3", b"\xa9!")]
    tokens = [*base["tokenizer.ggml.tokens"], *halves]
    metadata = {
        **base,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*base["tokenizer.ggml.token_type"], 1, 1],
        "tokenizer.ggml.scores": [*SPM_SCORES, -50.0, -50.0],
    }
    tokenizer = made_of(metadata)
    for one in (tokenizer, Tokenizer.from_files(tokenizer.files())):
        assert one.decode([len(tokens) - 2, len(tokens) - 1]) == "é!"
        assert one.decode([len(tokens) - 2]) == "\ufffd"
        assert one.decode(one.encode("hello é")) == "hello é"


def test_an_added_token_is_its_own_text(bpe: Tokenizer, tmp_path: Path) -> None:
    """Byte-level decoding takes "é" for the byte of that number."""
    backend = Tokenizer.from_files(bpe.files()).backend
    backend.add_tokens(["<é>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path)
    assert tokenizer.decode(tokenizer.encode("é<é>é")) == "é<é>é"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ggml.tokens", ["a", 1], "not a list of type str"),
        ("ggml.tokens", "abc", "not of type list"),
        ("ggml.token_type", [1], "310 tokens and 1 values|266 tokens and 1 values"),
        ("ggml.token_type", ["x"] * len(BPE_TOKENS), "not a list of type int"),
        ("ggml.token_type", [1.5] * len(BPE_TOKENS), "not a list of type int"),
        ("ggml.merges", [1], "not a list of type str"),
        ("ggml.merges", ["missing tokens"], "inconsistent"),
        ("ggml.pre", 5, "not of type str"),
        ("ggml.model", 5, "not of type str"),
        ("ggml.eos_token_id", "2", "not of type int"),
        ("ggml.eos_token_id", True, "not of type int"),
        ("ggml.add_bos_token", 1, "not of type bool"),
        ("chat_template", 7, "not of type str"),
        ("chat_template", "a\udcff", "chat_template is not UTF-8: name .*--tokenizer"),
        ("ggml.pre", "gpt\udcff", "pre is not UTF-8"),
    ],
)
def test_values_of_a_wrong_type(key: str, value: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        vocabulary = GgufVocabulary({**BPE, f"tokenizer.{key}": value})
        vocabulary.backend()
        assert vocabulary.end_ids is not None and vocabulary.chat_template is None


@pytest.mark.parametrize("scores", [[0.0], ["x"] * len(SPM_TOKENS), [float("nan")] * len(SPM_TOKENS), None])
def test_scores(scores: object) -> None:
    with pytest.raises(InvalidInputError, match="scores"):
        made_of({**SPM, "tokenizer.ggml.scores": scores})


def test_named_tokens(tmp_path: Path) -> None:
    """SentencePiece has defaults; what there is none of is undefined for a template."""

    def named(writer: GGUFWriter) -> None:
        writer.add_pad_token_id(BPE_TOKENS.index("<tool>"))

    settings = Tokenizer.from_file(write_bpe(tmp_path / "a.gguf", extra=named)).settings
    assert settings.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<tool>"}
    settings = Tokenizer.from_file(write_spm(tmp_path / "b.gguf")).settings
    assert settings.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = GgufVocabulary(SPM)
    assert (vocabulary.token_id("bos"), vocabulary.token_id("eos")) == (1, 2)
    assert GgufVocabulary(BPE).named_tokens == {}
    assert replace(settings, special_tokens={}).bos_token == ""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFWriter
from tokenizers import AddedToken

from executorch_webgpu.text.chat import encode_chat, user_message
from executorch_webgpu.text.end_tokens import END_TEXTS, FILL_END_TEXTS, ends_by_text
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.text.test_tokenizer import save_json, streamed
from tests.text.tiny_vocabulary import BPE_TOKENS, BYTES, CHATML, CONTROL, NORMAL, USER_DEFINED

TEXTS = sorted(END_TEXTS - {"</s>", "<|end|>"})  # those two depend on others


def write_with(path: Path, tokens: list[str], kind: int, keys: dict[str, int] | None = None) -> Path:
    """A byte vocabulary with an end token and these tokens of one type."""
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*BYTES, "<first>", "th", *tokens])
    writer.add_token_types([NORMAL] * len(BYTES) + [CONTROL, NORMAL] + [kind] * len(tokens))
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(len(BYTES))
    writer.add_chat_template(CHATML)
    for key, index in (keys or {}).items():
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", len(BYTES) + 2 + index)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def ends_of(tokenizer: Tokenizer) -> set[str | None]:
    return {tokenizer.backend.id_to_token(index) for index in tokenizer.eos_ids}


def id_of(tokenizer: Tokenizer, text: str) -> int:
    index = tokenizer.backend.token_to_id(text)
    assert index is not None
    return index


@pytest.mark.parametrize("kind", [CONTROL, NORMAL, USER_DEFINED], ids=["control", "normal", "user-defined"])
def test_an_end_of_a_gguf_file_is_one_whatever_its_type(tmp_path: Path, kind: int) -> None:
    tokenizer = Tokenizer.from_file(write_with(tmp_path / "ends.gguf", TEXTS, kind))
    assert ends_of(tokenizer) == {"<first>", *TEXTS}
    for text in TEXTS:
        index = id_of(tokenizer, text)
        assert tokenizer.encode(f"a{text}b", parse_special=True)[1:-1] == [index]
        assert index not in tokenizer.encode(f"a{text}b")  # typed by a user
        assert tokenizer.decode([index]) == ""
    if "<|im_end|>" in TEXTS:
        ids = encode_chat(tokenizer, user_message("hi"))
        assert ids.count(id_of(tokenizer, "<|im_end|>")) == 1


@pytest.mark.parametrize("special", [True, False])
def test_an_end_of_a_tokenizer_json_is_one_whatever_its_flag(bpe: Tokenizer, tmp_path: Path, special: bool) -> None:
    backend = Tokenizer.from_files(bpe.files()).backend
    backend.add_tokens([AddedToken(text, special=special, normalized=False) for text in TEXTS])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path)
    assert ends_of(tokenizer) >= set(TEXTS)
    for text in TEXTS:
        index = id_of(tokenizer, text)
        assert tokenizer.encode(f"a{text}", parse_special=True)[1:] == [index]
        assert index not in tokenizer.encode(f"a{text}")
        assert "".join(streamed(tokenizer, [index])) == ""


def test_exceptions() -> None:
    """Of o200k_harmony, solar-open, gemma 4 and plamo, as in llama.cpp."""

    def left(*texts: str) -> set[str]:
        ids = {text: index for index, text in enumerate(texts)}
        return {texts[index] for index in ends_by_text(ids)}

    assert left("<|end|>", "a") == {"<|end|>"}
    assert left("<|end|>", "<|return|>") == {"<|end|>", "<|return|>"}
    assert left("<|end|>", "<|return|>", "<|call|>") == {"<|return|>", "<|call|>"}
    assert left("<|end|>", "<|flush|>", "<|calls|>") == {"<|flush|>", "<|calls|>"}
    assert left("</s>", "a") == {"</s>"}
    assert left("</s>", "<|tool_response>") == {"<|tool_response>"}
    assert left("</s>", "<|plamo:eos|>") == {"</s>"}
    assert ends_by_text({"</s>": 0, "<|plamo:eos|>": 1}, {"eos": 1}) == {1}


def test_tokens_that_fill() -> None:
    """What pads or separates files of code ends a text; a key comes before texts."""
    texts = [text for some in FILL_END_TEXTS.values() for text in some]
    ids = {text: index for index, text in enumerate([*texts, "own"])}
    assert ends_by_text(ids) == {ids[text] for text in texts}
    stated = {"fim_pad": ids["own"]}
    assert ends_by_text(ids, stated) == {ids[text] for text in [*texts, "own"]} - {
        ids[text] for text in FILL_END_TEXTS["fim_pad"]
    }


@pytest.mark.parametrize("key", ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"])
def test_ends_by_key(tmp_path: Path, key: str) -> None:
    tokenizer = Tokenizer.from_file(write_with(tmp_path / "keys.gguf", ["one", "two"], NORMAL, {key: 1}))
    assert ends_of(tokenizer) == {"<first>", "two"}


@pytest.mark.parametrize(
    ("generation", "config", "right"),
    [
        ({"eos_token_id": [5, 6]}, {"eos_token_id": 7}, {5, 6}),
        ({"eos_token_id": 5}, None, {5}),
        ({"eos_token_id": None}, {"eos_token_id": 7}, {7}),
        ({"top_k": 3}, {"eos_token_id": [7, 8]}, {7, 8}),
        (None, {"eos_token_id": [7, 8]}, {7, 8}),
        (None, {"eos_token_id": None, "text_config": {"eos_token_id": 9}}, {9}),
        (None, {}, set()),
        (None, None, set()),
    ],
)
def test_ends_of_the_files_beside(
    bpe: Tokenizer, tmp_path: Path, generation: object, config: object, right: set[int]
) -> None:
    save_json(bpe, tmp_path)
    for name, values in (("generation_config.json", generation), ("config.json", config)):
        if values is not None:
            (tmp_path / name).write_text(json.dumps(values))
    known = {BPE_TOKENS.index(text) for text in ("</s>", "<|im_end|>")}
    tokenizer = Tokenizer.from_file(tmp_path)
    assert tokenizer.eos_ids == known | right
    assert Tokenizer.from_files(tokenizer.files()).eos_ids == known | right


def test_a_tokenizer_that_lies_elsewhere(bpe: Tokenizer, tmp_path: Path) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    model.mkdir()
    other.mkdir()
    save_json(bpe, other)
    (other / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert 5 in Tokenizer.from_file(other, model=model).eos_ids  # nothing is said there
    (model / "config.json").write_text('{"eos_token_id": 6}')
    assert Tokenizer.from_file(other, model=model).eos_ids - Tokenizer.from_file(tmp_path / "other").eos_ids == {6}
    assert 5 not in Tokenizer.from_file(other, model=model).eos_ids
    gguf = write_with(tmp_path / "vocabulary.gguf", ["<|im_end|>"], NORMAL)
    assert Tokenizer.from_file(gguf, model=model).eos_ids - Tokenizer.from_file(gguf).eos_ids == {6}

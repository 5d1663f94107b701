from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tokenizers
from gguf import GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.text.tiny_vocabulary import (
    BOS,
    BPE_TOKENS,
    END_OF_TURN,
    EOS,
    SPM_TOKENS,
    USER,
    write_bpe,
    write_spm,
)

# Any text, and text that pre-tokenizers and byte-level coding find hard.
HARD = st.text(st.sampled_from("aZ 019\t\n\r'st<|im_end>é日🙂👩\u200d\u0301\u00a0²\ufffd"), max_size=40)
TEXT = st.one_of(st.text(max_size=40), HARD)
FAMILY = "👩‍👩‍👧‍👦"


def tokens_of(tokenizer: Tokenizer, text: str, **how: bool) -> list[str | None]:
    return [tokenizer.backend.id_to_token(i) for i in tokenizer.encode(text, **how)]


def streamed(tokenizer: Tokenizer, ids: list[int], after: list[int] | tuple[()] = ()) -> list[str]:
    stream = tokenizer.stream(after)
    return [*(stream.push(token) for token in ids), stream.finish()]


def test_byte_level_merges(bpe: Tokenizer) -> None:
    assert tokens_of(bpe, "hello world") == ["hello", "Ġw", "o", "r", "l", "d"]
    assert tokens_of(bpe, "é") == ["Ã", "©"]
    assert bpe.vocab_size == len(BPE_TOKENS)


@settings(deadline=None)
@given(text=TEXT)
def test_byte_level_round_trip(bpe: Tokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert "".join(streamed(bpe, ids)) == text


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, len(BPE_TOKENS) - 1), max_size=20))
def test_stream_of_any_tokens_is_their_text(bpe: Tokenizer, ids: list[int]) -> None:
    assert "".join(streamed(bpe, ids)) == bpe.decode(ids)


@settings(deadline=None)
@given(text=TEXT.filter(lambda text: "▁" not in text))
def test_sentencepiece_stream_of_a_text(spm: Tokenizer, text: str) -> None:
    assert "".join(streamed(spm, spm.encode(text))) == text


def test_a_bad_byte_is_the_only_one_that_is_lost(spm: Tokenizer) -> None:
    ids = [SPM_TOKENS.index(token) for token in ("<0x41>", "<0xFF>", "<0x42>", "hello")]
    assert spm.decode(ids) == "A\ufffdBhello"
    assert streamed(spm, ids) == ["A", "", "\ufffdB", "hello", ""]


BYTE_OR_PIECE = st.one_of(st.integers(3, 258), st.integers(3, len(SPM_TOKENS) - 1), st.sampled_from([0xC3, 0xA9]))


@settings(deadline=None)
@given(ids=st.lists(BYTE_OR_PIECE, max_size=80))
def test_bytes_of_a_stream_are_those_of_python(spm: Tokenizer, ids: list[int]) -> None:
    """Also through long runs of bytes that are no text: what was given away never changes."""
    raw = b"".join(bytes([i - 3]) if i < 259 else SPM_TOKENS[i].replace("▁", " ").encode() for i in ids)
    text = raw.decode("utf-8", "replace")
    text = text[1:] if ids and ids[0] >= 259 and SPM_TOKENS[ids[0]].startswith("▁") else text
    text = text[1:] if ids and ids[0] == 3 + 0x20 else text  # the space before the first word, as a byte
    assert spm.decode(ids) == text
    assert "".join(streamed(spm, ids)) == text


def test_stream_goes_on_through_endless_bad_bytes(bpe: Tokenizer) -> None:
    bad = bpe.encode("é")[1:]  # the second byte of two
    assert len("".join(streamed(bpe, bad * 200)[:-1])) > 150


def test_long_streams_keep_nothing_but_a_few_tokens(bpe: Tokenizer) -> None:
    text = f"hello {FAMILY} é12 " * 50
    stream = bpe.stream()
    assert "".join(stream.push(token) for token in bpe.encode(text)) + stream.finish() == text
    assert len(stream._ids) < 32


def test_stream_gives_whole_characters(bpe: Tokenizer) -> None:
    pieces = streamed(bpe, bpe.encode(f"né {FAMILY}!"))
    assert "".join(pieces) == f"né {FAMILY}!"
    assert all("\ufffd" not in piece for piece in pieces)


def test_stream_finishes_an_unfinished_character(bpe: Tokenizer) -> None:
    ids = bpe.encode("a🙂")[:-1]
    assert streamed(bpe, ids) == ["a", "", "", "", "\ufffd"]


def test_special_text_is_parsed_only_when_asked(bpe: Tokenizer) -> None:
    assert tokens_of(bpe, f"hello{END_OF_TURN}", parse_special=True) == ["hello", END_OF_TURN]
    assert END_OF_TURN not in tokens_of(bpe, f"hello{END_OF_TURN}")
    assert bpe.decode(bpe.encode(f"hello{END_OF_TURN}")) == f"hello{END_OF_TURN}"
    # Tokens that the user of the model defined are words, not control: always whole.
    assert tokens_of(bpe, f"hello{USER}") == ["hello", USER]


def test_threads_share_a_tokenizer(bpe: Tokenizer) -> None:
    """Whether special tokens are parsed is a state of the library's tokenizer."""
    text = f"hello{END_OF_TURN}" * 20
    right = {parse: bpe.encode(text, parse_special=parse) for parse in (False, True)}

    def encode(parse: bool) -> bool:
        return all(bpe.encode(text, parse_special=parse) == right[parse] for _ in range(200))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(encode, [False, True] * 2))


def test_special_tokens_are_left_out_of_the_text(bpe: Tokenizer) -> None:
    ids = bpe.encode(f"hello{END_OF_TURN}", parse_special=True)
    assert bpe.decode(ids) == "hello"
    assert bpe.decode(ids, keep_special=True) == f"hello{END_OF_TURN}"


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("smollm", ["a", "Ġ", "1", "2", "3", "!"]),
        ("gpt-2", ["a", "Ġ", "12", "3", "!"]),
        ("llama-bpe", ["a", "Ġ", "12", "3", "!"]),
        ("qwen2", ["a", "Ġ", "1", "2", "3", "!"]),
        ("default", ["a", "Ġ", "12", "3", "!"]),
        (None, ["a", "Ġ", "12", "3", "!"]),
    ],
)
def test_pre_tokenizers(tmp_path: Path, pre: str | None, words: list[str]) -> None:
    """The merge "1 2" applies only where the pre-tokenizer leaves digits together."""
    tokenizer = Tokenizer.from_file(write_bpe(tmp_path / "pre.gguf", pre=pre))
    # llama-bpe starts every text with BOS unless the file says otherwise.
    assert tokens_of(tokenizer, "a 123!") == [BOS] * (pre == "llama-bpe") + words


def test_bos_as_the_file_says_and_once(tmp_path: Path) -> None:
    def add_bos(writer: GGUFWriter) -> None:
        writer.add_add_bos_token(True)

    tokenizer = Tokenizer.from_file(write_bpe(tmp_path / "bos.gguf", extra=add_bos))
    assert tokens_of(tokenizer, "hello") == [BOS, "hello"]
    assert tokens_of(tokenizer, f"{BOS}hello", parse_special=True) == [BOS, "hello"]


def test_end_tokens(bpe: Tokenizer) -> None:
    assert bpe.eos_ids == {BPE_TOKENS.index(EOS), BPE_TOKENS.index(END_OF_TURN)}


def test_end_of_turn_key(tmp_path: Path) -> None:
    def add_eot(writer: GGUFWriter) -> None:
        writer.add_eot_token_id(BPE_TOKENS.index(USER))

    tokenizer = Tokenizer.from_file(write_bpe(tmp_path / "eot.gguf", extra=add_eot))
    assert BPE_TOKENS.index(USER) in tokenizer.eos_ids


def test_sentencepiece_joins_by_score(spm: Tokenizer) -> None:
    assert tokens_of(spm, "hello world") == [BOS, "▁hello", "▁", "w", "o", "r", "l", "d"]
    assert tokens_of(spm, "hell") == [BOS, "▁hell"]
    assert spm.decode(spm.encode("hello world")) == "hello world"


def test_sentencepiece_falls_back_to_bytes(spm: Tokenizer) -> None:
    assert tokens_of(spm, "aß") == [BOS, "▁", "a", "<0xC3>", "<0x9F>"]
    assert spm.decode(spm.encode(FAMILY)) == FAMILY
    assert all("\ufffd" not in piece for piece in streamed(spm, spm.encode(FAMILY)))


@settings(deadline=None)
@given(text=TEXT.filter(lambda text: "▁" not in text))
def test_sentencepiece_round_trip(spm: Tokenizer, text: str) -> None:
    assert spm.decode(spm.encode(text)) == text


def test_sentencepiece_stream_keeps_the_space_of_a_continued_text(spm: Tokenizer) -> None:
    prompt, more = spm.encode("hello"), spm.encode("hello")[1:]
    assert "".join(streamed(spm, more, after=prompt)) == " hello"
    assert "".join(streamed(spm, more)) == "hello"


def test_no_space_prefix(tmp_path: Path) -> None:
    def no_prefix(writer: GGUFWriter) -> None:
        writer.add_add_space_prefix(False)

    tokenizer = Tokenizer.from_file(write_spm(tmp_path / "prefix.gguf", extra=no_prefix))
    assert tokens_of(tokenizer, "hello") == [BOS, "hello"]
    assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"


def test_unknown_pre_tokenizer(tmp_path: Path) -> None:
    path = write_bpe(tmp_path / "pre.gguf", pre="martian")
    with pytest.raises(InvalidInputError, match='pre-tokenizer is "martian", which is not known: .* --tokenizer'):
        Tokenizer.from_file(path)


def test_unknown_vocabulary_type(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "rwkv.gguf", "rwkv")
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(["a"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InvalidInputError, match='vocabulary type is "rwkv"'):
        Tokenizer.from_file(tmp_path / "rwkv.gguf")


def test_gguf_without_a_vocabulary(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "none.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InvalidInputError, match=r"has no tokenizer\.ggml\.model"):
        Tokenizer.from_file(tmp_path / "none.gguf")


def test_text_with_a_lone_surrogate(bpe: Tokenizer) -> None:
    with pytest.raises(InvalidInputError, match="not valid Unicode"):
        bpe.encode("a\udc80")


def save_json(bpe: Tokenizer, folder: Path, config: dict[str, object] | None = None) -> Path:
    bpe.backend.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_tokenizer_json(bpe: Tokenizer, tmp_path: Path) -> None:
    config: dict[str, object] = {"bos_token": {"content": BOS}, "eos_token": EOS, "chat_template": "{{ messages }}"}
    tokenizer = Tokenizer.from_file(save_json(bpe, tmp_path, config))
    text = f"hello 12 {FAMILY}"
    assert tokenizer.encode(text) == bpe.encode(text)
    assert tokenizer.eos_ids == bpe.eos_ids
    assert (tokenizer.settings.bos_token, tokenizer.settings.eos_token) == (BOS, EOS)
    assert tokenizer.settings.chat_template == "{{ messages }}"
    assert not tokenizer.settings.add_bos


def test_tokenizer_json_alone(bpe: Tokenizer, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(save_json(bpe, tmp_path) / "tokenizer.json")
    assert tokenizer.encode("hello") == bpe.encode("hello")
    assert tokenizer.settings.chat_template is None


def test_tokenizer_json_that_adds_bos(bpe: Tokenizer, tmp_path: Path) -> None:
    save_json(bpe, tmp_path)
    path = tmp_path / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {BOS: {"id": BOS, "ids": [BPE_TOKENS.index(BOS)], "tokens": [BOS]}},
    }
    path.write_text(json.dumps(stored))
    assert tokens_of(Tokenizer.from_file(path), "hello") == [BOS, "hello"]


@pytest.mark.parametrize(
    ("in_config", "expected"),
    [([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}], "yes"), (None, None)],
)
def test_named_chat_templates(bpe: Tokenizer, tmp_path: Path, in_config: object, expected: str | None) -> None:
    tokenizer = Tokenizer.from_file(save_json(bpe, tmp_path, {"chat_template": in_config}))
    assert tokenizer.settings.chat_template == expected


def test_chat_template_file_comes_first(bpe: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("file")
    tokenizer = Tokenizer.from_file(save_json(bpe, tmp_path, {"chat_template": "config"}))
    assert tokenizer.settings.chat_template == "file"


def test_ends_of_the_generation_config(bpe: Tokenizer, tmp_path: Path) -> None:
    save_json(bpe, tmp_path)
    for stated, ids in ((7, {7}), ([7, 8], {7, 8}), (None, set())):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
        assert Tokenizer.from_file(tmp_path).eos_ids >= ids
        assert not Tokenizer.from_file(tmp_path).eos_ids - bpe.eos_ids - ids


@pytest.mark.parametrize("name", ["bpe", "spm"])
def test_a_tokenizer_of_its_own_files(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """As a program carries them, and as anybody else would read them out of a folder."""
    made: Tokenizer = request.getfixturevalue(name)
    for file, content in made.files().items():
        (tmp_path / file).write_bytes(content)
    texts = ["hello 12", f" {FAMILY} {BOS} x", "", "  two  spaces "]
    for again in (Tokenizer.from_files(made.files()), Tokenizer.from_file(tmp_path)):
        assert again.settings == made.settings
        for text in texts:
            for special in (False, True):
                assert again.encode(text, parse_special=special) == made.encode(text, parse_special=special)
            assert again.decode(again.encode(text)) == made.decode(made.encode(text))
    whole = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("hello").ids
    assert whole == made.encode("hello")  # with BOS where the model wants it


def test_files_that_are_no_tokenizer() -> None:
    with pytest.raises(InvalidInputError, match="the tokenizer in the program is neither"):
        Tokenizer.from_files({"tokenizer.json": b"{}"})


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe\x00", b"GG", b'{"model": 3}'])
def test_neither_gguf_nor_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match="neither a GGUF file nor a readable"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_unreadable_config(bpe: Tokenizer, tmp_path: Path, content: str) -> None:
    save_json(bpe, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(InvalidInputError, match="tokenizer_config"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, world!", [19556, 28, 905, 17]),
        ("<|im_start|>user", [44, 108, 306, 79, 3738, 108, 46, 4093]),
        (" 12 naïve 日本語 🙂", [216, 33, 34, 15486, 46494, 17097, 241, 115, 40993, 179, 120, 248, 47526]),
        ("3.14\n\n  indented\tcode()", [35, 30, 33, 36, 8866, 641, 6574, 197, 4635, 1000]),
    ],
)
def test_smollm2_known_ids(smollm2_gguf: Path, text: str, ids: list[int]) -> None:
    """Ids that llama.cpp gives for the same file."""
    assert Tokenizer.from_file(smollm2_gguf).encode(text) == ids


def test_smollm2_vocabulary(smollm2_gguf: Path) -> None:
    tokenizer = Tokenizer.from_file(smollm2_gguf)
    assert tokenizer.vocab_size == 49152
    assert tokenizer.encode("<|im_start|>user", parse_special=True) == [1, 4093]
    assert tokenizer.eos_ids == {0, 2, 4}  # <|endoftext|>, <|im_end|>, <reponame>: as in llama.cpp
    assert Tokenizer.from_files(tokenizer.files()).settings == tokenizer.settings
    text = f"Zahlen 2048, ½ und\n\n  naïve 日本語 {FAMILY} ."
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert "".join(streamed(tokenizer, tokenizer.encode(text))) == text

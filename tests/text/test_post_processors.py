"""What a tokenizer puts before and after every text, held against the library's own encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from gguf import GGUFWriter
from tokenizers import processors

from executorch_webgpu.text.chat import encode_chat, user_message
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.text.tiny_vocabulary import BOS, BPE_TOKENS, CHATML, EOS, write_bpe, write_spm

FIRST, LAST = (BOS, BPE_TOKENS.index(BOS)), (EOS, BPE_TOKENS.index(EOS))


def template(*pieces: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=list(pieces), pair=["$A", "$B"], special_tokens=[FIRST, LAST])


POST_PROCESSORS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "none": (None, (), ()),
    "bytes": (processors.ByteLevel(), (), ()),
    "before": (template(BOS, "$A"), (0,), ()),
    "after": (template("$A", EOS), (), (1,)),
    "both": (template(BOS, "$A", EOS), (0,), (1,)),
    "twice": (template(BOS, BOS, "$A", EOS), (0, 0), (1,)),
    "roberta": (processors.RobertaProcessing(LAST, FIRST), (0,), (1,)),
    "bert": (processors.BertProcessing(LAST, FIRST), (0,), (1,)),
    "sequence": (processors.Sequence([processors.ByteLevel(), template("$A", EOS)]), (), (1,)),
    "nested": (processors.Sequence([template("$A", EOS), template(BOS, "$A")]), (), (1,)),  # so it is there
}


@pytest.mark.parametrize("name", POST_PROCESSORS)
@pytest.mark.parametrize("config", ["{}", '{"bos_token": null, "eos_token": "</s>", "add_bos_token": false}'])
def test_a_text_is_encoded_as_the_tokenizer_does(bpe: Tokenizer, tmp_path: Path, name: str, config: str) -> None:
    post_processor, before, after = POST_PROCESSORS[name]
    backend = tokenizers.Tokenizer.from_str(bpe.backend.to_str())
    backend.post_processor = post_processor
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(config)
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    tokenizer = Tokenizer.from_file(tmp_path)
    again = Tokenizer.from_files(tokenizer.files())
    for text in ("hello 12", "", "x"):
        bare = backend.encode(text, add_special_tokens=False).ids
        for one in (tokenizer, again):
            assert one.encode(text) == backend.encode(text).ids == [*before, *bare, *after]
            assert one.encode(text, add_special=False) == bare
            assert one.encode_prompt(text) == [*before, *bare]  # a text that goes on has no end yet
    # The template writes what a conversation begins and ends with.
    assert encode_chat(tokenizer, user_message("hello")) == encode_chat(bpe, user_message("hello"))


def test_no_prompt_is_cut_or_filled_up(bpe: Tokenizer, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(bpe.backend.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=64)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_file(tmp_path).encode("a long text") == bpe.encode("a long text")


def test_a_gguf_file_that_appends_its_end(tmp_path: Path) -> None:
    def both(writer: GGUFWriter) -> None:
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)

    tokenizer = Tokenizer.from_file(write_bpe(tmp_path / "both.gguf", extra=both))
    plain = tokenizer.encode("hello", add_special=False)
    assert tokenizer.encode("hello") == [0, *plain, 1]
    assert tokenizer.encode_prompt("hello") == [0, *plain]
    spm = Tokenizer.from_file(write_spm(tmp_path / "spm.gguf", extra=both))
    assert spm.encode("hello")[:1] + spm.encode("hello")[-1:] == [1, 2]

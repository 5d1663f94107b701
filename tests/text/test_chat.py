from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.text.chat import encode_chat, render_chat, user_message
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.text.tiny_vocabulary import BOS, END_OF_TURN

HELLO = user_message("hello")


def test_messages() -> None:
    assert HELLO == [{"role": "user", "content": "hello"}]
    assert user_message("hello", "be brief") == [{"role": "system", "content": "be brief"}, *HELLO]


def test_template_of_the_file(bpe: Tokenizer) -> None:
    ids = encode_chat(bpe, user_message("hello", "12"))
    said = "<s>system\n12<|im_end|>\n<s>user\nhello<|im_end|>\n<s>assistant\n"
    assert bpe.decode(ids, keep_special=True) == said
    assert [bpe.backend.id_to_token(i) for i in ids].count(END_OF_TURN) == 2


def test_bos_of_the_template_is_not_doubled(bpe: Tokenizer) -> None:
    ids = encode_chat(bpe, HELLO)
    assert [bpe.backend.id_to_token(i) for i in ids[:2]] == [BOS, "u"]


def test_no_template(spm: Tokenizer) -> None:
    with pytest.raises(InvalidInputError, match="no chat template"):
        encode_chat(spm, HELLO)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        # A block's own line leaves no trace, neither indent nor newline.
        ("{% if true %}\n  {% if true %}\nx\n  {% endif %}\n{% endif %}\ny", "x\ny"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ {'b': '<é>', 'a': [1, none]} | tojson }}", '{"b": "<é>", "a": [1, null]}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hello!"),
        ("{{ bos_token }}|{{ eos_token }}|{{ add_generation_prompt }}", "<s>|</s>|True"),
        ("{{ strftime_now('%Y') }}", str(datetime.now().year)),
        ("{{ tools[0] }}{{ documents is none }}{{ pad_token is defined }}", "searchTrueFalse"),
    ],
    ids=["trim", "loop-controls", "tojson", "tojson-indent", "generation", "tokens", "time", "variables"],
)
def test_hugging_face_convention(source: str, text: str) -> None:
    assert render_chat(source, HELLO, bos_token="<s>", eos_token="</s>", tools=["search"]) == text


def test_template_that_refuses() -> None:
    source = "{{ raise_exception('only the user may speak') }}"
    with pytest.raises(InvalidInputError, match="only the user may speak"):
        render_chat(source, HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ messages[0].content + 1 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 1 // 0 }}",
    ],
    ids=["syntax", "type", "sandbox", "immutable", "arithmetic"],
)
def test_malformed_or_hostile_template(source: str) -> None:
    with pytest.raises(InvalidInputError, match="chat template"):
        render_chat(source, HELLO)


def test_smollm2_template(smollm2_gguf: Path) -> None:
    tokenizer = Tokenizer.from_file(smollm2_gguf)
    ids = encode_chat(tokenizer, user_message("Hi", "Be brief."))
    said = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids, keep_special=True) == said
    assert ids.count(1) == 3 and ids.count(2) == 2

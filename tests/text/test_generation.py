from __future__ import annotations

import json
from pathlib import Path

import pytest

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.text.generation import SamplingDefaults
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.text.test_tokenizer import save_json

ALL = {
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "do_sample": True,
}


def sampling(bpe: Tokenizer, folder: Path, **files: object) -> SamplingDefaults:
    save_json(bpe, folder)
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    tokenizer = Tokenizer.from_file(folder)
    assert Tokenizer.from_files(tokenizer.files()).settings == tokenizer.settings
    return tokenizer.settings.sampling


def test_sampling_settings(bpe: Tokenizer, tmp_path: Path) -> None:
    assert sampling(bpe, tmp_path) == SamplingDefaults()
    assert sampling(bpe, tmp_path, generation_config=ALL) == SamplingDefaults(**ALL)  # type: ignore[arg-type]
    assert sampling(bpe, tmp_path, generation_config={"top_k": 0, "top_p": 1}) == SamplingDefaults(top_k=0, top_p=1.0)


def test_sampling_settings_of_config_json_count_alone(bpe: Tokenizer, tmp_path: Path) -> None:
    assert sampling(bpe, tmp_path, config={"temperature": 0.5}).temperature == 0.5
    both = sampling(bpe, tmp_path, generation_config={"top_k": 5}, config={"temperature": 0.5})
    assert both == SamplingDefaults(top_k=5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "hot"),
        ("temperature", -1),
        ("top_k", 1.5),
        ("top_k", -3),
        ("top_p", 2),
        ("min_p", True),
        ("repetition_penalty", 0),
        ("do_sample", 1),
        ("temperature", float("nan")),
        ("eos_token_id", "2"),
        ("eos_token_id", [1.5]),
    ],
)
def test_values_that_are_none(bpe: Tokenizer, tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"{key} in generation_config.json is .* repair it"):
        sampling(bpe, tmp_path, generation_config={key: value})


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a": "\xff"}', b""])
def test_files_that_are_no_json(bpe: Tokenizer, tmp_path: Path, content: bytes) -> None:
    save_json(bpe, tmp_path)
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"generation_config\.json .*; repair or remove it"):
        Tokenizer.from_file(tmp_path)


def test_a_file_with_a_byte_order_mark(bpe: Tokenizer, tmp_path: Path) -> None:
    save_json(bpe, tmp_path)
    (tmp_path / "generation_config.json").write_bytes(b'\xef\xbb\xbf{"top_k": 4}')
    assert Tokenizer.from_file(tmp_path).settings.sampling.top_k == 4

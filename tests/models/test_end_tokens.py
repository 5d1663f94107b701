"""End tokens and sampling settings of a model's folder, in the program that is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.models.tiny_huggingface import TinyHuggingFace
from tests.text.tiny_vocabulary import BPE_TOKENS

OPTIONS = LlamaOptions(weights="f32", max_seq_len=9, max_context_len=16)
KNOWN = {BPE_TOKENS.index(text) for text in ("</s>", "<|im_end|>")}


@pytest.mark.parametrize("tokenizer", ["inside", "elsewhere", "none"])
@pytest.mark.parametrize("generation", [True, False], ids=["generation_config", "config"])
def test_ends_of_a_folder(bpe: Tokenizer, tmp_path: Path, tokenizer: str, generation: bool) -> None:
    folder, other = tmp_path / "model", tmp_path / "other"
    TinyHuggingFace(fields={"vocab_size": len(BPE_TOKENS), "eos_token_id": [20, 21]}).write(folder)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 22, "temperature": 0.6}))
    if tokenizer != "none":
        place = folder if tokenizer == "inside" else other
        place.mkdir(exist_ok=True)
        bpe.backend.save(str(place / "tokenizer.json"))
    convert(folder, tmp_path / "m.pte", OPTIONS, tokenizer=other if tokenizer == "elsewhere" else None)
    right = ({22} if generation else {20, 21}) | (KNOWN if tokenizer != "none" else set())
    with Runtime.get().load_program(tmp_path / "m.pte") as program:
        assert program.load_method("get_eos_ids").execute([]) == sorted(right)
        if tokenizer != "none":
            inside = Tokenizer.from_files(program.named_data)
            assert inside.eos_ids == right
            assert inside.settings.sampling.temperature == (0.6 if generation else None)

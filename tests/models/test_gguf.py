"""GGUF models of every architecture and type, converted and run, against a llama in float64."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import pytest

from executorch_webgpu import InvalidProgramError, Runtime, UnsupportedProgramError
from executorch_webgpu.errors import Error, InvalidInputError
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.gguf import TYPES as READ_TYPES
from executorch_webgpu.models.gguf import open_gguf
from executorch_webgpu.models.llama import LlamaOptions
from tests.models.tiny_gguf import TYPES, TinyGguf
from tests.ops.harness import assert_close

OPTIONS = LlamaOptions("f32", max_seq_len=17, max_context_len=48)
MODELS = {
    "llama": TinyGguf(),
    "llama3": TinyGguf(rope_divisors=True, tied_head=True, heads=4, kv_heads=1),
    "linear-rope": TinyGguf(rope_scale=4.0),
    "qwen2": TinyGguf("qwen2", qkv_bias=True),
    "qwen3": TinyGguf("qwen3", qk_norm=True, head_dim=40, tied_head=True),
}
TURNS = ([3, 98, 14, 15, 92, 65, 35], [8], [9, 7, 93], [2], [3] * 16)


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_computes_what_the_weights_say(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    weights = model.write(tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "model.pte", OPTIONS)
    text: list[int] = []
    with Runtime.get().load_program(tmp_path / "model.pte") as program, program.load_method("forward") as forward:
        for part in TURNS:
            position = np.array([len(text)], np.int64)
            (logits,) = forward.execute([np.array([part], np.int64), position])
            text += part
            assert logits.shape == (1, model.vocab)
            assert_close(logits[0], model.logits(weights, text))


def test_the_models_above_have_every_type() -> None:
    assert set(TYPES) == set(READ_TYPES.values())
    assert len(MODELS["llama"].matrices()) >= len(TYPES)


def test_the_order_of_the_rope_matters(tmp_path: Path) -> None:
    """Negative control: the same weights under the other architecture's rope are another model."""
    model = TinyGguf()
    weights = model.write(tmp_path / "model.gguf")
    other = dataclasses.replace(model, architecture="qwen2")
    assert np.abs(model.logits(weights, TURNS[0]) - other.logits(weights, TURNS[0])).max() > 1e-2


def test_a_model_in_4_bits_is_near_the_one_in_float32(tmp_path: Path) -> None:
    model = TinyGguf("qwen2", qkv_bias=True)
    weights = model.write(tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "model.pte", dataclasses.replace(OPTIONS, weights="q4gsw", group=64))
    with Runtime.get().load_program(tmp_path / "model.pte") as program, program.load_method("forward") as forward:
        (logits,) = forward.execute([np.array([TURNS[0]], np.int64), np.array([0], np.int64)])
    expected = model.logits(weights, TURNS[0])
    assert 1e-3 < np.linalg.norm(logits[0] - expected) / np.linalg.norm(expected) < 0.35


def refused(path: Path, kind: type[Error], match: str) -> None:
    with pytest.raises(kind, match=match), open_gguf(path):
        pass


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    TinyGguf("mamba").write(tmp_path / "m.gguf")
    refused(tmp_path / "m.gguf", UnsupportedProgramError, "'mamba'")


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    TinyGguf().write(tmp_path / "m.gguf", extra=["blk.0.ffn_gate_inp.weight"])
    refused(tmp_path / "m.gguf", UnsupportedProgramError, r"blk\.0\.ffn_gate_inp\.weight")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    TinyGguf().write(tmp_path / "m.gguf", without=["blk.1.ffn_up.weight"])
    refused(tmp_path / "m.gguf", InvalidProgramError, r"no tensor 'blk\.1\.ffn_up\.weight'")


def test_a_tensor_of_an_unknown_type_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    block = np.zeros((1, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q2_K][1]), np.uint8)
    writer.add_tensor("token_embd.weight", block, raw_dtype=gguf.GGMLQuantizationType.Q2_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "m.gguf", UnsupportedProgramError, "'token_embd.weight' is of type Q2_K")


@pytest.mark.parametrize("size", [0, 3, 20, 300, 3000, -100])
def test_a_damaged_file(tmp_path: Path, size: int) -> None:
    TinyGguf().write(tmp_path / "m.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:size])
    refused(tmp_path / "cut.gguf", InvalidProgramError, "cut.gguf")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(100))
    refused(tmp_path / "model.bin", InvalidProgramError, "not a GGUF file")
    refused(tmp_path / "none.gguf", InvalidProgramError, "none.gguf")


def test_a_context_within_the_window_of_sliding_attention(tmp_path: Path) -> None:
    TinyGguf(sliding_window=40).write(tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as model:
        assert model.config.context_len == 40


def test_a_number_for_each_layer_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_embedding_length(64)
    writer.add_head_count([4, 8])
    writer.add_tensor("token_embd.weight", np.zeros((8, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "m.gguf", UnsupportedProgramError, "'llama.attention.head_count' is ")


def test_a_forged_number_of_layers(tmp_path: Path) -> None:
    TinyGguf().write(tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    key = b"llama.block_count" + (4).to_bytes(4, "little")
    assert data.count(key + (2).to_bytes(4, "little")) == 1
    forged = data.replace(key + (2).to_bytes(4, "little"), key + (2**32 - 1).to_bytes(4, "little"))
    (tmp_path / "m.gguf").write_bytes(forged)
    refused(tmp_path / "m.gguf", InvalidProgramError, "4294967295 layers")


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    TinyGguf("qwen3", qk_norm=True, head_dim=40).write(tmp_path / "m.gguf")
    for options, message in (
        (LlamaOptions("f32", max_seq_len=16, max_context_len=65), "trained for 64 tokens"),
        (LlamaOptions("q4gsw", group=128, max_seq_len=16, max_context_len=64), "whole groups of 128"),
        (LlamaOptions(max_seq_len=60, max_context_len=59), "at most the context length"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            convert(tmp_path / "m.gguf", tmp_path / "m.pte", options)
    assert {path.name for path in tmp_path.iterdir()} == {"m.gguf"}

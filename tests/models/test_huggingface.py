"""Folders as Hugging Face publishes them, converted and run, against the transformers library."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from executorch_webgpu import InvalidProgramError, Runtime, UnsupportedProgramError
from executorch_webgpu.errors import ClosedError, Error, InvalidInputError
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.huggingface import open_huggingface
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions
from tests.format.test_mapped_file import STATUS, resident_bytes
from tests.models.tiny_huggingface import SIZES, Stored, TinyHuggingFace, stored, with_header
from tests.ops.harness import assert_close

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
# At 500 and 32 positions, pairs of a head of 16 are in all three bands of Llama 3's scaled rope.
SCALED = {"rope_theta": 500.0, "head_dim": 16}
MODELS = {
    "llama": TinyHuggingFace(shards=3),
    "llama-tied": TinyHuggingFace(fields={"tie_word_embeddings": True, "rope_scaling": None}),
    "llama-bf16": TinyHuggingFace(dtypes=["BF16"], fields={"num_key_value_heads": 4}),
    "llama-f16": TinyHuggingFace(dtypes=["F16"], fields={"num_key_value_heads": ..., "head_dim": None}),
    "llama-each": TinyHuggingFace(dtypes=["BF16", "F32", "F16", "F32"], shards=2),
    "llama3": TinyHuggingFace(fields=SCALED | {"rope_scaling": {"rope_type": "llama3", **LLAMA3}}),
    "llama3-new": TinyHuggingFace(
        fields={"head_dim": 16, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, **LLAMA3}}
    ),
    "linear": TinyHuggingFace(fields={"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "mistral": TinyHuggingFace("mistral", {"num_attention_heads": 6, "head_dim": 20, "sliding_window": 32}),
    "qwen2": TinyHuggingFace("qwen2", {"use_sliding_window": False, "sliding_window": 4, "rope_theta": 1000000.0}),
    "qwen3": TinyHuggingFace("qwen3", {"head_dim": 20, "tie_word_embeddings": True}),
    "qwen3-new": TinyHuggingFace("qwen3", {"head_dim": 20, "rope_parameters": {"rope_theta": 700.0}}),
}
OPTIONS = LlamaOptions("f32", max_seq_len=17, max_context_len=32)
TURNS = ([3, 98, 14, 15, 92, 65, 35], [8], [9, 7, 93], [2], [3, 5] * 8, [50], [51], [52], [53])


class Oracle:
    """What transformers computes of a folder, in float32."""

    def __init__(self, folder: Path) -> None:
        self.model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, local_files_only=True
        )
        assert not any(info.values()), info

    def logits(self, tokens: list[int]) -> np.ndarray:
        with torch.no_grad():
            return self.model(torch.tensor([tokens])).logits[0, -1].numpy()


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    MODELS[name].write(tmp_path / "model")
    oracle = Oracle(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "model.pte", OPTIONS)
    text: list[int] = []
    with Runtime.get().load_program(tmp_path / "model.pte") as program, program.load_method("forward") as forward:
        for part in TURNS:
            position = np.array([len(text)], np.int64)
            (logits,) = forward.execute([np.array([part], np.int64), position])
            text += part
            assert logits.shape == (1, SIZES["vocab_size"])
            assert_close(logits[0], oracle.logits(text))
    assert len(text) == OPTIONS.max_context_len


def test_the_details_matter(tmp_path: Path) -> None:
    """Negative control: the same weights under another configuration are another model."""
    changes: dict[str, dict[str, Any]] = {
        "llama3": {"rope_scaling": None},
        "linear": {"rope_scaling": None},
        "qwen3-new": {"rope_parameters": {"rope_theta": 10000.0}},
    }
    for name, others in changes.items():
        model = MODELS[name]
        model.write(tmp_path / name)
        expected = Oracle(tmp_path / name).logits(TURNS[0])
        dataclasses.replace(model, fields={**model.fields, **others}).write(tmp_path / name)
        assert np.abs(Oracle(tmp_path / name).logits(TURNS[0]) - expected).max() > 1e-2


def config_of(folder: Path) -> LlamaConfig:
    with open_huggingface(folder) as model:
        return model.config


def test_rows_are_converted_one_by_one_while_the_folder_is_open(tmp_path: Path) -> None:
    tensors = MODELS["llama-each"].write(tmp_path / "model")
    name = "model.layers.1.mlp.up_proj.weight"
    with open_huggingface(tmp_path / "model") as model:
        assert set(model.weights) == set(model.config.weight_dims())
        assert all(weight.name == name for name, weight in model.weights.items())
        weight = model.weights["blk.1.ffn_up.weight"]
        read_as = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[tensors[name].dtype]
        whole = torch.frombuffer(bytearray(tensors[name].data), dtype=read_as).float().reshape(weight.dims).numpy()
        for start, stop in ((0, 1), (3, 9), (weight.dims[0] - 1, weight.dims[0])):
            rows = weight.read(start, stop)
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(rows, whole[start:stop])
    with pytest.raises(ClosedError):
        weight.read(0, 1)


def test_pages_leave_memory_once_their_rows_are_converted(tmp_path: Path) -> None:
    rows = 200_000
    TinyHuggingFace(fields={"vocab_size": rows, "tie_word_embeddings": True}).write(tmp_path / "model")
    with open_huggingface(tmp_path / "model") as model:
        resident = [resident_bytes() if STATUS.exists() else 0]
        for piece in model.weights["token_embd.weight"].pieces():
            assert np.isfinite(piece).all()
            resident.append(resident_bytes() if STATUS.exists() else 0)
    assert max(resident) - resident[0] < rows * SIZES["hidden_size"] * 4 / 4


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_value_of_a_dtype(dtype: str, tmp_path: Path) -> None:
    """Subnormal numbers, infinities and NaN included."""
    bits = np.arange(99 * 48, dtype=np.uint32) * np.uint32(0xFFFFFFFF // (99 * 48))
    bits = bits if dtype == "F32" else (bits >> 16).astype(np.uint16)
    read_as = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    expected = torch.from_numpy(bits.copy()).view(read_as).float().reshape(99, 48).numpy()
    embedding = Stored(dtype, (99, 48), bits.tobytes())
    TinyHuggingFace().write(tmp_path / "model", {"model.embed_tokens.weight": embedding})
    with open_huggingface(tmp_path / "model") as model:
        np.testing.assert_array_equal(model.weights["token_embd.weight"].read(0, 99), expected)


def test_a_context_within_the_window_of_sliding_attention(tmp_path: Path) -> None:
    for model_type, fields, expected in (
        ("mistral", {"sliding_window": 40}, 40),
        ("mistral", {"sliding_window": None}, 64),
        ("mistral", {"max_position_embeddings": 32768}, 4096),  # what transformers takes when it is not said
        ("llama", {"use_sliding_window": True, "sliding_window": 40}, 64),  # never slides there
        ("qwen2", {"use_sliding_window": False, "sliding_window": 40}, 64),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 40}, 40),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 400}, 64),
    ):
        TinyHuggingFace(model_type, fields).write(tmp_path / "model")
        assert config_of(tmp_path / "model").context_len == expected
    TinyHuggingFace("mistral", {"sliding_window": 31}).write(tmp_path / "model")
    with pytest.raises(InvalidInputError, match="trained for 31 tokens"):
        convert(tmp_path / "model", tmp_path / "m.pte", OPTIONS)


def test_a_tied_head_that_is_stored_too(tmp_path: Path) -> None:
    """If it is the embedding again it is dropped; if not, it is the head."""
    model = TinyHuggingFace(fields={"tie_word_embeddings": True})
    embedding = model.tensors()["model.embed_tokens.weight"]
    model.write(tmp_path / "model", {"lm_head.weight": embedding})
    assert config_of(tmp_path / "model").tied_head
    other = stored(np.random.default_rng(3).standard_normal((99, 48)).astype(np.float32) / 7)
    model.write(tmp_path / "model", {"lm_head.weight": other})
    assert not config_of(tmp_path / "model").tied_head
    convert(tmp_path / "model", tmp_path / "m.pte", OPTIONS)
    with Runtime.get().load_program(tmp_path / "m.pte") as program, program.load_method("forward") as forward:
        (logits,) = forward.execute([np.array([TURNS[0]], np.int64), np.array([0], np.int64)])
    assert_close(logits[0], Oracle(tmp_path / "model").logits(TURNS[0]))


def test_biases_of_the_projections(tmp_path: Path) -> None:
    """A llama may have those of the query, key and value; that of the output has no place."""
    qwen2 = MODELS["qwen2"]
    biases = {name: tensor for name, tensor in qwen2.tensors().items() if name.endswith(".bias")}
    llama = TinyHuggingFace(fields={"attention_bias": True})
    llama.write(tmp_path / "model", biases)
    assert config_of(tmp_path / "model").qkv_bias
    llama.write(tmp_path / "model", biases | {"model.layers.0.self_attn.o_proj.bias": stored(np.ones(48, np.float32))})
    refused(tmp_path / "model", UnsupportedProgramError, r"'model\.layers\.0\.self_attn\.o_proj\.bias' has no place")


def test_harmless_tensors_are_left_out(tmp_path: Path) -> None:
    frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": Stored("F64", (1,), bytes(8)) for i in range(2)}
    TinyHuggingFace().write(tmp_path / "model", frequencies)
    with open_huggingface(tmp_path / "model") as model:
        assert set(model.weights) == set(model.config.weight_dims())


def refused(folder: Path, kind: type[Error], match: str) -> None:
    with pytest.raises(kind, match=match) as error, open_huggingface(folder):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"model_type": "mamba"}, "model type 'mamba'"),
        ({"model_type": ...}, "model type None"),
        ({"model_type": ["llama"]}, "model type"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"mlp_bias": True}, "'mlp_bias'"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "'partial_rotary_factor'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, "ropes of their own"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope scaling 'yarn'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope scaling 'dynamic'"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 5.0}}, "rope scaling 'longrope'"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantized \(gptq\)"),
        ({"quantization": {"group_size": 64}}, r"quantized \(quantization\)"),
    ],
)
def test_a_feature_that_is_not_here_is_named(fields: Mapping[str, Any], match: str, tmp_path: Path) -> None:
    TinyHuggingFace(fields=fields).write(tmp_path / "model")
    refused(tmp_path / "model", UnsupportedProgramError, match)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"hidden_size": 49, "head_dim": 12}, r"'model\.embed_tokens\.weight' is \[99, 48\], not \[99, 49\]"),
        ({"hidden_size": ...}, "no 'hidden_size'"),
        ({"rms_norm_eps": None}, "no 'rms_norm_eps'"),
        ({"rms_norm_eps": 1e-60}, "'rms_norm_eps' in config.json is 1e-60"),
        ({"rms_norm_eps": "1e-5"}, "'1e-5' as 'rms_norm_eps'"),
        ({"rms_norm_eps": 10**400}, "'rms_norm_eps', which is no positive number"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"num_hidden_layers": 3}, r"no tensor 'model\.layers\.2\.input_layernorm\.weight'"),
        ({"num_hidden_layers": True}, "True as 'num_hidden_layers'"),
        ({"head_dim": 2**62}, "the folder again"),
        ({"head_dim": 13}, "4 heads of 13 elements for 2"),
        ({"num_key_value_heads": 3}, "4 heads of 12 elements for 3"),
        ({"tie_word_embeddings": "yes"}, "'yes' as 'tie_word_embeddings', which is not true or false"),
        ({"rope_scaling": "linear"}, "'linear' as 'rope_scaling'"),
        ({"rope_scaling": {"type": "linear"}}, "no 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "0 as 'factor'"),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "high_freq_factor": 1}}, "rope factors from 1.0 to 1.0"),
        ({"rope_theta": -1}, "-1 as 'rope_theta'"),
    ],
)
def test_a_configuration_that_cannot_be(fields: Mapping[str, Any], match: str, tmp_path: Path) -> None:
    model = TinyHuggingFace()
    model.write(tmp_path / "model")
    config = dataclasses.replace(model, fields=fields).config()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    refused(tmp_path / "model", InvalidProgramError, match)


@pytest.mark.parametrize("model", [TinyHuggingFace(), TinyHuggingFace("qwen2"), TinyHuggingFace("qwen3")])
def test_each_missing_tensor_is_named(model: TinyHuggingFace, tmp_path: Path) -> None:
    for name in model.dims():
        model.write(tmp_path / "model", without=[name])
        refused(tmp_path / "model", InvalidProgramError, f"no (tensor|matrix) '{name}'")


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    ones = np.ones((2, 48), np.float32)
    for extra, kind, match in (
        ({"model.layers.0.mlp.gate.weight": stored(ones)}, UnsupportedProgramError, r"mlp\.gate\.weight' has no place"),
        ({"model.norm.weight": stored(ones)}, InvalidProgramError, r"'model\.norm\.weight' is \[2, 48\], not \[48\]"),
        ({"model.embed_tokens.weight": stored(ones[0])}, InvalidProgramError, "no matrix"),
        ({"model.embed_tokens.weight": stored(ones[:0])}, InvalidProgramError, "no matrix"),
        ({"model.norm.weight": Stored("F8_E4M3", (48,), bytes(48))}, UnsupportedProgramError, "is of type F8_E4M3"),
    ):
        TinyHuggingFace().write(tmp_path / "model", extra)
        refused(tmp_path / "model", kind, match)


def write_index(folder: Path, content: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_shards_that_do_not_fit(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = TinyHuggingFace(shards=2)
    model.write(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    first = folder / "model-00001-of-00002.safetensors"
    (tmp_path / "outside.safetensors").write_bytes(first.read_bytes())
    for places, match in (
        ({"a": "../outside.safetensors"}, "no file '../outside.safetensors'"),
        ({"a": str(tmp_path / "outside.safetensors")}, "no file '"),
        ({"a": ".."}, r"no file '\.\.'"),
        ({"a": ""}, "no file ''"),
        ({"a": "\ud800\0"}, "no file"),
        ({"a": 5}, "does not say which file"),
        ({}, "no matrix"),
        (None, "does not say which file"),
    ):
        write_index(folder, {"weight_map": places})
        refused(folder, InvalidProgramError, match)
    write_index(folder, [])
    refused(folder, InvalidProgramError, "index.json is not readable")
    write_index(folder, index)
    second = folder / "model-00002-of-00002.safetensors"
    whole = second.read_bytes()
    second.write_bytes(first.read_bytes())
    refused(folder, InvalidProgramError, "once more")
    second.write_bytes(whole[:-1])
    refused(folder, InvalidProgramError, "00002.safetensors is not a readable safetensors file")
    second.unlink()
    refused(folder, InvalidProgramError, "no file 'model-00002-of-00002.safetensors', which its index names")


def test_what_is_no_model(tmp_path: Path) -> None:
    refused(tmp_path / "none", InvalidProgramError, "Cannot read .*config.json")
    (tmp_path / "config.json").write_text('{"model_type": "llama"')
    refused(tmp_path, InvalidProgramError, "config.json is not readable")
    (tmp_path / "config.json").write_text(json.dumps(TinyHuggingFace().config()))
    refused(tmp_path, InvalidProgramError, "no 'model.safetensors' and no 'model.safetensors.index.json'")
    (tmp_path / "model.safetensors").write_bytes(with_header(b"[]"))
    refused(tmp_path, InvalidProgramError, "model.safetensors is not a readable safetensors file")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([0, 1, 2**64, 10**400]) | st.floats(0, 2) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
FIELDS = (*SIZES, "head_dim", "rope_theta", "sliding_window", "tie_word_embeddings", "attention_bias", "hidden_act")
ROPE = st.fixed_dictionaries({}, optional=dict.fromkeys(("rope_theta", "type", "partial_rotary_factor"), ANY_JSON))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, min_size=1, max_size=3),
    ropes=st.dictionaries(st.sampled_from(["rope_scaling", "rope_parameters"]), ANY_JSON | ROPE),
    scaling=st.none() | st.dictionaries(st.sampled_from(list(LLAMA3)), ANY_JSON, max_size=2),
)
@pytest.mark.parametrize("model", [TinyHuggingFace("mistral"), TinyHuggingFace("qwen2")], ids=["mistral", "qwen2"])
def test_mutated_configurations_end_in_our_errors(
    model: TinyHuggingFace,
    fields: dict[str, Any],
    ropes: dict[str, Any],
    scaling: dict[str, Any] | None,
    hostile_folder: Callable[[TinyHuggingFace], Path],
) -> None:
    folder = hostile_folder(model)
    if scaling is not None:
        ropes["rope_scaling"] = {"type": "llama3"} | LLAMA3 | scaling
    (folder / "config.json").write_text(json.dumps(model.config() | fields | ropes))
    try:
        config = config_of(folder)
    except Error as error:
        assert str(error).encode()
    else:
        assert config.weight_dims()["token_embd.weight"] == (99, 48)


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Callable[[TinyHuggingFace], Path]:
    def write(model: TinyHuggingFace) -> Path:
        if not (tmp_path / "model").exists():
            model.write(tmp_path / "model")
        return tmp_path / "model"

    return write

"""What a ``config.json`` means, field by field, against the configuration classes of transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from executorch_webgpu.errors import InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.huggingface import open_huggingface
from executorch_webgpu.models.huggingface_config import DEFAULTS, Fields, read_config, read_fields, rope_divisors
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions
from executorch_webgpu.models.weights import Weight
from tests.models.test_gguf_keys import forward_of
from tests.models.tiny_huggingface import SIZES, TinyHuggingFace, stored
from tests.ops.harness import assert_close

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
EMBEDDING = Weight("embedding", (99, 64), lambda start, stop: np.zeros((stop - start, 64), np.float32))


def meant(fields: dict[str, Any]) -> LlamaConfig:
    read = read_fields(fields)
    return read_config(read, EMBEDDING, own_head=not read.flag("tie_word_embeddings"))


@pytest.mark.parametrize("model_type", DEFAULTS)
def test_class_defaults_are_the_classes(model_type: str) -> None:
    """Of every field that is read here, and there is none else that could be left out."""
    library = AutoConfig.for_model(model_type)
    fields = Fields({"model_type": model_type}, model_type)
    for key, value in DEFAULTS[model_type].items():
        if key == "sliding_window" and model_type != "mistral":
            continue  # the class forgets it unless it is used
        stated = {"num_key_value_heads": library.num_attention_heads, "head_dim": 4096 // 32}
        expected = stated.get(key) if value is None else value
        assert getattr(library, key, expected) == expected, key
    assert fields.value("sliding_window") == (None if model_type == "llama" else 4096)
    config = meant({"model_type": model_type})
    assert (config.dim, config.layers, config.heads) == (library.hidden_size, library.num_hidden_layers, 32)
    assert (config.ffn, config.norm_eps) == (library.intermediate_size, library.rms_norm_eps)
    assert (config.kv_heads, config.tied_head) == (library.num_key_value_heads, False)
    assert config.rope_base == library.rope_parameters["rope_theta"]
    assert config.head_dim == (getattr(library, "head_dim", None) or 128)
    assert config.context_len == (4096 if model_type == "mistral" else library.max_position_embeddings)


ROPES = st.one_of(
    st.just({}),
    st.none(),
    st.fixed_dictionaries({"type": st.just("linear"), "factor": st.sampled_from([2.0, 4])}),
    st.fixed_dictionaries(
        {"rope_type": st.just("linear"), "factor": st.just(3.0)}, optional={"rope_theta": st.just(77.0)}
    ),
    st.fixed_dictionaries(
        {"rope_type": st.just("llama3"), **{key: st.just(value) for key, value in LLAMA3.items()}},
        optional={"original_max_position_embeddings": st.just(48), "type": st.just("linear")},
    ),
    st.fixed_dictionaries({"rope_type": st.just("default")}, optional={"type": st.just("linear")}),
    st.fixed_dictionaries(
        {"rope_type": st.just("yarn"), "factor": st.just(4.0)}, optional={"type": st.just("default")}
    ),
    st.fixed_dictionaries({"rope_theta": st.just(55.0)}, optional={"type": st.just("default")}),
)
CONFIGS = st.fixed_dictionaries(
    {"model_type": st.sampled_from(list(DEFAULTS)), "hidden_size": st.just(64)},
    optional={
        "num_attention_heads": st.sampled_from([8, 32]),
        "num_key_value_heads": st.sampled_from([2, 8]),
        "head_dim": st.sampled_from([4, 8, 16]),
        "rms_norm_eps": st.sampled_from([1e-3, 1e-6]),
        "max_position_embeddings": st.sampled_from([32, 512]),
        "original_max_position_embeddings": st.just(24),
        "tie_word_embeddings": st.booleans(),
        "rope_theta": st.sampled_from([500.0, 10000]),
        "rope_scaling": ROPES,
        "rope_parameters": ROPES,
        "attention_bias": st.booleans(),
        "sliding_window": st.sampled_from([None, 8, 1000]),
        "use_sliding_window": st.booleans(),
        "n_embd": st.just(7),  # a synonym for other classes, not for these
        "num_kv_heads": st.just(1),
    },
)


@settings(max_examples=400, deadline=None)
@given(fields=CONFIGS)
def test_the_same_as_the_library(fields: dict[str, Any]) -> None:
    library = AutoConfig.for_model(**json.loads(json.dumps(fields)))
    try:
        config = meant(fields)
        divisors = rope_divisors(read_fields(fields), config)
    except UnsupportedProgramError as error:
        assert library.rope_parameters["rope_type"] == "yarn" and "'yarn'" in str(error)
        return
    except InvalidProgramError as error:  # the classes do not look
        assert library.num_attention_heads % library.num_key_value_heads and "for 32 of keys" in str(error)
        return
    assert (config.heads, config.kv_heads) == (library.num_attention_heads, library.num_key_value_heads)
    assert config.head_dim == (getattr(library, "head_dim", None) or 64 // library.num_attention_heads)
    assert (config.norm_eps, config.tied_head) == (library.rms_norm_eps, library.tie_word_embeddings)
    biased = library.model_type == "qwen2" or (library.model_type != "mistral" and library.attention_bias)
    assert config.qkv_bias == biased
    slides = library.model_type == "mistral" or getattr(library, "use_sliding_window", False)
    window = library.sliding_window if slides and library.model_type != "llama" else None
    assert config.context_len == min(library.max_position_embeddings, window or math.inf)
    rope = library.rope_parameters
    assert config.rope_base == rope["rope_theta"]
    plain = rope["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    expected = plain
    if rope["rope_type"] != "default":
        expected = ROPE_INIT_FUNCTIONS[rope["rope_type"]](library, "cpu")[0].numpy()
    np.testing.assert_allclose(plain / (divisors or 1.0), expected, rtol=1e-5)


@pytest.mark.parametrize("rope_type", ["yarn", "dynamic", "longrope", "su", "proportional", None, 4])
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_what_is_not_here_is_named_beside_a_default(rope_type: Any, key: str, tmp_path: Path) -> None:
    """The older spelling counts, whatever the newer one says."""
    default = {"rope_type": "default", "rope_theta": 1e4}
    fields = {"rope_parameters": default, "rope_scaling": {key: rope_type, "factor": 4.0}}
    TinyHuggingFace(fields=fields).write(tmp_path / "model")
    with (
        pytest.raises(UnsupportedProgramError, match=f"rope scaling {rope_type!r} is not here"),
        open_huggingface(tmp_path / "model"),
    ):
        pass


@pytest.mark.parametrize("how", ["none", "twice"])
def test_keys_with_another_prefix(how: str, tmp_path: Path) -> None:
    model = TinyHuggingFace()
    tensors = model.write(tmp_path / "model")
    (tmp_path / "other").mkdir()
    renamed = {
        name.removeprefix("model.") if how == "none" else f"model.{name}": tensor for name, tensor in tensors.items()
    }
    model.write(tmp_path / "other", renamed, without=list(tensors))
    programs = []
    for folder in ("model", "other"):
        convert(tmp_path / folder, tmp_path / "m.pte", LlamaOptions("f32", max_seq_len=9))
        programs.append((tmp_path / "m.pte").read_bytes())
    assert programs[0] == programs[1]


def test_a_head_that_is_not_there(tmp_path: Path) -> None:
    """The library would make one up, of random numbers."""
    TinyHuggingFace().write(tmp_path / "model", without=["lm_head.weight"])
    with (
        pytest.raises(InvalidProgramError, match=r"no tensor 'lm_head\.weight'"),
        open_huggingface(tmp_path / "model"),
    ):
        pass


def test_a_tensor_by_two_names(tmp_path: Path) -> None:
    TinyHuggingFace().write(tmp_path / "model", {"norm.weight": stored(np.ones(48, np.float32))})
    with pytest.raises(InvalidProgramError, match="once more"), open_huggingface(tmp_path / "model"):
        pass


def test_a_size_that_the_class_assumes_is_named(tmp_path: Path) -> None:
    TinyHuggingFace(fields={"hidden_size": 48}).write(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["hidden_size"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with (
        pytest.raises(InvalidProgramError, match=r"\[99, 48\], not \[99, 4096\].+no 'hidden_size', which is then 4096"),
        open_huggingface(tmp_path / "model"),
    ):
        pass


def test_sizes_that_follow_from_others_where_the_weights_say_so(tmp_path: Path) -> None:
    """Not what the classes have: 8 or 32 heads for keys, heads of 128."""
    for model_type in DEFAULTS:
        model = TinyHuggingFace(model_type, {"num_key_value_heads": 4})
        model.write(tmp_path / "model")
        config = model.config()
        del config["num_key_value_heads"]
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        with open_huggingface(tmp_path / "model") as opened:
            assert (opened.config.kv_heads, opened.config.head_dim) == (4, 12)


def test_null_is_as_if_it_were_not_there() -> None:
    plain = {"model_type": "qwen3", "num_key_value_heads": 8}
    null = dict.fromkeys(["rope_theta", "rope_scaling", "attention_bias", "tie_word_embeddings", "use_sliding_window"])
    assert meant(plain | null) == meant(plain)
    assert meant(plain | {"rope_parameters": {"rope_theta": None}, "rope_theta": 7.0}).rope_base == 7.0


def test_an_adapter_is_not_passed_over(tmp_path: Path) -> None:
    TinyHuggingFace().write(tmp_path / "model")
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with open_huggingface(tmp_path / "model"):
        pass
    (tmp_path / "model" / "adapter_model.safetensors").write_bytes(b"")
    with (
        pytest.raises(UnsupportedProgramError, match="has an adapter beside the model"),
        open_huggingface(tmp_path / "model"),
    ):
        pass


NUMBERS: st.SearchStrategy[Any] = st.sampled_from(
    [0, -1, 1, 2, 4, 8, 12, 0.0, -0.0, 1e-300, 1e-60, 1e-45, 1e-30, 1e-6, 0.5, 1.5, 1e9, 1e38, 1e300, 2**31, 2**62]
) | st.sampled_from([True, None, "1", [], {}, [1], 10**400])
NUMERIC = (*SIZES, "head_dim", "rope_theta", "sliding_window", "factor", "low_freq_factor", "high_freq_factor")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(NUMERIC), value=NUMBERS, kind=st.sampled_from(["linear", "llama3"]))
def test_every_number_is_refused_or_right(key: str, value: Any, kind: str, tmp_path: Path) -> None:
    model = TinyHuggingFace("mistral", {"rope_scaling": {"type": kind, **LLAMA3}, "num_hidden_layers": 1})
    if not (tmp_path / "model").exists():
        model.write(tmp_path / "model")
    config = model.config()
    (config if key not in LLAMA3 else config["rope_scaling"])[key] = value
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    try:
        with open_huggingface(tmp_path / "model") as opened:
            tokens = [3, 98, 14, 15, 9, 26, 5][: opened.config.context_len - 1]
        if len(tokens) < 2:
            return
        options = LlamaOptions("f32", max_seq_len=len(tokens) + 1, max_context_len=len(tokens) + 1)
        convert(tmp_path / "model", tmp_path / "m.pte", options)
    except (InvalidProgramError, UnsupportedProgramError) as error:
        assert "\n" not in str(error)
        return
    got = forward_of(tmp_path / "m.pte", tokens)
    assert np.isfinite(got).all()
    try:
        oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32, local_files_only=True)
    except Exception:  # a number that its strict classes refuse, and that has one meaning all the same
        return
    with torch.no_grad():
        assert_close(got.astype(np.float32), oracle(torch.tensor([tokens])).logits[0, -1].numpy())

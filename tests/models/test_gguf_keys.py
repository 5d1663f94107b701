"""What a GGUF file's metadata means: llama.cpp's defaults and old names, and every key with every type of value."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.format.pte import read_program
from executorch_webgpu.format.vkgraph import read_vkgraph
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.gguf import open_gguf
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions
from tests.models.tiny_gguf import TinyGguf
from tests.ops.harness import assert_close

Kind = GGUFValueType
TINY = TinyGguf(dim=32, head_dim=8, ffn=32, layers=1, vocab=40)
TOKENS = [3, 39, 14, 15, 9, 26, 5]
EPS, BASE = "attention.layer_norm_rms_epsilon", "rope.freq_base"
FACTOR, OLD_FACTOR, SCALING = "rope.scaling.factor", "rope.scale_linear", "rope.scaling.type"


def with_keys(*edits: tuple[str, Any, GGUFValueType | None], **fields: Any) -> TinyGguf:
    return dataclasses.replace(TINY, edits=edits, **fields)


def config_of(model: TinyGguf, path: Path) -> LlamaConfig:
    model.write(path)
    with open_gguf(path) as opened:
        return opened.config


def logits_of(path: Path, tokens: list[int]) -> np.ndarray:
    """The converted file's logits after the tokens, by the operators' references."""
    target = path.with_suffix(".pte")
    convert(path, target, LlamaOptions("f32", max_seq_len=len(tokens) + 1, max_context_len=len(tokens) + 1))
    return forward_of(target, tokens)


def forward_of(program: Path, tokens: list[int]) -> np.ndarray:
    """A program's logits after the tokens, by the operators' references."""
    file = read_program(program.read_bytes())
    (delegate,) = next(plan for plan in file.methods if plan.name == "forward").delegates
    executor = ReferenceExecutor(build_graph(read_vkgraph(file.delegate_data(delegate), file.named_data)))
    (logits,) = executor.execute([np.array([tokens]), np.array([0])])
    return np.asarray(logits)[0]


@pytest.mark.parametrize(
    ("edits", "scale"),
    [
        ([(FACTOR, 4.0, Kind.FLOAT32)], 4.0),
        ([(OLD_FACTOR, 4.0, Kind.FLOAT32)], 4.0),
        ([(SCALING, "linear", Kind.STRING), (OLD_FACTOR, 4.0, Kind.FLOAT32)], 4.0),
        ([(FACTOR, 2.0, Kind.FLOAT32), (OLD_FACTOR, 4.0, Kind.FLOAT32)], 2.0),
        ([(FACTOR, 0.0, Kind.FLOAT32), (OLD_FACTOR, 4.0, Kind.FLOAT32)], None),
        ([(SCALING, "linear", Kind.STRING), (FACTOR, 0.0, Kind.FLOAT32)], None),
        ([(SCALING, "linear", Kind.STRING)], None),
        ([(SCALING, "none", Kind.STRING), (FACTOR, 4.0, Kind.FLOAT32)], None),
    ],
)
def test_scaling_of_the_rope(edits: list[Any], scale: float | None, tmp_path: Path) -> None:
    weights = with_keys(*edits).write(tmp_path / "m.gguf")
    expected = dataclasses.replace(TINY, rope_scale=scale).logits(weights, TOKENS)
    assert_close(logits_of(tmp_path / "m.gguf", TOKENS).astype(np.float32), expected)
    other = dataclasses.replace(TINY, rope_scale=None if scale else 4.0).logits(weights, TOKENS)
    assert np.abs(other - expected).max() > 1e-2


def test_defaults_of_keys_that_are_not_there(tmp_path: Path) -> None:
    absent = [BASE, "attention.head_count_kv", "attention.key_length", "attention.value_length"]
    model = dataclasses.replace(TINY, kv_heads=4, edits=tuple((key, None, None) for key in absent))
    config = config_of(model, tmp_path / "m.gguf")
    assert (config.rope_base, config.kv_heads, config.head_dim) == (10000.0, 4, 8)
    assert config.rope_divisors == ()


@pytest.mark.parametrize("key", ["embedding_length", "block_count", "feed_forward_length", "context_length", EPS])
def test_a_key_that_must_be_there(key: str, tmp_path: Path) -> None:
    with_keys((key, None, None)).write(tmp_path / "m.gguf")
    with pytest.raises(InvalidProgramError, match=f"no 'llama.{key}'"), open_gguf(tmp_path / "m.gguf"):
        pass


def test_one_number_for_all_layers_as_an_array(tmp_path: Path) -> None:
    model = dataclasses.replace(TINY, layers=2)
    arrays = [("feed_forward_length", 32), ("attention.head_count", 4), ("attention.head_count_kv", 2)]
    same = dataclasses.replace(model, edits=tuple((key, [value] * 2, Kind.ARRAY) for key, value in arrays))
    assert config_of(same, tmp_path / "m.gguf") == config_of(model, tmp_path / "m.gguf")
    for key, value in arrays:
        for wrong, kind in (([value, value * 2], UnsupportedProgramError), ([value] * 3, InvalidProgramError)):
            dataclasses.replace(model, edits=((key, wrong, Kind.ARRAY),)).write(tmp_path / "m.gguf")
            with pytest.raises(kind, match=f"'llama.{key}' is "), open_gguf(tmp_path / "m.gguf"):
                pass


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("logit_scale", 0.5, Kind.FLOAT32),
        ("residual_scale", 0.22, Kind.FLOAT32),
        ("embedding_scale", 12.0, Kind.FLOAT32),
        ("attention.scale", 0.1, Kind.FLOAT32),
        ("attention.clamp_kqv", 8.0, Kind.FLOAT32),
        ("attention.causal", False, Kind.BOOL),
        ("rope.scaling.attn_factor", 1.2, Kind.FLOAT32),
        ("expert_count", 8, Kind.UINT32),
        ("expert_used_count", 2, Kind.UINT32),
        ("final_logit_softcapping", 30.0, Kind.FLOAT32),
        ("rope.dimension_sections", [1, 1, 1, 1], Kind.ARRAY),
        ("something.new", 1, Kind.UINT32),
        ("logit_scale", math.nan, Kind.FLOAT32),
    ],
)
def test_a_key_that_would_change_the_model_is_named(key: str, value: Any, kind: GGUFValueType, tmp_path: Path) -> None:
    with_keys((key, value, kind)).write(tmp_path / "m.gguf")
    with pytest.raises(UnsupportedProgramError, match=f"'llama.{key}' is "), open_gguf(tmp_path / "m.gguf"):
        pass


@pytest.mark.parametrize("scaling", ["yarn", "longrope", "su", ""])
def test_a_scaling_that_is_not_here_is_named(scaling: str, tmp_path: Path) -> None:
    with_keys((SCALING, scaling, Kind.STRING)).write(tmp_path / "m.gguf")
    with pytest.raises(UnsupportedProgramError, match=f"rope scaling '{scaling}'"), open_gguf(tmp_path / "m.gguf"):
        pass


def test_keys_that_change_nothing(tmp_path: Path) -> None:
    harmless = with_keys(
        ("expert_count", 0, Kind.UINT32),
        ("attention.causal", True, Kind.BOOL),
        ("rope.scaling.attn_factor", 1.0, Kind.FLOAT32),
        ("rope.scaling.original_context_length", 8192, Kind.UINT32),
        ("rope.scaling.finetuned", False, Kind.BOOL),
        ("tensor_data_layout", "Meta AI original pth", Kind.STRING),
        ("vocab_size", 40, Kind.UINT32),
        ("rope.dimension_count", 8, Kind.UINT32),
        ("general.quantization_version", 2, Kind.UINT32),
    )
    assert config_of(harmless, tmp_path / "m.gguf") == config_of(TINY, tmp_path / "m.gguf")


def test_tensors_of_another_architecture(tmp_path: Path) -> None:
    """llama has no norms of heads, the others no divisors of the rope."""
    for model, name in (
        (dataclasses.replace(TINY, qk_norm=True), "blk.0.attn_q_norm.weight"),
        (dataclasses.replace(TINY, architecture="qwen2", rope_divisors=True), "rope_freqs.weight"),
    ):
        model.write(tmp_path / "m.gguf")
        with pytest.raises(UnsupportedProgramError, match=f"'{name}' has no place"), open_gguf(tmp_path / "m.gguf"):
            pass


@pytest.mark.parametrize("divisors", [np.ones(3), np.ones((2, 4)), np.zeros(4), np.full(4, np.nan), -np.ones(4)])
def test_divisors_that_cannot_be(divisors: np.ndarray, tmp_path: Path) -> None:
    class Edited(TinyGguf):
        def vectors(self) -> dict[str, Any]:
            return super().vectors() | {"rope_freqs.weight": divisors.shape}

    values = dataclasses.asdict(TINY)
    Edited(**values).write(tmp_path / "m.gguf", values={"rope_freqs.weight": divisors})
    with (
        pytest.raises(InvalidProgramError, match=r"'rope_freqs\.weight' (is|has)"),
        open_gguf(tmp_path / "m.gguf") as m,
    ):
        assert m.config


INTEGERS = {
    Kind.UINT8: st.integers(0, 255),
    Kind.INT8: st.integers(-128, 127),
    Kind.UINT16: st.integers(0, 2**16 - 1),
    Kind.INT16: st.integers(-(2**15), 2**15 - 1),
    Kind.UINT32: st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2, 4, 8, 32, 40, 64]),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 2, 4, 8, 32, 40, 64]),
    Kind.UINT64: st.integers(0, 2**64 - 1) | st.sampled_from([2**63, 2**62]),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
}
FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, 1e-5, 1e-6, 0.5, 4.0, 10000.0, 1e38, 1e-38, 1e-45])
VALUES: dict[GGUFValueType, st.SearchStrategy[Any]] = {
    **INTEGERS,
    Kind.FLOAT32: FLOATS,
    Kind.FLOAT64: st.floats() | FLOATS,
    Kind.BOOL: st.booleans(),
    Kind.STRING: st.sampled_from(["", "x", "none", "linear", "yarn", "4"]),
    Kind.ARRAY: st.lists(st.integers(-3, 70), min_size=1, max_size=3) | st.lists(FLOATS, min_size=1, max_size=2),
}
TYPED = st.sampled_from(list(VALUES)).flatmap(lambda kind: st.tuples(VALUES[kind], st.just(kind)))
SIZES = (
    *("embedding_length", "block_count", "feed_forward_length", "vocab_size", "attention.head_count"),
    *("attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count"),
)
KEYS = (
    *(*SIZES, "context_length", "attention.sliding_window", EPS, BASE, FACTOR, OLD_FACTOR, SCALING, "logit_scale"),
    *("expert_count", "attention.causal", "general.architecture", "tokenizer.ggml.tokens"),
)


def meaning(key: str, value: Any) -> TinyGguf:
    """The model that a file means whose key has another value, if it means any."""
    if key == EPS:
        return dataclasses.replace(TINY, eps=float(value))
    if key == BASE:
        return dataclasses.replace(TINY, rope_base=float(value))
    if key in (FACTOR, OLD_FACTOR):
        return dataclasses.replace(TINY, rope_scale=float(value) or None)
    return TINY


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(KEYS), typed=TYPED)
def test_every_key_with_every_type(key: str, typed: tuple[Any, GGUFValueType], tmp_path: Path) -> None:
    """Our errors, or the right model: nothing else comes of a number."""
    value, kind = typed
    weights = with_keys((key, value, kind)).write(tmp_path / "m.gguf")
    try:
        with open_gguf(tmp_path / "m.gguf") as model:
            tokens = TOKENS[: model.config.context_len - 1]
        if len(tokens) < 2:
            return
        got = logits_of(tmp_path / "m.gguf", tokens)
    except (InvalidProgramError, UnsupportedProgramError) as error:
        assert "\n" not in str(error) and str(error).encode()
        return
    assert np.isfinite(got).all()
    assert_close(got.astype(np.float32), meaning(key, value).logits(weights, tokens))

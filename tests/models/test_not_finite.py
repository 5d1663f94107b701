"""Weights that are not finite, or too large for a format, are refused by tensor and row, whatever the format."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.gguf_blocks import GROUP, code_bits, split_blocks
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.models.matrix import EMBEDDING_FORMATS, WEIGHT_FORMATS, QuantizedMatrix, WeightFormat, matrix
from executorch_webgpu.models.weights import Blocks, Constant, Floats, Weight, float_constant
from tests.models.tiny_gguf import K_QUANTS, QuantType, TinyGguf, random_matrix
from tests.models.tiny_huggingface import TinyHuggingFace, stored

STORED = (QuantType.Q8_0, QuantType.Q4_0, QuantType.Q4_1, QuantType.Q4_K)
BROKEN = (np.inf, -np.inf, np.nan)


def weight(floats: Floats, blocks: Blocks | None = None) -> Weight:
    return Weight("w", floats.shape, lambda start, stop: floats[start:stop].copy(), blocks)


def read_all(found: Constant | QuantizedMatrix) -> list[np.ndarray]:
    constants = [found] if isinstance(found, Constant) else [found.packed, found.scales, found.row_scales]
    return [np.concatenate([piece.reshape(-1) for piece in constant.pieces()]) for constant in constants]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), form=st.sampled_from(WEIGHT_FORMATS), value=st.sampled_from(BROKEN), rows=st.integers(1, 9000))
def test_one_broken_weight_is_found(data: st.DataObject, form: WeightFormat, value: float, rows: int) -> None:
    floats = np.full((rows, 128), 0.25, np.float32)
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, 127))
    floats[row, column] = value
    with pytest.raises(InvalidProgramError, match=rf"'w' is not finite, row {row} has -?{abs(value)}"):
        read_all(matrix(weight(floats), form, 32))


@pytest.mark.parametrize("value", BROKEN)
def test_vectors_too(value: float) -> None:
    floats = np.ones(64, np.float32)
    floats[7] = value
    vector = Weight("w", (64,), lambda start, stop: floats[None])
    with pytest.raises(InvalidProgramError, match="'w' is not finite, its element 7 has"):
        read_all(float_constant(vector))


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.name)
@pytest.mark.parametrize("form", ["native", "f32", "q8gsw", "q4gaw", "q8csw", "q4gsw"])
@pytest.mark.parametrize("value", BROKEN)
def test_a_factor_of_a_block(kind: QuantType, form: WeightFormat, value: float) -> None:
    raw = np.ascontiguousarray(random_matrix(np.random.default_rng(0), (6, 512), kind)).view(np.uint8).reshape(6, -1)
    places = list(K_QUANTS[kind][1]) if kind in K_QUANTS else [0, 2] if kind is QuantType.Q4_1 else [0]
    for place in places:
        broken = raw.copy()
        broken[4, place : place + 2] = np.array([value], np.float16).view(np.uint8)

        def read(start: int, stop: int, broken: np.ndarray = broken) -> Floats:
            return gguf.dequantize(broken[start:stop], kind).astype(np.float32)

        def codes(start: int, stop: int, broken: np.ndarray = broken) -> tuple[np.ndarray, Floats, Floats]:
            return split_blocks(broken[start:stop], kind.value)

        bits = code_bits(kind.value)
        assert bits is not None
        source = Weight("w", (6, 512), read, Blocks(bits, GROUP, codes))
        with pytest.raises(InvalidProgramError, match="'w' is not finite, row 4"):
            read_all(matrix(source, form, 32))


@pytest.mark.parametrize(("form", "most"), [("q8gsw", 65504 * 127), ("q4gaw", 65504), ("q8csw", 3e38), ("q4gsw", 1e36)])
def test_finite_weights_that_are_too_large(form: WeightFormat, most: float) -> None:
    """Scales are never cut: a weight comes back near what it was, or is refused."""
    for size in (most * 0.5, most * 1.1, 1e38, 3.4e38):
        floats = np.full((3, 64), 0.5, np.float32)
        floats[2, 5], floats[2, 6] = size, -min(size, 1e37)
        try:
            found = read_all(matrix(weight(floats), form, 32))
        except UnsupportedProgramError as error:
            assert size > most and f"'w' has weights in row 2 that are too large for {form}" in str(error)
        else:
            assert all(np.isfinite(array).all() for array in found)
            assert found[1].max() > size / 256


def test_halves_that_are_too_large() -> None:
    floats = np.full((3, 8), 0.1, np.float32)
    floats[2, 5] = 65504
    (halves,) = read_all(matrix(weight(floats), "f16", 32))
    np.testing.assert_array_equal(halves, floats.astype(np.float16).reshape(-1))
    floats[2, 5] = 65520
    with pytest.raises(UnsupportedProgramError, match="'w' has weights in row 2 that are too large for f16"):
        read_all(matrix(weight(floats), "f16", 32))


def test_the_scales_of_a_k_quant_may_not_fit_float16() -> None:
    raw = np.ascontiguousarray(random_matrix(np.random.default_rng(0), (3, 256), QuantType.Q4_K)).reshape(3, -1)
    raw[1, 0:2] = np.array([60000], np.float16).view(np.uint8)
    source = Weight(
        "w",
        (3, 256),
        lambda start, stop: gguf.dequantize(raw[start:stop], QuantType.Q4_K).astype(np.float32),
        Blocks(4, GROUP, lambda start, stop: split_blocks(raw[start:stop], QuantType.Q4_K.value)),
    )
    with pytest.raises(UnsupportedProgramError, match="'w' has weights in row 1 that are too large for q4gaw"):
        read_all(matrix(source, "native", 32))
    assert np.isfinite(read_all(matrix(source, "f32", 32))[0]).all()


@pytest.mark.parametrize("form", WEIGHT_FORMATS)
@pytest.mark.parametrize("name", ["blk.0.ffn_up.weight", "token_embd.weight", "blk.1.attn_norm.weight"])
def test_a_file_is_refused_and_nothing_is_left(form: WeightFormat, name: str, tmp_path: Path) -> None:
    model = TinyHuggingFace(fields={"hidden_size": 64, "intermediate_size": 64})
    source = {
        "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.1.attn_norm.weight": "model.layers.1.input_layernorm.weight",
    }[name]
    floats = np.full(model.dims()[source], 0.1, np.float32)
    floats[3] = np.inf
    model.write(tmp_path / "model", {source: stored(floats)})
    place = "row 3" if floats.ndim == 2 else "its element 3"
    options = LlamaOptions(form, embedding=form if form in EMBEDDING_FORMATS else "f32", max_seq_len=8)
    with pytest.raises(InvalidProgramError, match=f"'{source}' is not finite, {place} has inf"):
        convert(tmp_path / "model", tmp_path / "m.pte", options)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_gguf_file_too(tmp_path: Path) -> None:
    class Broken(TinyGguf):
        def matrices(self) -> dict[str, tuple[int, int]]:
            return {"blk.0.ffn_up.weight": (self.ffn, self.dim), **super().matrices()}

    model = Broken(dim=64, head_dim=16, ffn=64)  # the first matrix is of F32
    model.write(tmp_path / "m.gguf")
    data = bytearray((tmp_path / "m.gguf").read_bytes())
    first = gguf.GGUFReader(tmp_path / "m.gguf").tensors[0]
    assert (first.name, first.tensor_type) == ("blk.0.ffn_up.weight", QuantType.F32)
    at = int(first.data_offset) + 64 * 4 * 5
    data[at : at + 4] = np.array([np.inf], np.float32).tobytes()
    (tmp_path / "m.gguf").write_bytes(data)
    for form in WEIGHT_FORMATS:
        with pytest.raises(InvalidProgramError, match=r"'blk\.0\.ffn_up\.weight' is not finite, row 5 has inf"):
            convert(tmp_path / "m.gguf", tmp_path / "m.pte", LlamaOptions(form, max_seq_len=8))

"""Matrices in the formats of a program: what the operators make of their constants is the matrix."""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.models.gguf_blocks import GROUP, code_bits, split_blocks
from executorch_webgpu.models.matrix import QuantizedMatrix, WeightFormat, matrix
from executorch_webgpu.models.weights import Blocks, Constant, Floats, Weight
from executorch_webgpu.ops import registry
from tests.models.tiny_gguf import TYPES, QuantType, random_matrix

LINEAR = {
    "q4gsw": "et_vk.linear_q4gsw.default",
    "q8gsw": "et_webgpu.linear_q8gsw.default",
    "q4gaw": "et_webgpu.linear_q4gaw.default",
}
EMBEDDING = {name: op.replace("linear", "embedding") for name, op in LINEAR.items()}
STORED = [kind for kind in TYPES if code_bits(kind.value)]


def weight(floats: Floats, name: str = "w") -> Weight:
    return Weight(name, floats.shape, lambda start, stop: floats[start:stop].copy())


def stored_weight(rows: int, width: int, kind: QuantType) -> tuple[Weight, Floats]:
    """A weight as a GGUF file has it, and what the gguf library makes of it."""
    data = random_matrix(np.random.default_rng(rows), (rows, width), kind)
    raw = np.ascontiguousarray(data).view(np.uint8).reshape(rows, -1)
    floats = gguf.dequantize(data, kind).astype(np.float32).reshape(rows, width)
    bits = code_bits(kind.value)
    assert bits is not None
    blocks = Blocks(bits, GROUP, lambda start, stop: split_blocks(raw[start:stop], kind.value))
    return Weight("w", (rows, width), lambda start, stop: floats[start:stop].copy(), blocks), floats


def array(constant: Constant) -> np.ndarray:
    """What the program has, whose size must be as stated."""
    pieces = list(constant.pieces())
    assert sum(piece.nbytes for piece in pieces) == constant.nbytes
    return np.concatenate(pieces).reshape(constant.dims)


def reference(op: str) -> Callable[..., np.ndarray]:
    found = registry.find(op)
    assert found is not None
    return found.reference


def as_linear(found: QuantizedMatrix) -> np.ndarray:
    """The matrix [N, K], by the reference of its linear operator."""
    x, packed, scales = np.eye(found.dims[1]), array(found.packed), array(found.scales)
    if found.format == "q8csw":
        return reference("aten._weight_int8pack_mm.default")(x, packed, scales).T
    return reference(LINEAR[found.format])(x, packed, scales, found.group, None)[:, : found.dims[0]].T


def as_embedding(found: QuantizedMatrix) -> np.ndarray:
    """The matrix [N, K], by the reference of its embedding operator."""
    rows, packed = np.arange(found.dims[0]), array(found.packed)
    gather = reference(EMBEDDING[found.format])
    if found.format == "q4gsw":
        return gather(packed, array(found.row_scales), found.group, rows, True)
    return gather(packed, array(found.scales), found.group, rows)[:, : found.dims[1]]


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.name)
def test_native_keeps_what_is_stored(kind: QuantType) -> None:
    """Q4_K's scales are products of a half and six bits, which a half holds to 11 bits; all others are exact."""
    stored, floats = stored_weight(7, 512, kind)
    found = matrix(stored, "native", 128)
    assert isinstance(found, QuantizedMatrix) and found.group == GROUP
    tolerance = 2.0**-10 * np.abs(floats).max() if kind is QuantType.Q4_K else 1e-7
    np.testing.assert_allclose(as_linear(found), floats, rtol=1e-6, atol=tolerance)
    np.testing.assert_allclose(as_embedding(found), floats, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: kind.name)
def test_blocks_are_what_the_library_reads(kind: QuantType) -> None:
    stored, floats = stored_weight(5, 768, kind)
    assert stored.blocks is not None
    codes, scales, minimums = stored.blocks.read(0, 5)
    signed = codes.view(np.int8) if stored.blocks.bits == 8 else codes
    got = signed.astype(np.float32) * np.repeat(scales, GROUP, axis=1) + np.repeat(minimums, GROUP, axis=1)
    np.testing.assert_allclose(got, floats, rtol=1e-6, atol=1e-7)


# The largest error of a weight, as a part of the largest weight of its group or row.
@pytest.mark.parametrize(
    ("form", "error"), [("q8csw", 1 / 254), ("q4gsw", 1 / 4), ("q8gsw", 1 / 250), ("q4gaw", 1 / 14)]
)
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 41), groups=st.integers(1, 5), group=st.sampled_from([32, 64, 128]))
def test_floats_come_back(form: WeightFormat, error: float, rows: int, groups: int, group: int) -> None:
    floats = np.random.default_rng(rows).standard_normal((rows, groups * group), np.float32)
    found = matrix(weight(floats), form, group)
    assert isinstance(found, QuantizedMatrix)
    whole = floats.reshape(rows, 1 if form == "q8csw" else groups, -1)
    bound = np.broadcast_to(error * np.abs(whole).max(axis=-1, keepdims=True), whole.shape).reshape(floats.shape)
    assert (np.abs(as_linear(found) - floats) <= 1.01 * bound).all()
    if form != "q8csw":
        np.testing.assert_allclose(as_embedding(found), as_linear(found), rtol=1e-6, atol=1e-7)


def test_constants_can_be_read_in_any_order_and_again() -> None:
    """The scales come of the same computation as the packed weights, which is not always the one before."""
    floats = np.random.default_rng(1).standard_normal((5000, 128), np.float32)  # several pieces
    found = matrix(weight(floats), "q4gsw", 32)
    assert isinstance(found, QuantizedMatrix)
    orders = [("scales", "packed", "row_scales"), ("packed", "scales", "scales"), ("row_scales", "packed", "packed")]
    seen: dict[str, set[bytes]] = {"packed": set(), "scales": set(), "row_scales": set()}
    for order in orders:
        for name in order:
            seen[name].add(array(getattr(found, name)).tobytes())
    assert all(len(contents) == 1 for contents in seen.values())


def test_native_of_floats_is_8_bits_and_of_odd_rows_float32() -> None:
    found = matrix(weight(np.ones((3, 64), np.float32)), "native", 64)
    assert isinstance(found, QuantizedMatrix) and (found.format, found.group) == ("q8gsw", 32)
    assert isinstance(matrix(weight(np.ones((3, 40), np.float32)), "native", 32), Constant)


def test_rows_that_are_not_whole_groups() -> None:
    with pytest.raises(InvalidInputError, match="w has rows of 96 weights, which are not whole groups of 64"):
        matrix(weight(np.ones((3, 96), np.float32)), "q4gsw", 64)

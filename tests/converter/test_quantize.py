"""4-bit weights against the stock exporter's quantizer, and against what any quantizer must do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_scale_only_hqq

from executorch_webgpu.models.quantize import pack, quantize, quantize_rows
from executorch_webgpu.models.weights import Floats, Weight
from executorch_webgpu.ops.linear_q4 import linear_q4gsw_reference


def matrix(rows: int, width: int, seed: int = 0) -> Floats:
    weights = np.random.default_rng(seed).standard_t(4, (rows, width)).astype(np.float32)
    weights[0, :] = 0  # a group of zeros
    weights[1, :32] = 2.0**-30  # and one smaller than the smallest scale
    return weights


@pytest.mark.parametrize("group", [32, 64, 128])
def test_the_same_as_the_stock_quantizer(group: int) -> None:
    weights = matrix(37, 384)
    codes, scales = quantize_rows(weights, group)
    stock_codes, stock_scales = _choose_qparams_and_quantize_scale_only_hqq(
        torch.from_numpy(weights), [1, group], -8, 7
    )
    np.testing.assert_allclose(scales, stock_scales.numpy(), rtol=1e-5)  # sums in another order
    assert (codes != stock_codes.numpy()).mean() < 1e-3
    assert np.abs(codes - stock_codes.numpy()).max() <= 1


def test_the_scale_has_the_least_error_for_its_codes() -> None:
    weights = matrix(23, 64, seed=1)[2:]
    codes, scales = quantize_rows(weights, 32)
    w, q = weights.reshape(-1, 32).astype(np.float64), codes.reshape(-1, 32).astype(np.float64)

    def error(factor: float) -> np.ndarray:
        return ((w - q * scales.reshape(-1, 1) * factor) ** 2).sum(axis=1)

    assert (error(1.0) <= error(1.01)).all() and (error(1.0) <= error(0.99)).all()


def test_packing() -> None:
    codes = np.array([[-8, 7, 0, -1]], np.int8)
    np.testing.assert_array_equal(pack(codes), [[0xF0, 0x78]])


def test_constants_are_what_the_operator_takes() -> None:
    """Rows that are not a multiple of four: the scales are padded, and read in any order, more than once."""
    weights = matrix(7, 64, seed=2)
    matrix_ = quantize(Weight("w", (7, 64), lambda start, stop: weights[start:stop]), 32)
    codes, scales = quantize_rows(weights, 32)
    for _ in range(2):
        (read_scales,) = matrix_.scales.pieces()
        packed = np.concatenate(list(matrix_.packed.pieces()))
        np.testing.assert_array_equal(read_scales, np.pad(scales.T, ((0, 0), (0, 1))))
        assert packed.shape == matrix_.packed.dims and read_scales.shape == matrix_.scales.dims
    x = np.eye(64)
    dequantized = linear_q4gsw_reference(x, packed, read_scales, 32, None)
    np.testing.assert_allclose(dequantized[:, :7].T, codes * np.repeat(scales, 32, axis=1), rtol=1e-6)

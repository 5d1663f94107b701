"""Quantized weights against the stock exporter's quantizer, and against what any quantizer must do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_scale_only_hqq

from executorch_webgpu.models.quantize import asymmetric_4bit, pack, symmetric_4bit, symmetric_8bit
from executorch_webgpu.models.weights import Floats


def matrix(rows: int, width: int, seed: int = 0) -> Floats:
    weights = np.random.default_rng(seed).standard_t(4, (rows, width)).astype(np.float32)
    weights[0, :] = 0  # a group of zeros
    weights[1, :32] = 2.0**-30  # and one smaller than the smallest scale
    return weights


@pytest.mark.parametrize("group", [32, 64, 128])
def test_the_same_as_the_stock_quantizer(group: int) -> None:
    weights = matrix(37, 384)
    codes, scales = symmetric_4bit(weights, group)
    stock_codes, stock_scales = _choose_qparams_and_quantize_scale_only_hqq(
        torch.from_numpy(weights), [1, group], -8, 7
    )
    np.testing.assert_allclose(scales, stock_scales.numpy(), rtol=1e-5)  # sums in another order
    assert (codes != stock_codes.numpy()).mean() < 1e-3
    assert np.abs(codes - stock_codes.numpy()).max() <= 1


def test_the_scale_has_the_least_error_for_its_codes() -> None:
    weights = matrix(23, 64, seed=1)[2:]
    codes, scales = symmetric_4bit(weights, 32)
    w, q = weights.reshape(-1, 32).astype(np.float64), codes.reshape(-1, 32).astype(np.float64)

    def error(factor: float) -> np.ndarray:
        return ((w - q * scales.reshape(-1, 1) * factor) ** 2).sum(axis=1)

    assert (error(1.0) <= error(1.01)).all() and (error(1.0) <= error(0.99)).all()


def test_packing() -> None:
    np.testing.assert_array_equal(pack(np.array([[0, 15, 8, 7]], np.uint8)), [[0xF0, 0x78]])


def test_asymmetric_4_bits_err_by_half_a_step() -> None:
    weights = matrix(23, 64, seed=3) + np.float32(0.5)
    codes, scales, minimums = (np.asarray(a, np.float64) for a in asymmetric_4bit(weights, 32))
    grouped = weights.reshape(23, -1, 32)
    got = codes.reshape(23, -1, 32) * scales[..., None] + minimums[..., None]
    # Scale and minimum are rounded to float16, which moves the ends of the range.
    slack = 2.0**-10 * np.abs(grouped).max(axis=-1, keepdims=True)
    assert (np.abs(got - grouped) <= scales[..., None] / 2 + slack).all()
    assert codes.min() == 0 and codes.max() == 15


@pytest.mark.parametrize("half", [False, True])
def test_symmetric_8_bits_err_by_half_a_step(half: bool) -> None:
    weights = matrix(23, 64, seed=4)
    codes, scales = symmetric_8bit(weights, 32, half=half)
    got = codes.reshape(23, -1, 32) * scales[..., None].astype(np.float64)
    slack = 2.0**-10 * np.abs(weights).reshape(23, -1, 32).max(axis=-1, keepdims=True) + 2.0**-24
    assert (np.abs(got - weights.reshape(23, -1, 32)) <= scales[..., None] / 2 + slack).all()
    assert (codes[0] == 0).all()
    assert half == bool((scales == scales.astype(np.float16)).all())


def test_scales_beyond_float16_are_not_cut() -> None:
    large = np.full((1, 32), 1e7, np.float32)
    assert np.isinf(symmetric_8bit(large, 32, half=True)[1]).all()
    assert np.isinf(asymmetric_4bit(large, 32)[2]).all()

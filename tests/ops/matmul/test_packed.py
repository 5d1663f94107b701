"""Powers of two that bring packed weights, and what a gate makes of them, into what float16 holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.ops.matmul.formats import Q4CSW, Q4GAW, Q4GSW, Q8CSW, Q8GSW, QuantizedMatrix, WeightFormat
from executorch_webgpu.ops.matmul.packed import Packed, column_powers, gate_power, pack
from executorch_webgpu.ops.values import Tensor

Array = np.ndarray
FORMATS = (Q4GSW, Q4GAW, Q8GSW, Q8CSW, Q4CSW)
formats = st.sampled_from(FORMATS)
powers_of_two = st.integers(-20, 20)


def ends(layout: WeightFormat, scales: Array) -> Array:
    """The largest magnitude of a weight for each scale, in float64: codes are anything."""
    low, high = (-layout.zero_point, 15 - layout.zero_point) if layout.bits == 4 else (-128, 127)
    scale, minimum = (scales[..., 0], scales[..., 1]) if layout.mins else (scales, 0)
    return np.maximum(abs(scale * low + minimum), abs(scale * high + minimum))


def packed_of(layout: WeightFormat, n: int, k: int, group: int, seed: int, power: int) -> tuple[Packed, list[Array]]:
    """Two matrices [n, k] as a gate, and their scales, whose columns are of very different sizes."""
    random, quads = np.random.default_rng(seed), -(-n // 4)
    dims = ((-(-k // group), 4 * quads) + ((2,) if layout.mins else ())) if layout.grouped else (n,)
    scales, matrices = [], []
    for i in range(2):
        sizes = 2.0 ** random.integers(-4, 4, 4 * quads if layout.grouped else n) * 2.0 ** (power / 4)
        along = sizes[:, None] if layout.mins else sizes
        scales.append((random.uniform(-1, 1, dims) * along).astype(layout.scales_dtype))
        weights = Tensor(2 * i, layout.dtype, (n, -(-k * layout.bits // 8)))
        of_scales = Tensor(2 * i + 1, layout.scales_dtype, dims)
        matrices.append(QuantizedMatrix(layout, weights, of_scales, group if layout.grouped else k, k, quads))
    return pack(matrices, gated=True), scales


@settings(deadline=None)
@given(
    formats, st.integers(1, 40), st.integers(1, 300), st.sampled_from([8, 32, 40]), st.integers(0, 999), powers_of_two
)
def test_what_a_gate_gives_fits(layout: WeightFormat, n: int, k: int, group: int, seed: int, power: int) -> None:
    """At most 2^14 of the largest that columns of such scales, and rows as long as RMSNorm makes them, can give."""
    packed, scales = packed_of(layout, n, k, group, seed, power)
    norm = (np.random.default_rng(seed).standard_normal(k) * 2.0**power).astype(np.float32)
    inverse, found, *rest = gate_power(packed, Tensor(9, "float32", (k,))).pack(*scales, norm)
    by_group = [
        ends(layout, s.astype(np.float64).reshape(-1, *s.shape[1:] if layout.grouped else (n,))) for s in scales
    ]
    of_k = np.arange(k) // packed.group_size
    lengths = [np.sqrt(np.square(by[of_k] * norm[:, None].astype(np.float64)).sum(axis=0)) for by in by_group]
    largest = k * (lengths[0] * lengths[1]).max()
    assert rest == [0, 0] and inverse * found == 1 and np.frexp(found)[0] == 0.5
    assert 2.0**12 < found * largest < 1.001 * 2.0**14


@settings(deadline=None)
@given(
    formats, st.integers(1, 40), st.integers(1, 300), st.sampled_from([8, 32, 40]), st.integers(0, 999), powers_of_two
)
def test_columns_fit(layout: WeightFormat, n: int, k: int, group: int, seed: int, power: int) -> None:
    packed, scales = packed_of(layout, n, k, group, seed, power)
    found = column_powers(packed).pack(*scales).reshape(-1, 2, 4)  # quads take turns
    for i, of_scales in enumerate(scales):
        by_group = of_scales.astype(np.float64).reshape(-1, *of_scales.shape[1:] if layout.grouped else (n,))
        largest = ends(layout, by_group).max(axis=0)[:n]
        scaled = found[:, i].reshape(-1)[:n] * largest
        assert (scaled <= 2.0**14).all() and (scaled >= 2.0**10).all()


@pytest.mark.parametrize("layout", FORMATS)
def test_scales_that_are_no_numbers(layout: WeightFormat) -> None:
    """Their columns have no power, and those of others are as without them."""
    packed, scales = packed_of(layout, 12, 64, 32, 0, 0)
    norm, weight = np.ones(64, np.float32), Tensor(9, "float32", (64,))
    before, power = column_powers(packed).pack(*scales), gate_power(packed, weight).pack(*scales, norm)
    for number in (np.nan, np.inf):
        spoilt = [s.copy() for s in scales]
        smallest = int(
            np.argmin(ends(layout, scales[0].astype(np.float64)).reshape(-1, spoilt[0].shape[-1 - layout.mins])[0])
        )
        (spoilt[0] if not layout.grouped else spoilt[0][0])[smallest] = number
        after = column_powers(packed).pack(*spoilt).reshape(-1, 2, 4)
        assert after[smallest // 4, 0, smallest % 4] == 1
        after[smallest // 4, 0, smallest % 4] = before.reshape(-1, 2, 4)[smallest // 4, 0, smallest % 4]
        assert (after.reshape(-1) == before.reshape(-1)).all()
        assert gate_power(packed, weight).pack(*spoilt, norm)[1] >= power[1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_columns_of_floats(dtype: str) -> None:
    """The largest finite weight of a column counts; of one that has none, or zeros, the power is 1."""
    random = np.random.default_rng(0)
    weights = (random.standard_normal((40, 36)) * 2.0 ** random.integers(-6, 6, (40, 1))).astype(dtype)
    weights[3, 5], weights[4, 6], weights[5], weights[6], weights[7] = np.nan, -np.inf, np.inf, 0, -0.0
    packed = pack([Tensor(0, dtype, (40, 36))], gated=False)
    found = column_powers(packed).pack(weights)
    finite = np.where(np.isfinite(weights), np.abs(weights.astype(np.float64)), 0).max(axis=1)
    assert (found[5:8] == 1).all()
    scaled = np.delete(found.reshape(-1)[:40] * finite, slice(5, 8))
    assert (scaled < 2.0**14).all() and (scaled >= 2.0**13).all()

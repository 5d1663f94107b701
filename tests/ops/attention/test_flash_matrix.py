"""The tensor-core route, where the device has it; elsewhere, that it is refused and compiles."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES
from executorch_webgpu.ops.attention import reference
from executorch_webgpu.ops.attention.flash_matrix.plan import SHAPE, Tile, choose_tile
from tests.ops.harness import assert_close
from tests.ops.matrix_emulation import emulate

from .test_kv_cache_dtype import Attention

HEAD_DIMS = (4, 12, 16, 20, 48, 64, 80, 100, 128, 132, 144, 256)
DTYPES = ("f16", "int8")


def has_matrices(device: Device) -> bool:
    return SHAPE in device.features.subgroup_matrix_shapes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_compiles(head_dim: int, dtype: str) -> None:
    widest = 16 if dtype == "int8" else 8
    width = next(w for w in (16, 8, 4) if w <= widest and head_dim % w == 0)
    template = choose_tile(head_dim).template | {
        "cache": KV_CACHE_DTYPES[dtype],
        "head_dim": head_dim,
        "width": width,
    }
    of_eights = [(2, 0), (1, 0), (1, 4), (1, 8)] if head_dim % 8 == 0 and dtype == "f16" else []
    for exact in (True, False):
        for parts, pairs in [(0, 0), *of_eights]:
            out = {"out_parts": parts, "out_pairs": pairs}
            compile_check("dawn", "attention/flash_matrix", {**template, "exact": exact, "paged": False, **out})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("route", "magnitude"), [("flash_matrix", 1.0), ("flash_matrix", 40.0), ("flash_matrix_f16", 1.0)]
)
@pytest.mark.parametrize("heads", [(1, 1), (4, 2), (6, 1), (7, 1), (8, 8)])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_agrees_with_the_reference(
    device: Device, head_dim: int, heads: tuple[int, int], route: str, magnitude: float, dtype: str
) -> None:
    """Rows and contexts at the edges of tiles, from a cold cache and deep in it; NaN behind the context."""
    capacity = 331
    if not has_matrices(device):
        with pytest.raises(KernelError, match="cannot run this call"):
            Attention(device, dtype, heads, head_dim, capacity, 9, route=route)
        return
    with Attention(device, dtype, heads, head_dim, capacity, 200, route=route) as attention:
        _poison(attention)
        position = 0
        for length in (33, 9, 31, 127, 17, 64):
            got, rounded = _step(attention, length, position, magnitude)
            # The probabilities are float16: 2^-11 of the largest value.
            assert_close(got, rounded, 4e-3, 2e-3)
            again, _ = _step(attention, length, position, magnitude)
            assert got.tobytes() == again.tobytes()
            position += length
        got, rounded = _step(attention, 50, 3, magnitude)  # back to an earlier position
        assert_close(got, rounded, 4e-3, 2e-3)


def _step(attention: Attention, length: int, position: int, magnitude: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1000 * length + position)
    shapes = [(1, length, attention.heads[i], attention.head_dim) for i in (0, 1, 1)]
    q, k, v = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    given = [magnitude * q, k, v, np.array([position], np.int32)]
    (got,) = attention.executor.execute(given)
    assert attention.executor.plans.plans[-1].route in ("flash_matrix", "flash_matrix_f16")
    new = slice(position, position + length)
    keys, values = attention.caches()  # a number halfway between two int8 codes may get either one
    q, k, v = given[0].astype(np.float64), keys[:, new].copy(), values[:, new].copy()
    return np.asarray(got), reference.sdpa_with_kv_cache(q, k, v, keys, values, position)


def _poison(attention: Attention) -> None:
    """NaN in every row of the caches, or as its scale: rows that a step does not see are behind the context."""
    state = attention.executor.state
    for buffer in state.buffers.values():
        attention.executor.device.queue.write_buffer(buffer.raw, 0, np.full(buffer.size // 2, 0x7FFF, np.uint16))


SMALL_TILES = {  # two subgroups, and two for each row of blocks, which software adapters have room for
    "whole heads": Tile(subgroups=2, keys=32, workgroup_bytes=0),
    "halves of heads": Tile(subgroups=4, keys=16, split=2, workgroup_bytes=0),
}


# Rounded queries are for scores near one.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "magnitude"), [("flash_matrix", 1.0), ("flash_matrix", 40.0), ("flash_matrix_f16", 1.0)]
)
@pytest.mark.parametrize("tile", SMALL_TILES.values(), ids=SMALL_TILES)
@pytest.mark.parametrize(("heads", "head_dim"), [((4, 2), 16), ((3, 1), 24), ((2, 2), 48), ((5, 1), 8)])
def test_the_same_with_matrices_emulated(
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    heads: tuple[int, int],
    head_dim: int,
    tile: Tile,
    route: str,
    magnitude: float,
) -> None:
    """The kernel's own arithmetic of places, tiles and rescaling, on adapters without tensor cores."""
    if device.features.subgroup_matrix:
        pytest.skip("the tests above run on this device's own")
    emulate(monkeypatch, device)
    tunings = {"attention/flash_matrix": tile}
    with Attention(device, "f16", heads, head_dim, 131, 70, route=route, tunings=tunings) as attention:
        _poison(attention)
        position = 0
        for length in (33, 9, 64):
            got, rounded = _step(attention, length, position, magnitude)
            assert_close(got, rounded, 4e-3, 2e-3)
            position += length
        got, rounded = _step(attention, 50, 3, magnitude)  # back to an earlier position
        assert_close(got, rounded, 4e-3, 2e-3)

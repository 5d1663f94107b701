"""The tensor-core route, where the device has it; elsewhere, that it is refused and compiles."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.sdpa.flash_matrix import SHAPE, tile

from .harness import assert_close
from .test_kv_cache_dtype import Attention

HEAD_DIMS = (16, 32, 48, 64, 80, 112, 128, 144, 256)


def has_matrices(device: Device) -> bool:
    return SHAPE in device.features.subgroup_matrix_shapes


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_compiles(head_dim: int) -> None:
    chosen = tile(head_dim)
    template = {"subgroups": chosen.subgroups, "keys": chosen.keys, "head_dim": head_dim}
    compile_check("dawn", "sdpa/flash_matrix", template)


@pytest.mark.parametrize("magnitude", [1.0, 40.0])
@pytest.mark.parametrize("heads", [(1, 1), (4, 2), (6, 1), (7, 1), (8, 8)])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_agrees_with_the_reference(device: Device, head_dim: int, heads: tuple[int, int], magnitude: float) -> None:
    """Rows and contexts at the edges of tiles, from a cold cache and deep in it; NaN behind the context."""
    capacity = 331
    if not has_matrices(device):
        with pytest.raises(KernelError, match="cannot run this call"):
            Attention(device, "f16", heads, head_dim, capacity, 9, route="flash_matrix")
        return
    with Attention(device, "f16", heads, head_dim, capacity, 200, route="flash_matrix") as attention:
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
    assert attention.executor.plans.plans[-1].route == "flash_matrix"
    return np.asarray(got), attention.rounded.execute(given)[0]


def _poison(attention: Attention) -> None:
    """NaN in every row of the caches: rows that a step does not see are behind the context."""
    state = attention.executor.state
    for buffer in state.buffers.values():
        attention.executor.device.queue.write_buffer(buffer.raw, 0, np.full(buffer.size // 2, 0x7E00, np.uint16))

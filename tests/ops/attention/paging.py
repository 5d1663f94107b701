"""Sequences over one pool of pages on a device, each held against itself alone in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from executorch_webgpu.gpu.buffers import upload
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Constant, Graph, make_call
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.ops.attention import reference
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.rope import reference as rope_reference
from executorch_webgpu.ops.values import Tensor
from tests.ops.harness import assert_close

NAME, ROPE_NAME = "et_webgpu.paged_sdpa.default", "et_webgpu.rope_paged_sdpa.default"
DTYPES = ("float32", "float16", "int8")
TOLERANCE = {"float32": 1e-4, "float16": 2e-3, "int8": 2e-2}
Array = np.ndarray
Rows = list[tuple[int, int]]  # (sequence, how many new rows)


class Paged:
    """Sequences over one pool on a device. Rows of the pool that nobody wrote hold NaN, or codes with NaN as scale.

    ``rope``: "pairs" or "halves", if q and k are rotated in the same call. ``shuffled``: rows of a step come in random
    order, not by sequence and position.
    """

    def __init__(
        self,
        device: Device,
        *,
        heads: tuple[int, int] = (4, 2),
        head_dim: int = 16,
        dtype: str = "float32",
        page_rows: int = 16,
        pages: int = 40,
        sequences: int = 6,
        width: int = 8,
        most: int = 24,
        seed: int = 0,
        rope: str = "",
        tunings: Mapping[str, object] | None = None,
        features: Features | None = None,
        routes: Mapping[str, str] | None = None,
        shuffled: bool = True,
        scratch_bytes: int = 64 << 20,
        **limits: int,
    ) -> None:
        self.rope, self.shuffled = rope, shuffled
        self.heads, self.head_dim, self.page_rows = heads, head_dim, page_rows
        self.random = np.random.default_rng(seed)
        of_heads = (pages, page_rows, heads[1])
        scales = [Tensor(-1 - i, "float32", of_heads, -1 - i) if dtype == "int8" else None for i in (0, 1)]
        pools = [Tensor(10 + i, dtype, (*of_heads, head_dim), 10 + i, scales[i]) for i in (0, 1)]
        q, out = (Tensor(i, "float32", (1, most, heads[0], head_dim)) for i in (0, 5))
        k, v = (Tensor(i, "float32", (1, most, heads[1], head_dim)) for i in (1, 2))
        places, tables = Tensor(3, "int32", (most, 2)), Tensor(4, "int32", (sequences, width))
        turns = self.random.uniform(-3, 3, (width * page_rows, head_dim // (1 if rope == "halves" else 2)))
        self.angles = [np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)]
        angles = [Tensor(20 + i, "float32", turns.shape, 20 + i) for i in (0, 1)]
        rotation = (*angles, rope == "halves") if rope else ()
        call = make_call(ROPE_NAME if rope else NAME, (q, k, v, *rotation, *pools, places, tables, None, out))
        kept = [t for t in (*pools, *scales) if t is not None]
        constants = {t.id: Constant.zeros(t) for t in kept}
        for tensor, array in zip(angles if rope else (), self.angles, strict=False):
            constants[tensor.id] = Constant((tensor.id, seed), memoryview(array.tobytes()), array.dtype)
        graph = Graph((call,), (q, k, v, places, tables), (out,), (), constants)
        allowed = replace(device.limits, **cast(Any, limits))
        planning = Planning(features or device.features, allowed, routes or {}, scratch_bytes, tunings=tunings or {})
        self.executor = GraphExecutor(graph, ConstantPool(device, lambda view: None), planning)
        self.device = device
        for tensor in kept:
            poison = np.full(tensor.max_dims, 127 if tensor.dtype == "int8" else np.nan, tensor.element.numpy)
            upload(device, self.executor.buffer_of(tensor), poison)
        self.tables = np.zeros((sequences, width), np.int32)
        self.free = list(self.random.permutation(pages))
        self.texts: list[list[tuple[Array, Array]]] = [[] for _ in range(sequences)]  # rows of k and v, as stored
        self.dtype = dtype

    def step(self, rows: Rows) -> tuple[Array, Array]:
        """New rows of some sequences in one call: what the device gives, and what each gives alone."""
        places = []
        for sequence, count in rows:
            length = len(self.texts[sequence])
            for position in range(length, length + count):
                if position % self.page_rows == 0:
                    self.tables[sequence, position // self.page_rows] = self.free.pop()
                places.append((position, sequence))
                self.texts[sequence].append((np.empty(0), np.empty(0)))
        order = self.random.permutation(len(places)) if self.shuffled else np.arange(len(places))
        given_places = np.array(places, np.int32)[order]
        total, (query_heads, kv_heads) = len(places), self.heads
        q = self.random.standard_normal((1, total, query_heads, self.head_dim), np.float32)
        k, v = (self.random.standard_normal((1, total, kv_heads, self.head_dim), np.float32) for _ in range(2))
        turned_q, turned_k = self.turned(q, k, given_places[:, 0])
        for row, (position, sequence) in enumerate(given_places):
            stored = [reference.as_stored(x[0, row].astype(np.float64), self.dtype) for x in (turned_k, v)]
            self.texts[sequence][position] = (stored[0], stored[1])
        (got,) = self.executor.execute([q, k, v, given_places, self.tables])
        wanted = np.empty(got.shape)
        for row, (position, sequence) in enumerate(given_places):
            keys, values = (np.stack(x)[None] for x in zip(*self.texts[sequence][: position + 1], strict=True))
            one = turned_q[:, row : row + 1]
            wanted[:, row] = reference.custom_sdpa(one, keys, values, int(position))[:, 0]
        return got, wanted

    def turned(self, q: Array, k: Array, positions: Array) -> tuple[Array, Array]:
        """Queries and keys in float64, rotated if the call does that."""
        q, k = q.astype(np.float64), k.astype(np.float64)
        if not self.rope:
            return q, k
        cos, sin = (table.astype(np.float64)[positions] for table in self.angles)
        if self.rope == "halves":
            return rope_reference.apply_rotary_emb_hf(q, k, cos, sin, 0)
        return rope_reference.apply_rotary_emb(q, k, cos, sin)

    def check(self, rows: Rows) -> None:
        got, wanted = self.step(rows)
        # What rotation rounds may move an element of a cache by a step; halfway between two codes, either is right.
        tolerance = TOLERANCE[self.dtype] if self.rope or self.dtype == "int8" else 1e-4
        if "flash_matrix" in self.kernels:
            tolerance = max(tolerance, 2e-3)  # it rounds probabilities to float16
        assert_close(got, wanted, tolerance, tolerance)

    @property
    def kernels(self) -> list[str]:
        """Of the last step, one after the other."""
        return [dispatch.kernel.rpartition("/")[2] for dispatch in self.executor.plans.plans[0].dispatches]

    def close(self) -> None:
        self.executor.close()

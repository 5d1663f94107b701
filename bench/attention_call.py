"""One call of ``sdpa_with_kv_cache`` as a program of its own: its data, its float64 answer, and its dispatches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from executorch_webgpu.gpu.buffers import Buffer, upload
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES, store_kv_caches
from executorch_webgpu.graph.memory import Kind
from executorch_webgpu.graph.state import Command, GraphState
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.values import Tensor
from tests.ops.harness import In, Mutable, Out, Sym, call_graph

# Largest error over the largest element of a head's output. Kernels for smaller caches may multiply in float16.
TOLERANCE = {"f32": 1e-3, "f16": 5e-3, "int8": 5e-3}
SAMPLES = 6
_POOL = (1 << 24) - 3  # random numbers in all; no row length divides it, so rows repeat, but never in line

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """Attention of ``rows`` new tokens; the last one sees ``context`` columns. ``dtype`` is that of the caches."""

    heads: tuple[int, int]  # query heads, key/value heads
    head_dim: int
    rows: int
    context: int
    dtype: str

    @property
    def decode(self) -> bool:
        return self.rows == 1

    @property
    def input_pos(self) -> int:
        return self.context - self.rows

    @property
    def cache_bytes(self) -> int:
        """What must be read of the caches: the visible rows of K and V, once a key/value head, and their scales."""
        row = {"f32": 4 * self.head_dim, "f16": 2 * self.head_dim, "int8": self.head_dim + 4}[self.dtype]
        return 2 * self.context * self.heads[1] * row

    @property
    def operations(self) -> int:
        """Multiplications and additions of q·K and p·V over the columns that each row sees."""
        visible = self.rows * self.input_pos + self.rows * (self.rows + 1) // 2
        return 4 * self.head_dim * self.heads[0] * visible


@cache
def _pool() -> Array:
    return np.random.default_rng(0).standard_normal(_POOL, np.float32)


def _random_rows(seed: int, dims: tuple[int, ...]) -> Array:
    start = seed * 1_000_003
    return np.resize(_pool()[start : start + math.prod(dims)], dims)


@dataclass(frozen=True)
class Stored:
    """Rows [..., D] in a cache's format: ``scales`` [...] only beside int8 codes."""

    codes: Array
    scales: Array | None

    @classmethod
    def of(cls, rows: Array, dtype: str) -> Stored:
        if dtype != "int8":
            return cls(rows.astype(KV_CACHE_DTYPES[dtype]), None)
        scales = np.abs(rows).max(-1) / np.float32(127)
        return cls(np.rint(rows / scales[..., None]).astype(np.int8), scales)

    def head(self, rows: slice, head: int) -> Array:
        """Values [rows, D] of one head of [1, C, Hkv, D], in float64."""
        values = self.codes[0, rows, head].astype(np.float64)
        return values if self.scales is None else values * self.scales[0, rows, head, None]


class AttentionCall:
    """The program of a case on a device, with ``copies`` sets of caches. Close it, or use it as a context manager."""

    def __init__(self, device: Device, case: Case, route: str | None, copies: int) -> None:
        query, key = ((1, case.rows, h, case.head_dim) for h in case.heads)
        empty = np.zeros((1, case.context, case.heads[1], case.head_dim), np.float32)
        args = [In(query), In(key), In(key), Mutable(empty), Mutable(empty), Sym(), 1, None, 0.0, True, None]
        graph = build_graph(call_graph("sdpa_with_kv_cache.default", args, Out(query)))
        if case.dtype != "f32":
            graph = store_kv_caches(graph, KV_CACHE_DTYPES[case.dtype])
        planning = Planning(device.features, device.limits, {"sdpa_with_kv_cache": route} if route else {})
        self.device, self.case = device, case
        self.new = [_random_rows(i, dims) for i, dims in enumerate((query, key, key))]  # q, k, v
        self._executor = GraphExecutor(graph, ConstantPool(device, lambda view: None), planning)
        try:
            self._states = [self._executor.state, *(self._executor.new_state() for _ in range(copies - 1))]
            self._fill()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> AttentionCall:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._executor.close()

    @property
    def route(self) -> str:
        return str(self._executor.plans.plans[-1].route)

    def run(self) -> Array:
        """The output, of the first copy, after the memory that it lies in was filled with NaN."""
        self._poison()
        (out,) = self._executor.execute(self._inputs)
        return np.asarray(out)

    def commands(self) -> list[Command]:
        """The dispatches of one call with each copy in turn, but for those that write the new rows into the caches.

        Others' attention is timed without them, too; in a model they can be a part of the rope.
        """
        for state in self._states[1:]:
            self._executor.execute(self._inputs, state)
        found = []
        for state in self._states:
            for plan, recorded in zip(self._executor.plans.plans, state.commands, strict=True):
                for dispatch, command in zip(plan.dispatches, recorded, strict=True):
                    if not dispatch.kernel.startswith("attention/cache_update"):
                        found.append(command)
        return found

    def error(self, out: Array) -> float:
        """Largest error in sampled rows and heads of ``out``, over the largest element there; NaN if any is NaN."""
        errors = [np.abs(out[0, s, h] - e).max() / np.abs(e).max() for s, h, e in self._expected()]
        return float(np.max(errors))

    # -- data -------------------------------------------------------------------------------------------------------

    @property
    def _inputs(self) -> list[Array]:
        return [*self.new, np.array([self.case.input_pos], np.int32)]

    @cached_property
    def _past(self) -> list[Stored]:
        """What the K and V caches hold before the call: rows [1, input_pos, Hkv, D]."""
        dims = (1, self.case.input_pos, self.case.heads[1], self.case.head_dim)
        return [Stored.of(_random_rows(seed, dims), self.case.dtype) for seed in (3, 4)]

    def _caches(self) -> tuple[Tensor, Tensor]:
        call = self._executor.graph.calls[-1]
        arguments = dict(zip(call.op.parameters, call.args, strict=True))
        return arguments["k_cache"], arguments["v_cache"]

    def _fill(self) -> None:
        """Upload the past to the first copy, and copy it from there to the others."""
        if not self.case.input_pos:
            return
        encoder = self.device.encoder()
        for cache_, past in zip(self._caches(), self._past, strict=True):
            for tensor, array in ((cache_, past.codes), (cache_.scales, past.scales)):
                if tensor is None or array is None:
                    continue
                source, *targets = (self._buffer(state, tensor) for state in self._states)
                upload(self.device, source, array)
                for target in targets:
                    encoder.copy_buffer_to_buffer(source.raw, 0, target.raw, 0, -(-array.nbytes // 4) * 4)
        self.device.submit([encoder.finish()])

    def _buffer(self, state: GraphState, tensor: Tensor) -> Buffer:
        return state.buffers[self._executor.memory.storage_of[tensor.id]]

    def _poison(self) -> None:
        for index, storage in enumerate(self._executor.memory.storages):
            if storage.kind is Kind.SHARED:
                buffer = self._executor._bound.buffer(index)
                upload(self.device, buffer, np.full(buffer.size // 4, np.nan, np.float32))

    def _expected(self) -> Iterator[tuple[int, int, Array]]:
        """(row, head, output [D] in float64): the first and the last, and some in between."""
        (heads, kv_heads), rows = self.case.heads, self.case.rows
        random = np.random.default_rng(rows)
        some = [(int(random.integers(rows)), int(random.integers(heads))) for _ in range(SAMPLES)]
        new = [Stored.of(array, self.case.dtype) for array in self.new[1:]]
        for s, h in [(0, 0), (rows - 1, heads - 1), *some]:
            kv_head = h // (heads // kv_heads)
            k, v = (
                np.concatenate([past.head(slice(None), kv_head), fresh.head(slice(s + 1), kv_head)])
                for past, fresh in zip(self._past, new, strict=True)
            )
            scores = k @ self.new[0][0, s, h].astype(np.float64) / math.sqrt(self.case.head_dim)
            weights = np.exp(scores - scores.max())
            yield s, h, weights / weights.sum() @ v

"""One call of ``rope_paged_sdpa`` as a program of its own: its data, its float64 answer, and its dispatches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bench.attention_call import Stored
from executorch_webgpu.gpu.buffers import Buffer, create, upload
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Constant, Graph, make_call
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES
from executorch_webgpu.graph.memory import Kind
from executorch_webgpu.graph.state import Command, GraphState
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.rope import reference as rope
from executorch_webgpu.ops.values import Tensor

SAMPLES = 8
_BLOCK_ROWS = 4099  # random rows of a pool, which repeat; no number of rows of a page divides it

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """New rows of some sequences: (rows that are there, new ones) of each. ``dtype`` is that of the pools."""

    name: str
    heads: tuple[int, int]  # query heads, key/value heads
    head_dim: int
    work: tuple[tuple[int, int], ...]
    dtype: str = "f16"
    page_rows: int = 16

    @property
    def rows(self) -> int:
        return sum(new for _, new in self.work)

    @property
    def decode(self) -> bool:
        return all(new == 1 for _, new in self.work)

    @property
    def width(self) -> int:
        """Pages of the longest sequence."""
        return max(-(-(past + new) // self.page_rows) for past, new in self.work)

    @property
    def pages(self) -> int:
        return sum(-(-(past + new) // self.page_rows) for past, new in self.work)

    @property
    def cache_bytes(self) -> int:
        """What must be read of the pools: the rows of K and V of every sequence once, and their scales."""
        row = {"f32": 4 * self.head_dim, "f16": 2 * self.head_dim, "int8": self.head_dim + 4}[self.dtype]
        return 2 * sum(past + new for past, new in self.work) * self.heads[1] * row

    @property
    def operations(self) -> int:
        """Multiplications and additions of q·K and p·V over the columns that each row sees."""
        visible = sum(past * new + new * (new + 1) // 2 for past, new in self.work)
        return 4 * self.head_dim * self.heads[0] * visible


class PagedCall:
    """The program of a case on a device, with ``copies`` pairs of pools. Close it, or use it as a context manager."""

    def __init__(
        self,
        device: Device,
        case: Case,
        routes: Mapping[str, str],
        copies: int = 1,
        tunings: Mapping[str, object] | None = None,
    ) -> None:
        self.device, self.case = device, case
        random = np.random.default_rng(case.rows)
        (heads, kv_heads), dim, dtype = case.heads, case.head_dim, KV_CACHE_DTYPES[case.dtype]
        q, out = (Tensor(i, "float32", (1, case.rows, heads, dim)) for i in (0, 5))
        k, v = (Tensor(i, "float32", (1, case.rows, kv_heads, dim)) for i in (1, 2))
        places, tables = Tensor(3, "int32", (case.rows, 2)), Tensor(4, "int32", (len(case.work), case.width))
        of_heads = (case.pages, case.page_rows, kv_heads)
        scales = [Tensor(-1 - i, "float32", of_heads, -1 - i) if dtype == "int8" else None for i in (0, 1)]
        self._pools = [Tensor(10 + i, dtype, (*of_heads, dim), 10 + i, scales[i]) for i in (0, 1)]
        turns = random.uniform(-3, 3, (case.width * case.page_rows, dim // 2))
        self._angles = [np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)]
        angles = [Tensor(20 + i, "float32", turns.shape, 20 + i) for i in (0, 1)]
        args = (q, k, v, *angles, False, *self._pools, places, tables, None, out)
        kept = [t for t in (*self._pools, *scales) if t is not None]
        constants = {t.id: Constant.zeros(t) for t in kept}
        for tensor, array in zip(angles, self._angles, strict=True):
            constants[tensor.id] = Constant((tensor.id,), memoryview(array.tobytes()), array.dtype)
        call = make_call("et_webgpu.rope_paged_sdpa.default", args)
        graph = Graph((call,), (q, k, v, places, tables), (out,), (), constants)
        planning = Planning(device.features, device.limits, routes, tunings=tunings or {})
        self.new = [random.standard_normal(t.max_dims, np.float32) for t in (q, k, v)]
        self._blocks = [
            Stored.of(random.standard_normal((1, _BLOCK_ROWS, kv_heads, dim), np.float32), case.dtype) for _ in "kv"
        ]
        order = iter(random.permutation(case.pages))
        self.tables = np.zeros(tables.max_dims, np.int32)
        self.places = np.empty((case.rows, 2), np.int32)
        row = 0
        for sequence, (past, new) in enumerate(case.work):
            count = -(-(past + new) // case.page_rows)
            self.tables[sequence, :count] = [next(order) for _ in range(count)]
            self.places[row : row + new, 0], self.places[row : row + new, 1] = range(past, past + new), sequence
            row += new
        self._executor = GraphExecutor(graph, ConstantPool(device, lambda view: None), planning)
        try:
            self._states = [self._executor.state, *(self._executor.new_state() for _ in range(copies - 1))]
            self._fill()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PagedCall:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._executor.close()

    @property
    def kernels(self) -> str:
        """What a call dispatches, in order."""
        dispatches = self._executor.plans.plans[0].dispatches
        return " + ".join(f"{d.kernel.rpartition('/')[2]} {'x'.join(map(str, d.grid))}" for d in dispatches)

    def run(self) -> Array:
        """The output, of the first copy, after the memory that it lies in was filled with NaN."""
        for index, storage in enumerate(self._executor.memory.storages):
            if storage.kind is Kind.SHARED:
                buffer = self._executor._bound.buffer(index)
                upload(self.device, buffer, np.full(buffer.size // 4, np.nan, np.float32))
        (out,) = self._executor.execute(self._inputs)
        return np.asarray(out)

    def commands(self) -> list[Command]:
        """The dispatches of one call with each copy in turn."""
        for state in self._states[1:]:
            self._executor.execute(self._inputs, state)
        return [command for state in self._states for of_call in state.commands for command in of_call]

    def error(self, out: Array) -> float:
        """Largest error in sampled rows and heads of ``out``, over the largest element there; NaN if any is NaN."""
        errors = [np.abs(out[0, s, h] - e).max() / np.abs(e).max() for s, h, e in self._expected()]
        return float(np.max(errors))

    # -- data -------------------------------------------------------------------------------------------------------

    @property
    def _inputs(self) -> list[Array]:
        return [*self.new, self.places, self.tables]

    def _fill(self) -> None:
        """The random rows of each pool, again and again, copied from a buffer on the device."""
        for pool, block in zip(self._pools, self._blocks, strict=True):
            for tensor, array in ((pool, block.codes), (pool.scales, block.scales)):
                if tensor is not None and array is not None:
                    self._fill_with(tensor, array)

    def _fill_with(self, tensor: Tensor, block: Array) -> None:
        source = create(self.device, block.nbytes, "random rows")
        upload(self.device, source, block)
        encoder = self.device.encoder()
        for state in self._states:
            for start in range(0, tensor.nbytes, block.nbytes):
                nbytes = min(block.nbytes, tensor.nbytes - start)
                encoder.copy_buffer_to_buffer(source.raw, 0, self._buffer(state, tensor).raw, start, nbytes)
        self.device.submit([encoder.finish()])
        self.device.wait()
        source.destroy()

    def _buffer(self, state: GraphState, tensor: Tensor) -> Buffer:
        return state.buffers[self._executor.memory.storage_of[tensor.id]]

    def _expected(self) -> Iterator[tuple[int, int, Array]]:
        """(row, head, output [D] in float64): the first and the last, and some in between."""
        (heads, kv_heads), rows, dim = self.case.heads, self.case.rows, self.case.head_dim
        random = np.random.default_rng(1)
        some = [(int(random.integers(rows)), int(random.integers(heads))) for _ in range(SAMPLES)]
        cos, sin = (table.astype(np.float64)[self.places[:, 0]] for table in self._angles)
        q, k = rope.apply_rotary_emb(self.new[0].astype(np.float64), self.new[1].astype(np.float64), cos, sin)
        fresh = [Stored.of(x.astype(np.float32), self.case.dtype) for x in (k, self.new[2])]
        for s, h in [(0, 0), (rows - 1, heads - 1), *some]:
            kv_head, (position, sequence) = h // (heads // kv_heads), self.places[s]
            first_row = int(np.argmax(self.places[:, 1] == sequence))  # of the sequence's new ones
            past = int(self.places[first_row, 0])
            seen = np.arange(past)
            at = self.tables[sequence, seen // self.case.page_rows] * self.case.page_rows + seen % self.case.page_rows
            keys, values = (
                np.concatenate([block.head(at % _BLOCK_ROWS, kv_head), new.head(slice(first_row, s + 1), kv_head)])
                for block, new in zip(self._blocks, fresh, strict=True)
            )
            assert len(keys) == position + 1
            scores = keys @ q[0, s, h] / math.sqrt(dim)
            weights = np.exp(scores - scores.max())
            yield s, h, weights / weights.sum() @ values

"""Attention over a KV cache on the GPU, for those who want attention and not a program.

cache = KVCache(capacity=4096, kv_heads=8, head_dim=128, dtype="f16")
out = sdpa_with_kv_cache(q, k, v, cache)  # q [1, S, Hq, D]; k, v [1, S, Hkv, D]: appended, then attended over

The kernels and their choice are those of programs that call ``sdpa_with_kv_cache``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .closing import Closing
from .errors import ClosedError, InvalidInputError
from .gpu.buffers import create
from .gpu.locked import locked
from .graph.build import Constant, Graph, OpCall, make_call
from .graph.constants import ConstantPool
from .graph.device_array import DeviceArray
from .graph.execute import GraphExecutor
from .graph.kv_cache import KV_CACHE_DTYPES, check_dtype
from .graph.timing import CallTime
from .ops.plan import Planning
from .ops.values import SymInt, Tensor
from .runtime import Runtime
from .runtime.arrays import to_caller, to_host
from .runtime.method import ProfileRow, profile_rows

__all__ = ["DeviceArray", "KVCache", "sdpa_with_kv_cache", "to_device"]

_LEAST_ROWS = 8  # what an executor takes at least, so that decode with a few tokens at once needs but one
_FIRST_ID = 4  # of the tensors that are not the cache's


@dataclass(frozen=True)
class _Variant:
    """What tells the executors of one cache apart. ``heads``: of the query; 0 when there is none, to append only."""

    heads: int
    scale: float | None = None
    route: str | None = None


class KVCache(Closing):
    """Keys and values of one sequence, [1, capacity, kv_heads, head_dim] each, on a device.

    ``dtype``: "f32", "f16" (half the memory) or "int8" (a quarter, with a float32 scale for each row and head).
    ``length`` rows are filled. ``runtime`` chooses the device, by default like ``Runtime.get()``. ``profile`` measures
    GPU time. A context manager that frees the memory. Threads may share it: calls run one after another, and append
    their rows in that order.
    Raises InvalidInputError for sizes that cannot be, LimitError when the device cannot hold them, NoAdapterError.
    """

    def __init__(
        self,
        capacity: int,
        kv_heads: int,
        head_dim: int,
        dtype: str = "f32",
        *,
        runtime: Runtime | None = None,
        profile: bool = False,
    ) -> None:
        check_dtype(dtype)
        capacity, kv_heads, head_dim = (
            _whole(n, name) for n, name in ((capacity, "capacity"), (kv_heads, "kv_heads"), (head_dim, "head_dim"))
        )
        if capacity < 1 or kv_heads < 1 or head_dim < 4 or head_dim % 4:
            raise InvalidInputError(
                f"a KV cache needs rows, heads and a head size that is a multiple of 4, not capacity {capacity}, "
                f"kv_heads {kv_heads} and head_dim {head_dim}"
            )
        self.capacity, self.kv_heads, self.head_dim, self.dtype = capacity, kv_heads, head_dim, dtype
        self.device = (runtime or Runtime.get()).device
        self._lock = self.device.lock
        self._profile = profile
        self._length = 0
        self._route: str | None = None
        self._constants = ConstantPool(self.device, lambda view: None)
        self._keys, self._values = (self._tensor(id) for id in (0, 1))
        self._tensors = [t for t in (self._keys, self._values, self._keys.scales, self._values.scales) if t is not None]
        self._buffers = {t.id: create(self.device, t.max_nbytes, f"KV cache {t}") for t in self._tensors}
        self._executors: dict[_Variant, GraphExecutor] = {}
        self._times: list[Mapping[tuple[str, str | None], CallTime]] = []  # of all executors there have been
        self._closed = False

    @property
    def length(self) -> int:
        """Rows that are filled; the next ones follow them."""
        return self._length

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, the values and their scales on the device."""
        return sum(t.max_nbytes for t in self._tensors)

    @property
    def route(self) -> str | None:
        """The kernels that the last ``sdpa_with_kv_cache`` ran, by the name that ``route=`` takes; None before it."""
        return self._route

    @locked
    def append(self, k: Any, v: Any) -> None:
        """Write k and v [1, S, kv_heads, head_dim] after the rows that are there.

        Raises InvalidInputError when they do not fit.
        """
        keys, values = self._rows(k, "k"), self._rows(v, "v")
        self._check_rows(keys, values, self._length)
        self._run(_Variant(heads=0), [keys, values], self._length, on_device=True)

    @locked
    def rewind(self, length: int) -> None:
        """Keep the first ``length`` rows and forget the rest. Raises InvalidInputError when there are fewer."""
        length = _whole(length, "length")
        if not 0 <= length <= self._length:
            raise InvalidInputError(f"the KV cache holds {self._length} rows, so it cannot keep {length}")
        self._length = length

    @locked
    def profile(self) -> list[ProfileRow]:
        """Work by operator and route so far, longest first; empty unless made with ``profile=True``."""
        return profile_rows(self._times)

    @locked
    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""
        self._closed = True
        for executor in self._executors.values():
            executor.close()
        self._executors.clear()
        if not self.device.closed:
            for buffer in self._buffers.values():
                buffer.destroy()

    def __repr__(self) -> str:
        return f"KVCache({self.length} of {self.capacity} rows, {self.kv_heads} heads of {self.head_dim}, {self.dtype})"

    # -- one call -----------------------------------------------------------------------------------------------------

    @locked
    def _attend(self, given: Sequence[Any], input_pos: int | None, scale: float | None, route: str | None) -> Any:
        q, k, v = (self._rows(x, name) for x, name in zip(given, "qkv", strict=True))
        start = self._length if input_pos is None else _whole(input_pos, "input_pos")
        self._check_rows(k, v, start)
        heads = q.shape[2]
        if q.shape[1] != k.shape[1] or heads == 0 or heads % self.kv_heads:
            raise InvalidInputError(
                f"q has shape {list(q.shape)}, but must be [1, {k.shape[1]}, heads, {self.head_dim}], with a multiple "
                f"of {self.kv_heads} heads"
            )
        on_device = any(isinstance(x, DeviceArray) for x in given)
        variant = _Variant(heads, None if scale is None else float(scale), route)
        executor, (out,) = self._run(variant, [q, k, v], start, on_device)
        self._route = executor.plans.plans[-1].route
        return out if on_device else to_caller([out], given)[0]

    def _run(
        self, variant: _Variant, rows: Sequence[np.ndarray | DeviceArray], start: int, on_device: bool
    ) -> tuple[GraphExecutor, list[Any]]:
        """Run with ``rows`` and a position; the cache then ends after them."""
        if self._closed:
            raise ClosedError("this KV cache is closed; make another one")
        length = rows[-1].shape[1]
        executor = self._executor(variant, length)
        inputs = [*rows, start]
        stay = range(len(executor.graph.outputs)) if on_device else ()
        results: list[Any] = executor.execute(inputs, stay=stay)
        self._length = start + length
        return executor, results

    def _executor(self, variant: _Variant, rows: int) -> GraphExecutor:
        """One that takes at least ``rows`` tokens; a larger one takes the place of the one before."""
        executor = self._executors.get(variant)
        if executor is not None:
            (first, *_) = executor.graph.inputs
            assert isinstance(first, Tensor)
            if rows <= first.max_dims[1]:
                return executor
            self._executors.pop(variant).close()
        most = min(self.capacity, max(_LEAST_ROWS, 1 << (rows - 1).bit_length()))
        graph = self._attention_graph(variant, most) if variant.heads else self._append_graph(most)
        routes = {} if variant.route is None else {"sdpa_with_kv_cache": variant.route}
        planning = Planning(self.device.features, self.device.limits, routes)
        executor = GraphExecutor(graph, self._constants, planning, profile=self._profile, borrowed=self._buffers)
        self._times.append(executor.times)
        self._executors[variant] = executor
        return executor

    # -- graphs -------------------------------------------------------------------------------------------------------

    def _tensor(self, id: int) -> Tensor:
        """A cache, with its scales if it has any."""
        dims = (1, self.capacity, self.kv_heads, self.head_dim)
        scales = Tensor(id + 2, "float32", dims[:3], constant=id + 2) if self.dtype == "int8" else None
        return Tensor(id, KV_CACHE_DTYPES[self.dtype], dims, id, scales)

    def _new_tensors(self, rows: int, *heads: int) -> list[Tensor]:
        """Tensors [1, rows, heads, head_dim] of a graph."""
        dims = [(1, rows, h, self.head_dim) for h in heads]
        return [Tensor(_FIRST_ID + i, "float32", d) for i, d in enumerate(dims)]

    def _attention_graph(self, variant: _Variant, rows: int) -> Graph:
        """q, k, v and a position -> the result of attention."""
        q, k, v, out = self._new_tensors(rows, variant.heads, self.kv_heads, self.kv_heads, variant.heads)
        position = SymInt(out.id + 1)
        args = (q, k, v, self._keys, self._values, position, 1, None, 0.0, True, variant.scale, out)
        return self._graph([make_call("sdpa_with_kv_cache.default", args)], (q, k, v, position), (out,))

    def _append_graph(self, rows: int) -> Graph:
        """k, v and a position -> nothing."""
        k, v = self._new_tensors(rows, self.kv_heads, self.kv_heads)
        position = SymInt(v.id + 1)
        calls = []
        for index, (new, cache) in enumerate(((k, self._keys), (v, self._values))):
            args = (new, cache, position, Tensor(v.id + 2 + index, "float32", (1,)))
            calls.append(make_call("update_cache.default", args, index))
        return self._graph(calls, (k, v, position), ())

    def _graph(self, calls: Sequence[OpCall], inputs: Sequence[Tensor | SymInt], outputs: Sequence[Tensor]) -> Graph:
        symints = tuple(value for value in inputs if isinstance(value, SymInt))
        constants = {t.id: Constant.zeros(t) for t in self._tensors}
        return Graph(tuple(calls), tuple(inputs), tuple(outputs), symints, constants)

    # -- inputs -------------------------------------------------------------------------------------------------------

    def _rows(self, value: Any, name: str) -> np.ndarray | DeviceArray:
        """``value`` as a float32 array [1, S, heads, head_dim]."""
        array = value if isinstance(value, DeviceArray) else to_host(value, name)
        if not isinstance(array, np.ndarray | DeviceArray) or array.dtype != np.float32:
            kind = getattr(array, "dtype", type(value).__name__)
            raise InvalidInputError(f"{name} has dtype {kind}, but attention takes float32 arrays: convert it")
        if isinstance(array, DeviceArray) and array.device is not self.device:
            raise InvalidInputError(f"{name} lies on another device than the KV cache: give both the same runtime")
        shape = array.shape
        if len(shape) != 4 or shape[0] != 1 or shape[1] == 0 or shape[3] != self.head_dim:
            raise InvalidInputError(f"{name} has shape {list(shape)}, but must be [1, S, heads, {self.head_dim}]")
        return array

    def _check_rows(self, k: np.ndarray | DeviceArray, v: np.ndarray | DeviceArray, start: int) -> None:
        for name, rows in (("k", k), ("v", v)):
            if rows.shape[2] != self.kv_heads or rows.shape[1] != k.shape[1]:
                wanted = [1, k.shape[1], self.kv_heads, self.head_dim]
                raise InvalidInputError(f"{name} has shape {list(rows.shape)}, but must be {wanted}")
        if not 0 <= start <= self._length:
            raise InvalidInputError(f"input_pos is {start}, but it must be at most the cache's length, {self._length}")
        if start + k.shape[1] > self.capacity:
            raise InvalidInputError(
                f"{k.shape[1]} rows from {start} on do not fit a KV cache of {self.capacity}: rewind it, or make a "
                "larger one"
            )


def sdpa_with_kv_cache(
    q: Any,
    k: Any,
    v: Any,
    cache: KVCache,
    input_pos: int | None = None,
    *,
    scale: float | None = None,
    route: str | None = None,
) -> Any:
    """Write k and v into the cache, then attend with q, causally: row s of q sees rows 0 … input_pos + s of the cache.

    ``q``: float32 [1, S, heads, head_dim], heads a multiple of the cache's. ``k``, ``v``: float32 [1, S, kv_heads,
    head_dim]. Each is a NumPy array, a torch tensor, anything with ``__dlpack__``, or a DeviceArray. ``input_pos``:
    where the new rows go, by default after those that are there; the cache then ends after them. ``scale``: of the
    scores, by default 1/sqrt(head_dim). ``route`` forces kernels by name, for tests and benchmarks.
    Returns float32 [1, S, heads, head_dim]: a DeviceArray if an input is one, else a torch tensor if an input is
    one, else a NumPy array.
    Raises InvalidInputError, and changes nothing, when shapes, dtypes or the position do not fit, KernelError when
    there is no such route or it cannot run this call.
    """
    return cache._attend((q, k, v), input_pos, scale, route)


def to_device(array: Any, runtime: Runtime | None = None) -> DeviceArray:
    """A copy of a float32 array on the device of ``runtime``, by default like ``Runtime.get()``."""
    host = to_host(array, "the array")
    if not isinstance(host, np.ndarray) or host.dtype != np.float32:
        kind = getattr(host, "dtype", type(array).__name__)
        raise InvalidInputError(f"the array has dtype {kind}, but a DeviceArray is float32: convert it")
    return DeviceArray.upload((runtime or Runtime.get()).device, host)


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidInputError(f"{name} is {value!r}, but must be an integer")
    return int(value)

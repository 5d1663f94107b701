"""Rows of texts in the pools of a batch: copied between pages, brought to the host and back, and kept in files.

A file is that of a ``State`` of the method, with the text beside it as ``tokens``. So what one sequence has computed
can go on among many, and the other way round, where the program writes its KV caches by rows [1, C, heads, D].
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InvalidInputError, UnsupportedProgramError
from ..gpu.buffers import Buffer, Readback, create, upload
from ..graph.execute import GraphExecutor
from ..graph.kv_cache import KV_CACHE_DTYPES, store_kv_caches
from ..graph.kv_pages import PagePool
from ..graph.state import cache_writes
from ..ops.values import Tensor
from .method_file import MethodFile
from .options import LoadOptions
from .state_file import FORMAT, TOKENS, About, Progress, checked_about, damaged, read_arrays, write_arrays


@dataclass(frozen=True)
class StoredCache:
    """A pool [pages, page_rows, …], or the scales of one, and how a file calls its rows: ``dims`` are [1, rows, …]."""

    pool: Tensor
    name: str
    row_dims: tuple[int, ...]
    dtype: np.dtype

    def dims(self, rows: int) -> tuple[int, ...]:
        return (1, rows, *self.row_dims)


class PoolRows:
    """``caches``: all memory of the pool. ``about``: what files say of the method, which reads the whole program once.

    Steps and what is here run one after another.
    """

    def __init__(self, executor: GraphExecutor, caches: Sequence[StoredCache], about: Callable[[], About]) -> None:
        self._executor, self._caches, self._about = executor, caches, about
        self._device = executor.device
        self._spare: Buffer | None = None  # a page on its way

    def copy_page(self, source: int, target: int) -> None:
        """Copy all rows of page ``source`` to page ``target``, after all steps so far and before later ones."""
        with self._device.lock:
            size = max((self._page_bytes(cache) for cache in self._caches), default=0)
            if self._spare is None:
                self._spare = create(self._device, size, "a page of the KV cache")
            encoder = self._device.encoder()
            with self._device.errors("copying a page of the KV cache"):
                for cache in self._caches:
                    pool, nbytes = self._buffer(cache), self._page_bytes(cache)
                    raw, begin = pool.raw, pool.begin
                    # A copy within one buffer is no WebGPU.
                    encoder.copy_buffer_to_buffer(raw, begin + source * nbytes, self._spare.raw, 0, nbytes)
                    encoder.copy_buffer_to_buffer(self._spare.raw, 0, raw, begin + target * nbytes, nbytes)
            self._device.submit([encoder.finish()])

    def read(self, table: Sequence[int], rows: int) -> dict[str, np.ndarray]:
        """The first ``rows`` rows of a text with these pages: arrays [1, rows, …] by the names of files."""
        with self._device.lock:
            readback = Readback(self._device, "rows of the KV cache")
            try:
                found = {}
                for cache in self._caches:
                    nbytes, page_rows = self._page_bytes(cache), cache.pool.max_dims[1]
                    pages = list(table)[: -(-rows // page_rows)]
                    encoder = self._device.encoder()
                    readback.copy(encoder, [(self._buffer(cache), page * nbytes, nbytes) for page in pages])
                    self._device.submit([encoder.finish()])
                    parts = [raw.view(cache.pool.element.numpy) for raw in readback.read()]
                    whole = np.concatenate([np.empty(0, cache.pool.element.numpy), *parts])
                    dims = cache.dims(len(pages) * page_rows)
                    found[cache.name] = whole.reshape(dims)[:, :rows].astype(cache.dtype)
            finally:
                readback.close()
        return found

    def write(self, table: Sequence[int], first: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store rows [1, rows, …] as ``read`` gives them, from row ``first`` on, which begins a page of ``table``."""
        with self._device.lock:
            for cache in self._caches:
                page_rows = cache.pool.max_dims[1]
                rows = arrays[cache.name][0].astype(cache.pool.element.numpy)
                for start in range(0, len(rows), page_rows):
                    page = list(table)[(first + start) // page_rows]
                    part = rows[start : start + page_rows]
                    upload(self._device, self._buffer(cache), part, page * self._page_bytes(cache))

    def save(self, pool: PagePool, tokens: Sequence[int], path: str | Path) -> int:
        """Write the rows of a text, as far as full pages of ``pool`` hold it, to a file. Returns how many these are.

        Raises OSError.
        """
        text = pool.begin([*tokens, 0])  # of which the last one is left out
        try:
            length = len(text.tokens)
            arrays = self.read(text.block_table, length)
        finally:
            pool.end(text)
        arrays[TOKENS] = np.array(list(tokens)[:length], np.int64)
        about = self._about()
        progress = Progress(length, length)
        write_arrays(Path(path), About(FORMAT, about.method, about.fingerprint, about.kv_cache_dtype, progress), arrays)
        return length

    def load(self, pool: PagePool, path: str | Path, tokens: Sequence[int] | None = None) -> list[int]:
        """Take a text from a file into pages of ``pool``, where texts that begin like it find them.

        ``tokens``: the text, for a file that does not say it. Returns the part of it that is there then: full pages, as
        many as nobody holds. Raises InvalidInputError, and changes nothing, for a file that is damaged or of another
        method, program or dtype, and where the text is not known.
        """
        path = Path(path)
        arrays = read_arrays(path)
        about = checked_about(arrays, path, self._about())
        known = arrays.pop(TOKENS, None)
        rows = about.progress.length
        whole = _text(known if tokens is None else tokens, rows, path)
        self._check(arrays, about.progress.extent, path)
        full = rows // pool.page_rows * pool.page_rows
        text = pool.begin([*whole[:full], 0])
        try:
            first = len(text.tokens)
            count = min(full - first, pool.free * pool.page_rows)
            if count and pool.reserve(text, count):
                self.write(text.block_table, first, {n: a[:, first : first + count] for n, a in arrays.items()})
                pool.filled(text, whole[first : first + count])
            return list(text.tokens)
        finally:
            pool.end(text)

    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""
        if self._spare is not None and not self._device.closed:
            self._spare.destroy()
        self._spare = None

    def _check(self, arrays: Mapping[str, np.ndarray], rows: int, path: Path) -> None:
        wanted = {cache.name: (cache.dims(rows), cache.dtype) for cache in self._caches}
        if {name: (array.shape, array.dtype) for name, array in arrays.items()} != wanted:
            raise damaged(path)

    def _buffer(self, cache: StoredCache) -> Buffer:
        return self._executor.buffer_of(cache.pool)

    def _page_bytes(self, cache: StoredCache) -> int:
        return cache.pool.max_nbytes // cache.pool.max_dims[0]


def _text(tokens: Sequence[int] | np.ndarray | None, rows: int, path: Path) -> list[int]:
    if tokens is None:
        raise InvalidInputError(f"{path} does not say of which text it is: give its tokens")
    try:
        found = [operator.index(token) for token in tokens]
    except TypeError as error:
        raise InvalidInputError(f"a text is a list of integers, which tokens are: {error}") from error
    if len(found) < rows:
        raise InvalidInputError(f"{path} holds {rows} tokens, but the text that was given has {len(found)}")
    return found[:rows]


def pool_rows(
    executor: GraphExecutor,
    file: MethodFile,
    options: LoadOptions,
    caches: Mapping[int, Tensor],
    fingerprint: Callable[[], str],
) -> PoolRows:
    """Rows of the pools of a batch of ``file``; ``caches``: by the id of the cache whose place each one takes."""
    own = _own_caches(file, options)
    alike = own.keys() == caches.keys()  # the program's state is these caches, and nothing else
    stored: list[StoredCache] = []
    for id, pool in caches.items():
        cache = own[id] if alike else None
        name = f"pool{id}" if cache is None else f"graph0.tensor{cache.id}"
        dims = pool.max_dims[2:] if cache is None else cache.max_dims[2:]
        stored.append(StoredCache(pool, name, dims, (pool if cache is None else cache).element.numpy))
        if pool.scales is not None:
            scales = None if cache is None else cache.scales
            name = f"pool{id}.scales" if scales is None else f"graph0.tensor{scales.id}"
            stored.append(StoredCache(pool.scales, name, pool.max_dims[2:3], pool.scales.element.numpy))

    def about() -> About:
        return About(FORMAT, file.plan.name, fingerprint(), options.kv_cache_dtype, Progress())

    return PoolRows(executor, stored, about)


def _own_caches(file: MethodFile, options: LoadOptions) -> dict[int, Tensor]:
    """The KV caches [1, C, heads, D] of the method as one sequence has them, by id, as they are stored."""
    graphs = file.graphs(options.lower)
    if len(graphs) != 1:
        return {}
    graph = graphs[0]
    try:
        if options.kv_cache_dtype != "f32":
            graph = store_kv_caches(graph, KV_CACHE_DTYPES[options.kv_cache_dtype])
    except UnsupportedProgramError:
        return {}
    state = {t.id for call in graph.calls for t in call.mutated}
    roots = {root.id: root for w in cache_writes(graph) for root in (graph.prepacked.get(w.cache.id, w.cache),)}
    scales = {root.scales.id for root in roots.values() if root.scales is not None}
    prepacked = {id for id, root in graph.prepacked.items() if root.id in roots}
    only = state <= {*roots, *scales, *prepacked} and all(root.constant is not None for root in roots.values())
    return roots if only and all(root.rank == 4 and root.max_dims[0] == 1 for root in roots.values()) else {}

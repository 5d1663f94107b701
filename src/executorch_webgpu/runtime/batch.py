"""A method ``forward(tokens, input_pos) -> logits`` over rows of many sequences, whose caches are pages of a pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..closing import Closing
from ..errors import ClosedError, UnsupportedProgramError
from ..graph.batching import BatchSizes, batched
from ..graph.binding_limit import split_constants
from ..graph.constants import ConstantPool
from ..graph.execute import GraphExecutor
from ..graph.fusion import fuse_graph
from ..graph.kv_cache import KV_CACHE_DTYPES
from ..graph.likeliest import with_likeliest
from ..ops.plan import Planning
from ..ops.sampling.reference import BROKEN
from .decode import language_graph
from .method_file import MethodFile
from .options import LoadOptions
from .pool_rows import pool_rows

_LOGITS, _LARGEST, _TOKEN = range(3)  # outputs of the graph
GIVEN = (0, 2**24)  # bounds of tokens and positions: of more rows no pool has room


class BatchMethod(Closing):
    """Steps of up to ``sizes.rows`` rows. Who has which pages is the caller's account: see ``graph.kv_pages.PagePool``.

    Threads may share it: steps run one after another. ``rows``: what its pools hold, to save, load and copy.
    """

    def __init__(
        self,
        file: MethodFile,
        constants: ConstantPool,
        options: LoadOptions,
        sizes: BatchSizes,
        fingerprint: Callable[[], str],
    ) -> None:
        graphs, lowered = file.graphs(options.lower, GIVEN), file.lowered(options.lower, GIVEN)
        found = language_graph(lowered, graphs, halves=True)
        if isinstance(found, str):
            host = [(o.name, place.why) for o, place in lowered.placements if not place.on_device]
            on_host = [f"; {name} runs on the host: {why}" for name, why in host]
            why = found + "".join(on_host[:1])
            raise UnsupportedProgramError(f"the program cannot run several sequences at once: {why}")
        self.sizes = replace(sizes, dtype=KV_CACHE_DTYPES[options.kv_cache_dtype])
        batch = batched(graphs[0], found.tokens, found.input_pos, self.sizes)
        graph, _ = fuse_graph(with_likeliest(batch.graph), options.fusions)
        device = constants.device
        graph = split_constants(graph, device.limits.max_binding_bytes)
        planning = Planning(
            device.features, device.limits, options.routes or {}, options.scratch_bytes, options.matmul_precision
        )
        self._executor = GraphExecutor(graph, constants, planning, profile=options.profile, check=options.check)
        self.rows = pool_rows(self._executor, file, options, batch.caches, fingerprint)
        self._closed = False

    def step(
        self,
        tokens: Sequence[int],
        places: Sequence[tuple[int, int]],
        block_tables: NDArray[np.int32],
        wanted: Sequence[int],
    ) -> NDArray[np.float32]:
        """Run T rows: write their keys and values, and give the logits [R, V] of those that are ``wanted``.

        ``places``: of each row its position in its sequence, and the sequence's row of ``block_tables``
        [sequences, table_width]. A sequence's rows may come in any order, but all before the last one must have come.
        Raises InvalidInputError, before anything runs, for what ``sizes`` does not allow.
        """
        logits, _, _ = self._execute(tokens, places, block_tables, wanted, (_LARGEST, _TOKEN))
        result: NDArray[np.float32] = logits.reshape(len(wanted), logits.shape[-1])
        return result

    def step_greedy(
        self,
        tokens: Sequence[int],
        places: Sequence[tuple[int, int]],
        block_tables: NDArray[np.int32],
        wanted: Sequence[int],
    ) -> list[int]:
        """``step`` that gives the likeliest token of each wanted row, which the device finds; of equals the first one.

        BROKEN where the largest logit is no finite number, as ``ops.sampling.reference.choose`` has it.
        """
        _, largest, found = self._execute(tokens, places, block_tables, wanted, (_LOGITS,))
        finite = np.isfinite(largest.reshape(-1))
        return [int(token) for token in np.where(finite, found.reshape(-1), BROKEN)]

    def _execute(
        self,
        tokens: Sequence[int],
        places: Sequence[tuple[int, int]],
        block_tables: NDArray[np.int32],
        wanted: Sequence[int],
        skip: Sequence[int],
    ) -> list[Any]:
        if self._closed:
            raise ClosedError("this method is closed; load it again")
        given = ([tokens], places, block_tables, wanted)
        return self._executor.execute([np.ascontiguousarray(values, np.int32) for values in given], skip=skip)

    def close(self) -> None:
        """Free the GPU memory. Closing twice is allowed."""
        if not self._closed:
            self._closed = True
            self.rows.close()
            self._executor.close()

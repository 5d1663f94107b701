"""A method ``forward(tokens, input_pos) -> logits`` over rows of many sequences, whose caches are pages of a pool.

Steps follow one another on the device: each draws the tokens that the next one may take, and the host reads them later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..closing import Closing
from ..errors import ClosedError, InvalidInputError, UnsupportedProgramError
from ..gpu.buffers import Buffer
from ..gpu.in_flight import InFlight
from ..graph.batching import BatchSizes, batched
from ..graph.binding_limit import split_constants
from ..graph.constants import ConstantPool
from ..graph.draws import RowSampler, with_fed_tokens, with_float_logits
from ..graph.execute import GraphExecutor
from ..graph.fusion import fuse_graph
from ..graph.kv_cache import KV_CACHE_DTYPES
from ..graph.step import Step
from ..ops.plan import Planning
from ..ops.sampling.draws import MOST_LIKELIEST, Draw, LogitChanges
from ..ops.sampling.reference import BROKEN
from ..ops.values import Tensor
from .decode import language_graph
from .method_file import MethodFile
from .options import LoadOptions
from .padding import Padding
from .pool_rows import PoolRows, pool_rows

__all__ = ["BROKEN", "BatchMethod", "Draw", "Drawn", "LogitChanges"]

IN_FLIGHT, IN_FLIGHT_ON_CPU = 3, 2
_UNWANTED = Draw(0)

Places = Sequence[tuple[int, int]] | NDArray[np.int32]


@dataclass(frozen=True)
class Drawn:
    """A token, or BROKEN where the logits were no finite numbers, or none that a mask allows was.

    ``logprob`` and ``likeliest``, tokens with theirs from the likeliest on: natural logarithms of probabilities, of the
    logits before any change; for a draw that asks for them.
    """

    token: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


GIVEN = (0, 2**24)  # bounds of tokens and positions: of more rows no pool has room


class BatchMethod(Closing):
    """Steps of up to ``sizes.rows`` rows. Who has which pages is the caller's account: see ``graph.kv_pages.PagePool``.

    ``in_flight``: how many steps may be submitted and not read, by default 3, or 2 where a CPU computes them.
    ``pad``: whether rows that nobody wants are added to steps, which then have few sizes, whose plans are soon known.
    By default they are, unless a CPU computes them.
    Threads may share it: steps run one after another. ``rows``: what its pools hold, to save, load and copy.
    """

    def __init__(
        self,
        file: MethodFile,
        constants: ConstantPool,
        options: LoadOptions,
        sizes: BatchSizes,
        fingerprint: Callable[[], str],
        in_flight: int | None = None,
        pad: bool | None = None,
    ) -> None:
        if in_flight is not None and in_flight < 1:
            raise InvalidInputError(f"in_flight is {in_flight}; it must be at least 1")
        graphs, lowered = file.graphs(options.lower, GIVEN), file.lowered(options.lower, GIVEN)
        found = language_graph(lowered, graphs, halves=True)
        if isinstance(found, str):
            host = [(o.name, place.why) for o, place in lowered.placements if not place.on_device]
            on_host = [f"; {name} runs on the host: {why}" for name, why in host]
            why = found + "".join(on_host[:1])
            raise UnsupportedProgramError(f"the program cannot run several sequences at once: {why}")
        self.sizes = replace(sizes, dtype=KV_CACHE_DTYPES[options.kv_cache_dtype])
        self._device = device = constants.device
        pads = not device.features.cpu if pad is None else pad
        self._padding = Padding(self.sizes) if pads else None
        batch = batched(graphs[0], found.tokens, found.input_pos, Padding(self.sizes).with_room if pads else self.sizes)
        self.vocab_size = batch.logits.max_dims[-1]
        fed = with_fed_tokens(with_float_logits(batch.graph), batch.tokens, sizes.wanted, self.vocab_size)
        graph, _ = fuse_graph(fed, options.fusions)
        self.in_flight = in_flight or (IN_FLIGHT_ON_CPU if device.features.cpu else IN_FLIGHT)
        graph = split_constants(graph, device.limits.max_binding_bytes)
        planning = Planning(
            device.features,
            device.limits,
            options.routes or {},
            options.scratch_bytes,
            options.matmul_precision,
        )
        self._closed = False
        self._flights: deque[list[int | None]] = deque()  # of steps that are not read: log probabilities of each row
        self.submitted = 0  # steps so far
        self._drawn = 0  # rows of the step before that drew a token
        self._undrawn: tuple[int, int] | None = None  # rows that ``draw`` draws from, and with padding
        self._owned: list[GraphExecutor | PoolRows | RowSampler | InFlight] = []
        try:
            self._executor = GraphExecutor(graph, constants, planning, profile=options.profile, check=options.check)
            self._owned.append(self._executor)
            self.rows = pool_rows(self._executor, file, options, batch.caches, fingerprint)
            self._owned.append(self.rows)
            (logits,) = graph.outputs
            assert isinstance(logits, Tensor)
            buffer = self._executor.buffer_of(logits)
            self._sampler = RowSampler(device, logits, buffer, sizes.wanted, options.scratch_bytes)
            self._owned.append(self._sampler)
            self._tokens = self._staging(4, "tokens in flight")
            self._logprobs = self._staging(4 * (1 + MOST_LIKELIEST), "log probabilities in flight")
            self._likeliest = self._staging(4 * MOST_LIKELIEST, "likeliest tokens in flight")
        except BaseException:
            self.close()
            raise

    def _staging(self, nbytes: int, label: str) -> InFlight:
        """Where ``nbytes`` for each wanted row come to the host."""
        made = InFlight(self._device, self.sizes.wanted * nbytes, self.in_flight, label)
        self._owned.append(made)
        return made

    @property
    def pending(self) -> int:
        """Steps that are submitted and not read."""
        return len(self._flights)

    def step(
        self, tokens: Sequence[int], places: Places, block_tables: NDArray[np.int32], wanted: Sequence[int]
    ) -> NDArray[np.float32]:
        """Run T rows: write their keys and values, and give the logits [R, V] of those that are ``wanted``.

        ``places``: of each row its position in its sequence, and the sequence's row of ``block_tables``
        [sequences, table_width]. A sequence's rows may come in any order, but all before the last one must have come.
        Raises InvalidInputError, before anything runs, for what ``sizes`` does not allow.
        """
        with self._device.lock:
            inputs = self._inputs(tokens, places, block_tables, wanted)
            (logits,) = self._executor.execute(inputs)
            self._drawn, self._undrawn = 0, None
        rows: NDArray[np.float32] = logits.reshape(-1, logits.shape[-1])
        return rows[: len(wanted)]

    def submit(
        self,
        tokens: Sequence[int] | NDArray[np.int32],
        places: Places,
        block_tables: NDArray[np.int32],
        wanted: Sequence[int],
        draws: Sequence[Draw] | None,
    ) -> None:
        """``step`` that draws a token from each wanted row, as ``draws`` has it for that row. Does not wait.

        A token may be -1 - i: what row i of ``wanted`` drew in the step that was submitted before; the first token, 0,
        in place of one that was BROKEN. ``read`` gives the drawn tokens, once for each submitted step.
        ``draws`` may be None, for how tokens are drawn is known only when those of the step before are read: the device
        computes meanwhile, and ``draw`` says it later, before the next step.
        Raises InvalidInputError like ``step``, for draws out of range, and when ``in_flight`` steps are not read yet:
        before anything runs, so that the next call finds all as it was.
        """
        if draws is not None and len(draws) != len(wanted):
            raise InvalidInputError(f"a step wants {len(wanted)} rows, but says of {len(draws)} how tokens are drawn")
        with self._device.lock:
            inputs = self._inputs(tokens, places, block_tables, wanted)
            if self._undrawn is not None:
                raise InvalidInputError("the step before has not drawn its tokens yet; say how, by draw")
            rows = len(inputs[3])
            if draws is None:
                self._executor.begin_step(inputs).submit()
                self._undrawn = len(wanted), rows
            else:
                self._check_room()
                drawing = self._drawing(draws, rows)
                step = self._executor.begin_step(inputs)
                if drawing is not None:
                    step.append(drawing)
                self._submit(step, draws)
            self.submitted += 1

    @property
    def step_sizes(self) -> list[int]:
        """Rows of the steps that there are, where rows that nobody wants are added to them; else none."""
        return [] if self._padding is None else self._padding.step_sizes

    def warm_up(self, rows: int) -> None:
        """Run a step of one of ``step_sizes`` that changes nothing, so that later ones of this size find their plans.

        Raises InvalidInputError while steps are in flight.
        """
        assert self._padding is not None, "without step sizes every step may be one of its own"
        with self._device.lock:
            self._check_open()
            if self._flights or self._undrawn is not None:
                raise InvalidInputError("steps are in flight; read them first")
            *inputs, wanted = self._padding.step_of_none(rows)
            step = self._executor.begin_step([*inputs, wanted, self._sampler.tokens])
            step.append(self._sampler.begin_step([_UNWANTED] * len(wanted)))
            step.submit()
            self._drawn = 0

    def draw(self, draws: Sequence[Draw]) -> None:
        """Draw the tokens of the step that was submitted without, for which ``submit`` has the rest. Does not wait."""
        with self._device.lock:
            self._check_open()
            if self._undrawn is None:
                raise InvalidInputError("no step waits for how its tokens are drawn; submit one first")
            wanted, rows = self._undrawn
            if len(draws) != wanted:
                raise InvalidInputError(f"a step wants {wanted} rows, but says of {len(draws)} how tokens are drawn")
            self._check_room()
            self._submit(self._drawing(draws, rows), draws)
            self._undrawn = None

    def _check_room(self) -> None:
        if len(self._flights) == self.in_flight:
            raise InvalidInputError(f"{self.in_flight} steps are in flight already; read one first")

    def _drawing(self, draws: Sequence[Draw], rows: int) -> Step | None:
        """What draws from so many rows, of which the last ones are padding."""
        return self._sampler.begin_step([*draws, *[_UNWANTED] * (rows - len(draws))]) if draws else None

    def _submit(self, step: Step | None, draws: Sequence[Draw]) -> None:
        """Submit a step that draws, with copies of what it draws; None where nobody wants a row of it."""
        results = [(self._tokens, self._sampler.tokens.buffer)]
        asked = [draw.logprobs for draw in draws]
        if any(k is not None for k in asked):
            results += [(self._logprobs, self._sampler.logprobs), (self._likeliest, self._sampler.likeliest)]
        copies = [partial(_copy, to, source) for to, source in results]
        if step is not None:
            submission = step.submit(*copies)
        else:
            encoder = self._device.encoder()
            for copy in copies:
                copy(encoder)
            submission = self._device.submit([encoder.finish()])
        for to, _ in results:
            to.submitted(submission)
        self._flights.append(asked)
        self._drawn = len(draws)

    def read(self) -> list[Drawn]:
        """What the oldest step that is not read has drawn, in the order of its wanted rows; waits for that step.

        Raises InvalidInputError if there is none, and DeviceError.
        """
        with self._device.lock:
            self._check_open()
            if not self._flights:
                raise InvalidInputError("no step is in flight; submit one first")
            asked = self._flights.popleft()
            tokens = self._tokens.read().view(np.int32)[: len(asked)].tolist()
            if all(k is None for k in asked):
                return [Drawn(token) for token in tokens]
            logprobs = self._logprobs.read().view(np.float32).reshape(self.sizes.wanted, -1)
            likeliest = self._likeliest.read().view(np.int32).reshape(self.sizes.wanted, -1)
        return [
            _with_logprobs(token, k, logprobs[row], likeliest[row])
            for row, (token, k) in enumerate(zip(tokens, asked, strict=True))
        ]

    def _inputs(
        self,
        tokens: Sequence[int] | NDArray[np.int32],
        places: Places,
        block_tables: NDArray[np.int32],
        wanted: Sequence[int],
    ) -> list[Any]:
        self._check_open()
        fed = np.asarray(tokens, np.int32).reshape(1, -1)
        if fed.size and (least := int(fed.min())) < -self._drawn:
            raise InvalidInputError(
                f"token {least} stands for drawn token {-1 - least}, but the step before drew {self._drawn}"
            )
        arrays = [np.ascontiguousarray(values, np.int32) for values in (places, block_tables, wanted)]
        given = [fed, *arrays] if self._padding is None else self._padding(fed, *arrays)
        return [*given, self._sampler.tokens]

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this method is closed; load it again")

    def close(self) -> None:
        """Free the GPU memory. Closing twice is allowed."""
        with self._device.lock:
            if not self._closed:
                self._closed = True
                for owned in reversed(self._owned):
                    owned.close()


def _copy(to: InFlight, source: Buffer, encoder: Any) -> None:
    to.copy(encoder, source)


def _with_logprobs(token: int, asked: int | None, logprobs: NDArray[np.float32], likeliest: NDArray[np.int32]) -> Drawn:
    if asked is None or token == BROKEN:
        return Drawn(token)
    there = zip(likeliest[:asked].tolist(), logprobs[1 : 1 + asked].tolist(), strict=True)
    return Drawn(token, float(logprobs[0]), tuple((other, logprob) for other, logprob in there if other >= 0))

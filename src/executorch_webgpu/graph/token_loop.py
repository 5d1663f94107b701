"""Steps of a language model's graph that follow one another without the host: each draws the token of the next.

A small graph of one call, ``sample_token``, runs behind the model's dispatches in the same pass and submission. It
reads the logits where they lie, and leaves the token where the next step takes it from; a copy of it comes back to the
host, which reads it whenever it likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..gpu.buffers import Buffer, create, upload
from ..gpu.in_flight import InFlight
from ..ops.plan import Planning
from ..ops.registry import find
from ..ops.sampling.reference import bits_of
from ..ops.shapes import ceil_div
from ..ops.values import SymInt, Tensor
from .build import Constant, Graph, OpCall
from .constants import ConstantPool
from .device_array import DeviceTokens
from .execute import GraphExecutor
from .state import GraphState

SAMPLE = "et_webgpu.sample_token.default"
_LOGITS, _ROW, _POSITION, _TOKEN, _SEEN = range(5)  # ids in the sampler's graph


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn; see ``ops.sampling``."""

    seed: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float = 0.0
    repetition_penalty: float = 1.0


class TokenLoop:
    """Runs a graph ``tokens [1, S], input_pos [1] -> logits [..., V]`` on one of its states; owns what lies between.

    ``most``: how many tokens may be drawn that are not read yet. The caller holds the device's lock in each call;
    between calls, others may run steps on other states.
    """

    def __init__(
        self, executor: GraphExecutor, state: GraphState, tokens: Tensor, input_pos: Tensor, drawing: Drawing, most: int
    ) -> None:
        (logits,) = executor.graph.outputs
        assert isinstance(logits, Tensor)
        self._executor = executor
        self._state = state
        self._ids = (tokens.id, input_pos.id)
        self._results: InFlight | None = None
        self._sampler: GraphExecutor | None = None
        self._vocab = logits.max_dims[-1]
        self._token = DeviceTokens(executor.device, (1, 1), self._vocab)
        self._seen: Buffer | None = None  # the tokens that the text has, if that matters
        try:
            if drawing.repetition_penalty != 1:
                nbytes = 4 * ceil_div(self._vocab, 32)
                self._seen = create(executor.device, nbytes, "the set of tokens in the text")
            self._results = InFlight(executor.device, self._token.nbytes, most, "tokens in flight")
            lent = {} if self._seen is None else {_SEEN: self._seen}
            self._sampler = GraphExecutor(
                _sampler_graph(logits, drawing),
                ConstantPool(executor.device, lambda view: None),
                Planning(executor.device.features, executor.device.limits),
                borrowed={_LOGITS: executor._buffer_of(logits, state), _TOKEN: self._token.buffer} | lent,
            )
        except BaseException:
            self.close()
            raise

    @property
    def pending(self) -> int:
        """Tokens that are drawn, or will be, and not read."""
        return 0 if self._results is None else len(self._results)

    def begin(self, text: Iterable[int]) -> None:
        """Exactly these tokens have occurred before the next one that is drawn; each that is drawn from now on joins.

        Whatever is in flight comes before this, so what it draws is forgotten.
        """
        if self._seen is not None:
            seen = np.zeros(self._vocab, np.bool_)
            seen[list(text)] = True
            upload(self._executor.device, self._seen, bits_of(seen))

    def run(self, tokens: NDArray[np.int32] | None, input_pos: int, row: int | None = 0) -> None:
        """Submit a step with ``tokens`` [1, S], or with the one that was drawn last.

        Then draw the token that follows row ``row`` of the logits, unless that is None. Does not wait.
        Raises InvalidInputError before anything runs when the graph refuses the step.
        """
        assert self._sampler is not None and self._results is not None
        length = 1 if tokens is None else tokens.shape[1]
        given = {self._ids[0]: self._token if tokens is None else tokens, self._ids[1]: np.array([input_pos], np.int32)}
        executor, sampler = self._executor, self._sampler
        inputs = [given[value.id] for value in executor.graph.inputs]
        state = executor._set(inputs, self._state)
        drawn = None if row is None else sampler._set([row, input_pos + length], None)
        encoder = executor.device.encoder()
        executor._write_inputs(encoder, inputs)
        with executor.device.errors("recording a step"):
            compute_pass = encoder.begin_compute_pass()
            executor._replay(state).encode(compute_pass)
            if drawn is not None:
                sampler._replay(drawn).encode(compute_pass)
            compute_pass.end()
            if drawn is not None:
                self._results.copy(encoder, self._token.buffer)
                self._results.submit(encoder)
        if drawn is None:
            executor._submit(encoder)
        executor._finish([], state)

    def read(self) -> int:
        """The oldest token that has not been read, or BROKEN; waits for its step, but for no later one."""
        assert self._results is not None
        return int(self._results.read().view(np.int32)[0])

    def discard(self) -> None:
        """Forget the tokens that have not been read."""
        if self._results is not None:
            self._results.discard()

    def close(self) -> None:
        """Free the memory; tokens that have not been read are lost. Closing twice is allowed."""
        for owner in (self._results, self._sampler, self._token):
            if owner is not None:
                owner.close()
        if self._seen is not None:
            self._seen.destroy()
        self._results = self._sampler = None


def _sampler_graph(logits: Tensor, drawing: Drawing) -> Graph:
    """row, position -> token. The logits are no input of it: they lie in a borrowed buffer."""
    op = find(SAMPLE)
    assert op is not None
    x, row, position = Tensor(_LOGITS, "float32", logits.max_dims), SymInt(_ROW), SymInt(_POSITION)
    token = Tensor(_TOKEN, "int32", (1,))
    seen = None if drawing.repetition_penalty == 1 else _bitmask(logits.max_dims[-1])
    how = (drawing.seed, drawing.temperature, drawing.top_k, drawing.top_p, drawing.min_p, drawing.repetition_penalty)
    kept = () if seen is None else (seen,)
    args = (x, row, position, *how, seen, token)
    call = OpCall(0, SAMPLE, op, args, inputs=(x, *kept), outputs=(token,), mutated=kept)
    constants = {t.id: Constant.zeros(t) for t in kept}
    return Graph((call,), (row, position), (token,), (row, position), constants)


def _bitmask(vocab: int) -> Tensor:
    return Tensor(_SEEN, "int32", (ceil_div(vocab, 32),), constant=_SEEN)

"""Steps of a language model's method that follow one another on the device, without waiting for the host."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..format import program_schema as schema
from ..graph.token_loop import Drawing, TokenLoop
from ..ops.sampling import PIPELINES
from ..ops.values import Tensor
from .method import Method
from .state import State

_AHEAD, _AHEAD_ON_CPU = 8, 2


def obstacle(method: object, state: State | None = None) -> str | None:
    """Why steps of ``forward(tokens, input_pos)`` cannot follow one another on the device, or None."""
    if not isinstance(method, Method):
        return "the model does not run in this runtime"
    if len(method._executors) != 1:
        return f"the program has {len(method._executors)} delegates, between which the host computes"
    (executor,) = method._executors
    if executor.profiling:
        return "a profile waits for every step"
    call = _only_call(method)
    if call is None:
        return "the host computes before or after the program's delegate"
    its = method._arguments[call.delegate_index]
    if tuple(its.outputs) != tuple(range(len(its.outputs))) or its.of_outputs(call) != tuple(method._plan.outputs):
        return "the program's output is not the delegate's"
    inputs = _inputs(method, call)
    if len(inputs) != 2:
        return "the delegate does not take the tokens and their position as they are"
    if any(not isinstance(value, Tensor) or value.dtype != "float32" for value in executor.graph.outputs):
        return "the delegate's logits are not float32"
    if executor.reads_on_host(inputs[0]):
        return "the program needs to know tokens on the host"
    if not (state or method.state)._can_rewind:
        return "the program keeps more than KV caches, so steps that ran ahead could not be taken back"
    return None


def prepare(method: Method) -> None:
    """Make the pipelines that draw tokens, so that no step has to."""
    for executor in method._executors:
        for kernel, template, overrides in PIPELINES:
            executor.device.kernels.pipeline(kernel, template, overrides)


def _only_call(method: Method) -> schema.DelegateCall | None:
    """The delegate's call, if there is nothing else to do."""
    calls = [instruction.call for chain in method._plan.chains for instruction in chain.instructions]
    work = [call for call in calls if not isinstance(call, schema.FreeCall)]
    return work[0] if len(work) == 1 and isinstance(work[0], schema.DelegateCall) else None


def _inputs(method: Method, call: schema.DelegateCall) -> list[Tensor]:
    """What the method's inputs, tokens and their position, are in the delegate, as far as it takes integers there."""
    graph = method._executors[call.delegate_index].graph
    by_index = dict(zip(method._arguments[call.delegate_index].of_inputs(call), graph.inputs, strict=True))
    found = [by_index.get(index) for index in method._plan.inputs]
    return [value for value in found if isinstance(value, Tensor) and value.dtype == "int32"]


class DeviceSteps:
    """Steps of ``forward(tokens, input_pos) -> logits`` on one state, each with the token that the one before drew.

    ``most``: how many tokens may be drawn and not read, by default 8, or 2 where a CPU computes them: it gains little
    by more, and each step that is not wanted takes long there. What a step writes to the state's KV caches counts, for
    its ``length``, only when ``keep`` says so; ``drop`` takes the rest back. ``obstacle`` must be None.
    Whoever shares the method with other threads holds ``lock``, the method's, in each call; between calls, steps of
    other states may run.
    """

    def __init__(self, method: Method, state: State, drawing: Drawing, most: int | None = None) -> None:
        call = _only_call(method)
        assert call is not None
        (self._executor,) = method._executors
        tokens, input_pos = _inputs(method, call)
        self.most = most or (_AHEAD_ON_CPU if self._executor.device.features.cpu else _AHEAD)
        self.lock = method._lock
        self._state = state
        self._source = method._source
        self._end = 0  # the row after the last one that was written
        with self.lock:
            method._check_open()
            state._check_open()
            graph = state._graphs[call.delegate_index]
            self._loop = TokenLoop(self._executor, graph, tokens, input_pos, drawing, self.most)

    @property
    def pending(self) -> int:
        """Tokens that are drawn, or will be, and not read."""
        return self._loop.pending

    def begin(self, text: Iterable[int]) -> None:
        """A text begins with these tokens; see ``TokenLoop.begin``."""
        self._loop.begin(text)

    def run(self, tokens: NDArray[np.int32] | None, input_pos: int, row: int | None = 0) -> None:
        """Submit a step; see ``TokenLoop.run``."""
        self._state._begin(self._source)
        self._loop.run(tokens, input_pos, row)
        ends = self._executor.cache_ends
        self._end = max(self._end, *ends, 0)
        self._state._ran_ahead(ends)

    def read(self) -> int:
        """The oldest token that has not been read, or BROKEN."""
        return self._loop.read()

    def keep(self, length: int) -> None:
        """The first ``length`` rows count."""
        self._state._keep(length)

    def drop(self) -> None:
        """Forget the tokens that have not been read, and the rows that do not count."""
        self._loop.discard()
        if self._end > self._state.length:
            self._state._drop_ahead()
        self._end = 0

    def close(self) -> None:
        """Free the memory between the steps; the state stays as it is. Closing twice is allowed."""
        self._loop.close()

"""The decode loop: steps of a language model's method that follow one another on the device, not waiting for the host.

Each step draws the token of the next, which a copy brings to the host as well; the host reads it whenever it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..gpu.buffers import Buffer
from ..gpu.in_flight import InFlight
from ..gpu.trace import STEP, Described, active, spanned
from ..graph.build import Graph
from ..graph.execute import GraphExecutor
from ..graph.executor import Executor
from ..graph.lowering.segments import DeviceSegment, Lowered
from ..graph.sampler import Sampler, SamplerConfig
from ..graph.step import Step, Steps
from ..ops.values import Tensor
from .state import State

if TYPE_CHECKING:
    from .method import Method

_AHEAD, _AHEAD_ON_CPU = 8, 2
_TOGETHER, _TOGETHER_ON_CPU = 4, 1  # steps in one submission, at most,
_LONGEST_SECONDS = 2.5e-3  # and how long these may take: the first token of them comes with the last
_KEPT = 2  # loops whose memory a method keeps


@dataclass(frozen=True)
class DecodeTarget:
    """The one graph of ``forward(tokens, input_pos) -> logits``, and what these are in its graph."""

    executor: GraphExecutor
    tokens: Tensor
    input_pos: Tensor
    logits: Tensor


def decode_target(lowered: Lowered, executors: Sequence[Executor]) -> DecodeTarget | str:
    """What a decode loop runs of a method, or why there can be none."""
    graphs = [executor.graph for executor in executors]
    found = language_graph(lowered, graphs)
    if isinstance(found, str):
        return found
    (executor,) = executors
    if not isinstance(executor, GraphExecutor):
        return "there is no device"
    if executor.profiling:
        return "a profile waits for every step"
    if executor.reads_on_host(found.tokens):
        return "the program needs to know tokens on the host"
    return DecodeTarget(executor, found.tokens, found.input_pos, found.logits)


@dataclass(frozen=True)
class LanguageGraph:
    """What ``forward(tokens, input_pos) -> logits`` is in the only graph of a method."""

    tokens: Tensor
    input_pos: Tensor
    logits: Tensor


def language_graph(lowered: Lowered, graphs: Sequence[Graph], *, halves: bool = False) -> LanguageGraph | str:
    """Inputs and output of the one graph that a method is, or why it is not one graph of a language model.

    ``halves``: whether the logits may be floats of 16 bits.
    """
    segments = [segment for block in lowered.blocks for segment in block.segments]
    if len(graphs) != 1:
        return f"the program has {len(graphs)} graphs, between which the host computes"
    if len(segments) != 1 or len(lowered.blocks) != 1:
        return "the host computes before or after the program's graph"
    (graph,), (segment,), (block,) = graphs, segments, lowered.flow.blocks
    assert isinstance(segment, DeviceSegment)
    if tuple(block.outputs or ()) != segment.outputs:
        return "the program's output is not the graph's"
    given = dict(zip(segment.inputs, graph.inputs, strict=True))
    inputs = [given.get(block.entry.get(cell)) for cell in lowered.flow.inputs if cell is not None]
    integers = [v for v in inputs if isinstance(v, Tensor) and v.dtype == "int32"]
    if len(integers) != 2 or len(given) != 2:
        return "the graph does not take the tokens and their position as they are"
    outputs = graph.outputs
    logits = outputs[0] if len(outputs) == 1 else None
    if not isinstance(logits, Tensor) or not logits.element.is_float or not (halves or logits.dtype == "float32"):
        return "the graph's logits are not float32"
    return LanguageGraph(integers[0], integers[1], logits)


def host_reason(method: Method, state: State) -> str | None:
    """Why tokens of a method on a state must be drawn on the host, one call at a time; None if they need not be."""
    target = method.decode_target
    if isinstance(target, str):
        return target
    if not state.can_rewind:
        return "the program keeps more than KV caches, so steps that ran ahead could not be taken back"
    return None


def prepare(method: Method, state: State) -> None:
    """Make the pipelines that a decode loop needs, if there can be one, so that no step has to."""
    if host_reason(method, state) is None:
        assert isinstance(method.decode_target, DecodeTarget)
        Sampler.prepare(method.decode_target.executor.device)


def _described(loop: DecodeLoop, tokens: NDArray[np.int32] | None, input_pos: int, row: int | None = 0) -> Described:
    """What a trace calls a step."""
    if tokens is None:
        return "decode", {"position": input_pos}
    return "prefill", {"position": input_pos, "tokens": tokens.shape[1]}


@dataclass(frozen=True, eq=False)
class LoopMemory:
    """What a loop has between steps. ``fits``: what other loops may use it for."""

    fits: Hashable
    sampler: Sampler
    tokens: InFlight
    steps: Steps

    def close(self) -> None:
        self.steps.close()
        self.tokens.close()
        self.sampler.close()


class KeptLoopMemory:
    """Memory of the last loops of a method, for the next ones: to make and to free it takes longer than some texts.

    What is lent is held here as well: a loop that is collected as garbage gives back memory that must not have been.
    The caller holds the method's lock, but for ``give_back``, which garbage may come to anywhere.
    """

    def __init__(self) -> None:
        self._kept: list[LoopMemory] = []
        self._lent: list[LoopMemory] = []
        self._closed = False

    def take(self, target: DecodeTarget, logits: Buffer, config: SamplerConfig, most: int) -> LoopMemory:
        """Memory for a loop, whose tokens nobody else draws until it is given back."""
        memory = self._fitting((target.logits.id, logits, config.seedless, most))
        if memory is None:
            memory = self._made(target, logits, config, most)
        else:
            memory.sampler.use_seed(config.seed)
        self._lent.append(memory)
        self.free_oldest(_KEPT - 1)
        return memory

    def _fitting(self, fits: Hashable) -> LoopMemory | None:
        for memory in self._kept:
            if memory.fits == fits:
                self._kept.remove(memory)
                return memory
        return None

    def _made(self, target: DecodeTarget, logits: Buffer, config: SamplerConfig, most: int) -> LoopMemory:
        device = target.executor.device
        with ExitStack() as made:
            sampler = Sampler(device, target.logits, logits, config)
            made.callback(sampler.close)
            tokens = InFlight(device, sampler.token.nbytes, most, "tokens in flight", _TOGETHER)
            made.callback(tokens.close)
            memory = LoopMemory((target.logits.id, logits, config.seedless, most), sampler, tokens, Steps(device))
            made.pop_all()
        return memory

    def give_back(self, memory: LoopMemory) -> None:
        """Its loop has ended. Frees nothing."""
        memory.tokens.discard()
        self._lent.remove(memory)
        self._kept.append(memory)

    def free_oldest(self, most: int = _KEPT) -> None:
        """Keep ``most`` of what was given back."""
        while len(self._kept) > (0 if self._closed else most):
            self._kept.pop(0).close()

    def close(self) -> None:
        """Free it, also what is given back later. Closing twice is allowed."""
        self._closed = True
        self.free_oldest()


class DecodeLoop:
    """Steps of ``forward(tokens, input_pos) -> logits`` on one state, each with the token that the one before drew.

    ``most``: how many tokens may be drawn and not read, by default 8, or 2 where a CPU computes them: it gains little
    by more, and each step that is not wanted takes long there. What a step writes to the state's KV caches counts, for
    its ``length``, only when ``keep`` says so; ``drop`` takes the rest back. ``host_reason`` must be None.
    ``together``: how many steps the next submission should have. To submit takes the host about as long as to record a
    step, but tokens of one submission arrive together, so there are several only while they take 2.5 ms at most.
    A caller that shares the method with other threads holds ``lock``, the method's, in each call; between calls, other
    states may run steps.
    """

    _memory: LoopMemory | None = None  # as long as it is open

    def __init__(self, method: Method, state: State, config: SamplerConfig, most: int | None = None) -> None:
        target = method.decode_target
        assert isinstance(target, DecodeTarget)
        self.most = most or (_AHEAD_ON_CPU if target.executor.device.features.cpu else _AHEAD)
        self.lock = method.lock
        self._target = target
        self._state = state
        self._end = 0  # the row after the last one that was written
        self._most_together = min(
            _TOGETHER_ON_CPU if target.executor.device.features.cpu else _TOGETHER, self.most // 2
        )
        self._step_seconds, self._last_arrival = 0.0, 0.0
        self._of_each = target.input_pos.max_dims == target.tokens.max_dims[1:]  # the position of every token
        self._tokens_first = target.executor.graph.inputs[0] is target.tokens
        self._kept = method.loop_memory
        with self.lock:
            logits = target.executor.buffer_of(target.logits, state.graph_of(target.executor))
            self._memory = self._kept.take(target, logits, config, self.most)
        memory = self._memory
        self._sampler, self._tokens, self._steps = memory.sampler, memory.tokens, memory.steps

    @property
    def pending(self) -> int:
        """Tokens that are drawn, or will be, and not read."""
        return len(self._tokens)

    @property
    def together(self) -> int:
        """Steps that the next submission should have."""
        if self._most_together <= 1 or self._step_seconds <= 0 or active() is not None:
            return 1
        return max(1, min(self._most_together, int(_LONGEST_SECONDS / self._step_seconds)))

    def begin(self, text: Iterable[int]) -> None:
        """A text begins with these tokens; see ``Sampler.begin``."""
        self._sampler.begin(text)

    @spanned("step", STEP, _described)
    def run(self, tokens: NDArray[np.int32] | None, input_pos: int, row: int | None = 0) -> None:
        """Submit a step with ``tokens`` [1, S], or with the one that was drawn last.

        Then draw the token that follows row ``row`` of the logits, unless that is None. Does not wait.
        Raises InvalidInputError before anything runs when the graph refuses the step.
        """
        step = self._begin(tokens, input_pos)
        if row is None:
            step.submit()
        else:
            step.append(self._sampler.begin_step(row, input_pos + (1 if tokens is None else tokens.shape[1])))
            self._tokens.submitted(step.submit(self._copy_of_token(0)))
        self._has_run()

    def run_together(self, input_pos: int, count: int) -> None:
        """``run`` for so many tokens from ``input_pos`` on, each drawn by the step before, in one submission."""
        begun = 0
        try:
            for position in range(input_pos, input_pos + count):
                step = self._begin(None, position)
                step.append(self._sampler.begin_step(0, position + 1))
                self._steps.add(step, self._copy_of_token(begun))
                self._has_run()
                begun += 1
        finally:
            if begun:
                self._tokens.submitted(self._steps.submit())
            else:
                self._steps.discard()

    def _begin(self, tokens: NDArray[np.int32] | None, input_pos: int) -> Step:
        positions = tokens.shape[1] if self._of_each and tokens is not None else 1
        given = np.arange(input_pos, input_pos + positions, dtype=np.int32)
        token = self._sampler.token if tokens is None else tokens
        inputs = (token, given) if self._tokens_first else (given, token)
        return self._target.executor.begin_step(inputs, self._state.graph_of(self._target.executor))

    def _copy_of_token(self, index: int) -> Callable[[Any], None]:
        return partial(self._tokens.copy, source=self._sampler.token.buffer, index=index)

    def _has_run(self) -> None:
        """What the step that was begun last writes will be there."""
        ends = self._target.executor.cache_ends
        self._end = max(self._end, *ends, 0)
        self._state.ran_ahead(ends)

    def read(self) -> int:
        """The oldest token that has not been read, or BROKEN; waits for its submission, but for no later one."""
        if not self._tokens.arrived:
            before = len(self._tokens)
            token = self._tokens.read()
            now, count = perf_counter(), self._tokens.arrived + 1
            self._step_seconds = (now - self._last_arrival) / count if self._last_arrival and before > count else 0.0
            self._last_arrival = now
        else:
            token = self._tokens.read()
        return int(token.view(np.int32)[0])

    def recover(self) -> bool:
        """Whether a token may be wrong because the workgroups of a step did not meet; steps from now on do not wait."""
        return self._target.executor.recover()

    def keep(self, length: int) -> None:
        """The first ``length`` rows count."""
        self._state.keep(length)

    def drop(self) -> None:
        """Forget the tokens that have not been read, and the rows that do not count."""
        if self._memory is not None:
            self._tokens.discard()
        if self._end > self._state.length:
            self._state.drop_ahead()
        self._end = 0

    def close(self) -> None:
        """Give back the memory between the steps; the state stays as it is. Closing twice is allowed."""
        self._give_back()
        self._kept.free_oldest()

    def __del__(self) -> None:
        self._give_back()

    def _give_back(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            self._kept.give_back(memory)

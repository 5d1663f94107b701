"""One loaded method: checks the caller's inputs and runs the program's instructions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakSet

import numpy as np

from ..closing import Closing
from ..errors import ClosedError, InvalidInputError, UnsupportedProgramError
from ..format import program_schema as schema
from ..gpu.locked import locked
from ..gpu.trace import STEP, Described, spanned
from ..graph.binding_limit import split_constants
from ..graph.build import Graph
from ..graph.constants import ConstantPool
from ..graph.execute import GraphExecutor
from ..graph.executor import Executor, GraphMemory
from ..graph.fusion import fuse_graph
from ..graph.host_executor import HostExecutor
from ..graph.kernel_uses import KernelUse, kernel_uses
from ..graph.kv_cache import KV_CACHE_DTYPES, has_kv_cache, store_kv_caches
from ..graph.lowering.segments import DeviceSegment
from ..graph.timing import CallTime
from ..ops.plan import Planning
from ..portable.shared_buffers import SharedBuffers
from .arrays import HostValue, checked_input, to_caller, to_host
from .decode import DecodeTarget, KeptLoopMemory, decode_target
from .host_state import HostState
from .metadata import MethodMetadata, method_metadata
from .method_file import MethodFile
from .options import LoadOptions
from .run import Runner, to_host_value
from .state import State, StateSource

Watch = Callable[[int, Sequence[np.ndarray | int], Sequence[np.ndarray | int]], None]  # graph, inputs, outputs


@dataclass(frozen=True)
class ProfileRow:
    """Work of one operator and route since the method was loaded. ``gpu_ms`` is None without timestamps."""

    op: str
    route: str | None
    calls: int
    dispatches: int
    gpu_ms: float | None
    share: float | None


def _described(method: Method, inputs: Sequence[Any] = (), *_: Any, **__: Any) -> Described:
    """What a trace calls a call."""
    given = inputs if isinstance(inputs, list | tuple) else ()  # else the call says what is wrong
    return method._described.name, {"inputs": [list(getattr(value, "shape", ())) for value in given]}


class Method(Closing):
    """A loaded method; a context manager that frees its GPU memory.

    ``state`` is what it remembers from call to call, such as KV caches; ``new_state`` makes more of them.
    Threads may share it: calls, also of its states, run one after another. So do those of all methods of one device.
    """

    def __init__(
        self,
        file: MethodFile,
        constants: Callable[[], ConstantPool] | None,
        options: LoadOptions,
        fingerprint: Callable[[], str],
        initial_buffers: Mapping[str, np.ndarray],
        buffers: SharedBuffers,
    ) -> None:
        """``constants`` opens the device, if it is not open; None: there is none, and references run everything.

        ``buffers``: what the program's methods share, for the method's own state.

        ``initial_buffers``: the bytes with which they begin, by name.
        """
        self._file = file
        self._described = plan = file.plan
        self._metadata: MethodMetadata | None = None
        self._watch: Watch | None = None  # told of each run of a graph
        self.loop_memory = KeptLoopMemory()  # for decode loops
        self._executors: list[Executor] = []
        self._states: WeakSet[State] = WeakSet()
        self._closed = False
        self._lock = RLock()  # of the device, if the method needs one
        try:
            self._lowered = lowered = file.lowered(options.lower)
            self._computed_with = {value for o, _ in lowered.placements for value in o.inputs}
            self._runner = Runner(plan.name, lowered, file.constant)
            graphs = _with_kv_caches(plan, file.graphs(options.lower), options.kv_cache_dtype)
            for stored, segment in zip(graphs, lowered.device_segments, strict=True):
                graph, _ = fuse_graph(stored, options.fusions)
                self._executors.append(self._executor(graph, segment, constants, options))
            self._source = StateSource(
                plan.name,
                self._executors,
                HostState.of(file, lowered),
                options.kv_cache_dtype,
                fingerprint,
                initial_buffers,
                self._lock,
            )
            self._state = self._own([executor.state for executor in self._executors], buffers)
        except BaseException:
            self.close()
            raise

    def _executor(
        self,
        graph: Graph,
        segment: DeviceSegment,
        constants: Callable[[], ConstantPool] | None,
        options: LoadOptions,
    ) -> Executor:
        if constants is None:
            return HostExecutor(graph, segment.unseen)
        pool = constants()  # opens the device, which a constant method does not need
        self._lock = pool.device.lock
        graph = split_constants(graph, pool.device.limits.max_binding_bytes)
        planning = Planning(
            pool.device.features,
            pool.device.limits,
            options.routes or {},
            options.scratch_bytes,
            options.matmul_precision,
        )
        return GraphExecutor(graph, pool, planning, profile=options.profile, check=options.check, unseen=segment.unseen)

    @property
    def lock(self) -> RLock:
        """What each call holds: the device's, if the method needs one."""
        return self._lock

    @property
    def decode_target(self) -> DecodeTarget | str:
        """What a ``DecodeLoop`` runs, or why there can be none."""
        self._check_open()
        return decode_target(self._lowered, self._executors)

    @property
    def metadata(self) -> MethodMetadata:
        """Inputs and outputs."""
        if self._metadata is None:
            self._metadata = method_metadata(self._file)
        return self._metadata

    @property
    def state(self) -> State:
        """The state that ``execute`` uses when it is given none."""
        return self._state

    @locked
    def new_state(self, *, shares: State | None = None) -> State:
        """Another state over the same weights, pipelines and plans, as the program starts.

        ``shares``: a state of any method of the same program. The new one has the buffers that methods share in common
        with it; without it, it has buffers of its own.
        Raises InvalidInputError when ``shares`` is a state of another program.
        """
        self._check_open()
        if shares is not None and shares._source.initial_shared is not self._source.initial_shared:
            raise InvalidInputError("a new state can share buffers with a state of the same program only")
        buffers = SharedBuffers.beginning(self._source.initial_shared) if shares is None else shares._buffers
        return self._own([executor.new_state() for executor in self._executors], buffers)

    def load_state(self, path: str | Path) -> State:
        """Another state, with the contents of a file that ``State.save`` wrote; see ``State.load``."""
        state = self.new_state()
        try:
            state.load(path)
        except BaseException:
            state.close()
            raise
        return state

    @spanned("execute", STEP, _described)
    @locked
    def execute(self, inputs: Sequence[Any] = (), state: State | None = None) -> list[Any]:
        """Run the method once.

        ``inputs``: one value for each input: NumPy arrays, torch tensors or anything with ``__dlpack__`` or
        ``__array__``, of exactly the program's dtype, with dims up to its bounds; numbers for plain values. ``state``:
        one that ``new_state`` or ``load_state`` of this method gave; without it, the method's own.
        Returns a list of NumPy arrays (torch tensors if an input was one) and plain values.
        Raises InvalidInputError when an input does not fit: before anything ran, so that the state is unchanged. Where
        a method has several graphs and a later one refuses, rows that earlier ones appended to KV caches are taken
        back, but not what they overwrote.
        """
        self._check_open()
        state = self._state if state is None else state
        if not isinstance(state, State):
            raise InvalidInputError(f"a state is made by this method's new_state; {type(state).__name__} is none")
        given = self._checked(inputs)
        # Another method may be at work on the same buffers, with another device's lock or none.
        with state._buffers.lock if self._source.host.shared else nullcontext():
            outputs = self._step(given, state)
        described = (self._described.values[index].value for index in self._described.outputs)
        host = [to_host_value(*pair, self._described.name) for pair in zip(outputs, described, strict=True)]
        return to_caller(host, inputs)

    def _step(self, given: Sequence[HostValue], state: State) -> list[Any]:
        cells = state._begin(self._source)
        cells |= {c: v for c, v in zip(self._lowered.flow.inputs, given, strict=True) if c is not None}

        def execute(graph: int, inputs: Sequence[Any], stay: frozenset[int]) -> list[Any]:
            results = state._execute(graph, inputs, stay if self._watch is None else frozenset())
            if self._watch is not None:
                self._watch(graph, inputs, results)
            return results

        try:
            outputs = self._runner.run(cells, execute)
        except InvalidInputError:
            state._take_back()
            raise
        state._commit(cells)
        return outputs

    @locked
    def reset(self) -> None:
        """Put ``state`` back to what the program states."""
        self._check_open()
        self._state.reset()

    @locked
    def profile(self) -> list[ProfileRow]:
        """Work by operator and route since loading, longest first; empty unless loaded with ``profile=True``."""
        return profile_rows(executor.times for executor in self._executors)

    @locked
    def kernels(self) -> list[KernelUse]:
        """The kernels of its graphs, with variants as ``et-webgpu kernel`` prints them; see ``KernelUse``."""
        return kernel_uses(executor.plans for executor in self._executors)

    @locked
    def close(self) -> None:
        """Free the GPU memory, that of all states included. Closing twice is allowed."""
        self._closed = True
        self.loop_memory.close()
        for state in list(self._states):
            state.close()
        for executor in self._executors:
            executor.close()

    # -- inputs -----------------------------------------------------------------------------------------------------

    def _checked(self, inputs: Sequence[Any]) -> list[HostValue]:
        if not isinstance(inputs, list | tuple):
            raise InvalidInputError(f"execute takes a list of inputs, not a {type(inputs).__name__}")
        if len(inputs) != len(self._described.inputs):
            raise InvalidInputError(
                f"method {self._described.name!r} takes {len(self._described.inputs)} inputs, not {len(inputs)}"
            )
        return [
            self._checked_one(index, to_host(value, f"input {position}"), f"input {position}")
            for position, (index, value) in enumerate(zip(self._described.inputs, inputs, strict=True))
        ]

    def _checked_one(self, index: int, value: HostValue, what: str) -> HostValue:
        checked = checked_input(self._described.values[index].value, value, what, self._described.name)
        if checked is None and self._computes_with(index):
            raise InvalidInputError(f"{what} is None, but the program computes with it: pass a number")
        return checked

    def _computes_with(self, index: int) -> bool:
        """Whether some operation takes an input."""
        cell = self._lowered.flow.inputs[self._described.inputs.index(index)]
        entries = (block.entry for block in self._lowered.flow.blocks)
        return cell is not None and any(entry[cell] in self._computed_with for entry in entries if cell in entry)

    def _own(self, graphs: Sequence[GraphMemory], buffers: SharedBuffers) -> State:
        state = State(self._source, graphs, buffers)
        self._states.add(state)
        return state

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this method is closed; load it again")


def profile_rows(times: Iterable[Mapping[tuple[str, str | None], CallTime]]) -> list[ProfileRow]:
    """What the calls of several graphs took together, longest first."""
    totals: defaultdict[tuple[str, str | None], Counter[str]] = defaultdict(Counter)
    for key, time in (item for of_graph in times for item in of_graph.items()):
        totals[key].update(calls=time.calls, dispatches=time.dispatches, ns=time.gpu_ns)
    all_ns = sum(t["ns"] for t in totals.values())
    rows = [
        ProfileRow(
            op,
            route,
            total["calls"],
            total["dispatches"],
            total["ns"] / 1e6 if all_ns else None,
            total["ns"] / all_ns if all_ns else None,
        )
        for (op, route), total in totals.items()
    ]
    return sorted(rows, key=lambda r: (-(r.gpu_ms or 0), -r.dispatches))


def _with_kv_caches(plan: schema.ExecutionPlan, graphs: Sequence[Graph], dtype: str) -> Iterator[Graph]:
    """The graphs with KV caches of that dtype; "f32" leaves them as they are."""
    if dtype == "f32":
        return iter(graphs)
    if not any(has_kv_cache(graph) for graph in graphs):
        raise UnsupportedProgramError(
            f"method {plan.name!r} has no KV cache that could be {dtype}: load it without kv_cache_dtype"
        )
    return (store_kv_caches(graph, KV_CACHE_DTYPES[dtype]) for graph in graphs)

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
from ..errors import ClosedError, InvalidInputError, InvalidProgramError, UnsupportedProgramError
from ..format import program_schema as schema
from ..format import values as plain
from ..gpu.locked import locked
from ..graph.build import Graph
from ..graph.constants import ConstantPool
from ..graph.execute import GraphExecutor
from ..graph.executor import Executor, GraphMemory
from ..graph.fusion import fuse_graph
from ..graph.host_executor import HostExecutor
from ..graph.kernel_uses import KernelUse, kernel_uses
from ..graph.kv_cache import KV_CACHE_DTYPES, has_kv_cache, store_kv_caches
from ..graph.timing import CallTime
from ..ops.plan import Planning
from ..ops.values import SymInt, Tensor
from ..portable import host_kernel
from ..portable.dtypes import numpy_dtype
from ..portable.memory import HostMemory, HostValue
from ..portable.shared_buffers import SharedBuffers, shared_places
from .arrays import checked_input, owned, to_caller, to_device_array, to_host
from .decode import DecodeTarget, decode_target
from .host_state import branch_results, lasting_places
from .metadata import MethodMetadata, kernel_values, method_metadata, operator_name
from .method_file import MethodFile
from .options import LoadOptions
from .state import State, StateSource

Watch = Callable[[int, Sequence[np.ndarray | int], Sequence[np.ndarray | int]], None]  # delegate, inputs, outputs


@dataclass(frozen=True)
class ProfileRow:
    """Work of one operator and route since the method was loaded. ``gpu_ms`` is None without timestamps."""

    op: str
    route: str | None
    calls: int
    dispatches: int
    gpu_ms: float | None
    share: float | None


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
        self._computed_with = _arguments(plan)
        self._watch: Watch | None = None  # told of each call of a delegate
        self._executors: list[Executor] = []
        self._states: WeakSet[State] = WeakSet()
        self._closed = False
        self._lock = RLock()  # of the device, if the method needs one
        try:
            self._arguments = file.arguments
            for stored in _with_kv_caches(plan, file.graphs, options.kv_cache_dtype):
                graph, _ = fuse_graph(stored, options.fusions)
                self._executors.append(self._executor(graph, constants, options))
            shared = shared_places(plan)
            lasting = lasting_places(plan, [its.given for its in self._arguments], shared.values())
            self._memory = HostMemory(file.file, plan, lasting, shared)
            self._branch_results = branch_results(plan)
            self._source = StateSource(
                plan.name,
                self._executors,
                self._memory,
                options.kv_cache_dtype,
                fingerprint,
                frozenset(shared),
                initial_buffers,
                self._lock,
            )
            self._state = self._own([executor.state for executor in self._executors], buffers)
        except BaseException:
            self.close()
            raise

    def _executor(self, graph: Graph, constants: Callable[[], ConstantPool] | None, options: LoadOptions) -> Executor:
        if constants is None:
            return HostExecutor(graph)
        pool = constants()  # opens the device, which a constant method does not need
        self._lock = pool.device.lock
        planning = Planning(
            pool.device.features,
            pool.device.limits,
            options.routes or {},
            options.scratch_bytes,
            options.matmul_precision,
        )
        return GraphExecutor(graph, pool, planning, profile=options.profile, check=options.check)

    @property
    def lock(self) -> RLock:
        """What each call holds: the device's, if the method needs one."""
        return self._lock

    @property
    def decode_target(self) -> DecodeTarget | str:
        """What a ``DecodeLoop`` runs, or why there can be none."""
        self._check_open()
        return decode_target(self._described, self._executors, self._arguments)

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

    @locked
    def execute(self, inputs: Sequence[Any] = (), state: State | None = None) -> list[Any]:
        """Run the method once.

        ``inputs``: one value for each input: NumPy arrays, torch tensors or anything with ``__dlpack__`` or
        ``__array__``, of exactly the program's dtype, with dims up to its bounds; numbers for plain values. ``state``:
        one that ``new_state`` or ``load_state`` of this method gave; without it, the method's own.
        Returns a list of NumPy arrays (torch tensors if an input was one) and plain values.
        Raises InvalidInputError when an input does not fit: before anything ran, so that the state is unchanged. Where
        a method has several delegates and a later one refuses, rows that earlier ones appended to KV caches are taken
        back, but not what they overwrote.
        """
        self._check_open()
        state = self._state if state is None else state
        if not isinstance(state, State):
            raise InvalidInputError(f"a state is made by this method's new_state; {type(state).__name__} is none")
        given = self._checked(inputs)
        # Another method may be at work on the same buffers, with another device's lock or none.
        with state._buffers.lock if self._source.shared else nullcontext():
            self._step(given, state)
        return to_caller([owned(self._memory.values[i]) for i in self._described.outputs], inputs)

    def _step(self, given: Sequence[HostValue], state: State) -> None:
        state._begin(self._source)
        for index, value in zip(self._described.inputs, given, strict=True):
            self._memory.store(index, value)
        try:
            for chain in self._described.chains:
                self._run(chain, state)
        except InvalidInputError:
            state._take_back()
            raise
        state._commit()

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
        """The kernels of its delegates, with variants as ``et-webgpu kernel`` prints them; see ``KernelUse``."""
        return kernel_uses(executor.plans for executor in self._executors)

    @locked
    def close(self) -> None:
        """Free the GPU memory, that of all states included. Closing twice is allowed."""
        self._closed = True
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
        if checked is None and index in self._computed_with:
            raise InvalidInputError(f"{what} is None, but the program computes with it: pass a number")
        return checked

    # -- instructions -----------------------------------------------------------------------------------------------

    def _run(self, chain: schema.Chain, state: State) -> None:
        values = self._memory.values
        position = 0
        while position < len(chain.instructions):
            call = chain.instructions[position].call
            position += 1
            match call:
                case schema.DelegateCall():
                    self._run_delegate(call, state)
                case schema.KernelCall():
                    self._run_kernel(call)
                case schema.MoveCall():
                    if call.target in self._branch_results and values[call.source] is not None:
                        self._memory.store(call.target, values[call.source])
                    else:
                        values[call.target] = values[call.source]
                case schema.JumpFalseCall():
                    if not values[call.condition]:
                        position = call.destination
                case schema.FreeCall():
                    values[call.value_index] = None

    def _run_delegate(self, call: schema.DelegateCall, state: State) -> None:
        its = self._arguments[call.delegate_index]
        graph = self._executors[call.delegate_index].graph
        given = [
            _to_graph(value, self._memory.values[index], f"value {index}")
            for value, index in zip(graph.inputs, its.of_inputs(call), strict=True)
        ]
        results = state._execute(call.delegate_index, given)
        if self._watch is not None:
            self._watch(call.delegate_index, given, results)
        for index, output in zip(its.of_outputs(call), its.outputs, strict=True):
            self._memory.store(index, results[output])

    def _run_kernel(self, call: schema.KernelCall) -> None:
        operator = self._described.operators[call.op_index]
        inputs, outputs = kernel_values(self._described, call)
        kernel = host_kernel(operator.name, operator.overload or "", len(inputs))
        assert kernel is not None  # load_method refused the program otherwise
        try:
            results = kernel([self._host_argument(i) for i in inputs], self._dtype(outputs[0]))
            for index, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
                self._memory.store(index, result)
        except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError) as error:
            raise InvalidInputError(f"{operator_name(operator)} cannot run on these values: {error}") from error

    def _dtype(self, index: int) -> np.dtype | None:
        """The dtype of a value, if it is a tensor."""
        described = self._described.values[index].value
        return numpy_dtype(described, self._described.name) if isinstance(described, schema.Tensor) else None

    def _host_argument(self, index: int) -> Any:
        values = self._memory.values
        match self._described.values[index].value:
            case plain.IntList(items) | schema.TensorList(items) | schema.OptionalTensorList(items):
                return [values[i] if i >= 0 else None for i in items]
            case _:
                return values[index]

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


def _arguments(plan: schema.ExecutionPlan) -> frozenset[int]:
    """Values that instructions take, those in lists too."""
    found: set[int] = set()
    for chain in plan.chains:
        for instruction in chain.instructions:
            if isinstance(call := instruction.call, schema.KernelCall | schema.DelegateCall):
                found.update(call.args)
    lists = [plan.values[index].value for index in found]
    return frozenset(found.union(*(value.items for value in lists if isinstance(value, plain.IntList))))


def _to_graph(value: Tensor | SymInt, given: HostValue, what: str) -> np.ndarray | int:
    if given is None:
        raise InvalidProgramError(f"{what} is an input of a delegate, but nothing gives it a value: export it again")
    if isinstance(value, SymInt):
        number = np.asarray(given).reshape(-1)[0]
        if number != int(number):
            raise InvalidInputError(f"{what} is {number}, but a delegate takes an integer there")
        return int(number)
    return to_device_array(np.asarray(given), value.element.numpy, what)

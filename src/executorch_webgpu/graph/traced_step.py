"""A step that a trace records: each dispatch in a compute pass of its own, between two timestamps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..gpu.device import Device
from ..gpu.device_times import DeviceTimes, timed_pass
from ..gpu.head import write_variant
from ..gpu.profile import Timestamps
from ..gpu.trace import DISPATCH, ENCODE, SUBMIT, Span, Trace, Track, host_track
from ..ops.plan import OpPlan
from ..ops.values import Dims, Tensor
from .build import Graph
from .call_traffic import call_bytes

if TYPE_CHECKING:
    from .step import Part


@dataclass(frozen=True)
class _Planned:
    """One graph of a step as it was planned: what its dispatches are told by when the step has run."""

    number: int
    graph: Graph
    plans: tuple[OpPlan, ...]
    inputs: Mapping[int, Dims]  # dims of inputs, by id
    symints: Mapping[int, int]  # values, by id

    def dispatches(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and arguments of each dispatch, in order. Bytes are said once a call, with its first dispatch."""
        dims = {**self.inputs, **{tensor.id: size for plan in self.plans for tensor, size in plan.sized}}
        for call, plan in zip(self.graph.calls, self.plans, strict=True):
            for number, dispatch in enumerate(plan.dispatches):
                args: dict[str, Any] = {"graph": self.number, "node": call.index}
                if plan.route is not None:
                    args["route"] = plan.route
                args |= {"kernel": dispatch.kernel, "workgroups": list(dispatch.grid)}
                if variant := write_variant(dispatch.template):
                    args["variant"] = variant
                if number == 0:
                    args["bytes"] = call_bytes(self.graph, call, dims, self.symints)
                    args["shapes"] = [list(dims.get(out.id, out.max_dims)) for out in call.outputs]
                yield call.name, args


class TracedStep:
    """Times one step of some graphs for a trace; ``timed`` says whether the GPU does.

    ``encode``, ``record``, ``submit`` in the place of what a step does otherwise, and ``end`` whatever happened.
    """

    def __init__(self, trace: Trace, device: Device, parts: Sequence[Part]) -> None:
        self._trace, self._device = trace, device
        self._flow = trace.next_flow()
        self._first: dict[int, int] = {}  # by id of a part: the number of its first pass
        self._passes = 0
        self._planned: list[_Planned] = []
        self._timestamps: Timestamps | None = None
        self._raw: NDArray[np.int64] | None = None
        timed = [part for part in parts if part.checked is None]
        count = sum(len(commands) for part in timed for commands in part.commands)
        self._times: DeviceTimes | None = trace.times_of(device) if count else None
        if self._times is not None:
            self._timestamps = self._times.begin(count)
        self._begun = perf_counter_ns()

    @property
    def timed(self) -> bool:
        """Whether the dispatches are timed one by one."""
        return self._timestamps is not None

    def encode(self, encoder: Any, parts: Sequence[Part]) -> None:
        """The dispatches of some parts, each in a pass."""
        assert self._timestamps is not None
        for part in parts:
            self._first[id(part)] = self._passes
            for command in (command for of_call in part.commands for command in of_call):
                compute_pass = timed_pass(encoder, self._timestamps, self._passes)
                compute_pass.set_pipeline(command.pipeline)
                compute_pass.set_bind_group(0, command.bind_group)
                compute_pass.dispatch_workgroups(*command.grid)
                compute_pass.end()
                self._passes += 1
            self._planned.append(self._as_planned(part))

    def record(self, encoder: Any) -> None:
        """Have the encoder bring the times to where they are read later."""
        if self._timestamps is not None:
            self._timestamps.record(encoder, self._passes)

    def submit(self, commands: Any) -> int:
        """Hand the finished commands to the device. Returns the number of the submission."""
        begun = perf_counter_ns()
        track = host_track()
        self._trace.add(Span(track, "encode", ENCODE, self._begun, begun, {"dispatches": self._passes}))
        submission = self._device.submit_untraced([commands])
        args = {"submission": self._flow}
        self._trace.add(Span(track, "submit", SUBMIT, begun, perf_counter_ns(), args, self._flow))
        if self._timestamps is not None and self._times is not None:
            self._times.submitted(self._timestamps, submission, self._passes, begun, self._tell)
            self._timestamps = None
        return submission

    def nanoseconds(self, part: Part) -> dict[int, int] | None:
        """What each call of a part took, for a profile; waits for the step. None if the trace does not time it."""
        first = self._first.get(id(part))
        if self._times is None or first is None:
            return None
        if self._raw is None:
            self._raw = self._times.read_now()
        taken = self._raw[:, 1] - self._raw[:, 0]
        found: dict[int, int] = {}
        for index, of_call in enumerate(part.commands):
            found[index] = int(taken[first : first + len(of_call)].sum())
            first += len(of_call)
        return found

    def end(self) -> None:
        """Give back what a step that failed has not used."""
        if self._timestamps is not None and self._times is not None:
            self._times.give_back(self._timestamps)
            self._timestamps = None

    def _as_planned(self, part: Part) -> _Planned:
        plans = part.plans
        graph = plans.graph
        inputs = {v.id: plans.tensor(v).dims for v in graph.inputs if isinstance(v, Tensor)}
        symints = {s.id: plans.value(s) for s in graph.symints}
        return _Planned(self._trace.number_of(plans), graph, tuple(plans.plans), inputs, symints)

    def _tell(self, times: NDArray[np.int64]) -> None:
        track = Track(self._device.info.name, "queue", self._trace.number_of(self._device))
        named = (each for planned in self._planned for each in planned.dispatches())
        for number, ((name, args), (start, end)) in enumerate(zip(named, times.tolist(), strict=True)):
            flow = self._flow if number == 0 else None
            said = {"submission": self._flow, **args}
            self._trace.add(Span(track, name, DISPATCH, start, end, said, flow))

"""Plans of all calls of a graph, kept true while live dims and SymInts change.

At load every call is planned once at maximum dims. A step then changes the dims or the host value of some inputs;
``update`` plans again exactly those calls whose tensors changed dims or whose watched values changed, in program
order, so a change runs down the graph in one pass. A call's latest plans are kept: steps that take turns between a few
sizes find theirs again.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence, Set
from typing import Any

import numpy as np

from ..errors import Error, InvalidInputError, InvalidProgramError, KernelError
from ..ops.handover import SplitRows
from ..ops.plan import Binding, Derived, OpPlan, Planner, Planning, Prepared
from ..ops.values import Dims, IntLike, LiveSymInt, LiveTensor, SymInt, Tensor, is_same
from .build import Graph, OpCall
from .decoder_layers import FAMILY, Run, find_runs
from .handover import Handover, find_handovers

_CLEAN, _CHECK, _PLAN = 0, 1, 2
_MOST_FOUND = 64  # of what calls have learned from one input, also such as none of their plans depends on any more

# What a plan function runs into when a malformed program hands it the wrong kind of argument.
_ARGUMENT_ERRORS = (TypeError, AttributeError, ValueError, IndexError, KeyError, ArithmeticError)


class _Watch:
    """A value of SymInts that plans depend on: of ``calls``, in order. ``dirty``: a SymInt has changed since.

    While it is dirty, the first of its calls is marked.
    """

    def __init__(self, derived: Derived) -> None:
        self.key, self.sources, self.compute, self.value = derived.key, derived.sources, derived.compute, derived.value
        self.calls: list[int] = []
        self.dirty = False


class LivePlans:
    """The current ``OpPlan`` of every call of one loaded graph, and the live values that plan functions get.

    ``changed`` holds the calls whose plans are newer than what was recorded from them; who records them removes them.
    A step that raises leaves what it touched marked, and what it planned in ``changed``, so the next one goes on there.
    """

    def __init__(self, graph: Graph, planning: Planning) -> None:
        self.graph = graph
        self.prepared: list[Prepared] = []
        self.host_inputs = planning.host_inputs
        self._planning = planning
        self._tensors: dict[int, LiveTensor] = {}
        self._symints: dict[int, LiveSymInt] = {}
        self._args = [tuple(map(self.live, call.args)) for call in graph.calls]
        self._inputs = [[self.tensor(tensor) for tensor in call.inputs] for call in graph.calls]
        self._kept: list[list[tuple[Any, OpPlan]]] = [[] for _ in graph.calls]  # by dims of inputs, the latest last
        self._marks = bytearray(len(graph.calls))
        self._by_tensor: defaultdict[int, set[int]] = defaultdict(set)  # dims of a tensor -> calls
        self._by_source: defaultdict[int, set[int]] = defaultdict(set)  # SymInt or host value -> calls
        self._watches: dict[Hashable, _Watch] = {}
        self._watched: defaultdict[int, set[_Watch]] = defaultdict(set)  # SymInt -> what is watched of it
        self._by_shared: defaultdict[int, set[int]] = defaultdict(set)  # host value -> calls that share what they learn
        for call in graph.calls:
            for tensor in call.inputs:
                self._by_tensor[tensor.id].add(call.index)
        wanted = planning.routes.get(FAMILY) or not planning.features.cpu  # where it may be chosen
        candidates = find_runs(graph) if wanted else []
        self.runs = [run for run in candidates if run.prepare(planning, graph, self._args)]
        self._run_of = {index: run for run in self.runs for index in run.calls}
        handovers = find_handovers(graph, planning, self._args)
        self._readers = {each.out.id: each.reader for each in handovers}
        self._hands_over: defaultdict[int, list[Handover]] = defaultdict(list)  # by who writes
        for each in handovers:
            self._hands_over[each.writer].append(each)
        self.plans = [self._plan(call, building=True) for call in graph.calls]
        for each in handovers:
            self.plans[each.index].past.append((each.x, each.past))
        self.changed = set(range(len(graph.calls)))
        # No value was real yet: the first step plans with all of them, also with those that are what load assumed.
        self._mark({i for i, plan in enumerate(self.plans) if plan.derived or plan.followed}, _PLAN)

    def use_run(self, run: Run, workgroups: int) -> None:
        """Compute single tokens of a run of layers by so many workgroups from the next step on; for 0 by its calls."""
        run.workgroups = workgroups
        for index in run.calls:
            self._kept[index].clear()
        self._mark(run.calls, _PLAN)

    def pipelines(self) -> Iterator[Prepared]:
        """What load must compile: what was prepared for steps to come, and what the current plans dispatch."""
        yield from self.prepared
        yield from ((d.kernel, d.template, d.overrides) for plan in self.plans for d in plan.dispatches)

    def bindings(self) -> Iterator[Binding]:
        """What the current plans bind."""
        return (value for plan in self.plans for d in plan.dispatches for value in d.bindings.values())

    def tensor(self, tensor: Tensor) -> LiveTensor:
        """A tensor of the graph with its current dims."""
        if tensor.id not in self._tensors:
            self._tensors[tensor.id] = LiveTensor(tensor)
        return self._tensors[tensor.id]

    def symint(self, symint: SymInt) -> LiveSymInt:
        """A SymInt of the graph with its current value."""
        if symint.id not in self._symints:
            self._symints[symint.id] = LiveSymInt(symint)
        return self._symints[symint.id]

    def value(self, value: IntLike) -> int:
        """The current value of an int or SymInt."""
        return self.symint(value).value if isinstance(value, SymInt) else value

    def live(self, arg: Any) -> Any:
        """An argument with live values in the place of the graph's."""
        match arg:
            case Tensor():
                return self.tensor(arg)
            case SymInt():
                return self.symint(arg)
            case list():
                return [self.live(item) for item in arg]
        return arg

    def set_dims(self, value: Tensor, dims: Sequence[int]) -> None:
        """Live dims of a graph input."""
        tensor, dims = self.tensor(value), tuple(dims)
        if dims != tensor.dims:
            tensor.dims = dims
            self._mark(self._by_tensor[tensor.id], _PLAN)

    def set_host(self, tensor: Tensor, array: np.ndarray) -> None:
        """This step's value of an integer graph input."""
        live = self.tensor(tensor)
        if live.host is not None and is_same(live.host, array):
            return
        if live.see(array.copy()):  # a caller may change its own
            self._mark(self._by_shared[tensor.id], _CHECK)
        self._mark(self._by_source[tensor.id], _CHECK)

    def set_symint(self, symint: SymInt, value: int) -> None:
        """This step's value of a SymInt that is a graph input."""
        if self.symint(symint).set(value):
            self._moved(symint)

    def update(self) -> None:
        """Plan again what the changes since the last update reach; what dispatches is added to ``changed``."""
        marks, planned = self._marks, False
        if not any(marks):
            return
        index = -1
        while (index := _next_mark(marks, index + 1)) >= 0:
            if marks[index] == _PLAN or self._outdated(index):
                call = self.graph.calls[index]
                plan = self._again(index) or self._plan(call, building=False)
                if plan.alias_of is not self.plans[index].alias_of:
                    raise KernelError(f"{call.name} shared memory with another tensor at load, but not now")
                before, self.plans[index] = self.plans[index], plan
                self._watch(index, plan.derived)
                self._leave(index, before.derived, {derived.key for derived in plan.derived})
                planned = True
                if plan.dispatches or before.dispatches:
                    self.changed.add(index)
            else:
                for symint, tensor, element in self.plans[index].followed:
                    if symint.set(tensor.element_at(element)):
                        self._moved(symint)
            marks[index] = _CLEAN
        if planned:
            self._forget_others()

    def _forget_others(self) -> None:
        """What calls share of inputs is kept as far as their current plans depend on it."""
        full = [live for id in self._by_shared if len((live := self._tensors[id]).found) > _MOST_FOUND]
        if full:
            shared = {derived.shared for plan in self.plans for derived in plan.derived}
            for live in full:
                live.found = {key: found for key, found in live.found.items() if key in shared}

    def _outdated(self, index: int) -> bool:
        """Whether values differ that a call's plan depends on, or are refused: planning with all of them says why."""
        try:
            for derived in self.plans[index].derived:
                if derived.key is None:
                    if derived.compute() != derived.value:
                        return True
                elif (watch := self._watches[derived.key]).dirty:
                    self._settle(watch, watch.compute())
                    if self._marks[index] == _PLAN:
                        return True
        except InvalidInputError:  # by the bounds of the plan before, which may be others now
            return True
        return False

    def _settle(self, watch: _Watch, value: Any) -> None:
        """The value that a watch has now: if it is another one, all its calls are planned again."""
        watch.dirty = False
        if value != watch.value:
            watch.value = value
            self._mark(watch.calls, _PLAN)

    def _watch(self, index: int, derived: Iterable[Derived]) -> None:
        """A call has a plan that depends on these."""
        for each in derived:
            if each.key is None:
                continue
            watch = self._watches.get(each.key)
            if watch is None:
                watch = self._watches[each.key] = _Watch(each)
                for source in each.sources:
                    self._watched[source.id].add(watch)
            self._settle(watch, each.value)
            if index not in watch.calls:
                insort(watch.calls, index)

    def _leave(self, index: int, derived: Iterable[Derived], keys: Set[Hashable]) -> None:
        """A call has no plan any more that depends on these, but for those with one of ``keys``."""
        for key in {each.key for each in derived} - keys - {None}:
            watch = self._watches[key]
            watch.calls.remove(index)
            if not watch.calls:
                del self._watches[key]
                for source in watch.sources:
                    self._watched[source.id].discard(watch)
            elif watch.dirty:
                self._mark(watch.calls[:1], _CHECK)

    def _moved(self, symint: SymInt) -> None:
        """A SymInt has another value."""
        self._mark(self._by_source[symint.id], _CHECK)
        for watch in self._watched[symint.id]:
            watch.dirty = True
            self._mark(watch.calls[:1], _CHECK)

    def _again(self, index: int) -> OpPlan | None:
        """The plan that the call had when all that it depends on was as it is now; its outputs are as it has them."""
        dims, kept = self._dims_of(index), self._kept[index]
        for place in range(len(kept) - 1, -1, -1):
            of_dims, plan = kept[place]
            if of_dims == dims and _holds(plan):
                kept.append(kept.pop(place))
                for tensor, size in plan.sized:
                    if tensor.dims != size:
                        tensor.dims = size
                        self._mark(self._by_tensor[tensor.id], _PLAN)
                for symint, value in plan.symints:
                    if symint.set(value):
                        self._moved(symint)
                self._hand_over(index, plan)
                return plan
        return None

    def _keep(self, index: int, plan: OpPlan) -> None:
        if plan.symints and not plan.dispatches:
            return  # it reads a number, which is another one in each step
        kept = self._kept[index]
        kept.append((self._dims_of(index), plan))
        del kept[: -self._planning.kept_plans]

    def _dims_of(self, index: int) -> tuple[tuple[Dims, SplitRows | None], ...]:
        return tuple([(tensor.dims, tensor.split) for tensor in self._inputs[index]])

    def _mark(self, calls: Iterable[int], mark: int) -> None:
        marks = self._marks
        for index in calls:
            if marks[index] < mark:
                marks[index] = mark

    def _plan(self, call: OpCall, building: bool) -> OpPlan:
        may_alias = building or self.plans[call.index].alias_of is not None
        planner = Planner(self._planning, building, may_alias, self._readers)
        try:
            planner.plan(call.op, self._args[call.index])
            self._plan_run(planner, call)
        except InvalidInputError as error:
            if not building:
                raise
            raise InvalidProgramError(f"call {call.index}, {call.name}: {error}") from error
        except Error as error:
            raise type(error)(f"call {call.index}, {call.name}: {error}") from error
        except _ARGUMENT_ERRORS as error:
            if not building:
                raise
            raise InvalidProgramError(
                f"call {call.index}, {call.name}, has arguments that do not fit the operator ({error})"
            ) from error
        finally:
            self._mark_readers(planner.result)
        plan = planner.result
        self._hand_over(call.index, plan)
        if building:
            self._check_sized(call, plan)
            self.prepared.extend(planner.prepared)
            self._watch(call.index, plan.derived)
        else:
            self._keep(call.index, plan)
        for _, tensor, _ in plan.followed:
            self._by_source[tensor.id].add(call.index)
        for derived in plan.derived:
            by_source = self._by_source if derived.shared is None else self._by_shared
            for source in derived.sources if derived.key is None else ():
                by_source[source.id].add(call.index)
        return plan

    def _plan_run(self, planner: Planner, call: OpCall) -> None:
        """What becomes of a plan whose call is one of decoder layers."""
        run = self._run_of.get(call.index)
        if run is None:
            return
        if planner.building and call.index == run.last:
            run.build(planner)
        elif not planner.building and run.workgroups and run.is_one_token:
            run.replace(planner, call.index)

    def _hand_over(self, index: int, plan: OpPlan) -> None:
        """What a call reads is as a plan of its writer leaves it; if it was otherwise, the call is planned again."""
        for each in self._hands_over.get(index, ()):
            split = plan.splits.get(each.out.id)
            if each.x.split != split:
                each.x.split = split
                self._mark([each.index], _PLAN)

    def _mark_readers(self, plan: OpPlan) -> None:
        """Mark who reads what this plan changed; also a plan that was refused half-way, for the values have changed."""
        for value in plan.changed:
            if isinstance(value, LiveTensor):
                self._mark(self._by_tensor[value.id], _PLAN)
            else:
                self._moved(value)

    @staticmethod
    def _check_sized(call: OpCall, plan: OpPlan) -> None:
        sized = {t.id for t, _ in plan.sized}
        for out in call.outputs:
            if out.id not in sized:
                raise KernelError(f"{call.name} does not state the dims of its output {out}")


def _next_mark(marks: bytearray, start: int) -> int:
    """The first place from ``start`` on that is marked; negative if none is."""
    checked, planned = marks.find(_CHECK, start), marks.find(_PLAN, start)
    return min(checked, planned) if min(checked, planned) >= 0 else max(checked, planned)


def _holds(plan: OpPlan) -> bool:
    """Whether the watched values of a plan are what they were."""
    try:
        return all(derived.compute() == derived.value for derived in plan.derived)
    except InvalidInputError:  # planning says why
        return False

"""The planner: what a plan function talks to while it turns one operator call into dispatches.

Everything that a plan function learns from a live value goes through here, so the graph knows exactly when the
plan may change:

* dims of its input tensors: always watched;
* ``planner.value(x)``: the value of an int or SymInt; the call is planned again when it changes;
* ``planner.derive(fn, *values)``: only ``fn``'s result is watched, so a bound or a rounded grid size that stays the
  same costs nothing per step; ``fn`` may raise to reject a value; ``planner.inspect`` does the same for an integer
  input;
* a SymInt used as a *binding* is not watched at all: the kernel reads it from its live uniform.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from ..errors import InvalidInputError, KernelError, LimitError, UnsupportedProgramError
from ..gpu.capabilities import Features, Limits
from .handover import Reader, SplitRows
from .registry import Op
from .sizes import Size, Sizes, stated
from .values import Dims, IntLike, Joined, Kept, LiveSymInt, LiveTensor, Repacked, Scratch, SymInt, Tensor

SCRATCH_BYTES = 64 * 2**20  # enough for a few hundred rows of scores at long contexts
MATMUL_PRECISIONS = ("highest", "high")  # names as in torch.set_float32_matmul_precision

T = TypeVar("T")
Number = int | float | bool
Grid = tuple[int, int, int]


# A pipeline to make at load: kernel, template values, overrides.
Prepared = tuple[str, Mapping[str, Any], Mapping[str, Number]]

Binding = Tensor | Scratch | Repacked | Joined | Kept | SymInt | int


@dataclass(frozen=True)
class Dispatch:
    """One kernel launch: which WGSL, over how many workgroups, on what."""

    kernel: str
    grid: Grid
    bindings: Mapping[str, Binding]
    params: Mapping[str, Any]
    overrides: Mapping[str, Number]
    template: Mapping[str, Any]


@dataclass(frozen=True)
class Derived:
    """A watched value: ``compute()`` gave ``value`` when the call was planned, from SymInts or integer inputs.

    ``key``: equal where other calls watch the same function of the same SymInts; None where that is not known.
    ``shared``: what it is called, where other calls have learned the same of the one integer input.
    """

    sources: tuple[SymInt | Tensor, ...]
    compute: Callable[[], Any]
    value: Any
    key: Hashable = None
    shared: Hashable = None


@dataclass(eq=False)
class OpPlan:
    """What one operator call does at the current live values."""

    dispatches: list[Dispatch] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    symints: list[tuple[LiveSymInt, int]] = field(default_factory=list)  # that it sets, with their values
    followed: list[tuple[LiveSymInt, LiveTensor, int]] = field(default_factory=list)  # that are elements of inputs
    sized: list[tuple[LiveTensor, Dims]] = field(default_factory=list)  # its outputs, with their dims
    changed: list[LiveSymInt | LiveTensor] = field(default_factory=list)  # those that were not so before
    read_on_host: list[Tensor] = field(default_factory=list)  # integer inputs whose elements it has asked for
    held: list[Tensor] = field(default_factory=list)  # besides its arguments, what it reads
    past: list[tuple[Tensor, int]] = field(default_factory=list)  # bytes behind a tensor that it may read
    splits: dict[int, SplitRows] = field(default_factory=dict)  # by id, outputs that it leaves so to their ``Reader``
    alias_of: Tensor | None = None
    adopted: bool = False  # the alias is the constant itself, state included
    route: str | None = None


@dataclass(frozen=True)
class Planning:
    """What all calls of one graph share.

    ``routes`` forces a route by operator family; ``scratch_bytes`` bounds the scratch memory that a blocked route may
    ask for; ``matmul_precision`` is one of ``MATMUL_PRECISIONS``; ``tunings`` replaces tunings of kernels by name, for
    tests and benchmarks; ``kept_plans`` of each call are found again; ``splits``: calls may leave their results as
    float16 to those that read them so. The graph fills in the rest: ``no_alias``, ids of outputs that must be copies,
    since someone writes their memory, ``host_inputs``, ids of the integer inputs, which the host can read,
    ``read_only``, ids of the constants that are never written, ``prepacked``, those that are not either, by the ids of
    what they are called then, and ``families``, what has routes.
    """

    features: Features
    limits: Limits
    routes: Mapping[str, str] = field(default_factory=dict)
    scratch_bytes: int = SCRATCH_BYTES
    matmul_precision: str = "highest"
    tunings: Mapping[str, object] = field(default_factory=dict)
    kept_plans: int = 24
    splits: bool = True
    no_alias: frozenset[int] = frozenset()
    host_inputs: frozenset[int] = frozenset()
    read_only: frozenset[int] = frozenset()
    prepacked: Mapping[int, Tensor] = field(default_factory=dict)
    families: set[str] = field(default_factory=set)


class Planner:
    """Collects the plan of one operator call.

    ``building`` is true at load, when dims are the maximum ones. Later, ``may_alias`` says whether the call's output
    became an alias then: where tensors lie does not change any more. ``readers``: by id, of outputs that have one.
    """

    def __init__(
        self,
        shared: Planning,
        building: bool,
        may_alias: bool,
        readers: Mapping[int, Reader] = MappingProxyType({}),
    ) -> None:
        self.features = shared.features
        self.limits = shared.limits
        self.scratch_bytes = min(shared.scratch_bytes, shared.limits.max_binding_bytes)
        self.matmul_precision = shared.matmul_precision
        self.rounds = shared.matmul_precision != "highest"  # products may take operands of float16
        self.building = building
        self.result = OpPlan()
        self.prepared: list[Prepared] = []
        self._shared = shared
        self._may_alias = may_alias
        self._readers = readers
        self._scratch_count = 0
        self._values: dict[int, int] = {}  # of SymInts that are watched, by id

    def plan(self, op: Op, args: Sequence[Any]) -> None:
        """Plan a call of ``op`` with these live arguments."""
        self.begin(op, args)
        op.plan(self, *args)

    def begin(self, op: Op, args: Sequence[Any]) -> None:
        """What follows is about a call of ``op`` with these live arguments."""
        self._op, self._args = op, args

    # -- live values ------------------------------------------------------------------------------------------------

    def derive(self, fn: Callable[..., Any], *values: IntLike) -> Any:
        """``fn`` of the current values; the call is planned again only when the result changes."""
        compute = _bound(fn, values)
        result = compute()
        self._watch(values, compute, result, _key(fn, values))
        return result

    def defer(self, fn: Callable[..., Any], *values: IntLike) -> None:
        """Like ``derive`` where the values mean nothing yet, at load: the first step computes ``fn``."""
        self._watch(values, _bound(fn, values), None)

    def value(self, value: SymInt | T) -> int | T:
        """The current value of a number or SymInt; the call is planned again when it changes."""
        if not isinstance(value, SymInt):
            return value
        if value.id not in self._values:
            self._values[value.id] = self.derive(lambda v: v, value)
        return self._values[value.id]

    def values(self, values: Sequence[IntLike]) -> tuple[int, ...]:
        return tuple(self.value(v) for v in values)

    def require(self, low: int, value: IntLike, high: int, what: str) -> None:
        """Reject the step (InvalidInputError) whenever ``value`` is outside ``[low, high]``."""

        def check(v: int) -> bool:
            if not low <= v <= high:
                raise InvalidInputError(f"{what} is {v}, but it must be between {low} and {high}")
            return True

        self.derive(check, value)

    def inspect(self, x: Tensor, fn: Callable[[np.ndarray | None], Any], key: Hashable = None) -> Any:
        """``fn`` of an integer graph input as the caller gave it, watched like ``derive``.

        ``fn`` gets None at load, and for a tensor that the host does not see. Calls that give the same ``key`` share
        one answer a step.
        """
        if x.id not in self._shared.host_inputs:
            return fn(None)
        assert isinstance(x, LiveTensor)
        result = x.learn(fn, key)
        self.result.derived.append(Derived((x,), lambda: x.learn(fn, key), result, shared=key))
        return result

    def follow(self, out: SymInt, x: Tensor, index: int) -> None:
        """Give ``out`` element ``index`` (flat) of an integer graph input; 0 at load. Others cannot be read here.

        In later steps, too, without planning again as long as the dims of ``x`` are the same.
        """
        self.check(
            x.id in self._shared.host_inputs, f"tensor {x} is read on the host, but is no integer input of the program"
        )
        assert isinstance(x, LiveTensor) and isinstance(out, LiveSymInt)
        self.result.read_on_host.append(x)
        self.result.followed.append((out, x, index))
        self.set(out, x.element_at(index))

    def set(self, out: SymInt, value: int) -> None:
        """Give an output SymInt its value for this step."""
        assert isinstance(out, LiveSymInt)
        self.result.symints.append((out, value))
        if out.set(value):
            self.result.changed.append(out)

    def check(self, condition: bool, message: str) -> None:
        """Refuse the call with ``message`` unless ``condition``: at load the program's fault, later the input's."""
        if not condition:
            raise UnsupportedProgramError(message) if self.building else InvalidInputError(message)

    # -- outputs ----------------------------------------------------------------------------------------------------

    def dims_of(self, out: Tensor) -> Dims:
        """The live dims of an output, as the operator's rule of sizes states them."""
        dims = self._stated.get(out.id)
        if dims is None or None in dims:
            raise KernelError(f"the dims of {out} do not follow from the sizes of {self._op.name}: {dims}")
        return dims

    @cached_property
    def _stated(self) -> dict[int, Any]:
        rule = self._op.sizes
        return {o.id: dims for o, dims in stated(_LiveSizes(self), rule, self._args)} if rule is not None else {}

    def resize(self, out: Tensor, dims: Sequence[int] | None = None) -> None:
        """State the live dims of an output, by default as ``dims_of`` it; they must fit in its capacity."""
        # A program may hold a bool where a size is meant.
        dims = tuple(int(d) for d in (self.dims_of(out) if dims is None else dims))
        if len(dims) != len(out.max_dims) or any(d > m or d < 0 for d, m in zip(dims, out.max_dims, strict=True)):
            raise InvalidInputError(
                f"result {out} would have dims {list(dims)}, but the program planned at most {list(out.max_dims)}"
            )
        assert isinstance(out, LiveTensor)
        self.result.sized.append((out, dims))
        if dims != out.dims:
            out.dims = dims
            self.result.changed.append(out)

    def alias(self, out: Tensor, x: Tensor) -> bool:
        """Let ``out`` share the memory of ``x``, if neither is written; False means: dispatch a copy."""
        if not self._may_alias or out.id in self._shared.no_alias or out.dtype != x.dtype:
            return False
        if out.max_nbytes > x.max_nbytes:  # bounds of live sizes may be further apart than the sizes
            return False
        self.result.alias_of = x
        return True

    def adopt(self, out: Tensor, constant: Tensor) -> None:
        """Let ``out`` be the constant itself: what is written to ``out`` stays there for the next call."""
        self.check(constant.constant is not None, f"tensor {constant} is prepacked, but it is not a constant")
        self.result.alias_of, self.result.adopted = constant, True

    def reader(self, out: Binding) -> Reader | None:
        """Who may be left ``out`` in a form of its own, as ``result.splits`` then says."""
        return self._readers.get(out.id) if isinstance(out, Tensor) else None

    def is_constant(self, x: Tensor) -> bool:
        """Whether ``x`` holds what the file says, always, so that a ``Repacked`` may be made of it."""
        return x.id in self._shared.read_only

    def constant_of(self, x: Tensor) -> Tensor | None:
        """The constant that ``x`` is, under whatever name, if ``is_constant`` would hold for it."""
        return x if self.is_constant(x) else self._shared.prepacked.get(x.id)

    # -- work -------------------------------------------------------------------------------------------------------

    def scratch(self, nbytes: int) -> Scratch:
        """A buffer for this call's own use. Its contents are undefined; the next call may overwrite it."""
        index = self._scratch_count
        self._scratch_count += 1
        return Scratch(index, max(16, (nbytes + 15) // 16 * 16))

    def dispatch(
        self,
        kernel: str,
        grid: Sequence[int],
        bindings: Mapping[str, Binding],
        params: Mapping[str, Any] | None = None,
        *,
        overrides: Mapping[str, Number] | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """Run ``kernel`` ("family/stem" of its .wgsl) over ``grid`` workgroups, after everything dispatched before.

        ``bindings`` are named as in the WGSL; a SymInt or int binds a live uniform, a Repacked what load makes of it.
        An empty grid runs nothing.
        """
        x, y, z = (int(n) for n in (*grid, 1, 1)[:3])
        if 0 in (x, y, z):
            self.prepare(kernel, overrides=overrides, template=template)
            return
        if max(x, y, z) > self.limits.max_workgroups:
            raise LimitError(
                f"kernel {kernel} needs a grid of {x}x{y}x{z} workgroups; "
                f"the adapter allows {self.limits.max_workgroups} a dimension"
            )
        self.result.dispatches.append(
            Dispatch(kernel, (x, y, z), dict(bindings), dict(params or {}), dict(overrides or {}), dict(template or {}))
        )

    def prepare(
        self,
        kernel: str,
        *,
        overrides: Mapping[str, Number] | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """Have the pipeline of another route made at load, so that no later step compiles."""
        if self.building:
            self.prepared.append((kernel, dict(template or {}), dict(overrides or {})))

    def grid_1d(self, invocations: int, workgroup_size: int) -> Grid:
        """Workgroups for a flat index space, folded into y where x would pass the limit (``linear_index`` unfolds)."""
        groups = math.ceil(invocations / workgroup_size)
        if groups <= self.limits.max_workgroups:
            return (groups, 1, 1)
        rows = math.ceil(groups / self.limits.max_workgroups)
        return (math.ceil(groups / rows), rows, 1)

    def tuning(self, kernel: str, default: T) -> T:
        """How a kernel is tuned: ``default``, or what a test or a benchmark put in its place."""
        tuning = self._shared.tunings.get(kernel, default)
        if not isinstance(tuning, type(default)):
            raise KernelError(f"a tuning of {kernel} is a {type(default).__name__}, not {tuning!r}")
        return tuning

    def choose(self, family: str, routes: Mapping[str, bool]) -> str:
        """The first route whose predicate holds, or the one that the user forced; the name shows in reports."""
        forced = self._shared.routes.get(family)
        self._shared.families.add(family)
        if forced is not None:
            if forced not in routes:
                raise KernelError(f"{family} has no route {forced!r}; it has {', '.join(routes)}")
            if not routes[forced]:
                raise KernelError(f"route {forced!r} of {family} cannot run this call")
            route = forced
        else:
            route = next(name for name, fits in routes.items() if fits)
        self.result.route = route
        return route

    def _watch(self, values: Sequence[IntLike], compute: Callable[[], Any], result: Any, key: Hashable = None) -> None:
        symints = tuple(v for v in values if isinstance(v, SymInt))
        if symints:
            self.result.derived.append(Derived(symints, compute, result, key))


class _LiveSizes(Sizes):
    """The live sizes of a call that is planned: all are numbers."""

    def __init__(self, planner: Planner) -> None:
        self._g = planner

    def of(self, tensor: Tensor) -> Dims:
        return tensor.dims

    def value(self, size: IntLike) -> int:
        return self._g.value(size)

    def equate(self, above: Iterable[Size], below: Iterable[Size]) -> None:
        """Nothing: what must be equal, the plan function checks."""


def _bound(fn: Callable[..., Any], values: Sequence[IntLike]) -> Callable[[], Any]:
    """``fn`` of whatever the values are when it is called."""
    return lambda: fn(*(v.value if isinstance(v, SymInt) else v for v in values))


def _key(fn: Callable[..., Any], values: Sequence[IntLike]) -> Hashable:
    """What is equal for functions of one code that have captured equal values, and for the same SymInts."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return None
    captured = tuple(cell.cell_contents for cell in fn.__closure__ or ())
    key = code, captured, fn.__defaults__, tuple(id(v) if isinstance(v, SymInt) else v for v in values)
    try:
        hash(key)
    except TypeError:
        return None
    return key

"""Draws random graphs of any registered operators.

What a call looks like is said by the operator's samples (tests/ops/samples.py): each of them is taken with other dims,
other dtypes and other tensors in the place of its own, as far as its reference and its plan take them in all steps. So
an operator that has a sample is drawn, and nothing has to be written for it here.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from executorch_webgpu.errors import InvalidInputError, InvalidProgramError, LimitError, UnsupportedProgramError
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.graph.build import Graph, OpCall, build_graph, make_call
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.reference import REFUSALS, References
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.registry import Op, find
from executorch_webgpu.ops.values import ELEMENT_TYPES, SymInt, Tensor
from tests.ops.dtypes import dtypes_of, variant
from tests.ops.harness import Const, In, Mutable, Out, Sym
from tests.ops.samples import SAMPLES, Input, Position, Sample, numbers

from .graphs_model import SYMINT, Call, Dims, RandomGraph, Value, flat

STEPS = 4
SIZES = (1, 2, 3, 4, 5, 7, 8, 11, 13)
MOST_ELEMENTS = 20_000
WILD = 0.15
# Families that multiply by 0 what does not count, which makes NaN of what is not finite.
# Families whose constants follow from each other: they keep their sizes.
FIXED = {"linear_quantized", "q8ta"}
TAME = {"attention", "convolution", "fused_linear", "linear", "linear_quantized", "matmul"}
TAME |= {"norm", "quantize", "resample", "rope", "sampling", "training"}
LARGEST = 1e4  # what grows further would hide small errors
REFUSED = (InvalidInputError, InvalidProgramError, LimitError, UnsupportedProgramError)
DIM_ARGUMENTS = {"dim", "dim0", "dim1", "axis"}
# Prepacked constants and live integers, of which no random value is made; rows, of which no two may have one place.
UNDRAWN = {"et_vk.prepack.default", "et_vk.select_as_symint.default"}
UNDRAWN |= {"et_webgpu.paged_sdpa.default", "et_webgpu.rope_paged_sdpa.default"}
_REFERENCES = References(Graph((), (), (), (), {}))

Sizes = tuple[int, ...]  # of one dimension, by step


class RejectedError(Exception):
    """A call that was drawn does not work, which may be so."""


class WrongPlanError(Exception):
    """A plan gives other dims than the reference."""


@functools.cache
def samples_of(op: str) -> tuple[Sample, ...]:
    """The samples of an operator, whatever route they are for."""
    return tuple({id(s.args): replace(s, options={}) for s in SAMPLES if s.op == op}.values())


@functools.cache
def variant_of(op: str, index: int, old: str, new: str) -> Sample | None:
    """A sample with another dtype, if its operator takes that."""
    return variant(samples_of(op)[index], old, new)


def drawn_operators() -> list[str]:
    """The operators that graphs are made of."""
    return sorted({sample.op for sample in SAMPLES} - UNDRAWN)


def draw(seed: Sequence[int], calls: int, operators: Sequence[str] | None = None) -> RandomGraph:
    """A graph of ``calls`` calls; the same one for the same seed and operators."""
    drawing = _Drawing(np.random.default_rng(list(seed)))
    names = list(operators or drawn_operators())
    for _ in range(60 * calls):
        if len(drawing.calls) == calls:
            break
        drawing.add(names[drawing.random.integers(len(names))])
    return drawing.graph()


_RANKS = {0: 0.05, 1: 0.14, 2: 0.3, 3: 0.2, 4: 0.15, 5: 0.08, 6: 0.05, 8: 0.03}


@dataclass
class _Drawing:
    random: np.random.Generator
    values: list[Value] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    wild: bool = False  # some inputs have elements that are NaN, infinite or zero, and some steps have none

    def __post_init__(self) -> None:
        self.wild = self.random.random() < WILD
        for dtype in ("float32", "float32", str(self.random.choice(list(ELEMENT_TYPES)))):
            rank = int(self.random.choice(list(_RANKS), p=list(_RANKS.values())))
            dims = tuple(self._sizes() for _ in range(rank))
            if math.prod(max(sizes) for sizes in dims) <= 2000:
                self.values.append(self._input(dims, dtype, -2, 2))

    def graph(self) -> RandomGraph:
        """What was drawn; what nobody reads is an output, and some of the rest."""
        read = {id(value) for call in self.calls for value in call.reads}
        results = [value for call in self.calls for value in call.results]
        outputs = [v for v in results if id(v) not in read or self.random.random() < 0.2]
        return RandomGraph(tuple(self.calls), tuple(outputs))

    def add(self, op: str) -> None:
        """Try a call of an operator."""
        operator = find(op)
        assert operator is not None
        if self.wild and (operator.plan.__module__.split(".")[2] in TAME or "_mean." in op):
            return
        index = int(self.random.integers(len(samples_of(op))))
        sample = samples_of(op)[index]
        dtypes = dtypes_of(sample)
        if dtypes and self.random.random() < 0.5:
            old, new = str(self.random.choice(dtypes)), str(self.random.choice(list(ELEMENT_TYPES)))
            sample = variant_of(op, index, old, new) or sample
        before = len(self.values)
        fixed = operator.plan.__module__.split(".")[2] in FIXED
        for plain in (True,) if fixed else (False, False, True):
            try:
                return self._try(sample, plain)
            except RejectedError:
                del self.values[before:]
        self.rejected[op] += 1

    # -- arguments ----------------------------------------------------------------------------------------------------

    def _try(self, sample: Sample, plain: bool) -> None:
        """``plain``: with the sizes of the sample."""
        operator = find(sample.op)
        assert operator is not None
        binding = _Binding(self, operator, self._wishes(sample, plain), plain)
        if plain:
            binding.sizes |= binding.wishes
        args = [binding.bind(name, arg) for name, arg in zip(operator.parameters, sample.args, strict=False)]
        if binding.made and not binding.chosen and self.calls and not plain:
            raise RejectedError  # it would stand alone
        outs: list[Out] = list(flat([sample.out]))
        results = _evaluated(operator, args, sample.out, self.wild)
        exact = all(v.exact and "float" not in v.dtype for v in flat(args) if isinstance(v, Value))
        # As large as they become, or as an exporter would plan them, which sees no live integer.
        largest = [_largest(steps) for steps in results]
        planned = [binding.capacity(dims, out.max_dims) for dims, out in zip(largest, outs, strict=True)]
        for capacity in dict.fromkeys([tuple(largest), tuple(planned)]):
            made = [
                Value(out.dtype, tuple(steps), "result", dims, exact)
                for out, steps, dims in zip(outs, results, capacity, strict=True)
            ]
            call = Call(sample.op, tuple(args), made if isinstance(sample.out, list) else made[0])
            try:
                self._check_plan(call)
            except RejectedError:
                continue
            self.calls.append(call)
            self.values += made
            return
        raise RejectedError

    def _wishes(self, sample: Sample, plain: bool) -> dict[int, Sizes]:
        """What becomes of the sample's sizes: live ones stay live, and some of the others change unless ``plain``."""
        found: dict[int, Sizes] = {}
        for arg in flat(sample.args):
            dims = tuple(arg.array.shape) if isinstance(arg, Const | Mutable) else getattr(arg, "max_dims", ())
            live = arg.live if isinstance(arg, Input) and arg.live is not None else dims
            for size, least in zip(dims, live, strict=True):
                if size != least:
                    between = [int(self.random.integers(min(size, least), max(size, least) + 1)) for _ in range(STEPS)]
                    found[size] = (size, least, *between[2:-1], size)
                elif plain or size == 1:
                    found.setdefault(size, (size,) * STEPS)
                elif size not in found and self.random.random() < 0.3:
                    found[size] = (int(self.random.choice(SIZES[1:])),) * STEPS
        return found

    def choose(self, fits: Callable[[Value], bool]) -> Value | None:
        """A value that fits, most likely one of the last, or a new reader of an old one."""
        found = [value for value in self.values if fits(value)]
        if not found or self.random.random() < 0.1:
            return None
        return found[-1 - min(int(self.random.geometric(0.4)) - 1, len(found) - 1)]

    def _sizes(self) -> Sizes:
        """The sizes of a dimension: the same in all steps, or shrinking and growing."""
        most = int(self.random.choice(SIZES))
        if self.random.random() < 0.5:
            return (most,) * STEPS
        least = 0 if self.wild and self.random.random() < 0.3 else 1
        return (most, *(int(n) for n in self.random.integers(least, most + 1, STEPS - 2)), most)

    def _input(self, dims: Sequence[Sizes], dtype: str, low: float, high: float) -> Value:
        by_step = [tuple(sizes[step] for sizes in dims) for step in range(STEPS)]
        if max(map(math.prod, by_step)) > MOST_ELEMENTS:
            raise RejectedError
        arrays = tuple(numbers(self.random, step, dtype, low, high) for step in by_step)
        if self.wild and "float" in dtype:
            for array in arrays:
                places = self.random.random(array.shape) < 0.1
                array[places] = self.random.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], int(places.sum()))
        return Value(dtype, arrays, "input", _largest(arrays))

    def _check_plan(self, call: Call) -> None:
        """Raises RejectedError unless the graph can be planned, for every step, with the call as its last one."""
        graph = RandomGraph((*self.calls, call), tuple(call.results))
        try:
            built = build_graph(graph.described())
            plans = plan_graph(built, Planning(Features.none(), Limits.floor()))
            for step in range(STEPS):
                for value, given in zip(built.inputs, graph.given(step), strict=True):
                    assert isinstance(value, Tensor)
                    plans.set_dims(value, given.shape)
                    if value.dtype == "int32":
                        plans.set_host(value, given)
                plans.update()
                for made, value in zip(call.results, built.calls[-1].writes, strict=True):
                    planned = plans.tensor(value).dims if isinstance(value, Tensor) else plans.value(value)
                    wanted = made.steps[step] if isinstance(value, SymInt) else made.dims[step]
                    if planned != wanted:
                        raise WrongPlanError(
                            f"{call.op}: the plan gives {planned} where the reference gives {wanted}, in step {step} "
                            f"of\n{graph}"
                        )
        except REFUSED as error:
            raise RejectedError from error


@dataclass
class _Binding:
    """Arguments of one call: values in the place of a sample's tensors, as far as their dims agree with each other."""

    drawing: _Drawing
    operator: Op
    wishes: dict[int, Sizes]  # by sizes of the sample: what they become where nothing says otherwise
    plain: bool  # all sizes are the sample's own
    sizes: dict[int, Sizes] = field(default_factory=dict)  # what they have become
    chosen: int = 0  # values that were there
    made: int = 0

    def bind(self, name: str, arg: Any) -> Any:
        random = self.drawing.random
        match arg:
            case In():
                low, high = (arg.low, arg.high) if isinstance(arg, Input) else (-2, 2)
                live = arg.live if isinstance(arg, Input) and arg.live is not None else arg.max_dims
                if name in self.operator.mutates:  # nobody else may read what is written
                    return self.drawing._input(self.sizes_of(arg.max_dims), arg.dtype, low, high)
                return self._tensor(arg.max_dims, live, arg.dtype, low, high)
            case Const() | Mutable():
                return self._constant(arg)
            case Sym():
                return self._live(arg)
            case list():
                return [self.bind(name, item) for item in arg]
            case bool():
                return arg
            case int() if name in DIM_ARGUMENTS and random.random() < 0.4:
                return int(random.integers(-3, 3))
            case int() if len(set(self.sizes.get(arg, ()))) == 1 and random.random() < 0.9:
                return self.sizes[arg][0]
        return arg

    def capacity(self, largest: Dims, dims: Sequence[int]) -> Dims:
        """Dims that hold ``largest`` and what the sample's ``dims`` have become."""
        if len(largest) != len(dims):
            return largest
        return tuple(max(n, *sizes) for n, sizes in zip(largest, self.sizes_of(dims), strict=True))

    def sizes_of(self, dims: Sequence[int]) -> list[Sizes]:
        """What sizes of the sample have become; from now on they are that."""
        return [self.sizes.setdefault(n, self.wishes.get(n, (n,) * STEPS)) for n in dims]

    def _tensor(self, dims: Sequence[int], live: Sequence[int], dtype: str, low: float, high: float) -> Value:
        if "float" not in dtype and (of_size := self.sizes.get(int(high) + 1)):  # an index
            high = min(of_size) - 1
            if high < 0:
                raise RejectedError  # nothing to take one of
        elementwise = self.operator.elementwise
        any_rank = elementwise or self.drawing.random.random() < 0.3

        def fits(value: Value) -> bool:
            if value.dtype != dtype or value.kind == "state" or not (any_rank or len(value.max_dims) == len(dims)):
                return False
            if "float" not in dtype and low >= 0 and not (value.exact and _within(value, low, high)):
                return False
            return elementwise or self._agreed(value, dims) is not None

        chosen = self.drawing.choose(fits)
        if chosen is not None:
            self.sizes |= self._agreed(chosen, dims) or {}
            self.chosen += 1
            return chosen
        self.made += 1
        sizes = self.sizes_of(dims)
        if self.plain:  # equal sizes need not have to do with each other
            sizes = [wanted if n != least else (n,) * STEPS for wanted, n, least in zip(sizes, dims, live, strict=True)]
        value = self.drawing._input(sizes, dtype, low, high)
        self.drawing.values.append(value)
        return value

    def _agreed(self, value: Value, dims: Sequence[int]) -> dict[int, Sizes] | None:
        """The sample's sizes if ``value`` stands for its tensor [``dims``]; None if they are others already."""
        found: dict[int, Sizes] = {}
        for axis, size in enumerate(reversed(dims)):
            if axis >= len(value.max_dims):
                break
            actual = tuple(step[-1 - axis] for step in value.dims)
            if found.setdefault(size, self.sizes.get(size, actual) if size > 1 else actual) != actual:
                return None
        return found

    def _constant(self, arg: Const | Mutable) -> Value:
        sizes = [(n,) * STEPS for n in arg.array.shape] if self.plain else self.sizes_of(arg.array.shape)
        dims = tuple(s[0] for s in sizes)
        if any(len(set(s)) > 1 for s in sizes) or math.prod(dims) > MOST_ELEMENTS:
            raise RejectedError
        dtype = str(arg.array.dtype)
        array = np.resize(arg.array, dims)
        if array.ndim == 1 and np.array_equal(arg.array, np.sort(arg.array)):  # bounds of something
            array = np.sort(array)
        array = array.astype(ELEMENT_TYPES[dtype].numpy)
        return Value(dtype, (array,) * STEPS, "state" if isinstance(arg, Mutable) else "constant", dims)

    def _live(self, arg: Sym) -> Value:
        chosen = self.drawing.choose(lambda value: value.dtype == SYMINT)
        if chosen is not None and self.drawing.random.random() < 0.5:
            return chosen
        full, live = (arg.full, arg.live) if isinstance(arg, Position) else (1, 1)
        low, high = min(full, live), max(full, live)
        between = self.drawing.random.integers(low, high + 1, STEPS - 2)
        value = Value(SYMINT, (full, *(int(n) for n in between[:-1]), live, full)[:STEPS], "input")
        self.drawing.values.append(value)
        return value


def _evaluated(operator: Op, args: Sequence[Any], out: Any, wild: bool) -> list[list[Any]]:
    """What a call gives, by output and step, as it lies in device buffers. Raises RejectedError."""
    values = dict.fromkeys(value for value in flat(args) if isinstance(value, Value))
    made: dict[Any, Any] = {v: _graph_value(i, v.dtype, v.max_dims) for i, v in enumerate(values)}
    targets = [_graph_value(-1 - i, o.dtype, o.max_dims) for i, o in enumerate(flat([out]))]
    call = make_call(
        operator.name, (*(_put(arg, made) for arg in args), targets if isinstance(out, list) else targets[0])
    )
    states = {t.id: _REFERENCES.wide(v.steps[0], t).copy() for v, t in made.items() if v.kind == "state"}
    found: list[list[Any]] = [[] for _ in targets]
    for step in range(STEPS):
        given = {t.id: _wide(v.steps[step], t) for v, t in made.items()} | states
        try:
            with np.errstate(all="ignore"):
                _check_range(call, given, wild)
                _check_order(call, given)
                results = _REFERENCES.results(call, given)
        except (*REFUSALS, AssertionError) as error:  # plans check before references assume
            raise RejectedError from error
        for steps, result, target in zip(found, results, targets, strict=True):
            steps.append(result if isinstance(target, SymInt) else np.asarray(result).astype(target.element.numpy))
    return found


def _check_range(call: OpCall, given: Mapping[int, Any], wild: bool) -> None:
    """Raises RejectedError for numbers that are large, or no numbers of the dtype, or not finite unless ``wild``."""
    copies = {id: np.copy(value) if isinstance(value, np.ndarray) else value for id, value in given.items()}
    results = call.op.reference(*(_put(arg, copies) for arg in call.args[:-1]))
    for target, result in zip(call.writes, results if isinstance(call.args[-1], list) else [results], strict=True):
        array = np.asarray(result)
        if not array.size:
            continue
        finite = np.isfinite(array)
        if not finite.all() and not (wild and isinstance(target, Tensor) and "float" in target.dtype):
            raise RejectedError
        if np.abs(array[finite].astype(np.float64)).max(initial=0) > LARGEST:
            raise RejectedError
        span = target.element.integer_limits if isinstance(target, Tensor) else None
        # An operator with a dtype casts its inputs first, and C++ leaves open what floats beyond its integers become.
        cast = [given[tensor.id] for tensor in call.inputs] if "dtype" in call.op.parameters else []
        for values in (array, *cast):
            if span is not None and values.size and not span[0] <= values.min() <= values.max() <= span[1]:
                raise RejectedError
        of_bools = isinstance(target, Tensor) and {target.dtype, *(t.dtype for t in call.inputs)} == {"bool"}
        if of_bools and (array.dtype.kind == "f" or not 0 <= array.min() <= array.max() <= 1):
            raise RejectedError  # arithmetic that gives no bools in torch
        if array.size > MOST_ELEMENTS:
            raise RejectedError


def _check_order(call: OpCall, given: Mapping[int, Any]) -> None:
    """Raises RejectedError for boundaries that are not sorted: what is found in those is nobody's promise."""
    boundaries, sorter = call.named.get("boundaries"), call.named.get("sorter")
    if isinstance(boundaries, Tensor):
        values = given[boundaries.id]
        if isinstance(sorter, Tensor):
            values = np.take_along_axis(values, given[sorter.id], axis=-1)
        if np.any(~(values[..., 1:] >= values[..., :-1])):
            raise RejectedError


def _graph_value(id: int, dtype: str, dims: Sequence[int]) -> Tensor | SymInt:
    return SymInt(id) if dtype == SYMINT else Tensor(id, dtype, tuple(dims))


def _put(arg: Any, values: Mapping[Any, Any]) -> Any:
    """An argument with what ``values`` has for its values: of a graph by themselves, of a call by their id."""
    if isinstance(arg, list):
        return [_put(item, values) for item in arg]
    if isinstance(arg, Tensor | SymInt):
        return values[arg.id]
    return values[arg] if isinstance(arg, Value) else arg


def _wide(content: Any, value: Tensor | SymInt) -> Any:
    return content if isinstance(value, SymInt) else _REFERENCES.wide(content, value)


def _largest(arrays: Sequence[Any]) -> Dims:
    """The largest size of each dimension. Raises RejectedError where their number changes."""
    if len({np.ndim(array) for array in arrays}) > 1:
        raise RejectedError
    return tuple(max(sizes) for sizes in zip(*map(np.shape, arrays), strict=True))


def _within(value: Value, low: float, high: float) -> bool:
    return all(low <= np.min(step) <= np.max(step) <= high for step in value.steps if np.size(step))

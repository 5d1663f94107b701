"""The trait ``rows`` of every operator is exact: it holds by the float64 reference, and nothing that holds is left out.

For each sample, its inputs are cut along every choice of axes. Rows are independent where calls on some of them, and on
all in another order, give what the call on all rows gives for these, and where the plan takes each of these calls.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from executorch_webgpu.errors import Error
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops import registry
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.registry import find, names
from executorch_webgpu.ops.rows import RowRule, any_axis, each_row
from executorch_webgpu.ops.values import Tensor

from .harness import Const, Mutable, Out, as_float64, call_graph
from .samples import SAMPLES, Input, Position, Sample, flat, numbers

Part = Sequence[int]
PLANNING = Planning(Features.none(), Limits.floor())
OPS = sorted({s.op for s in SAMPLES})

# Where rows are independent, and the trait does not say so; and why.
NOT_STATED = {
    "sdpa_with_kv_cache.default": "queries of heads that share keys could be cut, but not with their caches",
    "llama.sdpa_with_kv_cache.default": "the same operator",
    "llama.custom_sdpa.default": "the same, without the write",
    "llama.custom_quantized_sdpa.default": "the same of codes",
    "et_webgpu.paged_sdpa.default": "the same over pages",
    "et_webgpu.rope_paged_sdpa.default": "the same with rotary embedding",
    "llama.gated_delta_rule.default": "rows are steps of a recurrence; batches are, but no pass cuts along them",
    "llama.channelwise_gated_delta_rule.default": "the same operator for each channel",
}


@dataclass(frozen=True)
class Choice:
    """Which inputs of a sample are cut, and along which axis, by place among its inputs; and what holds the count."""

    axes: dict[int, int]
    counts: frozenset[int]
    rows: int


def places(sample: Sample) -> list[Any]:
    """The inputs and live integers of a sample, in their order."""
    return [a for a in flat(sample.args) if isinstance(a, Input | Position)]


def choices(sample: Sample) -> Iterator[Choice]:
    """All of them whose numbers of rows agree. Of a size of 1 there are two rows: it is repeated."""
    found = places(sample)
    # By number of rows, then by place: the axes that have so many. An integer has one, which holds the count.
    having: dict[int, list[list[int | None]]] = {}
    for i, a in enumerate(found):
        for axis, size in enumerate(a.max_dims if isinstance(a, Input) else [a.full]):
            having.setdefault(max(2, size), [[None] for _ in found])[i].append(axis)
    for rows, options in sorted(having.items()):
        for chosen in itertools.product(*options):
            cut = {i: axis for i, axis in enumerate(chosen) if axis is not None}
            axes = {i: axis for i, axis in cut.items() if isinstance(found[i], Input)}
            if cut:
                yield Choice(axes, frozenset(cut) - set(axes), rows)


class Stated:
    """What the trait of an operator says of a sample."""

    def __init__(self, sample: Sample) -> None:
        graph = build_graph(sample.graph())
        self._inputs, self._call = graph.inputs, graph.calls[-1]
        # Every live integer has an input of its own.
        self._live = {c.inputs[0].id: c.args[-1].id for c in graph.calls[:-1]}

    def of(self, choice: Choice) -> tuple[int | None, ...] | None:
        """What it says of a choice."""
        axes = {self._inputs[i].id: axis for i, axis in choice.axes.items()}
        counts = {self._live[self._inputs[i].id] for i in choice.counts}
        return self._call.op.row_axes(self._call.args, axes, counts)


@functools.lru_cache(1000)
def drawn(seed: int, place: int, dims: tuple[int, ...], dtype: str, low: float, high: float) -> np.ndarray:
    """The numbers of an input, which choices share."""
    array = numbers(np.random.default_rng([seed, place]), dims, dtype, low, high)
    array.flags.writeable = False
    return array


class Rows:
    """The arguments of a sample on some of the rows of a choice; what is not cut is always the same."""

    def __init__(self, sample: Sample, choice: Choice, seed: int) -> None:
        self.sample, self.choice = sample, choice
        self._given: list[Any] = []
        for i, a in enumerate(places(sample)):
            if isinstance(a, Position):
                self._given.append(a.full)
                continue
            dims = list(a.max_dims)
            if i in choice.axes:
                dims[choice.axes[i]] = choice.rows
            self._given.append(drawn(seed, i, tuple(dims), a.dtype, a.low, a.high))

    def given(self, rows: Part) -> list[Any]:
        """What the inputs are on these rows."""
        return [
            len(rows)
            if i in self.choice.counts
            else np.take(value, rows, axis=self.choice.axes[i])
            if i in self.choice.axes
            else value
            for i, value in enumerate(self._given)
        ]

    def results(self, rows: Part) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs by the reference, and what the memory that it writes holds then."""
        inputs, memory = iter(self.given(rows)), []

        def resolve(arg: Any) -> Any:
            match arg:
                case Input() | Position():
                    value = next(inputs)
                    return value if isinstance(arg, Position) else as_float64(value)
                case Const():
                    return as_float64(arg.array)
                case Mutable():
                    memory.append(np.array(as_float64(arg.array)))
                    return memory[-1]
                case list():
                    return [resolve(item) for item in arg]
            return arg

        op = find(self.sample.op)
        assert op is not None
        found = op.reference(*[resolve(a) for a in self.sample.args])
        many = isinstance(self.sample.out, list)
        return [np.asarray(value) for value in (found if many else [found])], memory

    def are_planned(self, parts: Sequence[Part], results: Sequence[Sequence[np.ndarray]]) -> bool:
        """Whether the operator takes calls on these rows, the first of which are all, with results of these dims."""
        inputs = iter(self.given(parts[0]))

        def sized(arg: Any) -> Any:
            if isinstance(arg, list):
                return [sized(item) for item in arg]
            value: Any = next(inputs) if isinstance(arg, Input | Position) else None
            return replace(arg, max_dims=np.shape(value)) if isinstance(arg, Input) else arg

        sample = self.sample
        outs: list[Out] = sample.out if isinstance(sample.out, list) else [sample.out]
        # At load a live integer is 0, and results as large as they get.
        outs = [
            replace(o, max_dims=tuple(np.maximum(o.max_dims, r.shape))) if len(o.max_dims) == r.ndim else o
            for o, r in zip(outs, results[0], strict=True)
        ]
        args = [sized(a) for a in sample.args]
        try:
            graph = build_graph(call_graph(sample.op, args, outs if isinstance(sample.out, list) else outs[0]))
            plans = plan_graph(graph, PLANNING)
            for part, expected in zip(parts, results, strict=True):
                for tensor, value in zip(graph.inputs, self.given(part), strict=True):
                    assert isinstance(tensor, Tensor)
                    plans.set_dims(tensor, np.shape(np.atleast_1d(value)) if isinstance(value, int) else value.shape)
                    if tensor.dtype == "int32":
                        plans.set_host(tensor, np.atleast_1d(np.asarray(value, np.int32)))
                plans.update()
                outputs = graph.calls[-1].outputs
                if outputs and [plans.tensor(t).dims for t in outputs] != [r.shape for r in expected]:
                    return False
        except Error:
            return False
        return True


def independent(sample: Sample, choice: Choice) -> list[set[int | None]] | None:
    """For each output the axes along which its rows are those of the inputs; None: the whole of it stays the same."""
    found: list[set[int | None]] | None = None
    for seed in (1, 2):  # by chance, few numbers or bools may agree
        once = _independent(Rows(sample, choice, seed), choice.rows)
        if once is None:
            return None
        found = once if found is None else [a & b for a, b in zip(found, once, strict=True)]
    follows = found is not None and all(found) and (choice.axes or any(axes != {None} for axes in found))
    return found if follows else None  # else only a number changed, and nothing comes of it


def _independent(rows: Rows, count: int) -> list[set[int | None]] | None:
    order = [*range(1, count, 2), *range(0, count, 2)]
    few = 1 if count == 2 else 2  # no less, where there are more: what has one row may be squeezed, or broadcast
    parts: list[Part] = [range(count), range(few), range(count - few, count), range(0, count, 2), order]
    results: list[list[np.ndarray]] = []
    memory: list[np.ndarray] = []
    found: list[set[int | None]] = []
    for part in parts:
        try:
            with np.errstate(all="ignore"):
                outs, written = rows.results(part)
        except (ValueError, IndexError, ZeroDivisionError, TypeError):
            return None
        if not results:
            memory, found = written, [{None, *range(out.ndim)} for out in outs]
        elif len(outs) != len(results[0]) or not all(map(same, memory, written)):
            return None  # the number of results is that of rows, or what is written differs
        else:
            along = [set(axes(*pair, part, count)) for pair in zip(results[0], outs, strict=True)]
            found = [a & b for a, b in zip(found, along, strict=True)]
        if not all(found):  # most choices end at the second part
            return None
        results.append(outs)
    return found if rows.are_planned(parts, results) else None


def axes(whole: np.ndarray, some: np.ndarray, part: Part, count: int) -> Iterator[int | None]:
    """Along which an output for some rows is these rows of that for all; None: it is the same."""
    if same(whole, some):
        yield None
    for axis in range(whole.ndim):
        if whole.shape[axis] == count and same(np.take(whole, part, axis), some):
            yield axis


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


def check(op: str) -> None:
    """Fails where the trait says what does not hold, or does not say what holds and has no reason for it."""
    done, unstated = set(), set()
    for sample in (s for s in SAMPLES if s.op == op):
        if repr(sample.args) in done:  # by another route
            continue
        done.add(repr(sample.args))
        trait = Stated(sample)
        for choice in choices(sample):
            says, holds = trait.of(choice), independent(sample, choice)
            if says is None:
                unstated |= {f"{sample}: {choice}"} if holds is not None else set()
            else:
                fits = holds is not None and all(axis in known for axis, known in zip(says, holds, strict=True))
                assert fits, f"{sample}: {choice} states {says}, but {holds} holds"
    assert bool(unstated) == (op in NOT_STATED), f"rows are independent, and nothing says so: {sorted(unstated)}"


@pytest.mark.parametrize("op", OPS)
def test_rows_are_independent_exactly_where_the_operator_says_so(op: str) -> None:
    check(op)


@pytest.mark.parametrize(
    ("op", "rule"),
    [
        ("aten._softmax.default", any_axis),  # too much
        ("et_vk.apply_rotary_emb.default", each_row),  # tokens without their angles
        ("aten.sigmoid.default", each_row),  # too little
        ("aten.bmm.default", None),
    ],
)
def test_a_wrong_rule_is_found(op: str, rule: RowRule | None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(op)
    assert found is not None
    monkeypatch.setitem(registry._OPS, op, replace(found, rows=rule))
    with pytest.raises(AssertionError, match="states|says"):
        check(op)


def test_reasons_are_given_for_operators_that_there_are() -> None:
    assert set(NOT_STATED) <= set(names())

"""A random graph: values with their contents in every step, and the calls that make them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from executorch_webgpu.format import vkgraph as vk
from tests.graph_builder import GraphBuilder, Ref

Dims = tuple[int, ...]
SYMINT = "symint"


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor, or a live integer, with what it holds in each step as it lies in a device buffer.

    The first step has the largest inputs. ``kind``: "input", "constant", "state" (a constant that calls write), or
    "result". ``max_dims`` is its capacity. ``exact``: no floating-point number was rounded on the way to it, so the
    device has exactly this.
    """

    dtype: str
    steps: tuple[Any, ...]
    kind: str
    max_dims: Dims = ()
    exact: bool = True

    @property
    def dims(self) -> tuple[Dims, ...]:
        return tuple(np.shape(step) for step in self.steps)

    @property
    def is_static(self) -> bool:
        """Whether it has the same dims in all steps."""
        return len(set(self.dims)) == 1


@dataclass(frozen=True)
class Call:
    """An operator with its arguments: values, plain ones, and lists of these; ``out`` is a value or a list of them."""

    op: str
    args: tuple[Any, ...]
    out: Any

    @property
    def results(self) -> list[Value]:
        return self.out if isinstance(self.out, list) else [self.out]

    @property
    def reads(self) -> list[Value]:
        return [item for item in flat(self.args) if isinstance(item, Value)]


@dataclass(frozen=True)
class RandomGraph:
    """Calls in order, and which values the graph gives."""

    calls: tuple[Call, ...]
    outputs: tuple[Value, ...]
    inputs: tuple[Value, ...] = field(init=False)

    def __post_init__(self) -> None:
        read = dict.fromkeys(value for call in self.calls for value in call.reads if value.kind == "input")
        object.__setattr__(self, "inputs", tuple(read))

    @property
    def count(self) -> int:
        """How many steps there are."""
        return len(self.outputs[0].steps)

    def given(self, step: int) -> list[np.ndarray]:
        """The inputs of a step; a live integer comes as a tensor of one element."""
        return [
            np.array([value.steps[step]], np.int32) if value.dtype == SYMINT else value.steps[step]
            for value in self.inputs
        ]

    def described(self) -> vk.VkGraph:
        """The graph as a delegate."""
        build = GraphBuilder()
        refs: dict[Value, Ref] = {}
        for value in self.inputs:
            refs[value] = build.live() if value.dtype == SYMINT else build.input(value.max_dims, value.dtype)

        def ref(arg: Any) -> Any:
            if isinstance(arg, list):
                return [ref(item) for item in arg]
            if not isinstance(arg, Value):
                return arg
            if arg not in refs:
                refs[arg] = build.constant(constant_of(arg)) if arg.kind in ("constant", "state") else result(arg)
            return refs[arg]

        def result(value: Value) -> Ref:
            return build.symint() if value.dtype == SYMINT else build.tensor(value.max_dims, value.dtype)

        for call in self.calls:
            build.call(call.op, *map(ref, call.args), ref(call.out))
        build.output(*map(ref, self.outputs))
        return build.build()

    def __str__(self) -> str:
        """Python that makes the graph, with the sizes of each step; contents are said by their range only."""
        return "\n".join(_lines(self))


def constant_of(value: Value) -> np.ndarray:
    """The contents of a constant as a file has them."""
    array: np.ndarray = value.steps[0]
    return array != 0 if value.dtype == "bool" else array


def flat(args: Sequence[Any]) -> Iterator[Any]:
    for arg in args:
        if isinstance(arg, list):
            yield from flat(arg)
        else:
            yield arg


def _lines(graph: RandomGraph) -> Iterator[str]:
    names: dict[Value, str] = {}
    for value in graph.inputs:
        names[value] = f"x{len(names)}"
        made = "live()" if value.dtype == SYMINT else f"input({value.max_dims}, {value.dtype!r})"
        yield f"{names[value]} = build.{made}  # {_contents(value)}"

    def text(arg: Any) -> str:
        if isinstance(arg, list):
            return f"[{', '.join(map(text, arg))}]"
        return names[arg] if isinstance(arg, Value) else repr(arg)

    for call in graph.calls:
        for value in call.reads:
            if value not in names:
                names[value] = f"c{len(names)}"
                yield f"{names[value]} = <{value.kind} {value.dtype}{list(value.max_dims)}>  # {_contents(value)}"
        for value in call.results:
            names.setdefault(value, f"v{len(names)}")
        outs = ", ".join(map(_made, call.results))
        left, outs = (text(call.out), f"[{outs}]" if isinstance(call.out, list) else outs)
        sizes = " ".join(str([list(d) for d in value.dims]) for value in call.results if value.dtype != SYMINT)
        yield f"{left} = build.call({', '.join([repr(call.op), *map(text, call.args), outs])})  # {sizes}"
    yield f"build.output({', '.join(map(text, graph.outputs))})"


def _made(value: Value) -> str:
    return "build.symint()" if value.dtype == SYMINT else f"build.tensor({value.max_dims}, {value.dtype!r})"


def _contents(value: Value) -> str:
    """A few words on what a value holds: itself if that is short."""
    if value.dtype == SYMINT:
        return f"in turn {list(value.steps)}"
    if value.kind == "input" and sum(np.size(step) for step in value.steps) <= 24:
        return f"in turn {[np.asarray(step).tolist() for step in value.steps]}"
    array = np.asarray(value.steps[0])
    span = f"{array.min():.4g} to {array.max():.4g}" if array.size else "empty"
    return f"dims in turn {[list(dims) for dims in dict.fromkeys(value.dims)]}, {span}"

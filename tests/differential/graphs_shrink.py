"""A wrong graph made small: fewer calls, fewer outputs, fewer steps, as long as the same check finds it wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .graphs_model import Call, RandomGraph, Value

TRIES = 300
Find = Callable[[RandomGraph], Any]  # what is wrong with a graph, or None


def shrunk(graph: RandomGraph, find: Find) -> RandomGraph:
    """A smaller graph that ``find`` still finds wrong; the graph itself if there is none."""
    tries = 0
    while True:
        for candidate in _smaller(graph):
            tries += 1
            if tries > TRIES:
                return graph
            if find(candidate) is not None:
                graph = candidate
                break
        else:
            return graph


def _smaller(graph: RandomGraph) -> Iterator[RandomGraph]:
    """Graphs with less of everything, the smallest first."""
    if len(graph.calls) > 1:
        yield from (_of_calls(graph, [call]) for call in reversed(graph.calls))
        half = len(graph.calls) // 2
        yield from (_of_calls(graph, graph.calls[:half]), _of_calls(graph, graph.calls[half:]))
        for place in reversed(range(len(graph.calls))):
            yield _of_calls(graph, [*graph.calls[:place], *graph.calls[place + 1 :]])
    if len(graph.outputs) > 1:
        yield from (_pruned(replace(graph, outputs=(output,))) for output in graph.outputs)
    if graph.count > 1:
        yield from (_of_steps(graph, [step]) for step in range(graph.count))
        for step in range(graph.count):
            yield _of_steps(graph, [other for other in range(graph.count) if other != step])


def _of_calls(graph: RandomGraph, calls: Sequence[Call]) -> RandomGraph:
    """Only some of the calls: what the others gave is an input."""
    made = {value for call in calls for value in call.results}
    given = {
        value: replace(value, kind="input")
        for call in calls
        for value in call.reads
        if value.kind == "result" and value not in made
    }
    read = {value for call in calls for value in call.reads}
    outputs = [value for value in graph.outputs if value in made]
    outputs += [value for call in calls for value in call.results if value not in read and value not in outputs]
    return RandomGraph(tuple(_with(call, given) for call in calls), tuple(outputs))


def _pruned(graph: RandomGraph) -> RandomGraph:
    """Without the calls that no output needs."""
    needed, kept = set(graph.outputs), []
    for call in reversed(graph.calls):
        if needed.intersection(call.results):
            needed.update(call.reads)
            kept.append(call)
    return replace(graph, calls=tuple(reversed(kept)))


def _of_steps(graph: RandomGraph, steps: Sequence[int]) -> RandomGraph:
    values = {value for call in graph.calls for value in (*call.reads, *call.results)}
    fewer = {value: replace(value, steps=tuple(value.steps[step] for step in steps)) for value in values}
    return RandomGraph(tuple(_with(call, fewer) for call in graph.calls), tuple(fewer[v] for v in graph.outputs))


def _with(call: Call, values: dict[Value, Value]) -> Call:
    """The call with other values in the place of some."""

    def put(arg: Any) -> Any:
        if isinstance(arg, list):
            return [put(item) for item in arg]
        return values.get(arg, arg) if isinstance(arg, Value) else arg

    return Call(call.op, tuple(map(put, call.args)), put(call.out))

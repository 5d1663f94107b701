"""A graph on the host, in float64: every call is its operator's NumPy reference.

Slow, needs no adapter, and shares nothing with the kernels, so it is what a device's results are held against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..ops.values import INT32_MAX, INT32_MIN, SymInt, Tensor
from .build import COPY, PREPACK, Graph, OpCall

# What references raise for values that an operator does not take.
REFUSALS = (TypeError, ValueError, IndexError, ArithmeticError)

Notice = Callable[[OpCall, np.ndarray], None]


class References:
    """What single calls of a graph compute, with float64 for every floating-point value.

    ``notice``: integers are 64 bits wide instead of 32, and it is told of every result of a call that the device's 32
    bits cannot hold, which is integers outside of int32, or finite floats that float32 makes infinite.

    Only what is written to a KV cache is rounded like the device's, where that has fewer bits than float32, and what
    jumps, as a comparison does, is computed in float32. ``rounds``: so are results within a call, such as those of the
    steps of a chain, which the device rounds to the dtype of their tensors.
    """

    def __init__(self, graph: Graph, notice: Notice | None = None, *, rounds: bool = False) -> None:
        self._notice = notice
        rounding = [c for c in graph.calls if _takes(c.op.reference, "stored_as")]
        caches = {c.index: c.mutated[0] for c in rounding if c.mutated}
        # Codes without scales are what a program stores itself: integers, which nothing rounds.
        rounded = {i: cache for i, cache in caches.items() if cache.element.is_float or cache.scales is not None}
        self._stored_as = {i: {"stored_as": cache.dtype} for i, cache in rounded.items()}
        if rounds:
            self._stored_as |= {c.index: {"stored_as": c.outputs[0].dtype} for c in rounding if not c.mutated}

    def results(self, call: OpCall, values: Mapping[int, Any], noise: np.random.Generator | None = None) -> list[Any]:
        """What a call gives for each value of ``call.writes``: float64, integers or bools.

        ``values``: what it reads by id, as ``wide`` makes it. What it mutates besides its output is written in place.
        ``noise`` moves what is computed within the call by the last bits of float32.
        """
        args = [_resolve(a, values) for a in call.args[:-1]]
        if call.op.promoted:
            args = _promoted(call, args)
        options: dict[str, Any] = dict(self._stored_as.get(call.index, {}))
        if noise is not None and _takes(call.op.reference, "noise"):
            options["noise"] = noise
        result = call.op.reference(*args, **options)
        out = call.args[-1]
        pairs = zip(out, result, strict=True) if isinstance(out, list) else [(out, result)]
        found = [self._as_kind(call, value, target) for target, value in pairs]
        if call.name == PREPACK:
            return found
        # What a later call writes to an argument is not seen in a result.
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        return [_apart(value, arrays) for value in found]

    def wide(self, array: np.ndarray, tensor: Tensor) -> np.ndarray:
        """Elements as references want them: float64, KV caches too, and bools that are not words."""
        if tensor.dtype == "bool":
            return array != 0
        return array.astype(np.float64) if _is_real(tensor) else array.astype(self._integers(tensor), copy=False)

    def _as_kind(self, call: OpCall, result: Any, out: Tensor | SymInt) -> Any:
        """A result as integers, bools or float64, whichever the output holds; a cast to bool asks for nonzero."""
        if isinstance(out, SymInt):
            return int(result)
        if out.dtype == "bool":
            return np.asarray(result) != 0
        if self._notice is None:
            return np.asarray(result, np.float64 if _is_real(out) else out.element.numpy)
        array = np.asarray(result, np.float64 if _is_real(out) else self._integers(out))
        if call.name not in (PREPACK, COPY) and _leaves_32_bits(array, out):  # a copy is not where it comes from
            self._notice(call, array)
        return array

    def _integers(self, tensor: Tensor) -> np.dtype:
        """The dtype of the integers of a tensor."""
        return np.dtype(np.int64) if self._notice is not None and tensor.dtype == "int32" else tensor.element.numpy


class ReferenceExecutor:
    """Runs whole graphs by their ``References``, with the constants and the state that these need."""

    def __init__(self, graph: Graph, notice: Notice | None = None) -> None:
        self.graph = graph
        self._references = References(graph, notice)
        self.reset()

    def reset(self) -> None:
        """Put all state back to the program's initial contents."""
        tensors = {t.id: t for call in self.graph.calls for t in call.inputs if t.constant is not None}
        self._constants: dict[int, Any] = {
            id: self._references.wide(self.graph.constants[id].array(t), t).copy() for id, t in tensors.items()
        }

    def execute(self, inputs: Sequence[np.ndarray | int]) -> list[Any]:
        """One step: arrays or ints in, float64 or integer arrays and ints out."""
        return execute(self.graph, self._references, dict(self._constants), inputs)


def execute(
    graph: Graph, references: References, values: dict[int, Any], inputs: Sequence[np.ndarray | int]
) -> list[Any]:
    """One step of ``graph``. ``values`` are its constants by id; those that it writes are written in place.

    Raises InvalidInputError where a reference refuses a value, which may be half-way.
    """
    for value, given in zip(graph.inputs, inputs, strict=True):
        values[value.id] = references.wide(np.asarray(given), value) if isinstance(value, Tensor) else int(given)
    for call in graph.calls:
        written = {tensor.id for tensor in call.mutated}
        try:
            results = references.results(call, values)
        except REFUSALS as error:
            raise InvalidInputError(f"call {call.index}, {call.name}, cannot run on these values: {error}") from error
        for target, result in zip(call.writes, results, strict=True):
            if target.id in written:
                values[target.id][...] = result  # state: the array that the next step begins with
            else:
                values[target.id] = result
    return [values[v.id] for v in graph.outputs]


def _apart(value: Any, arrays: Sequence[np.ndarray]) -> Any:
    shares = isinstance(value, np.ndarray) and any(np.may_share_memory(array, value) for array in arrays)
    return value.copy() if shares else value


def _leaves_32_bits(array: np.ndarray, tensor: Tensor) -> bool:
    if not array.size:
        return False
    if tensor.dtype == "int32":
        return not INT32_MIN <= int(array.min()) <= int(array.max()) <= INT32_MAX
    if tensor.dtype != "float32":
        return False
    return bool(np.any(np.abs(array[np.isfinite(array)]) > np.finfo(np.float32).max))


def _promoted(call: OpCall, args: list[Any]) -> list[Any]:
    """Arguments as torch promotes them: element by element, integers to floats where the result is one.

    Where the result jumps, and an argument is a float, all are float32: more bits would move where it does.
    """
    places = [call.op.parameters.index(name) for name in call.op.promoted]
    floats = [isinstance(args[p], float) or getattr(args[p], "dtype", None) == np.float64 for p in places]
    if call.op.discontinuous and any(floats):
        return [np.asarray(a, np.float32) if i in places else a for i, a in enumerate(args)]
    if call.op.elementwise and any(t.element.is_float for t in call.outputs):
        return [a.astype(np.float64) if i in places and _is_integer(a) else a for i, a in enumerate(args)]
    return args


def _is_integer(arg: Any) -> bool:
    return isinstance(arg, np.ndarray) and arg.dtype.kind in "iub"


def _takes(reference: Callable[..., Any], name: str) -> bool:
    """Whether a reference has an argument of that name; built-in functions have none."""
    code = getattr(reference, "__code__", None)
    return code is not None and name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _resolve(arg: Any, values: Mapping[int, Any]) -> Any:
    if isinstance(arg, Tensor | SymInt):
        return values[arg.id]
    if isinstance(arg, list):
        return [_resolve(a, values) for a in arg]
    return arg


def _is_real(tensor: Tensor) -> bool:
    """Whether it holds real numbers; an int8 KV cache stands for codes times scales."""
    return tensor.element.is_float or tensor.scales is not None

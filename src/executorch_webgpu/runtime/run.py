"""Runs a lowered method: its segments in turn, with the values that pass between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError, InvalidProgramError
from ..format import program_schema as schema
from ..gpu.trace import spanned
from ..graph.device_array import DeviceArray
from ..graph.lowering.instructions import Arg, Block, Cell, Operation, Value
from ..graph.lowering.segments import DeviceSegment, Lowered
from ..ops.values import SymInt, Tensor
from ..portable import host_kernel
from ..portable.dtypes import is_float, numpy_dtype
from .arrays import to_device_array

Held = Any  # an array, on the host or on the device, or a number
Execute = Callable[[int, Sequence[Any], frozenset[int]], list[Any]]  # graph, inputs, outputs that stay there -> outputs


class Runner:
    """Runs the blocks of one loaded method. ``constant``: the elements of a constant, for the host."""

    def __init__(self, method: str, lowered: Lowered, constant: Callable[[Value], np.ndarray]) -> None:
        self._method = method
        self._lowered = lowered
        self._segment_number = {id(s): i for i, s in enumerate(lowered.device_segments)}
        on_host = [o for o, placement in lowered.placements if not placement.on_device]
        read = {v for o in on_host for v in o.inputs if v.constant}
        read |= {v for b in lowered.flow.blocks for v in b.outputs or () if isinstance(v, Value) and v.constant}
        self._constants: dict[Value, Held] = {v: np.array(constant(v)) for v in read}  # the file may be closed

    def run(self, cells: dict[Cell, Held], execute: Execute) -> list[Held]:
        """The outputs of a call that begins with ``cells``, which it changes."""
        number = 0
        while True:
            lowered = self._lowered.blocks[number]
            block = lowered.block
            values = dict(self._constants)
            for cell, value in block.entry.items():
                if cell in cells:
                    values[value] = _as_described(cells[cell], value)
            for segment in lowered.segments:
                if isinstance(segment, DeviceSegment):
                    self._run_graph(segment, values, execute)
                else:
                    for operation in segment.operations:
                        self._run_on_host(operation, values)
            for cell, arg in block.exit.items():
                if not isinstance(arg, Value) or arg in values:
                    cells[cell] = _held(arg, values)
            number = self._next(block, values)
            if number < 0:
                assert block.outputs is not None
                return [_held(arg, values) for arg in block.outputs]

    def _next(self, block: Block, values: dict[Value, Held]) -> int:
        return block.next if self._on_host(block.condition, values) else block.otherwise

    def _run_graph(self, segment: DeviceSegment, values: dict[Value, Held], execute: Execute) -> None:
        inputs = [
            _to_graph(value, _held(arg, values), self._method)
            for value, arg in zip(segment.graph.inputs, segment.inputs, strict=True)
        ]
        results = execute(self._segment_number[id(segment)], inputs, segment.stay)
        for value, result in zip(segment.outputs, results, strict=True):
            values[value] = result if isinstance(result, DeviceArray) else self._of_program(value, result)

    @spanned("host operator", "host operator", lambda _, operation, *__: (str(operation), {}))
    def _run_on_host(self, operation: Operation, values: dict[Value, Held]) -> None:
        kernel = host_kernel(operation.name, operation.overload, len(operation.args))
        assert kernel is not None  # load_method refused the program otherwise
        args = [self._on_host(arg, values) for arg in operation.args]
        for position, _ in operation.mutated:
            wide = np.float64 if is_float(args[position].dtype) else None
            args[position] = np.array(args[position], wide)  # of its own, as references take it
        dtype = numpy_dtype(operation.outputs[0].tensor, self._method) if operation.outputs[0].tensor else None
        try:
            results = kernel(args, dtype)
            results = results if isinstance(results, tuple) else (results,)
            written = [args[position] for position, _ in operation.mutated]
            for value, result in zip(operation.results, (*results, *written), strict=True):
                values[value] = self._of_program(value, result)
        except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError) as error:
            raise InvalidInputError(f"{operation} cannot run on these values: {error}") from error

    def _on_host(self, arg: Arg, values: dict[Value, Held]) -> Held:
        """An argument for a kernel of the host, to which what another block or call left on the device is brought."""
        if isinstance(arg, list):
            return [self._on_host(item, values) for item in arg]
        held = _held(arg, values)
        if isinstance(held, DeviceArray):
            held = values[arg] = self._of_program(arg, held.numpy())
        return held

    def _of_program(self, value: Value, result: Any) -> Held:
        """A result in the program's dtype."""
        if value.tensor is None:
            return result
        with np.errstate(all="ignore"):  # what a dtype cannot hold becomes what C makes of it, as in torch
            array: np.ndarray = np.asarray(result).astype(numpy_dtype(value.tensor, self._method), copy=False)
        return array


def to_host_value(held: Held, described: schema.ProgramValue, method: str) -> Held:
    """A value for the caller: an array of the host in the program's dtype, of its own."""
    if isinstance(held, DeviceArray):
        held = held.numpy()
    if isinstance(held, np.ndarray) and isinstance(described, schema.Tensor):
        with np.errstate(all="ignore"):
            return held.astype(numpy_dtype(described, method))
    return held


def _held(arg: Arg, values: Mapping[Value, Held]) -> Held:
    if isinstance(arg, list):
        return [_held(item, values) for item in arg]
    return values[arg] if isinstance(arg, Value) else arg


def _as_described(held: Held, value: Value) -> Held:
    """What a cell holds under the dims that a block reads it with, which a dropped view may have changed."""
    if value.tensor is None or getattr(held, "shape", None) == (dims := tuple(value.tensor.sizes)):
        return held
    if value.is_live:
        if len(held.shape) != len(dims):
            raise InvalidProgramError("the program looks at a tensor of live size in two shapes: export it again")
        return held
    if isinstance(held, DeviceArray):
        return held.reshaped(dims)
    return held.reshape(dims) if isinstance(held, np.ndarray) and held.size == math.prod(dims) else held


def _to_graph(value: Tensor | SymInt, given: Held, method: str) -> Any:
    what = f"an input of a graph of method {method!r}"
    if given is None:
        raise InvalidProgramError(f"nothing gives {what} a value: export it again")
    if isinstance(value, SymInt):
        given = given.numpy() if isinstance(given, DeviceArray) else given
        number = np.asarray(given).reshape(-1)[0]
        if number != int(number):
            raise InvalidInputError(f"{what} is {number}, but it takes an integer there")
        return int(number)
    if isinstance(given, DeviceArray):
        return given
    return to_device_array(np.asarray(given), value.element.numpy, what)

"""A method's instructions as operations over values that are set once.

A program computes in planned memory. Where a tensor lies is a part of its meaning: the exporter drops views whose
result has the same place as their input, and lets buffers last from call to call. Here each read is followed to the
operation that wrote the bytes, so nothing after this knows of places: a dropped view is a view again, and a buffer is a
value that a call begins with and one that it leaves.

Jumps cut the instructions into blocks. Values that a later block, or the next call, reads pass through *cells*, one for
each place, or for each value that has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import InvalidProgramError, UnsupportedProgramError
from ...format import program_schema as schema
from ...format import values as plain
from ...portable.dtypes import dtype_name
from ...portable.names import VIEW, kernel_values, mutated_positions
from .delegates import DelegateArguments

Cell = tuple[int, int, int] | int  # arena, first byte and end of a place; or the number of a value without one


@dataclass(frozen=True, eq=False)
class Value:
    """What one operation computes, a call is given, or the file holds. ``described``: the program's words for it."""

    described: schema.ProgramValue
    constant: bool = False

    @property
    def tensor(self) -> schema.Tensor | None:
        return self.described if isinstance(self.described, schema.Tensor) else None

    @property
    def is_live(self) -> bool:
        """Whether dims may be smaller than the program says."""
        return self.tensor is not None and self.tensor.shape_dynamism is not schema.ShapeDynamism.STATIC

    def __repr__(self) -> str:
        if self.tensor is None:
            return type(self.described).__name__
        return f"{dtype_name(self.tensor)}{list(self.tensor.sizes)}"


Arg = Any  # a Value, a number, a string, None, or a list of these


@dataclass(frozen=True, eq=False)
class Operation:
    """One instruction: a kernel's call by name and overload, or a delegate's call.

    ``mutated``: positions of arguments that it writes besides its outputs, with what they hold afterwards.
    """

    name: str
    overload: str
    args: tuple[Arg, ...]
    outputs: tuple[Value, ...]
    mutated: tuple[tuple[int, Value], ...] = ()
    delegate: int | None = None

    @property
    def inputs(self) -> tuple[Value, ...]:
        """All values that it reads, those in lists too."""
        return tuple(_values(self.args))

    @property
    def results(self) -> tuple[Value, ...]:
        """All values that it sets."""
        return (*self.outputs, *(value for _, value in self.mutated))

    @property
    def stem(self) -> str:
        """The part of its name that all overloads share, without the namespace."""
        _, _, stem = str(self.name).partition("::")
        return stem

    def __str__(self) -> str:
        return f"{self.name}.{self.overload}" if self.overload else self.name


@dataclass
class Block:
    """Operations that run one after another. ``entry``: the cells that they read; ``exit``: those that they set.

    Then the method goes on at block ``next``, or at ``otherwise`` if ``condition`` is false. ``outputs`` are the
    method's, in its last block.
    """

    operations: list[Operation] = field(default_factory=list)
    entry: dict[Cell, Value] = field(default_factory=dict)
    exit: dict[Cell, Value] = field(default_factory=dict)
    condition: Arg = True
    next: int = -1
    otherwise: int = -1
    outputs: list[Arg] | None = None


@dataclass(frozen=True)
class Flow:
    """A method's blocks, in order. ``inputs``: the cell of each input, or None for a number that the program fixes.

    ``state``: the cells that last from call to call, with the program's words for what they hold at first. ``numbers``:
    those of plain values that each call begins with, such as the counter of a loop.
    """

    blocks: tuple[Block, ...]
    inputs: tuple[Cell | None, ...]
    state: Mapping[Cell, schema.Tensor]
    numbers: Mapping[Cell, Arg]


def read_flow(plan: schema.ExecutionPlan, delegates: Sequence[DelegateArguments]) -> Flow:
    """The operations of a method. ``delegates``: what the arguments of its delegates are.

    Raises UnsupportedProgramError for tensors that lie over one another otherwise than as views.
    """
    instructions = _flattened(plan)
    reader = _Reader(plan, delegates, instructions)
    targets = {call.destination for call in instructions if isinstance(call, schema.JumpFalseCall)}
    after = {i + 1 for i, call in enumerate(instructions) if isinstance(call, schema.JumpFalseCall)}
    begins = sorted({0} | targets | after)
    blocks = []
    for number, begin in enumerate(begins):
        end = begins[number + 1] if number + 1 < len(begins) else len(instructions)
        last = number + 1 == len(begins)
        blocks.append(reader.block(instructions[begin:end], begins, -1 if last else number + 1))
    inputs = tuple(None if reader.is_fixed(index) else reader.cell(index) for index in plan.inputs)
    first: dict[Cell, Value] = {}  # how a cell is read first
    for block in reversed(blocks):
        first |= block.entry
    begun = {cell: first[cell] for cell in sorted(_live(blocks, ())[0] - set(inputs), key=str)}
    state = {cell: value.tensor for cell, value in begun.items() if value.tensor is not None}
    state |= {cell: tensor for cell, tensor in reader.named_buffers() if cell not in state}
    numbers = {cell: getattr(value.described, "value", None) for cell, value in begun.items() if value.tensor is None}
    live = [*_live(blocks, state), set(state)]
    for block in blocks:
        wanted = live[block.next] | live[block.otherwise]  # -1: the end
        block.exit = {cell: value for cell, value in block.exit.items() if cell in wanted}
    return Flow(tuple(blocks), inputs, state, numbers)


def _flattened(plan: schema.ExecutionPlan) -> list[schema.Call]:
    """The instructions of all chains, which run in turn, with destinations among all of them."""
    flat: list[schema.Call] = []
    for chain in plan.chains:
        start = len(flat)
        for instruction in chain.instructions:
            call = instruction.call
            if isinstance(call, schema.JumpFalseCall):
                call = schema.JumpFalseCall(call.condition, call.destination + start)
            flat.append(call)
    return flat


def _live(blocks: Sequence[Block], kept: Iterable[Cell]) -> list[set[Cell]]:
    """The cells of which each block, or one after it, reads what they hold before it; ``kept`` are read at the end."""
    live: list[set[Cell]] = [set() for _ in blocks] + [set(kept)]
    changed = True
    while changed:
        changed = False
        for number in reversed(range(len(blocks))):
            block = blocks[number]
            found = (live[block.next] | live[block.otherwise]) - set(block.exit) | set(block.entry)
            changed |= found != live[number]
            live[number] = found
    return live[:-1]


class _Reader:
    """Reads blocks of one method. Values of constants are one for all blocks."""

    def __init__(
        self, plan: schema.ExecutionPlan, delegates: Sequence[DelegateArguments], instructions: Iterable[schema.Call]
    ) -> None:
        self._plan = plan
        self._delegates = delegates
        self._constants: dict[int, Value] = {}
        self._shows = dict(self._views(instructions))
        self._set = set(_set_by(plan, delegates, instructions))
        self._set |= {i for i in plan.inputs if isinstance(plan.values[i].value, plain.Null | schema.Tensor)}

    def _views(self, instructions: Iterable[schema.Call]) -> Iterator[tuple[int, int]]:
        """Values that show others from the same place on, and these; the bounds of live sizes may differ."""
        for call in instructions:
            if isinstance(call, schema.KernelCall) and self._plan.operators[call.op_index].name == VIEW:
                (source, *_), (view,) = kernel_values(self._plan, call)
                places = [getattr(self.described(i), "allocation_info", None) for i in (source, view)]
                if source != view and places[0] is not None and places[0] == places[1]:
                    yield view, source

    def is_fixed(self, index: int) -> bool:
        """Whether a value is a number, or nothing, that no instruction and no caller sets."""
        return not isinstance(self._plan.values[index].value, schema.Tensor) and index not in self._set

    def cell(self, index: int) -> Cell:
        """Where a value that is set lies."""
        tensor = self._plan.values[index].value
        if index in self._shows:
            return self.cell(self._shows[index])
        if isinstance(tensor, schema.Tensor) and tensor.allocation_info is not None and tensor.nbytes:
            where = tensor.allocation_info
            sizes = self._plan.non_const_buffer_sizes
            if where.memory_id >= len(sizes) or where.offset + tensor.nbytes > sizes[where.memory_id]:
                raise InvalidProgramError(f"method {self._plan.name!r} plans a tensor outside of its memory")
            return (where.memory_id, where.offset, where.offset + tensor.nbytes)
        return index

    def block(self, calls: Sequence[schema.Call], begins: Sequence[int], following: int) -> Block:
        """One block; ``following``: the number of the next one, or -1 if it is the last, which reads the outputs."""
        block = Block(next=following, otherwise=following)
        memory = _Memory(self, block)
        for call in calls:
            match call:
                case schema.KernelCall():
                    self._kernel(call, memory)
                case schema.DelegateCall():
                    self._delegate(call, memory)
                case schema.MoveCall(source, target):
                    memory.put(target, memory.get(source))
                case schema.JumpFalseCall(condition, destination):
                    block.condition = memory.get(condition)
                    block.otherwise = begins.index(destination)
        if following < 0:
            block.outputs = [memory.get(index) for index in self._plan.outputs]
        return block

    def named_buffers(self) -> Iterator[tuple[Cell, schema.Tensor]]:
        """The buffers that other methods may know too, which last even if this one only writes them."""
        cells: dict[str, Cell] = {}
        for index, boxed in enumerate(self._plan.values):
            tensor = boxed.value
            if not isinstance(tensor, schema.Tensor) or tensor.allocation_info is None:
                continue
            if tensor.extra_tensor_info is None or not (name := tensor.extra_tensor_info.fully_qualified_name):
                continue
            cell = self.cell(index)
            if cells.setdefault(name, cell) != cell:
                raise UnsupportedProgramError(
                    f"method {self._plan.name!r} has the buffer {name!r} at two places: export the program again"
                )
            yield cell, tensor

    def constant(self, index: int) -> Value:
        if index not in self._constants:
            self._constants[index] = Value(self.described(index), constant=True)
        return self._constants[index]

    def described(self, index: int) -> schema.ProgramValue:
        return self._plan.values[index].value

    def _kernel(self, call: schema.KernelCall, memory: _Memory) -> None:
        operator = self._plan.operators[call.op_index]
        inputs, outputs = kernel_values(self._plan, call)
        args = tuple(memory.get(index) for index in inputs)
        name, overload = operator.name, operator.overload or ""
        written = [position for position in mutated_positions(name, overload, len(args)) if inputs[position] >= 0]
        mutated = tuple((position, memory.set(inputs[position])) for position in written)
        view_of = inputs[0] if name == VIEW else None
        results = tuple(memory.set(index, view_of) for index in outputs)
        memory.block.operations.append(Operation(name, overload, args, results, mutated))

    def _delegate(self, call: schema.DelegateCall, memory: _Memory) -> None:
        its = self._delegates[call.delegate_index]
        args = tuple(memory.get(index) for index in its.of_inputs(call))
        results = tuple(memory.set(index) for index in its.of_outputs(call))
        memory.block.operations.append(Operation("delegate", "", args, results, delegate=call.delegate_index))


class _Memory:
    """What cells hold while a block is read."""

    def __init__(self, reader: _Reader, block: Block) -> None:
        self.block = block
        self._reader = reader
        self._views: dict[tuple[Value, tuple[int, ...]], Value] = {}
        self._held: dict[Cell, Arg] = {}
        self._named: dict[Cell, dict[int, Arg]] = {}  # by the value's number, where several name one place

    def get(self, index: int) -> Arg:
        """What a value holds; a number or a string where the program fixes it."""
        if index < 0:
            return None
        described = self._reader.described(index)
        match described:
            case plain.IntList(items) | schema.TensorList(items) | schema.OptionalTensorList(items):
                return [self.get(item) for item in items]
            case plain.DoubleList(items) | plain.BoolList(items):
                return list(items)
            case schema.Tensor() if described.is_constant:
                return self._reader.constant(index)
        if self._reader.is_fixed(index):
            return getattr(described, "value", None)
        cell = self._reader.cell(index)
        if cell not in self._held:
            self._check_whole(cell)
            self._held[cell] = self.block.entry[cell] = Value(described)
        if index in self._named.get(cell, {}):
            return self._named[cell][index]
        return self._as(self._held[cell], described)

    def set(self, index: int, view_of: int | None = None) -> Value:
        """A new value, which ``index`` holds from here on; ``view_of`` keeps its own if both lie at one place."""
        value = Value(self._reader.described(index))
        cell = self._reader.cell(index)
        if view_of is not None and view_of != index and cell == self._reader.cell(view_of):
            names = self._named.setdefault(cell, {view_of: self.get(view_of)})
            names[index] = self._held[cell] = self.block.exit[cell] = value
        else:
            self.put(index, value)
        return value

    def put(self, index: int, value: Arg) -> None:
        """Let ``index`` hold ``value`` from here on, and nothing that lay there be read again."""
        cell = self._reader.cell(index)
        for other in [c for c in self._held if c == cell or _overlap(c, cell)]:
            del self._held[other]
            self._named.pop(other, None)
        self._held[cell] = self.block.exit[cell] = value

    def _check_whole(self, cell: Cell) -> None:
        """What is read from before the block must not be overwritten in part."""
        if any(_overlap(cell, other) for other in self.block.exit):
            raise UnsupportedProgramError(
                "the program reads memory of which it has overwritten a part: export it again, with the memory "
                "planning of ExecuTorch"
            )

    def _as(self, value: Arg, described: schema.ProgramValue) -> Arg:
        """A value as another tensor of the same place has it: a view that the exporter dropped."""
        if not isinstance(value, Value) or not isinstance(described, schema.Tensor) or value.tensor is None:
            return value
        have, want = value.tensor, described
        if (have.scalar_type, len(have.sizes)) == (want.scalar_type, len(want.sizes)) and (
            have.sizes == want.sizes or value.is_live
        ):
            return value
        static = schema.ShapeDynamism.STATIC
        same = have.scalar_type == want.scalar_type and math.prod(have.sizes) == math.prod(want.sizes)
        if not same or have.shape_dynamism is not static or want.shape_dynamism is not static:
            raise UnsupportedProgramError(
                f"the program reads {Value(want)} where it has stored {value}: export it again, with the memory "
                "planning of ExecuTorch"
            )
        key = (value, tuple(want.sizes))
        if key not in self._views:
            self._views[key] = view = Value(want)
            self.block.operations.append(Operation("aten::view_copy", "out", (value, list(want.sizes)), (view,)))
        return self._views[key]


def _overlap(a: Cell, b: Cell) -> bool:
    return isinstance(a, tuple) and isinstance(b, tuple) and a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _values(args: Iterable[Arg]) -> Iterator[Value]:
    for arg in args:
        if isinstance(arg, list):
            yield from _values(arg)
        elif isinstance(arg, Value):
            yield arg


def _set_by(
    plan: schema.ExecutionPlan, delegates: Sequence[DelegateArguments], instructions: Iterable[schema.Call]
) -> Iterator[int]:
    """The values that instructions set."""
    for call in instructions:
        match call:
            case schema.KernelCall():
                yield from kernel_values(plan, call)[1]
            case schema.DelegateCall():
                yield from delegates[call.delegate_index].of_outputs(call)
            case schema.MoveCall(target=target):
                yield target

"""How the arguments of a delegate's call meet the inputs and outputs of its graph.

The exporter lists every tensor of a graph once. An output that repeats, as a removed ``clone`` makes one, is missing
then, and so is an input that nothing reads any more; the new value of a mutated buffer may be one output more (see
``graph/write_back.py``). What the two sides are called is not in the file, so they are matched by order, dims and
dtype, and a program that could mean two things is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...errors import InvalidProgramError, UnsupportedProgramError
from ...format import program_schema as schema
from ...ops.values import SymInt, Tensor
from ...portable.dtypes import dtype_name
from ..build import Graph, GraphValue
from ..write_back import written_back

_KINDS = {
    schema.ScalarType.BOOL: "bool",
    schema.ScalarType.HALF: "float",
    schema.ScalarType.FLOAT: "float",
    schema.ScalarType.DOUBLE: "float",
    schema.ScalarType.BFLOAT16: "float",
}
_MOST_OUTPUTS = 64  # a search over more of them could take long


@dataclass(frozen=True)
class DelegateArguments:
    """What the arguments of the calls of one delegate are.

    ``given``: how many of them are inputs. ``inputs``: for each input of the graph, which argument it is.
    ``outputs``: for each argument after the inputs, which output of the graph it is.
    """

    given: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def of_inputs(self, call: schema.DelegateCall) -> list[int]:
        """The values that the graph's inputs are given, in the graph's order."""
        return [call.args[position] for position in self.inputs]

    def of_outputs(self, call: schema.DelegateCall) -> tuple[int, ...]:
        """The values that the call sets."""
        return call.args[self.given :]


def matched(plan: schema.ExecutionPlan, graphs: Sequence[Graph]) -> tuple[list[Graph], list[DelegateArguments]]:
    """The graphs of a method's delegates, made to write the buffers that they should, and what their arguments are.

    Raises InvalidProgramError or UnsupportedProgramError when a call's arguments cannot be those of its graph, or in
    more ways than one.
    """
    found = list(graphs)
    arguments: list[DelegateArguments | None] = [None] * len(found)
    for chain in plan.chains:
        for instruction in chain.instructions:
            if not isinstance(call := instruction.call, schema.DelegateCall):
                continue
            index = call.delegate_index
            graph, its = _match(plan, call, graphs[index])
            if arguments[index] not in (None, its):
                raise UnsupportedProgramError(f"method {plan.name!r} calls one delegate in two ways: export it again")
            found[index], arguments[index] = graph, its
    uncalled = DelegateArguments(0, (), ())
    return found, [uncalled if its is None else its for its in arguments]


def _match(plan: schema.ExecutionPlan, call: schema.DelegateCall, graph: Graph) -> tuple[Graph, DelegateArguments]:
    args = [plan.values[index].value for index in call.args]
    given = len(graph.inputs)
    if len(args) != given + len(graph.outputs):
        given = len(args) - _results(plan, call)
    inputs = _inputs(plan, graph, args[:given])
    wanted = args[given:]
    if len(wanted) == len(graph.outputs) and all(map(_fits, graph.outputs, wanted)):
        return graph, DelegateArguments(given, inputs, tuple(range(len(wanted))))
    buffers, outputs = _outputs(plan, graph, wanted)
    if buffers:
        results = [value for value in graph.outputs[:buffers] if isinstance(value, Tensor)]
        stored = written_back(graph, results)
        if stored is None:
            raise UnsupportedProgramError(
                f"a delegate of method {plan.name!r} gives back new values of buffers, and the program does not say of "
                "which: export it with the compile option alias_buffer_mutations=True"
            )
        graph = stored
    used = sorted(set(outputs))
    graph = replace(graph, outputs=tuple(graph.outputs[position] for position in used))
    return graph, DelegateArguments(given, inputs, tuple(used.index(position) for position in outputs))


def _results(plan: schema.ExecutionPlan, call: schema.DelegateCall) -> int:
    """How many of the last arguments of a call have no value before it."""
    others = {
        index
        for chain in plan.chains
        for instruction in chain.instructions
        if instruction.call is not call
        for index in _mentioned(instruction.call)
    }
    count = 0
    for index in reversed(call.args):
        value = plan.values[index].value
        known = isinstance(value, schema.Tensor) and (value.is_constant or value.has_initial_state)
        first = not known and index not in plan.inputs and (index not in others or _written_first(plan, call, index))
        if not first:
            break
        count += 1
    return count


def _written_first(plan: schema.ExecutionPlan, call: schema.DelegateCall, index: int) -> bool:
    """Whether no instruction before this one mentions a value."""
    for chain in plan.chains:
        for instruction in chain.instructions:
            if instruction.call is call:
                return True
            if index in _mentioned(instruction.call):
                return False
    return True


def _mentioned(call: schema.Call) -> tuple[int, ...]:
    match call:
        case schema.KernelCall(args=args) | schema.DelegateCall(args=args):
            return args
        case schema.MoveCall(source, target):
            return source, target
        case _:
            return ()


def _inputs(plan: schema.ExecutionPlan, graph: Graph, args: Sequence[schema.ProgramValue]) -> tuple[int, ...]:
    """Which argument each input of the graph is; an argument that nothing reads is none."""
    if len(args) == len(graph.inputs):
        choices = [tuple(range(len(args)))] if all(map(_fits, graph.inputs, args)) else []
    else:
        choices = _first_two(_subsequences(graph.inputs, args))
    if len(choices) == 1:
        return choices[0]
    raise _unmatched(plan, "inputs", graph.inputs, args, ambiguous=bool(choices))


def _subsequences(values: Sequence[GraphValue], args: Sequence[schema.ProgramValue]) -> Iterator[tuple[int, ...]]:
    def search(value: int, start: int) -> Iterator[tuple[int, ...]]:
        if value == len(values):
            yield ()
            return
        for position in range(start, len(args) - (len(values) - value) + 1):
            if _fits(values[value], args[position]):
                yield from ((position, *rest) for rest in search(value + 1, position + 1))

    return search(0, 0)


def _outputs(
    plan: schema.ExecutionPlan, graph: Graph, wanted: Sequence[schema.ProgramValue]
) -> tuple[int, tuple[int, ...]]:
    """(how many outputs are buffers, which output of the graph each wanted value is)."""
    ways: dict[tuple[int, ...], int] = {}
    if len(graph.outputs) <= _MOST_OUTPUTS:
        for buffers in range(_possible_buffers(graph) + 1):
            for way in _first_two(_with_repeats(graph.outputs, buffers, wanted)):
                ways.setdefault(way, buffers)
    if len(ways) == 1:
        ((way, buffers),) = ways.items()
        return buffers, way
    raise _unmatched(plan, "outputs", graph.outputs, wanted, ambiguous=bool(ways))


def _possible_buffers(graph: Graph) -> int:
    """How many of the first outputs may be new values of buffers: each needs a constant of its dims and dtype."""
    constants = {t.id: t for call in graph.calls for t in call.inputs if t.constant is not None}
    left = [(t.dtype, t.max_dims) for t in constants.values()]
    count = 0
    for value in graph.outputs:
        if not isinstance(value, Tensor) or (value.dtype, value.max_dims) not in left:
            break
        left.remove((value.dtype, value.max_dims))
        count += 1
    return count


def _with_repeats(
    values: Sequence[GraphValue], buffers: int, wanted: Sequence[schema.ProgramValue]
) -> Iterator[tuple[int, ...]]:
    """Ways to give each wanted value an output, so that those after the buffers appear for the first time in order."""

    def search(position: int, seen: int) -> Iterator[tuple[int, ...]]:
        if len(values) - seen > len(wanted) - position:
            return
        if position == len(wanted):
            yield ()
            return
        for output in range(min(seen + 1, len(values))):
            if _fits(values[output], wanted[position]):
                yield from ((output, *rest) for rest in search(position + 1, max(seen, output + 1)))

    return search(0, buffers)


def _first_two(ways: Iterator[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [way for way, _ in zip(ways, range(2), strict=False)]


def _fits(value: GraphValue, arg: schema.ProgramValue) -> bool:
    """Whether a value of the graph can be what the program has there."""
    if not isinstance(arg, schema.Tensor):
        return isinstance(value, SymInt)
    if isinstance(value, SymInt):
        return all(size == 1 for size in arg.sizes)
    kind = "float" if value.dtype.startswith("float") else "bool" if value.dtype == "bool" else "int"
    wanted = _KINDS.get(arg.scalar_type, "int")
    if wanted != kind and not (wanted == "bool" and value.dtype == "uint8"):
        return False
    if arg.shape_dynamism is schema.ShapeDynamism.STATIC:
        return tuple(arg.sizes) == value.max_dims
    return len(arg.sizes) == len(value.max_dims)  # each side has its own upper bounds


def _unmatched(
    plan: schema.ExecutionPlan,
    role: str,
    values: Sequence[GraphValue],
    args: Sequence[schema.ProgramValue],
    *,
    ambiguous: bool,
) -> InvalidProgramError | UnsupportedProgramError:
    theirs = ", ".join(_described(arg) for arg in args) or "nothing"
    ours = ", ".join(str(value) for value in values) or "nothing"
    if ambiguous:
        unsaid, advice = (
            ("nothing reads", "leave out inputs that the model does not need")
            if role == "inputs"
            else (
                "repeat",
                "return every tensor once (a clone of another one counts as that one), or export with the compile "
                "option alias_buffer_mutations=True if the model writes its buffers",
            )
        )
        return UnsupportedProgramError(
            f"a delegate of method {plan.name!r} has {len(values)} {role} ({ours}) for {len(args)} of the program "
            f"({theirs}), and the program does not say which of them {unsaid}: {advice}"
        )
    return InvalidProgramError(
        f"a delegate of method {plan.name!r} has the {role} {ours}, which cannot be the program's {theirs}: export it "
        "again, with the compile option alias_buffer_mutations=True if the model writes its buffers"
    )


def _described(arg: schema.ProgramValue) -> str:
    if not isinstance(arg, schema.Tensor):
        return type(arg).__name__
    return f"{dtype_name(arg)}{list(arg.sizes)}"

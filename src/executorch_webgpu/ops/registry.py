"""The table of operators: name in a program -> plan function, reference and traits.

An operator is one pure plan function. It is called with the planner and the call's arguments, outputs last, checks
them, sizes its outputs and names the kernels to run. The same function serves at load (maximum dims) and at every
change of live dims. Its NumPy float64 ``reference`` states the meaning and is the oracle of the tests. Its traits are
what passes over a graph need to know of it, so that none of them knows operators by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import KernelError
from . import rows as rules_of_rows
from . import sizes as rules_of_sizes
from .rows import Cut, RowAxes, RowRule
from .sizes import SizeRule
from .values import SymInt, Tensor

PlanFunction = Callable[..., None]
Reference = Callable[..., Any]


@dataclass(frozen=True)
class Linear:
    """What a linear layer [..., K] -> [..., N] calls its arguments; the first one is its input.

    ``weight_format`` is what ``fused_linear`` calls the format of its weights.
    """

    weight_format: str
    weight: str
    scales: str | None = None
    group_size: str | None = None
    bias: str | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        return tuple(name for name in (self.weight, self.scales, self.group_size, self.bias) if name is not None)


@dataclass(frozen=True)
class Table:
    """What a look-up of rows calls its arguments: the output has a row for every element of ``indices``.

    ``rows``: the tensors that make up the table, the one that says how many rows there are first, each with the axis
    along which it has a place for every row. Any of them may be None in a call.
    """

    rows: Mapping[str, int]
    indices: str


@dataclass(frozen=True)
class Op:
    """One operator: its name, what computes it, what it takes, and its traits.

    ``kinds`` are the annotations of the plan function's arguments: what a program may give for each.
    ``parameters`` are the argument names of the plan function, without the planner; the last one is the output
    (a tensor, a SymInt, or a list of tensors).
    ``reference(*inputs)`` takes and returns NumPy arrays and numbers, writes ``mutates`` in place, and returns the
    output, or a tuple of them.

    The traits follow, each with its sentence. Names in them are names of arguments.
    """

    name: str
    plan: PlanFunction
    reference: Reference
    parameters: tuple[str, ...]
    kinds: tuple[Any, ...]
    # What it writes besides its output.
    mutates: tuple[str, ...] = ()
    # What torch brings to one dtype before it computes element by element.
    promoted: tuple[str, ...] = ()
    # The result jumps where an operand hardly changes, as that of a comparison, so it must be computed in the
    # operands' own precision.
    discontinuous: bool = False
    # How the sizes of its outputs follow from its arguments (ops/sizes.py); None: they do not.
    sizes: SizeRule | None = None
    # Along which axes rows are independent of each other (ops/rows.py); None: along none.
    rows: RowRule | None = None
    # Every element of the output is computed of the elements in its place, of tensors that broadcast.
    elementwise: bool = False
    # The output holds the elements of the first argument in their order, wherever it has their dtype.
    view: bool = False
    # The dimension along which the output is a part of the first argument.
    selects: str | None = None
    # Tensors of which a token reads one row only; the first one says how many rows all of them have.
    reads_rows_of: tuple[str, ...] = ()
    # It is a linear layer, which takes these arguments.
    linear: Linear | None = None
    # It looks up rows of a table, whose arguments are among ``reads_rows_of``.
    table: Table | None = None
    # KV caches that it writes: by name of a cache [1, C, ...], that of the rows [1, S, ...] that it stores there.
    caches: Mapping[str, str] = field(default_factory=dict)
    # The row of the caches from which it writes.
    position: str | None = None

    def row_axes(self, args: Sequence[Any], axes: Mapping[int, int], counts: Iterable[int] = ()) -> RowAxes | None:
        """The axis along which every output of a call is cut into rows, where tensors are cut along ``axes``.

        None of one output: it stays whole. None of all: rows are not independent of each other. ``axes`` are by tensor
        id; ``counts`` are the ids of SymInts that hold the number of rows.
        """
        ids = set(_ids(args[:-1]))
        cut = Cut({id: axis for id, axis in axes.items() if id in ids}, ids.intersection(counts))
        outputs = len(args[-1]) if isinstance(args[-1], list) else 1
        if not cut.axes and not cut.counts:
            return (None,) * outputs
        found = None if self.rows is None else self.rows(cut, *args)
        return (found,) * outputs if isinstance(found, int) else found


_OPS: dict[str, Op] = {}


def op(
    *names: str,
    reference: Reference,
    mutates: tuple[str, ...] = (),
    promoted: tuple[str, ...] = (),
    discontinuous: bool = False,
    sizes: SizeRule | None = None,
    rows: RowRule | None = None,
    elementwise: bool = False,
    view: bool = False,
    selects: str | None = None,
    reads_rows_of: tuple[str, ...] = (),
    linear: Linear | None = None,
    table: Table | None = None,
    caches: Mapping[str, str] = MappingProxyType({}),
    position: str | None = None,
) -> Callable[[PlanFunction], PlanFunction]:
    """Register a plan function under every name that programs use for it, with its traits (see ``Op``).

    What is ``elementwise`` has the sizes and rows of that, ``caches`` are among what it ``mutates``, and rows of a
    ``table`` are what it reads.
    """

    def register(plan: PlanFunction) -> PlanFunction:
        parameters = tuple(inspect.signature(plan).parameters)[1:]
        hints = get_type_hints(plan)
        made = Op(
            names[0],
            plan,
            reference,
            parameters,
            tuple(hints[name] for name in parameters),
            mutates=(*caches, *mutates),
            promoted=promoted,
            discontinuous=discontinuous,
            sizes=sizes or (rules_of_sizes.broadcast if elementwise else None),
            rows=rows or (rules_of_rows.broadcast if elementwise else None),
            elementwise=elementwise,
            view=view,
            selects=selects,
            reads_rows_of=reads_rows_of or (() if table is None else tuple(table.rows)),
            linear=linear,
            table=table,
            caches=caches,
            position=position,
        )
        _check_traits(made)
        for name in names:
            if name in _OPS:
                raise KernelError(f"operator {name} is registered twice")
            _OPS[name] = replace(made, name=name)
        return plan

    return register


def _check_traits(made: Op) -> None:
    """Refuses traits that say nothing about the operator, since it does not take what they name."""
    layer = made.linear.arguments if made.linear is not None else ()
    indices = None if made.table is None else made.table.indices
    single = [name for name in (made.selects, made.position, indices) if name is not None]
    named = {*made.mutates, *made.promoted, *made.caches.values(), *made.reads_rows_of, *layer, *single}
    if unknown := named - set(made.parameters):
        raise KernelError(f"operator {made.name} states traits of {sorted(unknown)}, which it does not take")
    if made.caches and made.position is None:
        raise KernelError(f"operator {made.name} writes the caches {sorted(made.caches)}, but states no position")
    for trait, rule in (("sizes", made.sizes), ("rows", made.rows)):
        try:
            if rule is not None:
                inspect.signature(rule).bind(None, *made.parameters)
        except TypeError as error:
            raise KernelError(f"operator {made.name} has a rule of {trait} for other arguments: {error}") from error


def _ids(args: Iterable[Any]) -> Iterable[int]:
    """Ids of the tensors and SymInts among arguments, those in lists too."""
    for arg in args:
        if isinstance(arg, list):
            yield from _ids(arg)
        elif isinstance(arg, Tensor | SymInt):
            yield arg.id


def is_a(kind: Any, value: Any) -> bool:
    """Whether ``value`` can be an argument that is annotated as ``kind``; a bool is an int, and an int a float."""
    if kind is Any:
        return True
    if get_origin(kind) in (Union, UnionType):
        return any(is_a(k, value) for k in get_args(kind))
    if get_origin(kind) is not None:  # a sequence
        (item,) = get_args(kind)
        return isinstance(value, list) and all(is_a(item, v) for v in value)
    if kind in (int, float, bool):
        return isinstance(value, int | float if kind is float else int)
    return value is None if kind is NoneType else isinstance(value, kind)


def find(name: str) -> Op | None:
    """The operator of that name, or None."""
    return _OPS.get(name)


def names() -> tuple[str, ...]:
    """All operator names, sorted."""
    return tuple(sorted(_OPS))

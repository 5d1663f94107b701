"""Which operator an instruction calls, and with which arguments.

An instruction is an ``out`` overload, ``aten::add`` / ``out``. Operators have the names of functional ones, which take
the same arguments in the same order, but for those that say how the result is made: an ``out`` overload has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from ..format import program_schema as schema
from ..ops.registry import Op, find, names

# Functional overloads that the name of the ``out`` overload does not tell.
_OVERLOADS = {
    ("aten::max", "dim_max"): "dim",
    ("aten::min", "dim_min"): "dim",
    ("aten::max", "unary_out"): "default",
    ("aten::min", "unary_out"): "default",
    ("aten::median", "dim_values"): "dim",
    ("aten::any", "all_out"): "default",
    ("aten::all", "all_out"): "default",
    ("aten::any", "out"): "dim",
    ("aten::all", "out"): "dim",
    ("aten::mean", "dtype_out"): "default",
    ("aten::mean", "out"): "dim",
    ("aten::sum", "IntList_out"): "dim_IntList",
    ("aten::sort", "values_stable"): "stable",
    ("aten::unbind_copy", "int_out"): "int",
    ("aten::arange", "out"): "default",
    ("aten::arange", "start_out"): "start_step",
    **{
        (f"quantized_decomposed::{name}", "Tensor_out"): "tensor"
        for name in ("quantize_per_tensor", "dequantize_per_tensor", "choose_qparams")
    },
}
# Of these, some say how a result is made, and its dtype says so too.
_MADE_AS = frozenset({"dtype", "layout", "device", "pin_memory", "memory_format"})
VIEW = "executorch_prim::et_view"  # of memory, without a copy
_NUMBER = "et_vk.select_as_symint.default"
_NAMES = {
    "aten::_local_scalar_dense": _NUMBER,
    "aten::sym_size": "sym_size.int",
    "dim_order_ops::_empty_dim_order": "aten.empty.memory_format",
    VIEW: "aten.view_copy.default",
}
_SCALARS = {"sub", "mul", "floordiv", "mod", "neg", "sym_max", "sym_min", "add"}


@cache
def operator_of(name: str, overload: str, arity: int) -> Op | None:
    """The operator that an instruction with so many inputs calls; None if there is none.

    ``name`` and ``overload`` as in a program: ``aten::add``, ``out``.
    """
    namespace, _, stem = name.partition("::")
    if name in _NAMES:
        return find(_NAMES[name])
    if namespace == "executorch_prim":
        return find(stem) if stem in _SCALARS else None
    return next((op for op in _candidates(namespace, stem, overload) if _takes(op, arity)), None)


def _candidates(namespace: str, stem: str, overload: str) -> list[Op]:
    functional = _OVERLOADS.get((f"{namespace}::{stem}", overload))
    if functional is None:
        functional = overload.removesuffix("out").removesuffix("_").replace("out_", "Tensor_")
    prefix = f"{namespace}.{stem}."
    wanted = [prefix + functional] if functional else [prefix + "default", prefix + "Tensor", prefix + "self"]
    if functional == "values":
        wanted.append(prefix + "default")
    wanted += [name for name in names() if name.startswith(prefix)] if functional not in _exact(prefix) else []
    found = (find(name) for name in wanted)
    return [op for op in found if op is not None]


def _exact(prefix: str) -> set[str]:
    """The overloads that are registered under a prefix."""
    return {name.removeprefix(prefix) for name in names() if name.startswith(prefix)}


def _takes(op: Op, arity: int) -> bool:
    return any(len(stated) == arity for stated in _stated(op))


def _stated(op: Op) -> Iterator[list[str]]:
    """The inputs that an instruction may state: all of them, or those that do not say how the result is made."""
    inputs = list(op.parameters[:-1])
    yield inputs
    yield [name for name in inputs if name not in _MADE_AS]
    yield [name for name in inputs if name not in _MADE_AS - {"memory_format"}]


def arguments(op: Op, given: Sequence[Any]) -> list[Any]:
    """The inputs of a call of ``op``, of those of an instruction."""
    if op.name == _NUMBER and len(given) == 1:
        return [*given, 0, 0]  # of one element
    stated = next(names for names in _stated(op) if len(names) == len(given))
    named = dict(zip(stated, given, strict=True))
    return [named.get(name) for name in op.parameters[:-1]]


def mutated_positions(name: str, overload: str, arity: int) -> tuple[int, ...]:
    """Positions of the inputs that an instruction writes besides its outputs."""
    op = operator_of(name, overload, arity)
    if op is None or not op.mutates:
        return ()
    return tuple(op.parameters.index(parameter) for parameter in op.mutates)


def kernel_values(plan: schema.ExecutionPlan, call: schema.KernelCall) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the inputs and of the outputs of a kernel's call.

    An ``out`` overload names its output and then once more as its result, several outputs, or a list of them, once more
    as a list. What collects the results of a loop names the output first.
    """
    args = call.args
    if plan.operators[call.op_index].name == "executorch_prim::et_copy_index":
        return args, args[:1]
    last = plan.values[args[-1]].value if args else None
    if isinstance(last, schema.TensorList):
        listed = plan.values[args[-2]].value == last
        return args[: -2 if listed else -1 - len(last.items)], last.items
    return (args[:-2] if args[-2:-1] == args[-1:] else args[:-1]), args[-1:]

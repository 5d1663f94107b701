"""Several elementwise operators as one kernel, generated from what each of them would run alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UnsupportedProgramError
from ...gpu.capabilities import Features, Limits
from ..plan import Planner, Planning
from ..registry import Op, find, is_a, op
from ..rows import Cut
from ..shapes import ceil_div
from ..sizes import Shape, Sizes
from ..values import ELEMENT_TYPES, LiveTensor, Tensor
from .element import WORKGROUP

NAME = "elementwise_chain"
DTYPES = ("float32", "float16", "bfloat16")
MOST_INPUTS = 7  # beside the output: storage buffers of the smallest device
# What kernels of one expression call its operands and its scalars.
_NAMES = {"elementwise/unary": (("x",), ("p", "q", "r")), "elementwise/broadcast": (("a", "b", "c"), ("p",))}


@dataclass(frozen=True)
class Link:
    """One operator on floats: an ``expression`` of WGSL, and the names of its vec4 operands and of its scalars."""

    expression: str
    operands: tuple[str, ...]
    scalars: tuple[tuple[str, float], ...]


def link(operator: Op | None, scalars: Sequence[Any], dtype: str = "float32") -> Link | None:
    """What an operator computes, whose arguments beside the tensors are ``scalars``; None if it cannot be in a chain.

    It can if it is elementwise and its plan on tensors of ``dtype`` is one kernel of one expression.
    """
    if operator is None or not operator.elementwise:
        return None
    tensors = operator.kinds[:-1].count(Tensor)
    kinds = [kind for kind in operator.kinds[:-1] if kind is not Tensor]
    if len(kinds) != len(scalars) or not all(map(is_a, kinds, scalars)):
        return None
    planner = Planner(Planning(Features.none(), Limits.floor()), building=True, may_alias=False)
    *operands, out = (LiveTensor(Tensor(-1 - i, dtype, (4,))) for i in range(tensors + 1))
    try:
        planner.plan(operator, [*_arguments(operator, operands, scalars), out])
    except UnsupportedProgramError:
        return None
    (dispatch, *others) = planner.result.dispatches or (None,)
    if others or dispatch is None or dispatch.kernel not in _NAMES or dispatch.template["compute"] != "f32":
        return None
    operand_names, scalar_names = _NAMES[dispatch.kernel]
    expression = dispatch.template["expression"]
    return Link(expression, operand_names[:tensors], tuple((n, float(dispatch.params[n])) for n in scalar_names))


def _arguments(operator: Op, tensors: Sequence[Any], scalars: Sequence[Any]) -> list[Any]:
    """Tensors and other arguments in the order in which an operator takes them."""
    given, others = iter(tensors), iter(scalars)
    return [next(given if kind is Tensor else others) for kind in operator.kinds[:-1]]


def elementwise_chain_reference(
    inputs: list[np.ndarray],
    steps: list[Any],
    stored_as: str = "float32",
    noise: np.random.Generator | None = None,
) -> Any:
    """Results of steps are rounded to ``stored_as`` where that has fewer bits than float32, as kernels do.

    What jumps is computed in float32. ``noise`` moves results of steps by the last bits of that.
    """
    narrow = ELEMENT_TYPES[stored_as].numpy if ELEMENT_TYPES[stored_as].itemsize < 4 else np.dtype(np.float64)
    values = list(np.broadcast_arrays(*inputs))
    for name, operands, scalars in steps:
        found = find(name)
        assert found is not None
        given = _arguments(found, [values[i] for i in operands], scalars)
        if found.discontinuous:
            given = [np.asarray(arg, np.float32) if isinstance(arg, np.ndarray | float) else arg for arg in given]
        result = np.asarray(found.reference(*given), np.float64).astype(narrow).astype(np.float64)
        values.append(result if noise is None else result * (1 + noise.uniform(-(2.0**-23), 2.0**-23, result.shape)))
    return values[-1]


def chain_sizes(s: Sizes, inputs: list[Tensor], steps: list[Any], out: Tensor) -> Shape | None:
    return next((s.of(x) for x in sorted(inputs, key=_is_single)), None)


def chain_rows(cut: Cut, inputs: list[Tensor], steps: list[Any], out: Tensor) -> int | None:
    """Of all inputs but single elements, which go with every row."""
    return cut.together([x for x in inputs if not _is_single(x)])


@op("et_webgpu.elementwise_chain.default", reference=elementwise_chain_reference, sizes=chain_sizes, rows=chain_rows)
def elementwise_chain(planner: Planner, inputs: list[Tensor], steps: list[Any], out: Tensor) -> None:
    """``out`` = the last of ``steps``, which are elementwise operators of tensors of one of ``DTYPES``.

    A step is an operator's name, the places of its tensors among the inputs and the results before it, and its other
    arguments, wherever they stand between these. ``inputs`` have the dims of ``out``, or one element, which then goes
    with all of them.
    """
    tensors = [*inputs, out]
    alike = out.dtype in DTYPES and all(t.dtype == out.dtype for t in inputs)
    planner.check(alike, f"{NAME} takes tensors of one float dtype, not {tensors}")
    planner.check(0 < len(inputs) <= MOST_INPUTS, f"{NAME} takes up to {MOST_INPUTS} inputs, not {len(inputs)}")
    whole = [t for t in inputs if not _is_single(t)] or inputs[:1]
    fits = all(t.dims == whole[0].dims for t in whole) and all(t.rank <= whole[0].rank for t in inputs)
    planner.check(fits, f"{NAME}: {inputs} must have the same dims, or one element")
    planner.resize(out)
    links = _links(planner, steps, len(inputs), out.dtype)
    quads = ceil_div(out.numel, 4)
    scalars = [[*(value for _, value in step.scalars), *(0.0,) * (4 - len(step.scalars))] for step, _ in links]
    planner.dispatch(
        "elementwise/chain",
        planner.grid_1d(quads, WORKGROUP),
        {"out": out, **{f"input{i}": t for i, t in enumerate(inputs)}},
        {"quads": quads, "none": (0, 0, 0, 0), "scalars": scalars},
        overrides={"wg_size": WORKGROUP},
        template={
            "dtype": out.dtype,
            "single": tuple(_is_single(t) for t in inputs),
            "steps": tuple(
                (
                    step.expression,
                    tuple(zip(step.operands, places, again, strict=True)),
                    tuple(zip((name for name, _ in step.scalars), "xyzw", strict=False)),
                )
                for (step, places), again in zip(links, _used_before(links), strict=True)
            ),
        },
    )


def _used_before(links: list[tuple[Link, list[int]]]) -> list[list[str]]:
    """Of each operand of each step, what hides that it is a value of an earlier one: "" at its first use.

    Neighbouring uses have different components, so that they are not the same to a compiler either.
    """
    uses: Counter[int] = Counter()
    found: list[list[str]] = []
    for _, places in links:
        found.append([])
        for place in places:
            found[-1].append("" if not uses[place] else "xyzw"[(uses[place] - 1) % 4])
            uses[place] += 1
    return found


def _is_single(x: Tensor) -> bool:
    return all(n == 1 for n in x.max_dims)


def _links(planner: Planner, steps: list[Any], inputs: int, dtype: str) -> list[tuple[Link, list[int]]]:
    """The steps with the places of their operands."""
    found: list[tuple[Link, list[int]]] = []
    planner.check(len(steps) > 0, f"{NAME} needs a step")
    for step in steps:
        planner.check(
            isinstance(step, list) and len(step) == 3 and isinstance(step[2], list), f"{NAME} has no step {step}"
        )
        name, places, scalars = step
        described = link(find(name) if isinstance(name, str) else None, scalars, dtype)
        if described is None:
            raise UnsupportedProgramError(f"{NAME}: {name} with {list(scalars)} can be no step of it")
        before = range(inputs + len(found))
        known = is_a(list[int], places) and all(place in before for place in places)
        planner.check(
            known and len(places) == len(described.operands), f"{NAME}: {name} cannot work on the values {places}"
        )
        found.append((described, places))
    return found

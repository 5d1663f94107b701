"""Several elementwise operators as one kernel, generated from what each of them would run alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...gpu.capabilities import Features, Limits
from ..plan import Planner, Planning
from ..registry import find, is_a, op
from ..shapes import ceil_div
from ..values import LiveTensor, Tensor
from .binary import BINARY, WITH_ALPHA
from .element import WORKGROUP
from .unary import FLOAT, PLAIN, WITH_SCALAR, WITH_TWO_SCALARS

NAME = "elementwise_chain"
MOST_INPUTS = 7  # beside the output: storage buffers of the smallest device
LINKS = frozenset(
    {
        *(*FLOAT, *PLAIN, *WITH_SCALAR, *WITH_TWO_SCALARS, *BINARY, *WITH_ALPHA),
        *("aten.relu.default", "aten.clamp.default", "aten.hardtanh.default", "aten.gelu.default"),
        *("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.div.Tensor_mode"),
    }
)
_NAMES = {"elementwise/unary": (("x",), ("p", "q")), "elementwise/binary": (("a", "b"), ("alpha",))}


@dataclass(frozen=True)
class Link:
    """One operator on float32: an ``expression`` of WGSL, and the names of its vec4 operands and of its scalars."""

    expression: str
    operands: tuple[str, ...]
    scalars: tuple[tuple[str, float], ...]


def link(name: str, scalars: Sequence[Any]) -> Link:
    """What an operator of ``LINKS`` computes; ``scalars`` are its arguments behind the tensors.

    Raises UnsupportedProgramError when the operator does not take them.
    """
    found = find(name)
    assert found is not None
    tensors = found.kinds[:-1].count(Tensor)
    g = Planner(Planning(Features.none(), Limits.floor()), building=True, may_alias=False)
    kinds = found.kinds[tensors:-1]
    fits = len(kinds) == len(scalars) and all(map(is_a, kinds, scalars))
    g.check(fits, f"{NAME}: {name} does not take {list(scalars)}")
    *operands, out = (LiveTensor(Tensor(-1 - i, "float32", (4,))) for i in range(tensors + 1))
    found.plan(g, *operands, *scalars, out)
    (dispatch,) = g.result.dispatches
    operand_names, scalar_names = _NAMES[dispatch.kernel]
    expression = dispatch.template["expression"]
    return Link(expression, operand_names, tuple((n, float(dispatch.params[n])) for n in scalar_names))


def elementwise_chain_reference(inputs: list[np.ndarray], steps: list[Any]) -> Any:
    values = list(np.broadcast_arrays(*inputs))
    for name, operands, scalars in steps:
        found = find(name)
        assert found is not None
        values.append(np.asarray(found.reference(*(values[i] for i in operands), *scalars), np.float64))
    return values[-1]


@op("et_webgpu.elementwise_chain.default", reference=elementwise_chain_reference)
def elementwise_chain(g: Planner, inputs: list[Tensor], steps: list[Any], out: Tensor) -> None:
    """``out`` = the last of ``steps``, which are elementwise operators of float32.

    A step is a name of ``LINKS``, the places of its tensors among the inputs and the results before it, and its other
    arguments. ``inputs`` have the dims of ``out``, or one element, which then goes with all of them.
    """
    tensors = [*inputs, out]
    g.check(all(t.dtype == "float32" for t in tensors), f"{NAME} takes float32 tensors, not {tensors}")
    g.check(0 < len(inputs) <= MOST_INPUTS, f"{NAME} takes up to {MOST_INPUTS} inputs, not {len(inputs)}")
    whole = [t for t in inputs if not _is_single(t)] or inputs[:1]
    fits = all(t.dims == whole[0].dims for t in whole) and all(t.rank <= whole[0].rank for t in inputs)
    g.check(fits, f"{NAME}: {inputs} must have the same dims, or one element")
    g.resize(out, whole[0].dims)
    links = _links(g, steps, len(inputs))
    quads = ceil_div(out.numel, 4)
    scalars = [[*(value for _, value in step.scalars), *(0.0,) * (4 - len(step.scalars))] for step, _ in links]
    g.dispatch(
        "elementwise/chain",
        g.grid_1d(quads, WORKGROUP),
        {"out": out, **{f"input{i}": t for i, t in enumerate(inputs)}},
        {"quads": quads, "scalars": scalars},
        overrides={"wg_size": WORKGROUP},
        template={
            "single": tuple(_is_single(t) for t in inputs),
            "steps": tuple(
                (
                    step.expression,
                    tuple(zip(step.operands, places, strict=True)),
                    tuple(zip((name for name, _ in step.scalars), "xy", strict=False)),
                )
                for step, places in links
            ),
        },
    )


def _is_single(x: Tensor) -> bool:
    return all(n == 1 for n in x.max_dims)


def _links(g: Planner, steps: list[Any], inputs: int) -> list[tuple[Link, list[int]]]:
    """The steps with the places of their operands."""
    found: list[tuple[Link, list[int]]] = []
    g.check(len(steps) > 0, f"{NAME} needs a step")
    for step in steps:
        g.check(isinstance(step, list) and len(step) == 3 and step[0] in LINKS, f"{NAME} has no step {step}")
        name, places, scalars = step
        described = link(name, scalars)
        before = range(inputs + len(found))
        known = is_a(list[int], places) and all(place in before for place in places)
        g.check(known and len(places) == len(described.operands), f"{NAME}: {name} cannot work on the values {places}")
        found.append((described, places))
    return found

"""Sums of several workgroups that share a tile, each with a part of K: they are added up by a dispatch of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..plan import Binding, Planner
from ..shapes import ceil_div
from ..values import Scratch
from .call import Call, bindings, params, stored, template

_OVERRIDES = {"wg_size": 64}
_OF_OUTPUT = (
    "outputs",
    "gated",
    "bias",
    "residual",
    "fours",
)  # template inputs that say what becomes of a finished sum


def scratch_bytes(call: Call, splits: int) -> int:
    """Of the sums [splits, m, quads] of four float32."""
    return 16 * splits * call.m * call.packed.quads


def unfinished(given: dict[str, Any]) -> dict[str, Any]:
    """The template of a kernel that leaves bias, gate and residual to ``add``."""
    return {**given, "outputs": 1, "gated": False, "bias": False, "residual": False, "fours": True}


def of_output(bound: dict[str, Binding]) -> dict[str, Binding]:
    """What ``add`` binds, and the kernel before it does not."""
    return {name: b for name, b in bound.items() if name.startswith("out") or name in ("bias", "residual")}


def prepare(planner: Planner, call: Call) -> None:
    planner.prepare("matmul/sum_splits", template=_template(call), overrides=_OVERRIDES)


def dispatch(
    planner: Planner,
    kernel: str,
    call: Call,
    sizes: tuple[int, int, int],
    bound: dict[str, Binding],
    given: dict[str, Any],
    template: Callable[[bool], dict[str, Any]],
) -> None:
    """Run ``kernel`` over tiles, and add up where several workgroups share each.

    ``sizes``: tiles, steps along K, and at most how many workgroups share a tile. ``bound``, ``given``: bindings and
    parameters of a kernel that shares none; ``template`` of whether it does.
    """
    tiles, steps, shares = sizes
    part_steps = ceil_div(steps, shares)
    shares = max(1, ceil_div(steps, part_steps)) if shares > 1 else 1
    if shares > 1:
        sums = planner.scratch(scratch_bytes(call, shares))
        bound = {name: b for name, b in bound.items() if name not in of_output(bound)} | {"sums": sums}
        given = {name: value for name, value in given.items() if name not in ("ends", "widths")}
        given |= {"tiles": tiles, "part_steps": part_steps}
    planner.dispatch(kernel, planner.grid_1d(tiles * shares, 1), bound, given, template=template(shares > 1))
    if shares > 1:
        add(planner, call, sums, shares)


def add(planner: Planner, call: Call, sums: Scratch, splits: int) -> None:
    """The outputs of a call, of ``sums``."""
    given = params(call, 1)
    quads = call.packed.quads // (2 if call.gated else 1)
    planner.dispatch(
        "matmul/sum_splits",
        planner.grid_1d(call.m * quads, _OVERRIDES["wg_size"]),
        {"sums": sums, **of_output(bindings(call))},
        {**{name: given[name] for name in ("m", "quads", "ends", "widths")}, "splits": splits},
        overrides=_OVERRIDES,
        template=_template(call),
    )


def _template(call: Call) -> dict[str, Any]:
    given = {**template(call), **stored(call)}
    return {name: given[name] for name in _OF_OUTPUT}

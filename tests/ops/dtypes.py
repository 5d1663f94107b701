"""Which dtypes an operator takes, found by planning its samples with others in their place."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from executorch_webgpu.errors import Error
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.kernel import render
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops.plan import Dispatch, OpPlan, Planning
from executorch_webgpu.ops.registry import find
from executorch_webgpu.ops.values import ELEMENT_TYPES, Tensor

from .harness import Const, In, Mutable, Out
from .samples import SAMPLES, Sample

PLACES = (In, Const, Mutable, Out)
DTYPES = tuple(ELEMENT_TYPES)
_ELEMENT = re.compile(r"array<(?:vec[234]<)?(f32|i32)\b")


@dataclass(frozen=True)
class Taken:
    """What an operator takes: dtypes by argument, in the order of ``ELEMENT_TYPES``, and the plans of its samples."""

    dtypes: dict[str, tuple[str, ...]]
    plans: tuple[OpPlan, ...]


@functools.cache
def taken(op: str) -> Taken:
    """What the operator of that name takes, as far as its samples and changes of their dtypes tell."""
    found: dict[str, set[str]] = {}
    plans: list[OpPlan] = []
    for sample in (s for s in SAMPLES if s.op == op):
        plan = planned(sample)
        assert plan is not None, f"{sample} cannot be planned"
        plans.append(plan)
        for variant in (sample, *variants(sample, found)):
            for name, dtype in _dtypes(variant):
                found.setdefault(name, set()).add(dtype)
    return Taken({name: tuple(d for d in DTYPES if d in found[name]) for name in found}, tuple(plans))


def variants(sample: Sample, known: dict[str, set[str]] | None = None) -> Iterator[Sample]:
    """The sample with another dtype in the place of one that it has, wherever that can be planned.

    ``known``: dtypes by argument that need not be looked for any more.
    """
    for old in dtypes_of(sample):
        names = {name for name, dtype in _dtypes(sample) if dtype == old}
        for new in DTYPES:
            if not all(new in (known or {}).get(name, ()) for name in names):
                found = variant(sample, old, new)
                if found is not None:
                    yield found


def dtypes_of(sample: Sample) -> list[str]:
    """The dtypes of its inputs, or of its outputs where it has none."""
    inputs = [value for value in _flat(sample.args) if isinstance(value, PLACES)]
    return sorted({_dtype(value) for value in inputs or _flat([sample.out])}.intersection(DTYPES))


def variant(sample: Sample, old: str, new: str) -> Sample | None:
    """The sample with ``new`` in the place of the dtype ``old``; None where that cannot be planned.

    Tensors that have a dtype in common change together. Where the outputs cannot change, only the inputs do; where
    there are no inputs, the outputs.
    """
    if new == old:
        return None
    args = [_changed(arg, old, new) for arg in sample.args]
    out = _changed(sample.out, old, new)
    choices = [replace(sample, args=args, out=out)]
    integers = any("int" in _dtype(value) for value in _flat([out]))
    if integers and "float" in new and "float" not in old:
        return None  # torch gives integers for floats where it is told a dtype
    if out != sample.out and any(isinstance(value, PLACES) for value in _flat(sample.args)):
        choices.append(replace(sample, args=args))
    return next((choice for choice in choices if planned(choice) is not None), None)


def planned(sample: Sample) -> OpPlan | None:
    """The plan of a sample on the smallest device, if there is one that fits its kernels."""
    planning = Planning(Features.none(), Limits.floor(), **sample.options)
    try:
        plan = plan_graph(build_graph(sample.graph()), planning).plans[-1]
        return plan if all(map(_fits, plan.dispatches)) else None
    except Error:
        return None


def _fits(dispatch: Dispatch) -> bool:
    """Whether the kernel declares its tensors with the elements that they have. Raises KernelError."""
    elements = _elements(dispatch.kernel, dispatch.template)
    return all(
        elements[name] in (None, value.wgsl) for name, value in dispatch.bindings.items() if isinstance(value, Tensor)
    )


_known: dict[str, dict[str, str | None]] = {}


def _elements(kernel: str, template: Mapping[str, Any]) -> dict[str, str | None]:
    """By binding: the element of its array, if that is f32 or i32."""
    key = f"{kernel} {sorted(template.items())}"
    if key not in _known:
        source = render(kernel, template, "wgpu", Features.none())
        found = {binding.name: _ELEMENT.match(binding.type) for binding in source.bindings}
        _known[key] = {name: element and element[1] for name, element in found.items()}
    return _known[key]


def _dtypes(sample: Sample) -> Iterator[tuple[str, str]]:
    """Names of the operator's arguments, with the dtypes of their tensors."""
    op = find(sample.op)
    assert op is not None
    for name, arg in zip(op.parameters, [*sample.args, sample.out], strict=True):
        for value in _flat([arg]):
            if isinstance(value, PLACES) and _dtype(value) in ELEMENT_TYPES:
                yield name, _dtype(value)


def _flat(args: Sequence[Any]) -> Iterator[Any]:
    for arg in args:
        if isinstance(arg, list):
            yield from _flat(arg)
        else:
            yield arg


def _dtype(value: In | Const | Mutable | Out) -> str:
    return str(value.array.dtype) if isinstance(value, Const | Mutable) else value.dtype


def _changed(arg: Any, old: str, new: str) -> Any:
    """An argument whose tensors of the dtype ``old`` have ``new`` instead."""
    match arg:
        case list():
            return [_changed(item, old, new) for item in arg]
        case In() | Out() if arg.dtype == old:
            return replace(arg, dtype=new)
        case Const() | Mutable() if _dtype(arg) == old:
            limits = ELEMENT_TYPES[new].integer_limits
            with np.errstate(all="ignore"):
                array = arg.array if limits is None or _dtype(arg) == "bool" else np.clip(arg.array, *limits)
                return type(arg)(array.astype(ELEMENT_TYPES[new].numpy if new != "bool" else np.bool_))
    return arg

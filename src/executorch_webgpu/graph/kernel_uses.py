"""Which kernels a graph runs, in which variants, and for which operators."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..gpu.head import write_variant
from .resize import LivePlans


@dataclass(frozen=True)
class KernelUse:
    """One variant of a kernel: ``variant`` is what ``et-webgpu kernel --variant`` takes.

    ``dispatches``: how often it runs in a step like the last one, or at maximum dims before the first one; 0 for one
    that is compiled for other steps. ``operators`` are those that dispatch it, with their routes.
    """

    kernel: str
    variant: str
    dispatches: int
    operators: tuple[str, ...]


def kernel_uses(loaded: Iterable[LivePlans]) -> list[KernelUse]:
    """What load compiles for some graphs, those that run most often first."""
    dispatches: Counter[tuple[str, str]] = Counter()
    operators: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for plans in loaded:
        for kernel, template, _ in plans.pipelines():
            dispatches[kernel, write_variant(template)] += 0
        for call, plan in zip(plans.graph.calls, plans.plans, strict=True):
            for dispatch in plan.dispatches:
                key = dispatch.kernel, write_variant(dispatch.template)
                dispatches[key] += 1
                operators[key].add(f"{call.name} ({plan.route})" if plan.route else call.name)
    return [
        KernelUse(*key, count, tuple(sorted(operators[key])))
        for key, count in sorted(dispatches.items(), key=lambda each: (-each[1], each[0]))
    ]

"""One method as the program's file has it, with its delegates read once for all that ask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..format import program_schema as schema
from ..format.pte import ProgramFile
from ..format.vkgraph import VkGraph, read_vkgraph
from ..graph.build import Graph, build_graph
from ..graph.lowering.delegates import DelegateArguments, matched
from ..graph.lowering.instructions import Value
from ..graph.lowering.segments import Lowered, lower_method
from ..ops.bounds import Range
from ..portable.elements import file_elements

DELEGATE_ID = "VulkanBackend"


class MethodFile:
    """A method of ``file``: ``plan`` is its part of the program. Delegates are read when they are first asked for."""

    def __init__(self, file: ProgramFile, plan: schema.ExecutionPlan) -> None:
        self.file = file
        self.plan = plan
        self._lowered: dict[tuple[str, Range | None], Lowered] = {}

    @property
    def our_delegates(self) -> list[schema.BackendDelegate]:
        """The delegates that run here."""
        return [delegate for delegate in self.plan.delegates if delegate.id == DELEGATE_ID]

    @cached_property
    def vkgraphs(self) -> tuple[VkGraph, ...]:
        """What ``our_delegates`` hold. Raises InvalidProgramError."""
        return tuple(self._read(delegate) for delegate in self.our_delegates)

    def lowered(self, lower: str = "all", bounds: Range | None = None) -> Lowered:
        """The method as graphs and what the host does between them. ``bounds``: of all integers that callers give.

        Raises like ``build_graph`` and ``matched``.
        """
        if (lower, bounds) not in self._lowered:
            graphs, arguments = self._matched
            self._lowered[lower, bounds] = lower_method(self.file, self.plan, graphs, arguments, lower, bounds)
        return self._lowered[lower, bounds]

    def graphs(self, lower: str = "all", bounds: Range | None = None) -> Sequence[Graph]:
        """The graphs of ``lowered``, in order."""
        return [segment.graph for segment in self.lowered(lower, bounds).device_segments]

    def constant(self, value: Value) -> np.ndarray:
        """The elements of a constant, in the program's dtype. Raises UnsupportedProgramError if they are not there."""
        assert value.tensor is not None
        return file_elements(value.tensor, self.file.constant(value.tensor), self.plan.name)

    @cached_property
    def _matched(self) -> tuple[list[Graph], list[DelegateArguments]]:
        ours = len(self.vkgraphs) == len(self.plan.delegates)
        vkgraphs = self.vkgraphs if ours else [self._read(delegate) for delegate in self.plan.delegates]
        return matched(self.plan, [build_graph(vkgraph) for vkgraph in vkgraphs])

    def _read(self, delegate: schema.BackendDelegate) -> VkGraph:
        return read_vkgraph(self.file.delegate_data(delegate), self.file.data)

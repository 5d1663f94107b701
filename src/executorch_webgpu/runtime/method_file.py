"""One method as the program's file has it, with its delegates read once for all that ask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from ..format import program_schema as schema
from ..format.pte import ProgramFile
from ..format.vkgraph import VkGraph, read_vkgraph
from ..graph.build import Graph, build_graph
from ..graph.casts import with_casts
from .delegates import DelegateArguments, matched

DELEGATE_ID = "VulkanBackend"


class MethodFile:
    """A method of ``file``: ``plan`` is its part of the program. Delegates are read when they are first asked for."""

    def __init__(self, file: ProgramFile, plan: schema.ExecutionPlan) -> None:
        self.file = file
        self.plan = plan

    @property
    def our_delegates(self) -> list[schema.BackendDelegate]:
        """The delegates that run here."""
        return [delegate for delegate in self.plan.delegates if delegate.id == DELEGATE_ID]

    @cached_property
    def vkgraphs(self) -> tuple[VkGraph, ...]:
        """What ``our_delegates`` hold. Raises InvalidProgramError."""
        return tuple(self._read(delegate) for delegate in self.our_delegates)

    @property
    def graphs(self) -> Sequence[Graph]:
        """The graphs of all delegates, which are ours. Raises like ``build_graph`` and ``matched``."""
        return self._matched[0]

    @property
    def arguments(self) -> Sequence[DelegateArguments]:
        """What the arguments of the calls of each delegate are. Raises like ``graphs``."""
        return self._matched[1]

    @cached_property
    def _matched(self) -> tuple[list[Graph], list[DelegateArguments]]:
        ours = len(self.vkgraphs) == len(self.plan.delegates)
        vkgraphs = self.vkgraphs if ours else [self._read(delegate) for delegate in self.plan.delegates]
        graphs, arguments = matched(self.plan, [build_graph(vkgraph) for vkgraph in vkgraphs])
        return [with_casts(graph) for graph in graphs], arguments

    def _read(self, delegate: schema.BackendDelegate) -> VkGraph:
        return read_vkgraph(self.file.delegate_data(delegate), self.file.data)

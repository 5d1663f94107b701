"""A complete program around delegated graphs, with the tables that a stock export has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from ..format import program_schema as schema
from ..format.pte import LazySegment
from ..format.values import Bool, Int
from ..format.vkgraph import DataType, write_vkgraph
from .builder import GraphBuilder, TensorRef
from .weights import Constant

Constants = int | bool | list[int]
BACKEND = "VulkanBackend"
_OUTPUT_ALIGNMENT = 16
# The graph keeps 64-bit integers as 32-bit ones; callers pass int64, as they would to the model in torch.
_SCALAR_TYPES = {DataType.INT32: schema.ScalarType.LONG, DataType.FLOAT32: schema.ScalarType.FLOAT}


def assemble(
    graph: GraphBuilder | Mapping[str, GraphBuilder],
    keywords: Sequence[str],
    metadata: Mapping[str, Constants],
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> tuple[schema.Program, list[bytes | LazySegment]]:
    """(program, segments) whose ``forward`` is the graph, with a constant method for each entry of ``metadata``.

    ``graph``: or the graphs of several methods, by name; a constant that they have in common is stored once.
    ``keywords``: names of the last inputs, which callers in Python may pass by name. ``files`` become named data.
    Segment 0 is empty (there are no constants outside of the delegates), one follows for each delegate, for each
    constant of a graph, and for each file.
    """
    graphs = {"forward": graph} if isinstance(graph, GraphBuilder) else graph
    constants: dict[str, Constant] = {}
    for each in graphs.values():
        for name, constant in each.constants.items():
            constants.setdefault(name, constant)
    built = [each.graph() for each in graphs.values()]
    blobs = [write_vkgraph(each, each.constants) for each in built]
    methods = [_method(*named, keywords, segment) for segment, named in enumerate(graphs.items(), 1)]
    program = schema.Program(
        execution_plan=(*methods, *(_constant(name, value) for name, value in metadata.items())),
        constant_segment=schema.SubsegmentOffsets(0, (0,)),
        named_data=tuple(schema.NamedData(name, 1 + len(blobs) + i) for i, name in enumerate([*constants, *files])),
    )
    return program, [b"", *blobs, *(_segment(constant) for constant in constants.values()), *files.values()]


def _segment(constant: Constant) -> LazySegment:
    def pieces() -> Iterator[memoryview]:
        for piece in constant.pieces():
            yield memoryview(piece.tobytes())

    return LazySegment(constant.nbytes, pieces)


def _method(name: str, graph: GraphBuilder, keywords: Sequence[str], segment: int) -> schema.ExecutionPlan:
    values: list[schema.Tensor] = []
    for tensor in graph.inputs:
        values.append(_tensor(graph, tensor, dynamic=tensor.id in graph.dynamic, allocation=None))
    offset = 0
    for tensor in graph.outputs:
        allocation = schema.AllocationDetails(1, offset & 0xFFFFFFFF, offset >> 32)
        values.append(_tensor(graph, tensor, dynamic=tensor.id in graph.dynamic, allocation=allocation))
        offset += values[-1].nbytes + -values[-1].nbytes % _OUTPUT_ALIGNMENT
    positions = tuple(range(len(values)))
    split = len(graph.inputs)
    delegate = schema.BackendDelegate(
        BACKEND,
        schema.BackendDelegateDataReference(schema.DataLocation.SEGMENT, segment),
        (
            schema.CompileSpec("require_dynamic_shapes", memoryview(b"\1")),
            schema.CompileSpec("force_fp16", memoryview(b"\0")),
        ),
    )
    call = schema.Instruction(schema.DelegateCall(0, positions))
    return schema.ExecutionPlan(
        name,
        schema.ContainerMetadata(_inputs_tree(split - len(keywords), keywords), _tree(_LEAF)),
        tuple(schema.EValue(value) for value in values),
        inputs=positions[:split],
        outputs=positions[split:],
        chains=(schema.Chain(instructions=(call,)),),
        delegates=(delegate,),
        non_const_buffer_sizes=(0, offset),
    )


def _tensor(
    graph: GraphBuilder, tensor: TensorRef, *, dynamic: bool, allocation: schema.AllocationDetails | None
) -> schema.Tensor:
    return schema.Tensor(
        _SCALAR_TYPES[graph.dtype(tensor)],
        sizes=tensor.dims,
        dim_order=tuple(range(len(tensor.dims))),
        allocation_info=allocation,
        shape_dynamism=schema.ShapeDynamism.DYNAMIC_BOUND if dynamic else schema.ShapeDynamism.STATIC,
    )


def _constant(name: str, value: Constants) -> schema.ExecutionPlan:
    values = value if isinstance(value, list) else [value]
    many: _Node = {"type": "builtins.list", "context": "null", "children_spec": [_LEAF] * len(values)}
    return schema.ExecutionPlan(
        name,
        schema.ContainerMetadata("", _tree(many if isinstance(value, list) else _LEAF)),
        tuple(schema.EValue(Bool(item) if isinstance(item, bool) else Int(item)) for item in values),
        outputs=tuple(range(len(values))),
        chains=(schema.Chain(),),
        non_const_buffer_sizes=(0,),
    )


# How arguments and results nest, in the notation of torch.utils._pytree.
_Node = dict[str, object]
_LEAF: _Node = {"type": None, "context": None, "children_spec": []}


def _inputs_tree(positional: int, keywords: Sequence[str]) -> str:
    arguments: _Node = {"type": "builtins.tuple", "context": "null"}
    named: list[_Node] = [
        {"type": "builtins.dict", "context": json.dumps([k]), "children_spec": [_LEAF]} for k in keywords
    ]
    arguments["children_spec"] = [_LEAF] * positional + named
    empty: _Node = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    return _tree({"type": "builtins.tuple", "context": "null", "children_spec": [arguments, empty]})


def _tree(root: _Node) -> str:
    return json.dumps([1, root])

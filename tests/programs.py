"""Complete ``.pte`` programs by hand: one delegate call, and constant methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.pte import write_program
from executorch_webgpu.format.values import Bool, Int
from executorch_webgpu.format.vkgraph import VkTensor, write_vkgraph
from tests.graph_builder import GraphBuilder

_SCALAR_TYPES = {
    "float32": schema.ScalarType.FLOAT,
    "float16": schema.ScalarType.HALF,
    "int32": schema.ScalarType.INT,
    "int64": schema.ScalarType.LONG,
    "bool": schema.ScalarType.BOOL,
    "uint8": schema.ScalarType.BYTE,
}


def delegate_plan(
    build: GraphBuilder,
    dtypes: Sequence[str],
    dynamic: Sequence[int] = (),
    name: str = "forward",
    segment: int = 0,
    delegate: str = "VulkanBackend",
) -> schema.ExecutionPlan:
    """A method that is one delegate call.

    ``dtypes``: of the inputs and then the outputs, as the caller sees them. ``dynamic``: positions of the inputs
    whose shape has an upper bound only.
    """
    ids = [*build.inputs, *build.outputs]
    values = []
    for position, (id, dtype) in enumerate(zip(ids, dtypes, strict=True)):
        described = build.values[id]
        if not isinstance(described, VkTensor):
            values.append(schema.EValue(Int(0)))
            continue
        bounded = position in dynamic or position >= len(build.inputs)
        values.append(
            schema.EValue(
                schema.Tensor(
                    _SCALAR_TYPES[dtype],
                    sizes=tuple(described.dims),
                    dim_order=tuple(range(len(described.dims))),
                    shape_dynamism=schema.ShapeDynamism.DYNAMIC_BOUND if bounded else schema.ShapeDynamism.STATIC,
                )
            )
        )
    positions = tuple(range(len(ids)))
    split = len(build.inputs)
    call = schema.Instruction(schema.DelegateCall(0, positions))
    reference = schema.BackendDelegateDataReference(schema.DataLocation.SEGMENT, segment)
    return schema.ExecutionPlan(
        name,
        values=tuple(values),
        inputs=positions[:split],
        outputs=positions[split:],
        chains=(schema.Chain(instructions=(call,)),),
        delegates=(schema.BackendDelegate(delegate, reference),),
        non_const_buffer_sizes=(0,),
    )


def constant_plan(name: str, value: bool | int) -> schema.ExecutionPlan:
    """A method without inputs that answers with a constant."""
    boxed = schema.EValue(Bool(value) if isinstance(value, bool) else Int(value))
    return schema.ExecutionPlan(
        name, values=(boxed,), outputs=(0,), chains=(schema.Chain(),), non_const_buffer_sizes=(0,)
    )


def write_delegated(
    build: GraphBuilder,
    dtypes: Sequence[str],
    dynamic: Sequence[int] = (),
    constants: Mapping[str, bool | int] | None = None,
    delegate: str = "VulkanBackend",
) -> bytes:
    """The file of a program whose ``forward`` is the built graph, with constant methods."""
    blob = write_vkgraph(build.build(), [np.ascontiguousarray(a).tobytes() for a in build.constants])
    plans = [
        delegate_plan(build, dtypes, dynamic, delegate=delegate),
        *(constant_plan(n, v) for n, v in (constants or {}).items()),
    ]
    return write_program(schema.Program(execution_plan=tuple(plans)), [blob])

"""A small delegated graph and a small program, with one of everything that their readers follow."""

from __future__ import annotations

import struct

from executorch_webgpu.format.program_schema import (
    AllocationDetails,
    BackendDelegate,
    BackendDelegateDataReference,
    BackendDelegateInlineData,
    Chain,
    CompileSpec,
    ContainerMetadata,
    DataLocation,
    DelegateCall,
    EValue,
    ExecutionPlan,
    ExtraTensorInfo,
    FreeCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    MoveCall,
    NamedData,
    Operator,
    OptionalTensorList,
    Program,
    ScalarType,
    ShapeDynamism,
    SubsegmentOffsets,
    Tensor,
    TensorList,
)
from executorch_webgpu.format.pte import write_program
from executorch_webgpu.format.values import Bool, BoolList, Double, DoubleList, Int, IntList, Null, String
from executorch_webgpu.format.vkgraph import (
    NAMED,
    DataType,
    OperatorCall,
    SymInt,
    ValueList,
    VkBytes,
    VkGraph,
    VkTensor,
    write_vkgraph,
)

WEIGHT = struct.pack("<6f", *range(6))
BIAS = struct.pack("<3f", 7, 8, 9)

GRAPH = VkGraph(
    chain=(
        OperatorCall(0, "aten.linear.default", (0, 1, 2, 3)),
        OperatorCall(1, "sym_size.int", (0, 4, 5)),
        OperatorCall(2, "aten.view_copy.default", (3, 6, 7)),
    ),
    values=(
        VkTensor(DataType.FLOAT32, (5, 2), mem_obj_id=0),
        VkTensor(DataType.FLOAT32, (3, 2), constant_id=0),
        VkTensor(DataType.FLOAT32, (3,), constant_id=1),
        VkTensor(DataType.FLOAT32, (5, 3), mem_obj_id=1),
        Int(0),
        SymInt(0),
        ValueList((5, 4)),
        VkTensor(DataType.INT32, (15,), staging_datatype=DataType.INT64),
        Null(),
        Double(-0.5),
        Bool(True),
        IntList((1, -(2**63))),
        DoubleList((0.25, -3.5)),
        BoolList((True, False)),
        String("naïve"),
    ),
    input_ids=(0,),
    output_ids=(7,),
)
NAMED_BIAS = VkBytes(NAMED, len(BIAS), "bias")
BLOB = write_vkgraph(GRAPH, [WEIGHT, NAMED_BIAS])

_PLANNED = AllocationDetails(memory_id=1, offset_low=16)
_FORWARD = ExecutionPlan(
    name="forward",
    container_meta_type=ContainerMetadata("in", "out"),
    values=tuple(
        EValue(value)
        for value in (
            Tensor(ScalarType.FLOAT, sizes=(5, 2), dim_order=(0, 1), allocation_info=_PLANNED),
            Tensor(ScalarType.FLOAT, sizes=(3, 2), dim_order=(1, 0), data_buffer_idx=1),
            Tensor(
                ScalarType.LONG,
                sizes=(2,),
                dim_order=(0,),
                data_buffer_idx=1,
                allocation_info=_PLANNED,
                shape_dynamism=ShapeDynamism.DYNAMIC_BOUND,
                extra_tensor_info=ExtraTensorInfo(fully_qualified_name="counter"),
            ),
            TensorList((0, 1)),
            OptionalTensorList((-1, 2, 5)),
            Null(),
            Bool(False),
            Int(3),
            String("mode"),
        )
    ),
    inputs=(0,),
    outputs=(2,),
    chains=(
        Chain(
            inputs=(0,),
            outputs=(2,),
            instructions=tuple(
                Instruction(call)
                for call in (
                    KernelCall(0, (0, 1, 2)),
                    DelegateCall(0, (0, 2)),
                    DelegateCall(1, (0, 2)),
                    MoveCall(0, 2),
                    JumpFalseCall(condition=6, destination=6),
                    FreeCall(0),
                )
            ),
        ),
    ),
    operators=(Operator("aten::add", "out"),),
    delegates=(
        BackendDelegate(
            "VulkanBackend",
            BackendDelegateDataReference(DataLocation.SEGMENT, 0),
            (CompileSpec("force_fp16", memoryview(b"\0")),),
        ),
        BackendDelegate("OtherBackend", BackendDelegateDataReference(DataLocation.INLINE, 0)),
    ),
    non_const_buffer_sizes=(0, 64),
)
PROGRAM = Program(
    execution_plan=(
        _FORWARD,
        ExecutionPlan("get_max_seq_len", values=(EValue(Int(512)),), outputs=(0,), chains=(Chain(),)),
    ),
    backend_delegate_data=(BackendDelegateInlineData(memoryview(b"inline")),),
    constant_segment=SubsegmentOffsets(2, (0, 16)),
    mutable_data_segments=(SubsegmentOffsets(3, (0, 0)),),
    named_data=(NamedData("bias", 1), NamedData("same bias", 1)),
)
COUNTER = struct.pack("<2q", 3, -4)
SEGMENTS = (BLOB, BIAS, bytes(16) + WEIGHT, COUNTER)
FILE = write_program(PROGRAM, SEGMENTS)

"""The tables of a ``.pte`` program, slot by slot. Source: schema/*.fbs of the executorch 1.5 package."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, TypeAlias

from .bounds import tensor_nbytes
from .flatbuffer import BOOL, I8, I32, I64, U8, U32, U64, Blob, Scalar
from .values import Bool, BoolList, Double, DoubleList, Int, IntList, Null, String


class ScalarType(IntEnum):
    BYTE = 0
    CHAR = 1
    SHORT = 2
    INT = 3
    LONG = 4
    HALF = 5
    FLOAT = 6
    DOUBLE = 7
    COMPLEXHALF = 8
    COMPLEXFLOAT = 9
    COMPLEXDOUBLE = 10
    BOOL = 11
    QINT8 = 12
    QUINT8 = 13
    QINT32 = 14
    BFLOAT16 = 15
    QUINT4X2 = 16
    QUINT2X4 = 17
    BITS1X8 = 18
    BITS2X4 = 19
    BITS4X2 = 20
    BITS8 = 21
    BITS16 = 22
    FLOAT8E5M2 = 23
    FLOAT8E4M3FN = 24
    FLOAT8E5M2FNUZ = 25
    FLOAT8E4M3FNUZ = 26
    UINT16 = 27
    UINT32 = 28
    UINT64 = 29

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE.get(self, 1)


_ITEMSIZE = {
    ScalarType.SHORT: 2,
    ScalarType.INT: 4,
    ScalarType.LONG: 8,
    ScalarType.HALF: 2,
    ScalarType.FLOAT: 4,
    ScalarType.DOUBLE: 8,
    ScalarType.COMPLEXHALF: 4,
    ScalarType.COMPLEXFLOAT: 8,
    ScalarType.COMPLEXDOUBLE: 16,
    ScalarType.QINT32: 4,
    ScalarType.BFLOAT16: 2,
    ScalarType.BITS16: 2,
    ScalarType.UINT16: 2,
    ScalarType.UINT32: 4,
    ScalarType.UINT64: 8,
}


class ShapeDynamism(IntEnum):
    STATIC = 0
    DYNAMIC_BOUND = 1
    DYNAMIC_UNBOUND = 2


class TensorDataLocation(IntEnum):
    SEGMENT = 0
    EXTERNAL = 1


class DeviceType(IntEnum):
    CPU = 0
    CUDA = 1


class DataLocation(IntEnum):
    INLINE = 0
    SEGMENT = 1


@dataclass(frozen=True, slots=True)
class ContainerMetadata:
    """How the flat inputs and outputs nest, as text."""

    encoded_inputs: str | None = None
    encoded_outputs: str | None = None


@dataclass(frozen=True, slots=True)
class AllocationDetails:
    """Where the memory plan puts a tensor."""

    memory_id: U32 = 0
    offset_low: U32 = 0
    offset_high: U32 = 0

    @property
    def offset(self) -> int:
        return self.offset_high << 32 | self.offset_low


@dataclass(frozen=True, slots=True)
class ExtraTensorInfo:
    mutable_data_segments_idx: U64 = 0
    fully_qualified_name: str | None = None
    location: Annotated[TensorDataLocation, Scalar("b")] = TensorDataLocation.SEGMENT
    device_type: Annotated[DeviceType, Scalar("b")] = DeviceType.CPU
    device_index: I8 = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor: constant, planned, or given at run time, as ``data_buffer_idx`` and ``allocation_info`` say.

    ``sizes`` are upper bounds if the shape is dynamic; ``dim_order`` names the outermost dimension first.
    """

    scalar_type: Annotated[ScalarType, Scalar("b")]
    storage_offset: I32 = 0
    sizes: tuple[I32, ...] = ()
    dim_order: tuple[U8, ...] = ()
    requires_grad: BOOL = False
    data_buffer_idx: U32 = 0
    allocation_info: AllocationDetails | None = None
    layout: I8 = 0
    shape_dynamism: Annotated[ShapeDynamism, Scalar("b")] = ShapeDynamism.STATIC
    extra_tensor_info: ExtraTensorInfo | None = None

    @property
    def nbytes(self) -> int:
        return tensor_nbytes(self.sizes, self.scalar_type.itemsize, "a tensor")

    @property
    def is_external(self) -> bool:
        """The data is in a separate file, under ``extra_tensor_info.fully_qualified_name``."""
        extra = self.extra_tensor_info
        return extra is not None and extra.location is TensorDataLocation.EXTERNAL

    @property
    def is_constant(self) -> bool:
        """It has data that never changes, in this file or in a separate one."""
        return self.allocation_info is None and (self.data_buffer_idx > 0 or self.is_external)

    @property
    def has_initial_state(self) -> bool:
        """It is mutable, and the program holds its first value."""
        return self.allocation_info is not None and self.data_buffer_idx > 0 and not self.is_external


@dataclass(frozen=True, slots=True)
class TensorList:
    """Ids of tensor values."""

    items: tuple[I32, ...] = ()


@dataclass(frozen=True, slots=True)
class OptionalTensorList:
    """Ids of tensor values, with -1 or the id of a Null for none."""

    items: tuple[I32, ...] = ()


ProgramValue: TypeAlias = (
    Null | Int | Bool | Double | Tensor | String | IntList | DoubleList | BoolList | TensorList | OptionalTensorList
)


@dataclass(frozen=True, slots=True)
class EValue:
    value: ProgramValue


@dataclass(frozen=True, slots=True)
class Operator:
    name: str
    overload: str | None = None


@dataclass(frozen=True, slots=True)
class KernelCall:
    op_index: I32
    args: tuple[I32, ...] = ()


@dataclass(frozen=True, slots=True)
class DelegateCall:
    delegate_index: I32
    args: tuple[I32, ...] = ()


@dataclass(frozen=True, slots=True)
class MoveCall:
    source: I32
    target: I32


@dataclass(frozen=True, slots=True)
class JumpFalseCall:
    """Go on at instruction ``destination`` if the Bool value ``condition`` is false."""

    condition: I32
    destination: I32


@dataclass(frozen=True, slots=True)
class FreeCall:
    value_index: I32


Call: TypeAlias = KernelCall | DelegateCall | MoveCall | JumpFalseCall | FreeCall


@dataclass(frozen=True, slots=True)
class Instruction:
    call: Call


@dataclass(frozen=True, slots=True)
class Frame:
    filename: str | None = None
    lineno: I32 = 0
    name: str | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True)
class FrameList:
    items: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendDelegateDataReference:
    location: Annotated[DataLocation, Scalar("b")]
    index: U32


@dataclass(frozen=True, slots=True)
class CompileSpec:
    key: str
    value: Annotated[memoryview, Blob()] = field(default=memoryview(b""))


@dataclass(frozen=True, slots=True)
class BackendDelegate:
    id: str
    processed: BackendDelegateDataReference
    compile_specs: tuple[CompileSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    inputs: tuple[I32, ...] = ()
    outputs: tuple[I32, ...] = ()
    instructions: tuple[Instruction, ...] = ()
    stacktrace: tuple[FrameList, ...] = ()


@dataclass(frozen=True, slots=True)
class NonConstBufferDevice:
    buffer_idx: I32 = 0
    device_type: Annotated[DeviceType, Scalar("b")] = DeviceType.CPU
    device_index: I8 = 0


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """One method."""

    name: str
    container_meta_type: ContainerMetadata | None = None
    values: tuple[EValue, ...] = ()
    inputs: tuple[I32, ...] = ()
    outputs: tuple[I32, ...] = ()
    chains: tuple[Chain, ...] = ()
    operators: tuple[Operator, ...] = ()
    delegates: tuple[BackendDelegate, ...] = ()
    non_const_buffer_sizes: tuple[I64, ...] = ()
    non_const_buffer_device: tuple[NonConstBufferDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class Buffer:
    storage: Annotated[memoryview, Blob(align=16)] = field(default=memoryview(b""))


@dataclass(frozen=True, slots=True)
class BackendDelegateInlineData:
    data: Annotated[memoryview, Blob(align=16)] = field(default=memoryview(b""))


@dataclass(frozen=True, slots=True)
class DataSegment:
    """A range of the file, ``offset`` counted from the base that the extended header states."""

    offset: U64
    size: U64


@dataclass(frozen=True, slots=True)
class SubsegmentOffsets:
    """Where tensors begin in one segment; entry 0 stands for "no data"."""

    segment_index: U32 = 0
    offsets: tuple[U64, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedData:
    key: str
    segment_index: U32 = 0


@dataclass(frozen=True, slots=True)
class Program:
    """The root table."""

    version: U32 = 0
    execution_plan: tuple[ExecutionPlan, ...] = ()
    constant_buffer: tuple[Buffer, ...] = ()
    backend_delegate_data: tuple[BackendDelegateInlineData, ...] = ()
    segments: tuple[DataSegment, ...] = ()
    constant_segment: SubsegmentOffsets | None = None
    mutable_data_segments: tuple[SubsegmentOffsets, ...] = ()
    named_data: tuple[NamedData, ...] = ()

"""What must hold inside one method before anything follows its indices."""

from __future__ import annotations

from .bounds import check_index, check_indices, damaged, tensor_nbytes
from .program_schema import (
    Call,
    Chain,
    DelegateCall,
    ExecutionPlan,
    FreeCall,
    JumpFalseCall,
    KernelCall,
    MoveCall,
    OptionalTensorList,
    Tensor,
    TensorList,
)
from .values import Null


def check_plan(plan: ExecutionPlan) -> None:
    """InvalidProgramError for an index out of range, or a tensor that cannot be."""
    count = len(plan.values)
    for i, boxed in enumerate(plan.values):
        match boxed.value:
            case Tensor() as tensor:
                _check_tensor(tensor, f"the tensor in value {i} of '{plan.name}'")
            case TensorList(items):
                _check_list(plan, items, (Tensor,), f"an item of the list in value {i} of '{plan.name}'")
            case OptionalTensorList(items):
                present = tuple(item for item in items if item != -1)
                _check_list(plan, present, (Tensor, Null), f"an item of the list in value {i} of '{plan.name}'")
    check_indices(plan.inputs, count, f"an input of '{plan.name}'")
    check_indices(plan.outputs, count, f"an output of '{plan.name}'")
    if any(size < 0 for size in plan.non_const_buffer_sizes):
        raise damaged(f"'{plan.name}' has a memory buffer of negative size")
    for entry in plan.non_const_buffer_device:
        check_index(entry.buffer_idx, len(plan.non_const_buffer_sizes), f"a memory buffer of '{plan.name}'")
    for chain in plan.chains:
        _check_chain(plan, chain)


def _check_tensor(tensor: Tensor, what: str) -> None:
    tensor_nbytes(tensor.sizes, tensor.scalar_type.itemsize, what)
    if sorted(tensor.dim_order) != list(range(len(tensor.sizes))):
        raise damaged(f"{what} has a dim_order that does not fit its {len(tensor.sizes)} dimensions")
    extra = tensor.extra_tensor_info
    if tensor.is_external and not (extra and extra.fully_qualified_name):
        raise damaged(f"{what} is stored in a separate file, but has no name to find it by")


def _check_list(plan: ExecutionPlan, items: tuple[int, ...], members: tuple[type, ...], what: str) -> None:
    check_indices(items, len(plan.values), what)
    if not all(isinstance(plan.values[item].value, members) for item in items):
        raise damaged(f"{what} is not a tensor")


def _check_chain(plan: ExecutionPlan, chain: Chain) -> None:
    count = len(plan.values)
    check_indices(chain.inputs, count, f"a chain's input of '{plan.name}'")
    check_indices(chain.outputs, count, f"a chain's output of '{plan.name}'")
    for i, instruction in enumerate(chain.instructions):
        what = f"instruction {i} of '{plan.name}'"
        check_indices(_value_indices(instruction.call), count, f"a value of {what}")
        match instruction.call:
            case KernelCall(op_index=index):
                check_index(index, len(plan.operators), f"the operator of {what}")
            case DelegateCall(delegate_index=index):
                check_index(index, len(plan.delegates), f"the delegate of {what}")
            case JumpFalseCall(destination=destination):
                # One past the last instruction is where the chain ends.
                check_index(destination, len(chain.instructions) + 1, f"the destination of {what}")


def _value_indices(call: Call) -> tuple[int, ...]:
    match call:
        case KernelCall(args=args) | DelegateCall(args=args):
            return args
        case MoveCall(source, target):
            return source, target
        case JumpFalseCall(condition=condition):
            return (condition,)
        case FreeCall(value_index):
            return (value_index,)

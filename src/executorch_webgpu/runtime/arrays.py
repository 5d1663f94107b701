"""Values between the caller and a method: NumPy arrays, torch tensors, numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..format import program_schema as schema
from ..format import values as plain
from ..portable.dtypes import BFLOAT16, dtype_name, numpy_dtype

HostValue = np.ndarray | int | float | bool | str | list[float] | list[bool] | None


def is_torch(value: object) -> bool:
    """Whether this is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_host(value: Any, what: str) -> HostValue:
    """A NumPy array of the same dtype (no copy where the memory can be shared), or the number itself.

    Takes NumPy arrays and scalars, anything with ``__dlpack__`` or ``__array__`` (torch tensors on any device), and
    Python numbers. Raises InvalidInputError otherwise.
    """
    if value is None or isinstance(value, bool | int | float | str | np.ndarray):
        return value
    if isinstance(value, np.generic):
        return np.asarray(value)
    try:
        if is_torch(value):
            return _from_torch(value)
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        if hasattr(value, "__array__"):
            return np.asarray(value)
    except Exception as error:  # whatever the other library raises
        raise InvalidInputError(f"{what} cannot be read as a NumPy array: {error}") from error
    raise InvalidInputError(
        f"{what} is a {type(value).__name__}: pass a NumPy array, a torch tensor, or anything with __dlpack__"
    )


def to_caller(values: Sequence[HostValue], inputs: Sequence[Any]) -> list[Any]:
    """Outputs in the caller's own terms: torch tensors when the inputs were."""
    if not any(is_torch(i) for i in inputs):
        return list(values)
    return [_to_torch(v) if isinstance(v, np.ndarray) else v for v in values]


def _from_torch(tensor: Any) -> np.ndarray:
    torch = sys.modules["torch"]
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # torch hands NumPy its bits only
        return np.asarray(tensor.view(torch.int16).numpy()).view(BFLOAT16)
    return np.asarray(tensor.numpy())


def _to_torch(array: np.ndarray) -> Any:
    torch = sys.modules["torch"]
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_device_array(array: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """The array as it lies in a GPU buffer: 64-bit types become 32-bit ones, bools become words.

    Raises InvalidInputError for an integer that 32 bits cannot hold.
    """
    if array.dtype == np.int64 and dtype == np.int32 and array.size:
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise InvalidInputError(f"{what} holds {low if low < -(2**31) else high}, which 32 bits cannot hold")
    return np.asarray(array, dtype, order="C")


def checked_input(described: schema.ProgramValue, value: HostValue, what: str, method: str) -> HostValue:
    """The value, if it is what ``method`` takes there; InvalidInputError otherwise.

    The exporter computes with the number that it is given and leaves it in the program as the value of the input. So a
    plain input takes that value only, but for integers that stay symbols: there the program holds nothing.
    """
    if isinstance(described, schema.Tensor):
        return _checked_tensor(described, value, what, method)
    if isinstance(value, np.ndarray) and not value.shape:
        value = value.item()  # a NumPy number
    match described:
        case plain.Int(frozen) | plain.Bool(frozen) | plain.String(frozen) if type(value) is type(frozen):
            return _frozen(value, frozen, value == frozen, what)
        case plain.Double(frozen) if isinstance(value, float | int) and not isinstance(value, bool):
            return _frozen(value, frozen, _equal_floats(value, frozen), what)
        case plain.Null() if value is None or isinstance(value, bool | int | float):
            return value
    taken = "number" if isinstance(described, plain.Null) else f"plain {type(described).__name__}"
    raise InvalidInputError(f"{what} is {value!r}, but the program takes a {taken} there")


def _frozen(value: HostValue, frozen: HostValue, same: bool, what: str) -> HostValue:
    if not same:
        raise InvalidInputError(
            f"{what} is {value!r}, but the program was exported for {frozen!r} and computes with nothing else: export "
            "it again for this value, or with a tensor in its place"
        )
    return frozen


def _equal_floats(value: float, frozen: float) -> bool:
    """Whether they are one number, or were before one of them became a float32."""
    if math.isnan(value) or math.isnan(frozen):
        return math.isnan(value) and math.isnan(frozen)
    with np.errstate(over="ignore"):
        return value == frozen or float(np.float32(value)) == frozen or value == float(np.float32(frozen))


def _checked_tensor(described: schema.Tensor, value: HostValue, what: str, method: str) -> np.ndarray:
    dtype = dtype_name(described)
    if not isinstance(value, np.ndarray):
        raise InvalidInputError(f"{what} must be a {dtype} tensor, not {value!r}")
    wanted = numpy_dtype(described, method)
    if wanted == BFLOAT16 and value.dtype == np.float32:  # NumPy has no bfloat16 of its own
        narrow = value.astype(BFLOAT16)
        if not np.array_equal(narrow.astype(np.float32), value, equal_nan=True):
            raise InvalidInputError(
                f"{what} has float32 numbers that bfloat16 does not have: round them first, as torch or ml_dtypes do"
            )
        value = narrow
    if value.dtype != wanted:
        raise InvalidInputError(f"{what} has dtype {value.dtype}, but the program takes {dtype}")
    static = described.shape_dynamism is schema.ShapeDynamism.STATIC
    fits = len(value.shape) == len(described.sizes) and all(
        d == m if static else 0 < d <= m for d, m in zip(value.shape, described.sizes, strict=True)
    )
    if not fits:
        bound = "" if static else "at most "
        raise InvalidInputError(
            f"{what} has shape {list(value.shape)}, but the program takes {bound}{list(described.sizes)}"
        )
    return value

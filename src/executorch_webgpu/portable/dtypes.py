"""What the elements of a program's tensors are on the host."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from ..errors import UnsupportedProgramError
from ..format import program_schema as schema

_DTYPES = {
    schema.ScalarType.BYTE: np.dtype(np.uint8),
    schema.ScalarType.CHAR: np.dtype(np.int8),
    schema.ScalarType.SHORT: np.dtype(np.int16),
    schema.ScalarType.INT: np.dtype(np.int32),
    schema.ScalarType.LONG: np.dtype(np.int64),
    schema.ScalarType.HALF: np.dtype(np.float16),
    schema.ScalarType.FLOAT: np.dtype(np.float32),
    schema.ScalarType.DOUBLE: np.dtype(np.float64),
    schema.ScalarType.BOOL: np.dtype(np.bool_),
    schema.ScalarType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    schema.ScalarType.UINT16: np.dtype(np.uint16),
    schema.ScalarType.UINT32: np.dtype(np.uint32),
    schema.ScalarType.UINT64: np.dtype(np.uint64),
}
BFLOAT16 = _DTYPES[schema.ScalarType.BFLOAT16]
# torch's names where the schema has others.
_NAMES = {
    schema.ScalarType.COMPLEXHALF: "complex32",
    schema.ScalarType.COMPLEXFLOAT: "complex64",
    schema.ScalarType.COMPLEXDOUBLE: "complex128",
}


def dtype_name(tensor: schema.Tensor) -> str:
    """The name of a tensor's dtype in NumPy, or in torch where NumPy has none for it."""
    dtype = _DTYPES.get(tensor.scalar_type)
    return dtype.name if dtype is not None else _NAMES.get(tensor.scalar_type, tensor.scalar_type.name.lower())


def is_supported(tensor: schema.Tensor) -> bool:
    """Whether the host can hold a tensor's elements."""
    return tensor.scalar_type in _DTYPES


def numpy_dtype(tensor: schema.Tensor, method: str) -> np.dtype:
    """The dtype of a tensor of ``method``. Raises UnsupportedProgramError for one that the host cannot hold."""
    dtype = _DTYPES.get(tensor.scalar_type)
    if dtype is None:
        raise UnsupportedProgramError(
            f"method {method!r} has a tensor of {dtype_name(tensor)}, which is not supported: export the model with "
            "real, unquantized tensors in its place"
        )
    return dtype


def is_float(dtype: np.dtype) -> bool:
    """Whether elements are floating-point numbers, those that NumPy itself does not know included."""
    return dtype.kind == "f" or dtype == BFLOAT16

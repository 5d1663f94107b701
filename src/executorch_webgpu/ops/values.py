"""What operators are called with: tensors, live integers and the element types they hold.

A plan function sees its arguments as ``Tensor``, ``SymInt``, ``int``, ``float``, ``bool``, ``str``, ``None`` or a
list of these. None of them owns GPU memory; the graph executor binds buffers to them later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InvalidInputError

Dims = tuple[int, ...]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class ElementType:
    """How elements of one dtype lie in a storage buffer.

    ``wgsl`` is the element of the ``array<>`` that a kernel declares. 8-bit types are packed, four to a ``u32``;
    a bool takes a whole ``u32`` (0 or 1), so that every invocation can write its own element.
    """

    name: str
    itemsize: int  # bytes per element in a GPU buffer
    wgsl: str
    numpy: np.dtype  # the same layout on the host


ELEMENT_TYPES = {
    e.name: e
    for e in (
        ElementType("float32", 4, "f32", np.dtype(np.float32)),
        ElementType("float16", 2, "f16", np.dtype(np.float16)),
        ElementType("int32", 4, "i32", np.dtype(np.int32)),
        ElementType("uint8", 1, "u32", np.dtype(np.uint8)),
        ElementType("int8", 1, "u32", np.dtype(np.int8)),
        ElementType("bool", 4, "u32", np.dtype(np.uint32)),
    )
}


class Tensor:
    """A contiguous row-major tensor with a capacity (``max_dims``) and live ``dims``.

    While a program is built, ``dims == max_dims``; later ``dims`` follows the inputs of each call.
    ``dtype`` is the name of an ``ElementType``. ``host`` holds the current value of an integer graph input.
    ``scales`` belongs to an int8 KV cache [1, C, H, D]: float32 [1, C, H], and value = code * scale.
    """

    __slots__ = ("constant", "dims", "dtype", "host", "id", "max_dims", "scales")

    def __init__(self, id: int, dtype: str, max_dims: Sequence[int], constant: int | None = None) -> None:
        self.id = id
        self.dtype = dtype
        self.max_dims: Dims = tuple(max_dims)
        self.dims: Dims = self.max_dims
        self.constant = constant  # index into the graph's constants
        self.host: np.ndarray | None = None
        self.scales: Tensor | None = None

    @property
    def element(self) -> ElementType:
        return ELEMENT_TYPES[self.dtype]

    @property
    def wgsl(self) -> str:
        """WGSL element type of this tensor's ``array<>``."""
        return self.element.wgsl

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def numel(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        return self.numel * self.element.itemsize

    @property
    def max_nbytes(self) -> int:
        return math.prod(self.max_dims) * self.element.itemsize

    def __repr__(self) -> str:
        return f"%{self.id}:{self.dtype}{list(self.dims)}"


class SymInt:
    """An integer that changes between calls, such as ``input_pos`` or the live sequence length.

    Kernels read it from a 16-byte live uniform (int32, first word); plan functions read it through the planner, which
    notes the dependency.
    """

    __slots__ = ("dirty", "id", "value")

    def __init__(self, id: int, value: int = 0) -> None:
        self.id = id
        self.value = value
        self.dirty = True  # the uniform does not hold ``value`` yet

    def set(self, value: int) -> bool:
        """Take a new value; returns whether it differs. Out of int32's range: error, and the old value stays."""
        if not INT32_MIN <= value <= INT32_MAX:
            raise InvalidInputError(
                f"live integer %{self.id} cannot be {value}: it must fit in a signed 32-bit integer"
            )
        if value == self.value:
            return False
        self.value, self.dirty = value, True
        return True

    def read(self) -> int:
        return self.value

    def pack(self) -> bytes:
        """The 16 bytes of the live uniform."""
        return np.array([self.value, 0, 0, 0], np.int32).tobytes()

    def __repr__(self) -> str:
        return f"%{self.id}:SymInt({self.value})"


IntLike = int | SymInt


@dataclass(frozen=True)
class Scratch:
    """A buffer that lives within one operator call: slot ``index`` of the graph's scratch pool."""

    index: int
    nbytes: int


@dataclass(frozen=True)
class Repacked:
    """A read-only buffer made at load of constants of the program, in a layout that a kernel reads faster.

    ``pack`` of the ``sources``' arrays, as they lie in the file, gives its ``nbytes``. It is called once for all loads
    of a program: ``layout`` must name everything but the sources that its result depends on.
    """

    layout: Hashable
    sources: tuple[Tensor, ...]
    nbytes: int
    pack: Callable[..., np.ndarray] = field(compare=False)

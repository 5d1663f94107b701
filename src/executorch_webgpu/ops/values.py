"""What operators are called with: tensors, live integers and the element types they hold.

A plan function sees its arguments as ``Tensor``, ``SymInt``, ``int``, ``float``, ``bool``, ``str``, ``None`` or a
list of these. None of them owns GPU memory; the graph executor binds buffers to them later. A graph holds frozen
values; each load of it has live ones of its own (``graph/resize.py``), and plan functions get those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from ..errors import InvalidInputError

if TYPE_CHECKING:
    from .handover import SplitRows

Dims = tuple[int, ...]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
JOINED_BYTES = 256  # a multiple of every device's alignment of bindings


@dataclass(frozen=True)
class ElementType:
    """How elements of one dtype lie in a storage buffer.

    ``wgsl`` is the element of the ``array<>`` that a kernel declares. Elements of 8 and 16 bits are packed into words
    of a ``u32``, for kernels that have f16 into that; a bool takes a whole ``u32`` (0 or 1), so that every invocation
    can write its own element. Kernels compute with bfloat16 and float16 in float32, and round to the nearest even.
    """

    name: str
    itemsize: int  # bytes per element in a GPU buffer
    wgsl: str
    numpy: np.dtype  # the same layout on the host

    @property
    def is_float(self) -> bool:
        """Whether elements are floating-point numbers; NumPy does not say so of bfloat16."""
        return "float" in self.name

    @property
    def integer_limits(self) -> tuple[int, int] | None:
        """The least and the largest integer that an element can be; None for floats and bools."""
        if self.is_float or self.name == "bool":
            return None
        limits = np.iinfo(self.numpy)
        return int(limits.min), int(limits.max)


ELEMENT_TYPES = {
    e.name: e
    for e in (
        ElementType("float32", 4, "f32", np.dtype(np.float32)),
        ElementType("float16", 2, "f16", np.dtype(np.float16)),
        ElementType("bfloat16", 2, "u32", np.dtype(ml_dtypes.bfloat16)),
        ElementType("int32", 4, "i32", np.dtype(np.int32)),
        ElementType("int16", 2, "u32", np.dtype(np.int16)),
        ElementType("uint8", 1, "u32", np.dtype(np.uint8)),
        ElementType("int8", 1, "u32", np.dtype(np.int8)),
        ElementType("bool", 4, "u32", np.dtype(np.uint32)),
    )
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A contiguous row-major tensor of a graph, of at most ``max_dims``.

    ``dtype`` is the name of an ``ElementType``; ``constant`` an index into the graph's constants.
    ``scales`` belongs to an int8 KV cache [1, C, H, D]: float32 [1, C, H], and value = code * scale.
    """

    id: int
    dtype: str
    max_dims: Dims
    constant: int | None = None
    scales: Tensor | None = None

    @property
    def dims(self) -> Dims:
        """The maximum, but for a ``LiveTensor``, which is what plan functions get."""
        return self.max_dims

    @property
    def split(self) -> SplitRows | None:
        """What its memory holds in place of float32, by which call it was written; only of a ``LiveTensor``."""
        return None

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


class LiveTensor(Tensor):
    """A tensor of a loaded graph: ``dims`` follow the inputs of each step, and are the maximum at load.

    ``host`` holds this step's value of an integer graph input. ``found``: what calls have learned from it that share
    it, with the functions that tell it, by key.
    """

    dims: Dims = ()
    split: SplitRows | None = None
    host: np.ndarray | None = None
    found: dict[Hashable, tuple[Callable[[np.ndarray | None], Any], Any]]
    __setattr__ = object.__setattr__

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor.id, tensor.dtype, tensor.max_dims, tensor.constant, tensor.scales)
        self.dims = tensor.max_dims
        self.found = {}

    def element_at(self, index: int) -> int:
        """Element ``index`` (flat) of ``host``; 0 at load."""
        return 0 if self.host is None else int(self.host.reshape(-1)[index])

    def learn(self, fn: Callable[[np.ndarray | None], Any], key: Hashable) -> Any:
        """``fn`` of ``host``, which calls with one ``key`` share."""
        if key is None:
            return fn(self.host)
        if key not in self.found:
            self.found[key] = fn, fn(self.host)
        return self.found[key][1]

    def see(self, array: np.ndarray) -> bool:
        """Take a new value of ``host``. Returns whether something that calls share may differ."""
        before, self.host, self.found = self.found, array, {}
        try:
            self.found = {key: (fn, fn(array)) for key, (fn, _) in before.items()}
        except InvalidInputError:  # it may be right for the sizes that calls will have in this step
            return True
        return any(value != before[key][1] for key, (_, value) in self.found.items())


@dataclass(frozen=True, eq=False)
class SymInt:
    """An integer that changes between calls, such as ``input_pos`` or the live sequence length; ``value`` at load.

    Kernels read it from a 16-byte live uniform (int32, first word); plan functions read it through the planner, which
    notes the dependency.
    """

    id: int
    value: int = 0

    def __repr__(self) -> str:
        return f"%{self.id}:SymInt({self.value})"


class LiveSymInt(SymInt):
    """A SymInt of a loaded graph, with the value of the current step. ``dirty``: its uniform does not hold it yet."""

    value: int
    dirty = True
    __setattr__ = object.__setattr__

    def __init__(self, symint: SymInt) -> None:
        super().__init__(symint.id, symint.value)

    def set(self, value: int) -> bool:
        """Take a new value. Returns whether it differs. Out of int32's range: error, and the old value stays."""
        if not INT32_MIN <= value <= INT32_MAX:
            raise InvalidInputError(
                f"live integer %{self.id} cannot be {value}: it must fit in a signed 32-bit integer"
            )
        if value == self.value:
            return False
        self.value, self.dirty = value, True
        return True


def packed_uniform(value: int) -> bytes:
    """The 16 bytes of a live uniform."""
    return np.array([value, 0, 0, 0], np.int32).tobytes()


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


@dataclass(frozen=True)
class Joined:
    """One buffer in which all of ``parts`` lie, in their order, each from a multiple of ``JOINED_BYTES`` on.

    All are repacked constants, or all are memory that the graph writes and keeps. What binds one of them alone gets its
    part of that buffer.
    """

    parts: tuple[Tensor | Repacked, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the parts begin, and where the last one ends; bytes."""
        sizes = (p.nbytes if isinstance(p, Repacked) else p.max_nbytes for p in self.parts)
        return tuple(accumulate((-(-n // JOINED_BYTES) * JOINED_BYTES for n in sizes), initial=0))


@dataclass(frozen=True)
class Kept:
    """A buffer, zero at load, whose contents last from step to step; for all dispatches that name it alike."""

    name: str
    nbytes: int


def is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether small arrays of one dtype have the same shape and bytes: faster than to compare their elements."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()

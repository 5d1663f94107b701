"""Buffers that several methods of a program write and read, such as a cache that one fills and another looks up.

The exporter gives such a buffer its name in every method, and a place in each method's memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import RLock

import numpy as np

from ..errors import UnsupportedProgramError
from ..format import program_schema as schema
from ..format.pte import ProgramFile
from .dtypes import numpy_dtype
from .memory import Place, in_dim_order


@dataclass(frozen=True)
class SharedBuffers:
    """The bytes of named buffers, which several states may hold. Who reads or writes them has ``lock``."""

    contents: dict[str, np.ndarray]
    lock: RLock = field(default_factory=RLock, repr=False)

    @classmethod
    def beginning(cls, initial: Mapping[str, np.ndarray]) -> SharedBuffers:
        """New buffers with their first contents."""
        return cls(dict(initial))

    def take(self, contents: Mapping[str, np.ndarray], names: Iterable[str]) -> None:
        """Let buffers hold other bytes; arrays are never written in place, so no reader sees half of a change."""
        with self.lock:
            self.contents.update({name: contents[name] for name in names})


def shared_places(plan: schema.ExecutionPlan) -> dict[str, Place]:
    """Where the named buffers of a method lie, by name."""
    places: dict[str, Place] = {}
    for boxed in plan.values:
        if (tensor := _named(boxed.value)) is None:
            continue
        where = tensor.allocation_info
        assert where is not None and tensor.extra_tensor_info is not None
        name = tensor.extra_tensor_info.fully_qualified_name
        assert name is not None
        place = Place(where.memory_id, where.offset, where.offset + tensor.nbytes)
        if places.setdefault(name, place) != place:
            raise UnsupportedProgramError(
                f"method {plan.name!r} has the buffer {name!r} at two places in memory: export the program again"
            )
    return places


def initial_buffers(file: ProgramFile) -> dict[str, np.ndarray]:
    """The bytes with which the named buffers of all methods begin, by name; zeros where the file states none.

    Raises UnsupportedProgramError when methods disagree about the size of a buffer.
    """
    found: dict[str, np.ndarray] = {}
    stated: set[str] = set()
    for plan in file.methods:
        for boxed in plan.values:
            if (tensor := _named(boxed.value)) is None:
                continue
            assert tensor.extra_tensor_info is not None
            name = tensor.extra_tensor_info.fully_qualified_name
            assert name is not None
            buffer = found.setdefault(name, np.zeros(tensor.nbytes, np.uint8))
            if buffer.nbytes != tensor.nbytes:
                raise UnsupportedProgramError(
                    f"the methods of the program see the buffer {name!r} with {buffer.nbytes} and {tensor.nbytes} "
                    "bytes: export them together, with share_mutable_buffers=True"
                )
            if name not in stated and (first := file.first_value(tensor)) is not None:
                stated.add(name)
                elements = np.frombuffer(first, numpy_dtype(tensor, plan.name))
                laid_out = in_dim_order(elements, tensor.sizes, tensor.dim_order)
                buffer[...] = np.frombuffer(laid_out.tobytes(), np.uint8)
    return found


def _named(value: schema.ProgramValue) -> schema.Tensor | None:
    """The tensor, if it is a mutable buffer with a name."""
    if not isinstance(value, schema.Tensor) or value.allocation_info is None:
        return None
    extra = value.extra_tensor_info
    return value if extra is not None and extra.fully_qualified_name else None

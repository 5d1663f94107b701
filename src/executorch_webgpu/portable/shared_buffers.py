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
from .elements import file_elements


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
                buffer[...] = np.frombuffer(file_elements(tensor, first, plan.name).tobytes(), np.uint8)
    return found


def _named(value: schema.ProgramValue) -> schema.Tensor | None:
    """The tensor, if it is a mutable buffer with a name."""
    if not isinstance(value, schema.Tensor) or value.allocation_info is None:
        return None
    extra = value.extra_tensor_info
    return value if extra is not None and extra.fully_qualified_name else None

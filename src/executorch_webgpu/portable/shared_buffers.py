"""Buffers that several methods of a program write and read, such as a cache that one fills and another looks up.

The exporter gives such a buffer its name in every method, and a place in each method's memory. One whose first contents
are in the file has no name; then the place is the same in all methods, in an arena that holds such buffers only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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


def with_names(plans: Sequence[schema.ExecutionPlan]) -> tuple[schema.ExecutionPlan, ...]:
    """The methods, where every buffer that several of them know has a name."""
    places = [_places_of_state(plan) for plan in plans]
    counts = Counter(place for found in places for place in set(found.values()))
    return tuple(
        _named_at(plan, {index: place for index, place in found.items() if counts[place] > 1})
        for plan, found in zip(plans, places, strict=True)
    )


_OWN_ARENAS = 2  # no constant is in arena 0; in 1 is what a method computes; others are the exporter's for buffers
Place = tuple[int, int, int]  # arena, first byte, bytes


def _places_of_state(plan: schema.ExecutionPlan) -> dict[int, Place]:
    """Where buffers without names lie that the file has first contents for, by value, in arenas of buffers only."""
    found: dict[int, Place] = {}
    mixed = set()
    for index, boxed in enumerate(plan.values):
        tensor = boxed.value
        if not isinstance(tensor, schema.Tensor) or tensor.allocation_info is None:
            continue
        arena = tensor.allocation_info.memory_id
        if arena < _OWN_ARENAS or _named(tensor) is not None:
            continue
        if tensor.has_initial_state:
            found[index] = (arena, tensor.allocation_info.offset, tensor.nbytes)
        else:
            mixed.add(arena)
    return {index: place for index, place in found.items() if place[0] not in mixed}


def _named_at(plan: schema.ExecutionPlan, places: Mapping[int, Place]) -> schema.ExecutionPlan:
    """A method whose buffers at these places are called after them."""
    if not places:
        return plan
    values = list(plan.values)
    for index, (arena, first, _) in places.items():
        tensor = values[index].value
        assert isinstance(tensor, schema.Tensor)
        extra = replace(tensor.extra_tensor_info or schema.ExtraTensorInfo(), fully_qualified_name=f"{arena}@{first}")
        values[index] = schema.EValue(replace(tensor, extra_tensor_info=extra))
    return replace(plan, values=tuple(values))


def initial_buffers(file: ProgramFile, plans: Iterable[schema.ExecutionPlan]) -> dict[str, np.ndarray]:
    """The bytes with which the named buffers of the methods begin, by name; zeros where the file states none.

    Raises UnsupportedProgramError when methods disagree about the size of a buffer.
    """
    found: dict[str, np.ndarray] = {}
    stated: set[str] = set()
    for plan in plans:
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

"""What tells programs apart, so that a saved state is not loaded into another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable

from ..format.program_schema import Tensor
from ..format.pte import ProgramFile
from .method_file import MethodFile

_HASHED_AT_ONCE = 16 << 20


def fingerprint(file: ProgramFile, methods: Iterable[MethodFile], release: Callable[[memoryview], None]) -> str:
    """Tell programs apart by everything that they compute with: the delegates, constants and named data.

    ``release`` is told about every range that has been read, so that its pages need not stay in memory.
    """
    state = hashlib.blake2b(digest_size=16)
    program = file.program
    names = [[m.name, [[o.name, o.overload] for o in m.operators]] for m in file.methods]
    named = [[entry.key, entry.segment_index] for entry in program.named_data]
    inline = [d.data for d in program.backend_delegate_data]
    external = _external(file, methods)
    names = [*names, list(external)] if external else names
    views = [*external.values(), *file.segments, *inline, *(c.storage for c in program.constant_buffer)]
    state.update(json.dumps([names, named, [view.nbytes for view in views]]).encode())
    for view in views:
        for start in range(0, view.nbytes, _HASHED_AT_ONCE):
            part = view[start : start + _HASHED_AT_ONCE]
            state.update(part)
            release(part)
    return state.hexdigest()


def _external(file: ProgramFile, methods: Iterable[MethodFile]) -> dict[str, memoryview]:
    """What the program takes from other files, by name."""
    wanted = {
        boxed.value.extra_tensor_info.fully_qualified_name
        for plan in file.methods
        for boxed in plan.values
        if isinstance(boxed.value, Tensor) and boxed.value.is_external and boxed.value.extra_tensor_info
    }
    for vkgraph in (vkgraph for method in methods for vkgraph in method.vkgraphs):
        wanted |= {constant.named_key for constant in vkgraph.constants if constant.named_key not in file.named_data}
    return {name: file.data[name] for name in sorted(filter(None, wanted))}

"""C types of a header that cffi reads at run time, found before they are asked for.

cffi parses each type that is named by a string once, and with it a declaration of every name of the header: with that
of wgpu-native 12 ms or more a type, of which opening a device and loading a program need about forty. Parsed together,
all of its structs take as long as four.
"""

from __future__ import annotations

from typing import Any

_HANDLES = ("WGPUAdapter", "WGPUBindGroupLayout", "WGPUCommandBuffer", "WGPUFeatureName")  # of which there are arrays
_NUMBERS = ["uintptr_t", "intptr_t"]


def learn_types(ffi: Any) -> None:
    """Have ``ffi`` know the structs of its header and what else a load names, as pointers and as arrays.

    It keeps types by their strings in an attribute that is not documented; where there is none, nothing happens.
    """
    known = getattr(ffi, "_parsed_types", None)
    if not isinstance(known, dict):
        return
    typedefs, structs, _ = ffi.list_types()
    names = [*sorted(set(typedefs) & {*structs, *_HANDLES}), "char", "uint8_t"]
    arguments = [f"{name} *" for name in names] + [f"{name}(*)[]" for name in names] + _NUMBERS
    types = iter(ffi.typeof(f"void(*)({', '.join(arguments)})").args)
    found = {f"{name} *": next(types) for name in names}
    for name in names:
        found[f"{name}[]"] = found[f"{name} []"] = next(types).item
    found.update(zip(_NUMBERS, types, strict=True))
    for key, ctype in found.items():
        known.setdefault(key, (ctype, False))  # and whether it is a function itself, not a pointer to one

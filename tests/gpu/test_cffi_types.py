"""Types that are learned together are those that cffi finds one by one."""

from __future__ import annotations

import cffi  # type: ignore[import-untyped]
import pytest

from executorch_webgpu.gpu.cffi_types import _HANDLES, learn_types

HEADER = """
typedef struct WGPUPlace { int x; double y; } WGPUPlace;
typedef struct WGPULine { WGPUPlace *begin; WGPUPlace end; } WGPULine;
typedef struct WGPUBindGroupLayoutImpl *WGPUBindGroupLayout;
typedef int (*Callback)(WGPUPlace *, void *);
"""
NAMES = ("WGPUPlace *", "WGPULine *", "WGPULine[]", "WGPUBindGroupLayout[]", "char []", "uint8_t *", "uintptr_t")


def a_header() -> cffi.FFI:
    ffi = cffi.FFI()
    ffi.cdef(HEADER)
    return ffi


@pytest.mark.parametrize("name", NAMES)
def test_a_type_is_the_one_that_cffi_finds(name: str) -> None:
    ffi = a_header()
    found = ffi.typeof(name)
    ffi._parsed_types.clear()
    learn_types(ffi)
    assert ffi.typeof(name) is found
    assert a_header().typeof(name).kind == found.kind


def test_no_type_is_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ffi = a_header()
    learn_types(ffi)
    monkeypatch.setattr(ffi._parser, "parse_type", lambda name: pytest.fail(f"{name} is parsed"))
    places = ffi.new("WGPUPlace[]", 3)
    assert ffi.sizeof(places) == 3 * ffi.sizeof(places[0])
    assert [ffi.typeof(name).cname.replace(" ", "") for name in NAMES[:3]] == ["WGPUPlace*", "WGPULine*", "WGPULine[]"]


def test_another_cffi_is_left_alone() -> None:
    class Other:
        pass

    learn_types(Other())
    assert not vars(Other())


def test_handles_are_names_of_wgpu_natives_header() -> None:
    from wgpu.backends.wgpu_native._ffi import ffi

    typedefs, structs, _ = ffi.list_types()
    assert set(_HANDLES) <= set(typedefs)
    assert "WGPUBufferDescriptor" in set(typedefs) & set(structs)

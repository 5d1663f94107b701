"""Compiled pipelines on disk, for Dawn, which asks for them by keys of its own.

Its keys hold all that the blobs depend on: Dawn's version, the adapter, the driver, the toggles, the code. Dawn offers
this by two C functions that are chained to a device's descriptor. The structure is not among those that wgpudawn
declares, so it is declared here, and used with the releases of Dawn that are known to have it so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import local
from typing import Any

from .blob_cache import BlobCache, user_cache

_RELEASES = ("v20261009.190412",)
_CACHE_DEVICE_DESCRIPTOR = 0x00050007  # WGPUSType_DawnCacheDeviceDescriptor


class _Chained(ctypes.Structure):
    _fields_ = (("next", ctypes.c_void_p), ("type", ctypes.c_uint32))


# Bytes and address of the key, the same of the value, and two pointers of the user's.
_ARGUMENTS = (ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_Load = ctypes.CFUNCTYPE(ctypes.c_size_t, *_ARGUMENTS)
_Store = ctypes.CFUNCTYPE(None, *_ARGUMENTS)


class _CacheDescriptor(ctypes.Structure):
    """WGPUDawnCacheDeviceDescriptor of Dawn's webgpu.h, with its two callback infos."""

    _fields_ = (
        ("chain", _Chained),
        ("isolation_key", ctypes.c_void_p),
        ("isolation_key_bytes", ctypes.c_size_t),
        ("load_next", ctypes.c_void_p),
        ("load", _Load),
        ("load_userdata", ctypes.c_void_p * 2),
        ("store_next", ctypes.c_void_p),
        ("store", _Store),
        ("store_userdata", ctypes.c_void_p * 2),
    )


class DawnCache:
    """A cache as Dawn's devices take it. It must live as long as any of them may: their threads call it."""

    def __init__(self, cache: BlobCache) -> None:
        self._cache = cache
        self._asked = local()
        self._descriptor = _CacheDescriptor(
            chain=_Chained(None, _CACHE_DEVICE_DESCRIPTOR), load=_Load(self._load), store=_Store(self._store)
        )

    @contextmanager
    def chained(self, api: Any) -> Iterator[None]:
        """While this lasts, devices that wgpudawn's module ``api`` requests get the cache.

        It chains toggles to the descriptor of a device, and nothing else; so the cache is chained to the toggles.
        """
        make_toggles = api.new_toggles_struct

        def with_cache(*arguments: Any) -> Any:
            toggles = make_toggles(*arguments)
            chained = api.ffi.cast("WGPUChainedStruct *", ctypes.addressof(self._descriptor))
            if toggles == api.ffi.NULL:
                return chained
            toggles.next = chained
            return toggles

        api.new_toggles_struct = with_cache
        try:
            yield
        finally:
            api.new_toggles_struct = make_toggles

    def _load(self, key_bytes: int, key: int, value_bytes: int, value: int | None, *_: int | None) -> int:
        """Bytes of a blob, 0 if there is none; copied where ``value`` has room.

        Dawn asks for the size first, and ends the process when the blob has another one the second time, so the thread
        keeps it in between.
        """
        name = ctypes.string_at(key, key_bytes)
        if not value:
            self._asked.blob = name, self._cache.load(name) or b""
        asked, blob = getattr(self._asked, "blob", (name, b""))
        if asked != name:
            return 0
        if value and value_bytes >= len(blob):
            ctypes.memmove(value, blob, len(blob))
            self._asked.blob = name, b""
        return len(blob)

    def _store(self, key_bytes: int, key: int, value_bytes: int, value: int, *_: int | None) -> None:
        self._cache.store(ctypes.string_at(key, key_bytes), ctypes.string_at(value, value_bytes))


def dawn_cache(release: str) -> DawnCache | None:
    """The user's cache for a release of Dawn; None for one that is not known, or where there is no cache."""
    blobs = user_cache("pipelines") if release in _RELEASES else None
    return None if blobs is None else _dawn_cache(blobs)


@cache
def _dawn_cache(blobs: BlobCache) -> DawnCache:
    return DawnCache(blobs)

"""Compiled pipelines on disk, for Dawn, which asks for them by keys of its own.

Its keys hold all that the blobs depend on: Dawn's version, the adapter, the driver, the toggles, the code. Dawn offers
this by two C functions that are chained to a device's descriptor. The structure is not among those that wgpudawn
declares, so it is declared here, and used with the releases of Dawn that are known to have it so.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from threading import local
from typing import Any

from ..folders import cache_folder

MOST_BYTES = 256 << 20
_DIGEST_BYTES = 32
_RELEASES = ("v20261009.190412",)
_CACHE_DEVICE_DESCRIPTOR = 0x00050007  # WGPUSType_DawnCacheDeviceDescriptor


class PipelineCache:
    """Blobs by key in a folder that processes share.

    It never raises: a blob that is damaged or cannot be read is not there, and one that cannot be written is not kept.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._trim(most_bytes)

    def load(self, key: bytes) -> bytes | None:
        """What ``store`` was last given for ``key``."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        value = content[_DIGEST_BYTES:]
        if content[:_DIGEST_BYTES] != _digest(key, value):
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # the blobs that nobody has used for longest are the first to go
        return value

    def store(self, key: bytes, value: bytes) -> None:
        """Keep ``value``. Readers see all of it or what was there before."""
        partial = None
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".partial", delete=False) as file:
                partial = Path(file.name)
                file.write(_digest(key, value) + value)
            partial.replace(self._path(key))
        except OSError:
            if partial is not None:
                with suppress(OSError):
                    partial.unlink()

    def _path(self, key: bytes) -> Path:
        return self._folder / blake2b(key, digest_size=16).hexdigest()

    def _trim(self, most_bytes: int) -> None:
        """Remove what was used least recently, down to three quarters of ``most_bytes``, if there is more than that."""
        files = [(path.stat(), path) for path in self._folder.iterdir()]
        total = sum(state.st_size for state, _ in files)
        if total <= most_bytes:
            return
        for state, path in sorted(files, key=lambda file: file[0].st_mtime):
            if total <= most_bytes * 3 // 4:
                return
            with suppress(OSError):  # another process may be faster
                path.unlink()
            total -= state.st_size


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

    def __init__(self, cache: PipelineCache) -> None:
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
    """The user's cache for a release of Dawn.

    None for one that is not known, where ``ET_WEBGPU_PIPELINE_CACHE=0`` switches it off, or without a place for it.
    """
    if release not in _RELEASES or os.environ.get("ET_WEBGPU_PIPELINE_CACHE") == "0":
        return None
    try:
        return _dawn_cache(cache_folder() / "pipelines")
    except RuntimeError:  # no home
        return None


@cache
def _dawn_cache(folder: Path) -> DawnCache:
    return DawnCache(PipelineCache(folder))


def _digest(key: bytes, value: bytes) -> bytes:
    return blake2b(value, key=blake2b(key).digest(), digest_size=_DIGEST_BYTES).digest()

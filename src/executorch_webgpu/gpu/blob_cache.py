"""Bytes on disk by key, which can be made again: compiled pipelines, and rendered kernels."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path

from ..folders import cache_folder

MOST_BYTES = 256 << 20
_DIGEST_BYTES = 32


class BlobCache:
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


def user_cache(name: str) -> BlobCache | None:
    """The user's blobs of this name; None where ``ET_WEBGPU_PIPELINE_CACHE=0`` switches it off, or without a place."""
    if os.environ.get("ET_WEBGPU_PIPELINE_CACHE") == "0":
        return None
    try:
        return _blob_cache(cache_folder() / name)
    except RuntimeError:  # no home
        return None


@cache
def _blob_cache(folder: Path) -> BlobCache:
    return BlobCache(folder)


def _digest(key: bytes, value: bytes) -> bytes:
    return blake2b(value, key=blake2b(key).digest(), digest_size=_DIGEST_BYTES).digest()

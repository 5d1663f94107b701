"""The user's cache folder: downloads and converted programs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident

from filelock import FileLock

from ..folders import cache_folder

__all__ = ["cache_folder", "digest", "exclusive"]

_CHUNK = 1 << 22


@contextlib.contextmanager
def exclusive(entry: Path) -> Iterator[None]:
    """Make an entry's parent folder, and keep other processes from making the entry meanwhile."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(entry.with_name(entry.name + ".lock")):
        yield


def digest(paths: list[Path], on_progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    """A name for the contents of some files: equal for equal contents, wherever the files are.

    Remembered by path, size and time of change, so that a large file is read once.
    """
    total, done = sum(path.stat().st_size for path in paths), 0
    combined = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        start = done

        def count(size: int, start: int = start) -> None:
            on_progress(start + size, total)

        combined.update(f"{path.name}\0{_file_digest(path, count)}\0".encode())
        done += path.stat().st_size
    return combined.hexdigest()


def _file_digest(path: Path, on_progress: Callable[[int], None]) -> str:
    path = path.resolve()
    state = path.stat()
    seen = {"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    memo = cache_folder() / "digests" / f"{hashlib.blake2b(str(path).encode(), digest_size=16).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = json.loads(memo.read_text())
        if {key: known[key] for key in seen} == seen:
            return str(known["digest"])
    content = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            content.update(chunk)
            on_progress(file.tell())
    memo.parent.mkdir(parents=True, exist_ok=True)
    partial = memo.with_suffix(f".{os.getpid()}.{get_ident()}")
    partial.write_text(json.dumps(seen | {"digest": content.hexdigest()}))
    partial.replace(memo)
    return content.hexdigest()

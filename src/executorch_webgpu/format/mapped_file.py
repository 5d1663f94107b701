"""A file mapped into memory, read-only, whose pages can be let go again once their bytes are elsewhere."""

from __future__ import annotations

import contextlib
import mmap
from os import PathLike
from pathlib import Path

import numpy as np

from ..closing import Closing
from ..errors import ClosedError, InvalidInputError, InvalidProgramError

_POINTER = b"version https://git-lfs.github.com/spec/"


class MappedFile(Closing):
    """Owns the mapping of the file at ``path``; a context manager.

    InvalidProgramError if there is no file there that can be read, or it is empty.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        try:
            with Path(path).open("rb") as stream:
                self._map: mmap.mmap | None = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidProgramError(f"Cannot read {path} ({reason}): name a file that can be read.") from error
        self._data = memoryview(self._map)

    @property
    def data(self) -> memoryview:
        """All bytes of the file. ClosedError after ``close()``."""
        if self._map is None:
            raise ClosedError("The file is closed: open it again.")
        return self._data

    def holds(self, view: memoryview) -> bool:
        """Whether ``view`` is a part of ``data``; nothing is when the file is closed."""
        if self._map is None:
            return False
        start = _address(view) - _address(self._data)
        return 0 <= start <= start + view.nbytes <= len(self._data)

    def release(self, view: memoryview) -> None:
        """Tell the OS that the bytes of ``view``, a part of ``data``, need not stay in memory.

        They can still be read, from the disk. Only whole pages inside the view go, because others may use the
        rest of a page. Where the OS has no such call, nothing happens. InvalidInputError if ``view`` is not a
        part of this file.
        """
        start = _address(view) - _address(self.data)
        stop = start + view.nbytes
        if not 0 <= start <= stop <= len(self._data):
            raise InvalidInputError("The view to release is not a part of this file: pass a slice of its data.")
        first = start + -start % mmap.PAGESIZE
        last = len(self._data) if stop == len(self._data) else stop - stop % mmap.PAGESIZE
        if self._map is not None and first < last and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def close(self) -> None:
        """Give up the mapping; again is harmless. Views still held keep it, until the last one goes."""
        if self._map is None:
            return
        self._data.release()
        with contextlib.suppress(BufferError):  # views are in use, and the last one to go unmaps the file
            self._map.close()
        self._map = None


def check_is_whole(data: memoryview, path: str | PathLike[str]) -> None:
    """The bytes are not what git leaves in the place of a large file; InvalidProgramError if they are."""
    if bytes(data[: len(_POINTER)]) == _POINTER:
        raise InvalidProgramError(
            f"{path} is a pointer of Git LFS, not the file itself: run 'git lfs pull' in its folder, or download it."
        )


def _address(view: memoryview) -> int:
    address: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return address

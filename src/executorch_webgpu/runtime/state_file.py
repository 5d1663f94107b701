"""Files of saved states: uncompressed ``.npz`` with ``about``, a string of JSON, beside the arrays."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import get_ident
from typing import Any
from zipfile import ZipFile

import numpy as np

from ..errors import InvalidInputError

FORMAT = 2
TOKENS = "tokens"  # the text, where whoever saved it knew that


@dataclass(frozen=True)
class Progress:
    """How far a state has come, in tokens (rows of the KV caches).

    ``length``: the end of the last write. ``extent``: the rows that may have been written, which are more than
    ``length`` when a step wrote before the end. ``even``: every step wrote all caches up to the same row.
    """

    length: int = 0
    extent: int = 0
    even: bool = True

    def after(self, ends: set[int]) -> Progress:
        """After a step that wrote caches up to these rows."""
        if not ends:
            return self
        return Progress(max(ends), max(self.extent, *ends), self.even and len(ends) == 1)

    def kept(self, length: int) -> Progress:
        """The same rows may have been written, of which ``length`` count."""
        return Progress(length, self.extent, self.even)


@dataclass(frozen=True)
class About:
    """What a file says of itself: of which method and program it is, and how far it has come."""

    format: int
    method: str
    fingerprint: str
    kv_cache_dtype: str
    progress: Progress


def checked_about(arrays: dict[str, np.ndarray], path: str | Path, like: About) -> About:
    """What a file says of itself, taken out of its ``arrays``, if it is of the method, program and dtype of ``like``.

    Raises InvalidInputError if it is not.
    """
    about = about_of(arrays.pop("about", None), path)
    if about.method != like.method:
        raise InvalidInputError(f"{path} is a state of method {about.method!r}, not of {like.method!r}: load it there")
    if about.fingerprint != like.fingerprint:
        raise InvalidInputError(f"{path} is a state of another program: load it with the one that it was saved with")
    if about.kv_cache_dtype != like.kv_cache_dtype:
        raise InvalidInputError(
            f"{path} is a state with KV caches of {about.kv_cache_dtype}, not of {like.kv_cache_dtype}: "
            f"load the method with kv_cache_dtype={about.kv_cache_dtype!r}"
        )
    return about


def write_arrays(path: Path, about: About, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file, which appears, or replaces an older one, when it is complete. Raises OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(asdict(about))), **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file whose checksums are right."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the state {path} ({error.strerror}): name a file that save wrote"
        ) from error
    with file:
        try:
            with ZipFile(file) as archive:  # before NumPy believes in a size that it finds there
                if archive.testzip() is not None:
                    raise damaged(path)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: np.asarray(array) for name, array in arrays.items()}
        except Exception as error:  # whatever these libraries raise for bytes that make no sense
            raise damaged(path) from error


def about_of(array: np.ndarray | None, path: str | Path) -> About:
    try:
        fields: dict[str, Any] = json.loads(str(array))
        if fields["format"] != FORMAT:
            raise InvalidInputError(
                f"{path} has format {fields['format']} of saved states, but this version reads {FORMAT}: save it again"
            )
        progress = Progress(**fields["progress"])
        if not 0 <= progress.length <= progress.extent:
            raise damaged(path)
        dtype = fields.get("kv_cache_dtype", "f32")  # files of before there was a choice do not say
        return About(FORMAT, fields["method"], fields["fingerprint"], dtype, progress)
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise damaged(path) from error


def damaged(path: str | Path) -> InvalidInputError:
    return InvalidInputError(f"{path} is damaged, or no saved state: save the state again")

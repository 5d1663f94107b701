"""The conformance pack (see scripts/make_conformance_pack.py), from where ET_WEBGPU_CONFORMANCE says.

The variable names a folder or a .tar.xz. Tests that use the fixture ``conformance_dir`` are left out when it
is not set. A test module reads ``manifest()`` to make one case of each of its entries.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from executorch_webgpu.models.cache import cache_folder, exclusive

VARIABLE = "ET_WEBGPU_CONFORMANCE"


@functools.cache
def pack_folder() -> Path | None:
    """The folder that holds ``manifest.json``, unpacked if need be; None when the variable is not set."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    pack = Path(named)
    if not pack.exists():
        raise pytest.UsageError(f"{VARIABLE} names {pack}, which does not exist")
    manifests = list((pack if pack.is_dir() else _unpack(pack)).glob("**/manifest.json"))
    if len(manifests) != 1:
        raise pytest.UsageError(f"{VARIABLE} names {pack}, which holds {len(manifests)} files manifest.json, not 1")
    return manifests[0].parent


def manifest() -> list[dict[str, Any]]:
    """The pack's cases, with file names relative to its folder; empty when there is no pack."""
    folder = pack_folder()
    return [] if folder is None else json.loads((folder / "manifest.json").read_text())


def _unpack(archive: Path) -> Path:
    with archive.open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    folder = cache_folder() / f"conformance-{key}"
    with exclusive(folder):
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
            partial.mkdir()
            with tarfile.open(archive) as content:
                safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # 3.11.4 and later
                content.extractall(partial, **safe)
            partial.rename(folder)
    return folder

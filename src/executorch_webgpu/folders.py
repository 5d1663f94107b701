"""Where files that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$ET_WEBGPU_CACHE, else executorch-webgpu in $XDG_CACHE_HOME or ~/.cache.

    Raises RuntimeError when none of them is set and the user has no home.
    """
    if chosen := os.environ.get("ET_WEBGPU_CACHE"):
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "executorch-webgpu"

"""Rendered kernels on disk: Jinja takes longer to compile their templates than all else that makes a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import jinja2

from .blob_cache import user_cache


class RenderedKernels:
    """WGSL by what it was rendered from: the text of all files below ``roots``, as it was at the first use."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)
        self._blobs = user_cache("kernels")

    def text(self, name: str, template: Mapping[str, object], dialect: str, render: Callable[[], str]) -> str:
        """What ``render`` returns for these inputs, or once returned."""
        if self._blobs is None:
            return render()
        key = repr((self._sources, name, sorted(template.items()), dialect)).encode()
        known = self._blobs.load(key)
        if known is not None:
            return known.decode()
        text = render()
        self._blobs.store(key, text.encode())
        return text

    @cached_property
    def _sources(self) -> str:
        digest = blake2b(jinja2.__version__.encode(), digest_size=16)
        for root in self._roots:
            for path in sorted(root.rglob("*.wgsl")):
                content = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
        return digest.hexdigest()

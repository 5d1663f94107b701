"""What ``make test-fast`` (``pytest --fast``) runs: one case of each test that is quick and needs no torch.

Nothing is listed by hand. Imports and fixtures tell what needs the exporter or a real model. A test whose first case
takes more than about half a second carries the marker ``slow``.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What the extra ``test`` does not install.
EXPORTER = {"torch", "torchao", "executorch", "transformers", "safetensors", "matplotlib", "ray", "pyarrow"}
NEEDS_RAY = "executorch_webgpu.ray"
# Fixtures that export a program, fetch a model, or start a server.
MODELS = {"zoo", "tiny_llama", "smollm2", "smollm2_gguf", "conformance_dir", "server"}


def fast_slice(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The first case of each test that is not slow and needs no model."""
    chosen: dict[str, pytest.Item] = {}
    for item in items:
        if not item.get_closest_marker("slow") and MODELS.isdisjoint(getattr(item, "fixturenames", ())):
            chosen.setdefault(item.nodeid.split("[")[0], item)
    return list(chosen.values())


@functools.cache
def needs_exporter(path: Path) -> bool:
    """Whether a file imports a package of ``EXPORTER`` anywhere, itself or through another file of this repository."""
    pending, seen = [path], {path}
    while pending:
        for name in _imports(pending.pop()):
            if name.split(".")[0] in EXPORTER or name.startswith(NEEDS_RAY):
                return True
            found = [p for p in _candidates(name) if p.exists() and p not in seen]
            pending += found
            seen.update(found)
    return False


def _candidates(name: str) -> list[Path]:
    parts = Path(*name.split("."))
    if parts.parts[0] in ("tests", "bench"):
        return [ROOT / parts.with_suffix(".py"), ROOT / parts / "__init__.py"]
    return [ROOT / "examples" / parts.with_suffix(".py")]


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    package = path.parent.relative_to(ROOT).parts
    return frozenset(_walk(ast.parse(path.read_text()), package))


def _walk(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom(module=str(name), level=level):
            module = ".".join([*package[: len(package) + 1 - level], name]) if level else name
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _walk(child, package)

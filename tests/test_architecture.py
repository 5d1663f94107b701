"""The structure that the source must keep: one-way imports, small files, and an import that costs little."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "executorch_webgpu"
FILES = sorted(PACKAGE.rglob("*.py"))

# What a layer may import, besides itself, `errors` and the layers that these may import.
BELOW = {
    "__main__": {"cli"},
    "cli": {"llm", "__init__", "exit_codes"},
    "llm": {"runtime", "models", "text"},
    "attention": {"runtime"},
    "models": {"format", "text"},
    "text": {"format"},
    "runtime": {"graph", "portable", "format"},
    "graph": {"ops", "format"},
    "portable": {"ops", "format"},
    "ops": {"gpu"},
    "gpu": set(),
    "format": set(),
    "errors": set(),
    "exit_codes": set(),
    "__init__": {"runtime"},
}
ENGINES = {"wgpu", "wgpudawn", "rendercanvas"}
EXPORTERS = {"torch", "executorch", "torchao"}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def allowed(name: str) -> set[str]:
    return {name, "errors"}.union(*(allowed(below) for below in BELOW[name]))


def imports(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports, wherever in it, and whatever only type checkers see."""
    package = ("executorch_webgpu", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import x` names modules; `from .x import name` names what is in one.
            yield from ([stem] if node.module else (f"{stem}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "wgpu"


def imported_layers(path: Path) -> set[str]:
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "executorch_webgpu":
            stem = parts[1] if len(parts) > 1 else "__init__"
            known = (PACKAGE / stem).is_dir() or (PACKAGE / f"{stem}.py").is_file()
            found.add(stem if known else "__init__")  # `from .. import __version__`
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    assert layer(path) in BELOW, f"say in {Path(__file__).name} which layer this belongs to"
    assert imported_layers(path) <= allowed(layer(path))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_engines_are_imported_by_gpu_only_and_exporters_by_nobody(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & EXPORTERS
    assert layer(path) == "gpu" or not tops & ENGINES


def test_the_engines_are_imported_at_all() -> None:
    """So the test above looks at something."""
    assert {"wgpu"} <= {name.split(".")[0] for path in FILES if layer(path) == "gpu" for name in imports(path)}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_are_small_and_named_for_what_they_hold(path: Path) -> None:
    assert not {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts} & {
        *("util", "utils", "helper", "helpers", "manager", "managers", "common", "misc")
    }
    assert len(path.read_text().splitlines()) <= 400, "split it by meaning"


@pytest.mark.slow
def test_importing_the_package_loads_no_engine_and_no_exporter() -> None:
    code = "from executorch_webgpu import Runtime; import json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    tops = {name.split(".")[0] for name in loaded}
    assert "executorch_webgpu" in tops
    assert not tops & (ENGINES | EXPORTERS)


# Folders of tests that are about several packages.
OTHER_FOLDERS = {"conformance", "differential", "threads"}


def test_folders_of_tests_mirror_the_source() -> None:
    tests = Path(__file__).parent
    folders = [path for path in tests.rglob("*") if path.is_dir() and next(path.glob("test_*.py"), None)]
    assert len(folders) > 8
    for folder in (path.relative_to(tests) for path in folders):
        known = folder.parts[0] in OTHER_FOLDERS or (PACKAGE / folder).is_dir() or (tests.parent / folder).is_dir()
        assert known, f"tests/{folder} mirrors no package: rename it, or name it in OTHER_FOLDERS"

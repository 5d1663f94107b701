"""What is installed: complete, and importable without torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email.parser import BytesParser
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import executorch_webgpu

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "executorch_webgpu"
MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_wheel_holds_every_source_file(wheel: zipfile.ZipFile) -> None:
    packaged = {name for name in wheel.namelist() if name.startswith("executorch_webgpu/")}
    sources = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert packaged == {path.relative_to(PACKAGE.parent).as_posix() for path in sources}
    assert any(name.endswith(".wgsl") for name in packaged)
    assert "executorch_webgpu/py.typed" in packaged


@pytest.mark.slow
def test_wheel_needs_no_torch_and_carries_its_license(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = BytesParser().parsebytes(wheel.read(name))
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert required
    assert not [line for line in required if line.startswith(("torch", "executorch"))]
    assert metadata["Version"] == executorch_webgpu.__version__
    assert metadata["License-Expression"] == "BSD-3-Clause AND MIT AND (Apache-2.0 OR MPL-2.0)"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    for library in ("marked", "dompurify"):  # of the chat page
        assert any(name.endswith(f"vendor/{library}/LICENSE") and "licenses/" in name for name in wheel.namelist())


def test_console_script_is_the_cli() -> None:
    (script,) = entry_points(group="console_scripts", name="et-webgpu")
    assert callable(script.load())


@pytest.mark.slow
def test_every_module_imports_without_torch() -> None:
    names = [module_name(path) for path in MODULES if path.name != "__main__.py"]
    blocked = "import sys, importlib; sys.modules |= dict.fromkeys(('torch', 'executorch'));"
    code = f"{blocked} [importlib.import_module(name) for name in {names}]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_ruff_and_mypy_are_configured_for_the_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    oldest = project["project"]["requires-python"].removeprefix(">=")
    assert project["tool"]["mypy"]["python_version"] == oldest
    assert project["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")

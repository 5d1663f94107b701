"""``make test-fast`` collects without torch, and leaves no part of the package out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fast_slice import EXPORTER, needs_exporter

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_it_collects_without_torch_and_covers_every_folder() -> None:
    code = f"import sys, pytest; sys.modules |= dict.fromkeys({sorted(EXPORTER)}); "
    code += "sys.exit(pytest.main(['--fast', '--collect-only', '-q', '-p', 'no:cacheprovider']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    files = {ROOT / line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in files if path.parent.name != "tests"}
    assert folders >= {"cli", "format", "gpu", "graph", "llm", "models", "ops", "text", "threads"}
    assert not [path for path in files if needs_exporter(path)]


def test_imports_are_followed_through_other_files() -> None:
    assert not needs_exporter(ROOT / "tests/format/test_pte.py")
    assert needs_exporter(ROOT / "tests/format/test_against_executorch.py")
    assert needs_exporter(ROOT / "tests/differential/test_programs.py")

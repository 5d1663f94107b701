"""A slice of the differential tests of text; ``python -m tests.differential.text`` runs more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.text import CHECKS, run


@pytest.mark.parametrize("kind", CHECKS)
def test_a_slice(kind: str, tmp_path: Path) -> None:
    clean, failures = run(50, 11, tmp_path, (kind,))
    assert not failures, failures[0]
    assert clean[kind] == 50

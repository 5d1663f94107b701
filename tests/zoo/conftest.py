"""The zoo's programs, exported in a process of its own while other tests run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.zoo.files import program_path


@pytest.fixture(scope="session")
def zoo(request: pytest.FixtureRequest) -> Callable[[str, str], Path]:
    """Gives the path of a thin model's program, by name and variant."""
    from tests.conftest import wait_for_export

    wait_for_export(request.config, "zoo")
    return program_path

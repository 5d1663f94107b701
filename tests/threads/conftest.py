from __future__ import annotations

from random import Random

import pytest


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """Seeded by ``together.seeds``."""
    return Random(request.param)

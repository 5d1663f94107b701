"""Models that are not language models, exported by the stock tools, against torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.zoo.chosen import CHOSEN
from tests.zoo.files import judged

PROGRAMS = [(name, variant) for name, variants in CHOSEN.items() for variant in variants]


@pytest.mark.parametrize(("name", "variant"), PROGRAMS)
def test_answers_as_torch_does(zoo: Callable[[str, str], Path], name: str, variant: str) -> None:
    outcome = judged(zoo(name, variant))
    assert (outcome.kind, outcome.detail) == ("right", "")

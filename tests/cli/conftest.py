from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from executorch_webgpu.cli import main

Cli = Callable[..., Result]


@pytest.fixture
def cli() -> Cli:
    """Runs ``et-webgpu`` with these arguments, in this process; ``input`` is its standard input."""

    def run(*arguments: object, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)

    return run

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from executorch_webgpu import Program, Runtime
from tests.llm.tiny_program import tiny_program


@pytest.fixture
def open_tiny() -> Iterator[Callable[..., Program]]:
    """Loads programs that ``tiny_program`` writes."""
    with ExitStack() as stack:

        def load(**options: Any) -> Program:
            return stack.enter_context(Runtime.get().load_program(tiny_program(**options)))

        yield load

"""The device that the operator tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from executorch_webgpu.gpu.device import Device, open_device


@pytest.fixture(scope="session")
def device() -> Iterator[Device]:
    """The engine and adapter that the environment chooses; by default the best of this machine."""
    with open_device() as opened:
        yield opened

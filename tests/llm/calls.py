"""Calls of a language model's method, noted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from executorch_webgpu import State
from executorch_webgpu.llm.model import LanguageModel


def recorded(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(tokens, input_pos) of each call from now on."""
    calls: list[tuple[int, int]] = []
    execute = model._forward.execute

    def record(inputs: Sequence[Any], state: State | None = None) -> list[Any]:
        calls.append((inputs[0].shape[1], int(inputs[1][0])))
        return execute(inputs, state)

    monkeypatch.setattr(model._forward, "execute", record)
    return calls

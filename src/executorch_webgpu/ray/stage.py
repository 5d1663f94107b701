"""What the actor of one stage of a pipeline does: it runs its layers for one text at a time, and keeps their caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..closing import Closing
from ..errors import Error, UnsupportedProgramError
from ..llm.sample import SamplingParams, allowed_mask, sample_text
from ..llm.text_changes import TextChanges
from ..runtime import Program, State
from .sources import open_source


def stage_names(program: Program) -> list[str]:
    """The methods of a program that ``convert --stages`` wrote, in their order.

    Raises UnsupportedProgramError when it has none.
    """
    names = [f"stage{i}" for i in range(len(program.method_names)) if f"stage{i}" in program.method_names]
    if not names:
        raise UnsupportedProgramError(
            "the program is not in stages: make one of the model with et-webgpu convert --stages"
        )
    return names


class _Draws:
    """How the tokens of a text are drawn from the logits of the last stage."""

    def __init__(self, prompt: Sequence[int], params: SamplingParams, vocab_size: int) -> None:
        self._params, self._seed = params, params.some_seed
        self._changes = TextChanges(params, prompt, vocab_size)
        self._new_tokens: list[int] = []

    def draw(self, logits: NDArray[np.float32], position: int) -> int:
        """The token at a position. Raises Error as ``sample`` does."""
        allowed = allowed_mask(self._params, self._new_tokens, logits.size)
        token = sample_text(logits, self._params, position, self._seed, self._changes, allowed)
        self._changes.add(token)
        self._new_tokens.append(token)
        return token


class Stage(Closing):
    """Stage ``number`` of a program. ``changes``: as ``Program.load_method`` takes them."""

    def __init__(
        self, source: str, number: int, engine: str | None = None, adapter: int | str | None = None, **changes: Any
    ) -> None:
        self._program = open_source(source, engine, adapter)
        try:
            names = stage_names(self._program)
            self._method = self._program.load_method(names[number], **changes)
        except BaseException:
            self._program.close()
            raise
        self._states: dict[int, State] = {}
        self._idle: list[State] = []
        self._draws: dict[int, _Draws] = {}

    def ready(self) -> None:
        """Returns when it is loaded."""

    def begin(self, text: int, prompt: Sequence[int], params: SamplingParams) -> None:
        """The last stage draws the tokens of a text like this. Raises InvalidInputError as ``TextChanges``."""
        self._draws[text] = _Draws(prompt, params, self._method.metadata.outputs[0].max_dims[-1])

    def run(self, text: int, given: np.ndarray, position: int, draws: bool) -> NDArray[np.float32] | int | None:
        """Tokens [1, S], or what the stage before gives of them, float32 [1, S, dim], from a position of a text on.

        Returns what the next stage takes; the last one returns the token after them, if the step ``draws``.
        """
        if text not in self._states:
            self._states[text] = self._idle.pop() if self._idle else self._method.new_state()
        state = self._states[text]
        if state.length != position:
            raise Error(f"stage holds {state.length} tokens of the text, not {position}: a step before has failed")
        first, second = self._method.metadata.inputs
        inputs = [np.asarray(given, first.dtype), np.array([position], second.dtype)]
        (out,) = self._method.execute(inputs, state)
        if text not in self._draws:
            return np.asarray(out, np.float32)
        if not draws:
            return None
        return self._draws[text].draw(out.reshape(-1, out.shape[-1])[-1], position + given.shape[1])

    def end(self, text: int) -> None:
        """A text is over: its caches are for another one."""
        self._draws.pop(text, None)
        state = self._states.pop(text, None)
        if state is not None:
            state.reset()
            self._idle.append(state)

    def close(self) -> None:
        """Free the memory."""
        self._program.close()

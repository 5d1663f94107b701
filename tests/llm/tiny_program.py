"""A program with a KV cache whose answers can be worked out by hand, with ``runtime.Program``'s interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from executorch_webgpu.runtime.metadata import MethodMetadata, TensorMetadata


def next_token(text: Sequence[int], vocab_size: int) -> int:
    """The token that a text goes on with: it depends on every token and on its position."""
    state = 0
    for token in text:
        state = (30 * state + token + 1) % vocab_size
    return state


def continuation(prompt: Sequence[int], count: int, vocab_size: int) -> list[int]:
    """``count`` tokens after a prompt, each from the whole text before it."""
    text = list(prompt)
    for _ in range(count):
        text.append(next_token(text, vocab_size))
    return text[len(prompt) :]


@dataclass
class Forward:
    """Logits that are 1 at the next token of the text in the cache, and 0 elsewhere."""

    metadata: MethodMetadata
    cache: list[int | None]
    calls: list[tuple[int, int]] = field(default_factory=list)  # (tokens, input_pos)

    def execute(self, inputs: Sequence[Any]) -> list[Any]:
        tokens, input_pos = inputs
        expected = self.metadata.inputs
        assert (tokens.dtype.name, input_pos.dtype.name) == (expected[0].dtype, expected[1].dtype)
        assert input_pos.shape == (1,)
        assert 1 <= tokens.shape[1] <= expected[0].max_dims[1]
        position, length = int(input_pos[0]), tokens.shape[1]
        assert position + length <= len(self.cache)
        self.cache[position : position + length] = tokens[0].tolist()
        self.calls.append((length, position))

        dims = self.metadata.outputs[0].max_dims
        logits = np.zeros((length, dims[-1]), np.float32)
        for row in range(length):
            text = self.cache[: position + row + 1]
            assert None not in text  # attention would read rows that nothing wrote
            logits[row, next_token([token for token in text if token is not None], dims[-1])] = 1
        return [logits[-1:] if len(dims) == 2 else logits[np.newaxis]]

    def reset(self) -> None:
        self.cache[:] = [None] * len(self.cache)

    def profile(self) -> list[Any]:
        return []

    def close(self) -> None:
        self.cache.clear()


@dataclass
class Constants:
    """A method without inputs."""

    values: list[Any]

    def execute(self, inputs: Sequence[Any]) -> list[Any]:
        assert not list(inputs)
        return self.values

    def reset(self) -> None: ...
    def profile(self) -> list[Any]:
        return []

    def close(self) -> None: ...


@dataclass
class TinyProgram:
    """``forward`` with the inputs and outputs given, and constant methods."""

    vocab_size: int
    context_len: int
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    constants: dict[str, list[Any]]

    @property
    def method_names(self) -> set[str]:
        return {"forward", *self.constants}

    def metadata(self, name: str) -> MethodMetadata:
        assert name == "forward"
        return MethodMetadata(name, self.inputs, self.outputs)

    def load_method(
        self,
        name: str,
        *,
        profile: bool = False,
        kv_cache_dtype: str = "f32",
        matmul_precision: str = "highest",
        fuse: bool = True,
    ) -> Any:
        if name != "forward":
            return Constants(self.constants[name])
        return Forward(self.metadata(name), [None] * self.context_len)


def tiny_program(
    *,
    vocab_size: int,
    context_len: int = 64,
    max_tokens: int = 5,
    dynamic: bool = True,
    all_logits: bool = False,
    dtype: str = "int64",
    constants: dict[str, list[Any]] | None = None,
) -> TinyProgram:
    """A language model of the usual shape; ``constants`` states its context length unless it is given."""
    tokens = TensorMetadata(dtype, (1, max_tokens), (1,) if dynamic else ())
    logits = (1, max_tokens, vocab_size) if all_logits else (1, vocab_size)
    return TinyProgram(
        vocab_size,
        context_len,
        (tokens, TensorMetadata("int64", (1,))),
        (TensorMetadata("float32", logits, (1,) if all_logits and dynamic else ()),),
        {"get_max_context_len": [context_len]} if constants is None else constants,
    )

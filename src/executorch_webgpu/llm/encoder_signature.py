"""What makes a program an encoder: ``forward(tokens[, attention_mask[, token_type_ids]]) -> embedding``.

The result is one vector of each text, or the last hidden state, which has one of each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnsupportedProgramError
from ..runtime import Program
from ..runtime.metadata import MethodMetadata, TensorMetadata
from .signature import stated_constants

_INTEGERS = ("int64", "int32")
_MASKS = (*_INTEGERS, "bool", "float32", "float16", "float64", "int8", "uint8", "int16")


@dataclass(frozen=True)
class EncoderSignature:
    """``inputs``: dtypes of tokens, attention mask and token types, as many as there are.

    ``max_batch`` rows of ``row_tokens`` go into a call; ``any_batch``, ``any_length``: fewer, too. A text has at most
    ``max_tokens``. ``pooled``: the result is one vector of each text. ``dim``: its length. ``vocab_size``: None where
    the program does not state it.
    """

    inputs: tuple[np.dtype[Any], ...]
    max_batch: int
    row_tokens: int
    max_tokens: int
    any_batch: bool
    any_length: bool
    pooled: bool
    dim: int
    vocab_size: int | None

    @property
    def masked(self) -> bool:
        """Whether the program is told which tokens are text."""
        return len(self.inputs) > 1

    @classmethod
    def of(cls, program: Program) -> EncoderSignature:
        """Raises UnsupportedProgramError when ``forward`` is missing or is no encoder of texts."""
        if "forward" not in program.method_names:
            raise UnsupportedProgramError(
                "the program has no method named forward, so it is no encoder; see et-webgpu inspect"
            )
        method = program.metadata("forward")
        pooled = _pooled(method)
        tokens = method.inputs[0]
        batch, length = tokens.max_dims
        stated = stated_constants(program, "get_max_seq_len")
        return cls(
            inputs=tuple(np.dtype(tensor.dtype) for tensor in method.inputs),
            max_batch=batch,
            row_tokens=length,
            max_tokens=min([length, *stated]),
            any_batch=0 in tokens.dynamic_dims or batch == 1,
            any_length=1 in tokens.dynamic_dims or length == 1,
            pooled=pooled,
            dim=method.outputs[0].max_dims[-1],
            vocab_size=next(iter(stated_constants(program, "get_vocab_size")), None),
        )


def _pooled(method: MethodMetadata) -> bool:
    """Whether the first result is one vector of each text; UnsupportedProgramError when it is no embedding at all.

    A pooler's output may follow the last hidden state.
    """
    inputs, outputs = method.inputs, method.outputs
    tokens = inputs[0] if inputs else TensorMetadata("none")
    fits = (
        1 <= len(inputs) <= 3
        and len(outputs) >= 1
        and tokens.dtype in _INTEGERS
        and len(tokens.max_dims) == 2
        and all(other.dtype in _MASKS and _alike(other, tokens) for other in inputs[1:])
        and "float" in outputs[0].dtype
    )
    if fits and outputs[0].max_dims:
        batch, length = tokens.max_dims
        leading = outputs[0].max_dims[:-1]
        # A batch of one text may have lost its dimension.
        if leading in ((batch, length), *([(length,)] if batch == 1 < length else [])):
            return False
        if leading in ((batch,), (batch, 1), *([()] if batch == 1 else [])):
            return True
    raise UnsupportedProgramError(
        "an encoder's forward takes integer tokens [B, S] and, if it can, a mask and token types of the same dims, and "
        f"returns an embedding [B, dim] or a last hidden state [B, S, dim]; this one takes {_shapes(inputs)} and "
        f"returns {_shapes(outputs)}: export it so"
    )


def _alike(tensor: TensorMetadata, tokens: TensorMetadata) -> bool:
    return (tensor.max_dims, tensor.dynamic_dims) == (tokens.max_dims, tokens.dynamic_dims)


def _shapes(tensors: Sequence[TensorMetadata]) -> str:
    return ", ".join(map(str, tensors)) or "nothing"

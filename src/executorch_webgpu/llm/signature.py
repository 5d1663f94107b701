"""What makes a program a language model: ``forward(tokens, input_pos) -> logits``, and what it says about itself.

``input_pos`` is the position of the first token, or, as transformers export it, that of every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import Error, UnsupportedProgramError
from ..runtime import Program
from ..runtime.metadata import MethodMetadata, TensorMetadata


@dataclass(frozen=True)
class Signature:
    """``max_tokens``: the most tokens in one call. ``context_len``: rows of the KV cache.

    ``vocab_size``: logits for each token. ``full_logits``: of every token, not of the last one.
    ``eos_ids``: end tokens that the program states. ``position_of_each``: it takes the position of every token, not of
    the first one.
    """

    max_tokens: int
    context_len: int
    vocab_size: int
    full_logits: bool
    eos_ids: frozenset[int]
    tokens_dtype: np.dtype[Any]
    input_pos_dtype: np.dtype[Any]
    position_of_each: bool

    def positions(self, first: int, count: int) -> np.ndarray:
        """What ``forward`` takes for ``count`` tokens from position ``first`` on: [1], or [S]."""
        return np.arange(first, first + (count if self.position_of_each else 1), dtype=self.input_pos_dtype)

    @classmethod
    def of(cls, program: Program) -> Signature:
        """Raises UnsupportedProgramError when ``forward`` is missing or is not a language model with a KV cache."""
        if "stage0" in program.method_names:
            raise UnsupportedProgramError(
                "the program is in stages, for a GPU each: run it with executorch_webgpu.ray.Pipeline, or convert the "
                "model again without --stages"
            )
        if "forward" not in program.method_names:
            raise UnsupportedProgramError(
                "the program has no method named forward, so it is no language model; see et-webgpu inspect"
            )
        signature: MethodMetadata = program.metadata("forward")
        _check_signature(signature)
        if stated_constant(program, "use_kv_cache") == 0:
            raise UnsupportedProgramError("the program has no KV cache; export it again with -kv")
        tokens, logits = signature.inputs[0], signature.outputs[0]
        return cls(
            tokens.max_dims[1],
            _context_len(program, tokens),
            logits.max_dims[-1],
            _is_full(logits, tokens),
            frozenset(stated_constants(program, "get_eos_ids")),
            np.dtype(tokens.dtype),
            np.dtype(signature.inputs[1].dtype),
            tokens.max_dims[1] > 1 and signature.inputs[1].max_dims != (1,),
        )


def _is_full(logits: TensorMetadata, tokens: TensorMetadata) -> bool:
    """Whether there are logits of every token."""
    length = tokens.max_dims[1]
    return logits.max_dims[:-1] in ((1, length), (length,)) and (length > 1 or len(logits.max_dims) == 3)


def _check_signature(signature: MethodMetadata) -> None:
    inputs, outputs = signature.inputs, signature.outputs
    fits = (
        len(inputs) == 2
        and len(outputs) == 1
        and all(tensor.dtype in ("int64", "int32") for tensor in inputs)
        and len(inputs[0].max_dims) == 2
        and inputs[0].max_dims[0] == 1
        and inputs[1].max_dims in ((1,), inputs[0].max_dims[1:])
        and "float" in outputs[0].dtype
        and len(outputs[0].max_dims) in (2, 3)
        and outputs[0].max_dims[:-1] in ((1,), (1, 1), inputs[0].max_dims, inputs[0].max_dims[1:])
    )
    if not fits:
        raise UnsupportedProgramError(
            "a language model's forward takes integer tokens [1, S] and input_pos [1] or [S], and returns logits "
            f"[1, vocab], [1, 1, vocab], [S, vocab] or [1, S, vocab]; this one takes {_shapes(inputs)} and returns "
            f"{_shapes(outputs)}: export it with a KV cache (-kv)"
        )
    length = inputs[0].max_dims[1]
    if length > 1 and 1 not in inputs[0].dynamic_dims:
        raise UnsupportedProgramError(
            f"forward takes exactly {length} tokens at a time, so it cannot go on token by token; export it "
            "with a dynamic sequence length"
        )


def _shapes(tensors: Sequence[TensorMetadata]) -> str:
    return ", ".join(map(str, tensors)) or "nothing"


def _context_len(program: Program, tokens: TensorMetadata) -> int:
    """The KV cache's rows: as stated by the program, else the longest input (which the cache must hold)."""
    for name in ("get_max_context_len", "get_max_seq_len"):
        stated = stated_constant(program, name)
        if stated is not None:
            return stated
    if 1 in tokens.dynamic_dims:
        return tokens.max_dims[1]
    raise UnsupportedProgramError(
        "the program takes one token at a time and has no method get_max_context_len or get_max_seq_len, so "
        "the length of its context is unknown; export it with this metadata"
    )


def stated_constant(program: Program, name: str) -> int | None:
    return next(iter(stated_constants(program, name)), None)


def stated_constants(program: Program, name: str) -> list[int]:
    """The integers that a method without inputs returns; none when the program has no such method."""
    if name not in program.method_names:
        return []
    method = program.load_method(name)
    try:
        return [int(value) for output in method.execute([]) for value in np.ravel(output)]
    except (TypeError, ValueError) as error:
        if isinstance(error, Error):
            raise
        raise UnsupportedProgramError(f"the program's method {name} does not return integers") from error
    finally:
        method.close()

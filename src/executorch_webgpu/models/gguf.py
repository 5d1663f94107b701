"""Models in GGUF files: the configuration out of the metadata, the weights out of the mapped file.

Architectures: ``llama`` (Llama, Mistral, SmolLM2, …; converters to GGUF reorder its query and key rows, so that the
rope's pairs are neighbours), ``qwen2`` and ``qwen3`` (not reordered: pairs are halves).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format.gguf import GgufTensor, read_gguf_header
from ..format.mapped_file import MappedFile
from .gguf_blocks import GROUP, Codes, code_bits, split_blocks
from .llama import LlamaConfig, SourceModel, check_weights
from .weights import Blocks, Floats, Weight

INTERLEAVED_ROPE = {"llama": True, "qwen2": False, "qwen3": False}
_Type = gguf.GGMLQuantizationType
TYPES = {
    kind.value: kind
    for kind in (
        *(_Type.F32, _Type.F16, _Type.BF16, _Type.Q8_0, _Type.Q4_0, _Type.Q4_1, _Type.Q5_0, _Type.Q5_1),
        *(_Type.Q4_K, _Type.Q5_K, _Type.Q6_K),
    )
}
T = TypeVar("T")
_ROPE_DIVISORS = "rope_freqs.weight"


@contextmanager
def open_gguf(path: str | PathLike[str]) -> Iterator[SourceModel]:
    """Opens a model, and closes it at the end of the ``with`` block.

    InvalidProgramError if the file is no GGUF or contradicts itself; UnsupportedProgramError, which names it, for an
    architecture, a feature or a tensor that is not here.
    """
    with MappedFile(path) as file:
        header = read_gguf_header(file.data, Path(path))
        weights = {tensor.name: _weight(file, path, tensor) for tensor in header.tensors}
        config = _config(header.metadata, weights)
        weights.pop(_ROPE_DIVISORS, None)  # is in the configuration now
        check_weights(config, {name: weight.dims for name, weight in weights.items()}, "GGUF file")
        yield SourceModel(config, weights)


def _weight(file: MappedFile, path: str | PathLike[str], tensor: GgufTensor) -> Weight:
    """The tensor as a Weight, which dequantizes the rows that are asked for and then lets their pages go."""
    if tensor.type not in TYPES:
        raise UnsupportedProgramError(
            f"The tensor '{tensor.name}' is of type {_type_name(tensor.type)}, which is not read here: use a file of "
            f"one of {', '.join(kind.name for kind in TYPES.values())}."
        )
    kind, dims = TYPES[tensor.type], tensor.dims
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    if not dims or dims[-1] % block:
        raise InvalidProgramError(
            f"The tensor '{tensor.name}' is {list(dims)} of {kind.name}: download the file again."
        )
    row_bytes = dims[-1] // block * block_bytes
    if tensor.start + math.prod(dims[:-1]) * row_bytes > len(file.data):
        raise InvalidProgramError(f"{path} ends before its tensor '{tensor.name}' does: download it again.")

    def stored(first: int, last: int, use: Callable[[NDArray[np.uint8]], T]) -> T:
        view = file.data[tensor.start + first * row_bytes : tensor.start + last * row_bytes]
        result = use(np.frombuffer(view, np.uint8).reshape(last - first, row_bytes))
        file.release(view)
        return result

    def read(first: int, last: int) -> Floats:
        return stored(first, last, lambda rows: gguf.dequantize(rows, kind).astype(np.float32, copy=True))

    def codes(first: int, last: int) -> Codes:
        return stored(first, last, lambda rows: split_blocks(rows.copy(), tensor.type))

    bits = code_bits(tensor.type)
    return Weight(tensor.name, dims, read, Blocks(bits, GROUP, codes) if bits else None)


def _type_name(number: int) -> str:
    try:
        return str(_Type(number).name)
    except ValueError:
        return str(number)


def _config(fields: Mapping[str, Any], weights: Mapping[str, Weight]) -> LlamaConfig:
    architecture = fields.get("general.architecture")
    if architecture not in INTERLEAVED_ROPE:
        raise UnsupportedProgramError(
            f"The architecture '{architecture}' is not converted here: use a model of {', '.join(INTERLEAVED_ROPE)}."
        )

    def field(key: str, default: Any = None) -> Any:
        value = fields.get(f"{architecture}.{key}", default)
        if value is None:
            raise InvalidProgramError(f"The GGUF file has no '{architecture}.{key}': download it again.")
        return value

    def count(key: str, default: int | None = None) -> int:
        value = field(key, default)
        if not isinstance(value, int) or value < 1:
            raise UnsupportedProgramError(f"'{architecture}.{key}' is {value}, not one number for all layers.")
        return value

    dim, heads = count("embedding_length"), count("attention.head_count")
    head_dim = count("attention.key_length", dim // heads)
    if "token_embd.weight" not in weights:
        raise InvalidProgramError("The GGUF file has no tensor 'token_embd.weight': download it again.")
    if field("rope.dimension_count", head_dim) != head_dim or field("attention.value_length", head_dim) != head_dim:
        raise UnsupportedProgramError("Heads of which a part is rotated, or with other sizes for values, are not here.")
    return LlamaConfig(
        dim=dim,
        layers=count("block_count"),
        heads=heads,
        kv_heads=count("attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn=count("feed_forward_length"),
        vocab=weights["token_embd.weight"].dims[0],
        # As long as the text fits into the window of sliding attention, that is full attention.
        context_len=min(count("context_length"), field("attention.sliding_window", 0) or count("context_length")),
        # Stored as float32; the shortest decimal that means the same is what was written in the first place.
        norm_eps=float(str(np.float32(field("attention.layer_norm_rms_epsilon")))),
        rope_base=field("rope.freq_base", 10000.0),
        rope_divisors=_rope_divisors(architecture, fields, weights, head_dim),
        rope_interleaved=INTERLEAVED_ROPE[architecture],
        qkv_bias="blk.0.attn_q.bias" in weights,
        qk_norm="blk.0.attn_q_norm.weight" in weights,
        tied_head="output.weight" not in weights,
    )


def _rope_divisors(
    architecture: str, fields: Mapping[str, Any], weights: Mapping[str, Weight], head_dim: int
) -> tuple[float, ...]:
    scaling = fields.get(f"{architecture}.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise UnsupportedProgramError(f"The rope scaling '{scaling}' is not here: use a model without it.")
    factor = fields.get(f"{architecture}.rope.scaling.factor", 1.0) if scaling == "linear" else 1.0
    divisors = np.full(head_dim // 2, factor, np.float32)
    if _ROPE_DIVISORS in weights:
        divisors = divisors * weights[_ROPE_DIVISORS].read(0, 1)[0]
    return tuple(divisors.tolist()) if np.any(divisors != 1) else ()

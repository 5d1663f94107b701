"""Programs in the shape of real language models, with random weights: speed at real sizes, no download."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from executorch_webgpu.format.pte import save_program
from executorch_webgpu.format.vkgraph import DataType
from executorch_webgpu.models.builder import GraphBuilder
from executorch_webgpu.models.convert import metadata
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions, build_llama
from executorch_webgpu.models.program import assemble
from executorch_webgpu.models.weights import PIECE, Constant, Floats, Weight
from executorch_webgpu.text.tokenizer import Tokenizer

# dim, layers, heads, kv_heads, head_dim, ffn, vocab, context_len, norm_eps, rope_base
SHAPES = {
    "tiny": LlamaConfig(64, 2, 4, 2, 16, 96, 512, 64, 1e-5, 1e4),
    "smollm2-135m": LlamaConfig(576, 30, 9, 3, 64, 1536, 49152, 8192, 1e-5, 1e5, tied_head=True),
    "llama-3.2-1b": LlamaConfig(2048, 16, 32, 8, 64, 8192, 128256, 131072, 1e-5, 5e5, tied_head=True),
    "llama-3.1-8b": LlamaConfig(4096, 32, 32, 8, 128, 14336, 128256, 131072, 1e-5, 5e5),
    "qwen3-0.6b": LlamaConfig(
        1024, 28, 16, 8, 128, 3072, 151936, 40960, 1e-6, 1e6, rope_interleaved=False, qk_norm=True, tied_head=True
    ),
}
CONTEXT_STEP = 256  # KV caches have a multiple of these rows
_CODES = {DataType.UINT8: 16, DataType.INT8: 256}  # how many a stored type has: two of 4 bits, or one of 8

RandomFor = Callable[[str], np.random.Generator]  # numbers that are a name's own, and always the same


def fitting_options(config: LlamaConfig, prompt: int, context: int) -> LlamaOptions:
    """A program that takes ``prompt`` tokens in one call, and whose caches are no longer than ``context`` needs.

    The embedding has 4 bits, too: in float32, that of Llama-3.2-1B is more than small devices bind.
    """
    rows = min(config.context_len, -(-context // CONTEXT_STEP) * CONTEXT_STEP)
    seq_len = min(prompt + 1, rows)
    return LlamaOptions("q4gsw", head="q4gsw", embedding="q4gsw", max_seq_len=seq_len, max_context_len=rows)


def write_llama(
    path: Path,
    config: LlamaConfig,
    options: LlamaOptions | None = None,
    *,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Writes a program as ``convert`` does, of random weights that keep activations near one.

    The default ``options`` are the formats of the stock 4-bit export. Quantized weights are random bits: finding the
    scales of a billion weights would take minutes.
    """
    options = options or LlamaOptions("q4gsw", head="q4gsw", embedding="f32")

    def random_for(name: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(name.encode())])

    weights = {name: _weight(name, dims, random_for) for name, dims in config.weight_dims().items()}
    graph = build_llama(config, weights, options)
    _randomize_quantized(graph, config, random_for)
    files = tokenizer.files() if tokenizer else {}
    constants = metadata(config, options, tokenizer, tokenizer.eos_ids if tokenizer else frozenset())
    save_program(path, *assemble(graph, ["input_pos"], constants, files))


def _weight(name: str, dims: tuple[int, ...], random_for: RandomFor) -> Weight:
    """Norms near one, and matrices of rows of length one, each cut from ``_pool`` at a place of its own."""
    mean = np.float32(1 if name.endswith("norm.weight") else 0)
    windows = sliding_window_view(_pool(), dims[-1])
    places = random_for(name).integers(0, len(windows), math.prod(dims[:-1]))

    def read(start: int, stop: int) -> Floats:
        return windows[places[start:stop]] * np.float32(dims[-1] ** -0.5) + mean

    return Weight(name, dims, read)


@cache
def _pool() -> Floats:
    """Random numbers for all weights: to draw each of a large embedding alone takes longer than to write the file."""
    return np.random.default_rng(0).standard_normal(1 << 22, np.float32)


def _randomize_quantized(graph: GraphBuilder, config: LlamaConfig, random_for: RandomFor) -> None:
    """Other contents for the constants that a quantizer would compute: ``blk.0.attn_q.weight.….packed`` and so on."""
    dims = config.weight_dims()
    for name, constant in graph.constants.items():
        layer, derived, _ = name.partition(".weight.")
        if not derived:
            continue
        packed = graph.constants[name.rpartition(".")[0] + ".packed"]
        if constant is packed:
            graph.constants[name] = _random_bits(constant, random_for)
        else:
            scale = dims[f"{layer}.weight"][-1] ** -0.5 / _deviation(_CODES[packed.dtype])
            graph.constants[name] = _random_scales(constant, scale, random_for)


def _deviation(count: int) -> float:
    """Standard deviation of integers that are uniform over ``count`` numbers in a row."""
    return math.sqrt((count**2 - 1) / 12)


def _random_bits(constant: Constant, random_for: RandomFor) -> Constant:
    def pieces() -> Iterator[np.ndarray]:
        random = random_for(constant.name)
        for start in range(0, constant.nbytes, PIECE):
            yield np.frombuffer(random.bytes(min(PIECE, constant.nbytes - start)), np.uint8)

    return dataclasses.replace(constant, pieces=pieces)


def _random_scales(constant: Constant, scale: float, random_for: RandomFor) -> Constant:
    """Near ``scale``; if they come in pairs, the second is the minimum that centres codes from 0 to 15."""

    def pieces() -> Iterator[np.ndarray]:
        scales = random_for(constant.name).uniform(0.8 * scale, 1.2 * scale, constant.dims)
        if len(constant.dims) == 3:
            scales[..., 1] = -7.5 * scales[..., 0]
        yield scales.astype(np.float16 if constant.dtype is DataType.FLOAT16 else np.float32)

    return dataclasses.replace(constant, pieces=pieces)

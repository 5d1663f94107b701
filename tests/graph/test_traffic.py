"""What a decode step must read, against sums by hand over the matrices of a Llama."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu import InvalidInputError, Runtime
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.traffic import StepBytes, step_bytes
from executorch_webgpu.models.llama import LlamaConfig, LlamaOptions
from tests.graph_builder import GraphBuilder

TINY = SHAPES["tiny"]
# Bytes of a matrix [N, K] whose groups are of 32, N a multiple of 4.
FORMATS: dict[str, Callable[[int, int], int]] = {
    "f32": lambda n, k: 4 * n * k,
    "q4gsw": lambda n, k: n * k // 2 + n * k // 32 * 4,
    "q8gsw": lambda n, k: n * k + n * k // 32 * 2,
    "native": lambda n, k: n * k + n * k // 32 * 2,  # of weights that were floats
    "q8csw": lambda n, k: n * k + n * 4,
}


def by_hand(config: LlamaConfig, body: str, head: str, embedding: str) -> int:
    """Bytes of weights: norms and matrices of all layers, the head, a row of the embedding and of the rope's tables."""
    nbytes = 0
    for name, dims in config.weight_dims().items():
        if name == "token_embd.weight":
            continue
        if len(dims) == 1:
            nbytes += 4 * dims[0]
        else:
            nbytes += FORMATS[head if name == "output.weight" else body](*dims)
    if config.tied_head:
        nbytes += FORMATS[head](config.vocab, config.dim)
    if not config.tied_head or head != embedding:
        nbytes += FORMATS[embedding](1, config.dim)
    rope_width = config.head_dim // 2 if config.rope_interleaved else config.head_dim
    return nbytes + 2 * 4 * rope_width


def measured(path: Path, config: LlamaConfig, options: LlamaOptions, cache: str = "f32") -> StepBytes:
    write_llama(path, config, options)
    with Runtime().load_program(path) as program:
        return program.step_bytes("forward", kv_cache_dtype=cache)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("body", "head", "embedding"),
    [
        ("q4gsw", "q4gsw", "f32"),
        ("q4gsw", "q8csw", "f32"),
        ("q4gsw", "q4gsw", "q4gsw"),
        ("native", "native", "native"),
        ("q8gsw", "q8gsw", "q8gsw"),
        ("f32", "f32", "f32"),
    ],
)
def test_weights(tmp_path: Path, body: str, head: str, embedding: str, interleaved: bool, tied: bool) -> None:
    config = replace(TINY, tied_head=tied, rope_interleaved=interleaved)
    got = measured(tmp_path / "model.pte", config, LlamaOptions(*cast(Any, (body, head, embedding))))
    expected = by_hand(config, body, head, embedding)
    if tied and head == embedding == "q4gsw":  # the embedding has scales of its own, by row
        expected += config.dim // 32 * 4
    assert got.weights == expected


@pytest.mark.parametrize(("cache", "row"), [("f32", 4 * 16), ("f16", 2 * 16), ("int8", 16 + 4)])
def test_rows_of_the_cache(tmp_path: Path, cache: str, row: int) -> None:
    got = measured(tmp_path / "model.pte", TINY, LlamaOptions(), cache)
    assert got.cache_row == TINY.layers * 2 * TINY.kv_heads * row
    assert got.at(10) - got.at(9.5) == got.cache_row / 2
    assert got.at(0) == got.weights


def test_an_unknown_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no KV cache dtype 'f8'"):
        measured(tmp_path / "model.pte", TINY, LlamaOptions(), "f8")


def test_a_weight_counts_once() -> None:
    build = GraphBuilder()
    x = build.input((3, 8))
    weight = build.constant(np.ones((8, 8), np.float32))
    for _ in range(2):
        x = build.call("aten.linear.default", x, weight, None, build.tensor((3, 8)))
    build.output(x)
    graph = build_graph(build.build())
    assert step_bytes([graph]) == step_bytes([graph, graph]) == StepBytes(4 * 64, 0)

"""Rotary position embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.rope import reference

from .harness import Const, In, OpProgram, Out, Sym

PAIRS = "et_vk.apply_rotary_emb.default"
HALVES = "et_vk.apply_rotary_emb_hf.default"
INTERLEAVED = "et_vk.apply_rotary_emb_interleaved.default"
RNG = np.random.default_rng(0)


def normal(*dims: int) -> np.ndarray:
    return RNG.standard_normal(dims, dtype=np.float32)


def heads(tokens: int, q_heads: int, k_heads: int, head_dim: int, batch: int = 1) -> list[np.ndarray]:
    return [normal(batch, tokens, h, head_dim) for h in (q_heads, k_heads)]


def pairs(device: Device, q: tuple[int, ...], k: tuple[int, ...], table: np.ndarray) -> OpProgram:
    return OpProgram(device, PAIRS, [In(q), In(k), Const(table), Const(table[::-1].copy())], [Out(q), Out(k)])


def halves(device: Device, q: tuple[int, ...], k: tuple[int, ...], table: np.ndarray, start: Any) -> OpProgram:
    args = [In(q), In(k), Const(table), Const(table[::-1].copy()), start]
    return OpProgram(device, HALVES, args, [Out(q), Out(k)])


def test_references_turn_a_quarter() -> None:
    """A quarter turn sends (x, y) to (-y, x), whichever elements make a pair."""
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0]).reshape(1, 1, 1, 5)
    cos, sin = np.zeros((1, 2)), np.ones((1, 2))
    q, _ = reference.apply_rotary_emb(x[..., :4], x[..., :4], cos, sin)
    np.testing.assert_array_equal(q.ravel(), [-2, 1, -4, 3])
    q, _ = reference.apply_rotary_emb_hf(x, x, np.zeros((3, 4)), np.ones((3, 4)), 2)
    np.testing.assert_array_equal(q.ravel(), [-3, -4, 1, 2, 5])
    out = reference.apply_rotary_emb_interleaved(x[0, ..., :4], np.array([[0.0, 1.0, 0.0, 1.0]]))
    np.testing.assert_array_equal(out.ravel(), [-2, 1, -4, 3])


@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 2),
    tokens=st.integers(1, 7),
    q_heads=st.integers(1, 5),
    k_heads=st.integers(1, 3),
    half=st.integers(1, 19),
    spare=st.integers(0, 2),
)
def test_pairs(device: Device, batch: int, tokens: int, q_heads: int, k_heads: int, half: int, spare: int) -> None:
    x = heads(tokens, q_heads, k_heads, 2 * half, batch)
    with pairs(device, x[0].shape, x[1].shape, normal(tokens + spare, half)) as program:
        program.check(x)


@pytest.mark.parametrize("table_is_live", [False, True])
def test_pairs_live_length(device: Device, table_is_live: bool) -> None:
    """cos and sin may follow S, as in exports, or keep more rows than S."""
    q, k = (1, 23, 9, 64), (1, 23, 3, 64)
    table = In((23, 32)) if table_is_live else Const(normal(23, 32))
    with OpProgram(device, PAIRS, [In(q), In(k), table, table], [Out(q), Out(k)]) as program:
        for tokens in (23, 1, 7, 7, 22):
            tables = [normal(tokens, 32), normal(tokens, 32)] if table_is_live else []
            program.check([*heads(tokens, 9, 3, 64), *tables])


def test_pairs_with_too_few_rows(device: Device) -> None:
    q, k = (1, 4, 2, 8), (1, 4, 1, 8)
    with pytest.raises(UnsupportedProgramError, match="has angles for 3 of 4 tokens"):
        pairs(device, q, k, normal(3, 4))
    with OpProgram(device, PAIRS, [In(q), In(k), In((4, 4)), In((4, 4))], [Out(q), Out(k)]) as program:
        with pytest.raises(InvalidInputError, match="has angles for 2 of 3 tokens: input_pos"):
            program.run([*heads(3, 2, 1, 8), normal(2, 4), normal(2, 4)])
        with pytest.raises(InvalidInputError, match="same size"):
            program.run([*heads(3, 2, 1, 8), normal(3, 4), normal(2, 4)])


@settings(max_examples=15, deadline=None)
@given(
    tokens=st.integers(1, 7),
    q_heads=st.integers(1, 5),
    k_heads=st.integers(1, 3),
    head_dim=st.integers(2, 37),
    data=st.data(),
)
def test_halves(device: Device, tokens: int, q_heads: int, k_heads: int, head_dim: int, data: st.DataObject) -> None:
    """Whole and partial rotation, at any start."""
    half = data.draw(st.integers(1, head_dim // 2))
    start = data.draw(st.integers(0, 5))
    x = heads(tokens, q_heads, k_heads, head_dim)
    with halves(device, x[0].shape, x[1].shape, normal(tokens + 5, 2 * half), start) as program:
        program.check(x)


def test_halves_at_a_live_position(device: Device) -> None:
    with halves(device, (1, 16, 16, 128), (1, 16, 8, 128), normal(16, 128), Sym()) as program:
        for tokens, start in ((16, 0), (5, 7), (1, 15), (1, 3), (16, 0)):
            program.check([*heads(tokens, 16, 8, 128), start])
        x = heads(1, 16, 8, 128)
        moved, pinned = program.check([*x, 9])[0], program.run([*x, 0])[0]
        assert np.abs(moved - pinned).max() > 0.1


def test_halves_outside_the_table(device: Device) -> None:
    with halves(device, (1, 4, 2, 8), (1, 4, 1, 8), normal(10, 8), Sym()) as program:
        for tokens, start in ((1, 10), (4, 7), (1, -1)):
            with pytest.raises(InvalidInputError, match="have rows 0 to 9"):
                program.run([*heads(tokens, 2, 1, 8), start])
        program.check([*heads(4, 2, 1, 8), 6])


@pytest.mark.parametrize(
    ("x", "freqs"),
    [((1, 4, 8), (4, 8)), ((2, 3, 8), (3, 8)), ((1, 5, 4), (5, 4)), ((3, 7, 26), (1, 7, 13, 2))],
)
def test_interleaved(device: Device, x: tuple[int, ...], freqs: tuple[int, ...]) -> None:
    with OpProgram(device, INTERLEAVED, [In(x), In(freqs)], Out(x)) as program:
        program.check([normal(*x), normal(*freqs)])


@pytest.mark.parametrize(
    ("q", "k", "table", "message"),
    [
        ((1, 4, 2, 8), (1, 4, 1, 6), (4, 4), "same B, S and D"),
        ((1, 4, 2, 8), (1, 3, 1, 8), (4, 4), "same B, S and D"),
        ((1, 4, 2, 8), (1, 4, 1, 8), (4, 3), r"heads of 8 need \[S, 4\]"),
        ((4, 2, 8), (4, 1, 8), (4, 4), r"must be \[B, S, heads, D\]"),
    ],
)
def test_refused_at_load(
    device: Device, q: tuple[int, ...], k: tuple[int, ...], table: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UnsupportedProgramError, match=message):
        pairs(device, q, k, normal(*table))


@pytest.mark.parametrize("columns", [7, 10])
def test_rotary_size_refused_at_load(device: Device, columns: int) -> None:
    with pytest.raises(UnsupportedProgramError, match="even number of columns up to 8"):
        halves(device, (1, 4, 2, 8), (1, 4, 1, 8), normal(4, columns), 0)


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("kernel", ["pairs", "halves", "interleaved"])
def test_kernels_compile(engine: str, kernel: str) -> None:
    compile_check(engine, f"rope/{kernel}")

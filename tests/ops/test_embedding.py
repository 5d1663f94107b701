"""Embedding tables, plain and 4-bit."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device

from .harness import Const, In, OpProgram, Out

RNG = np.random.default_rng(0)


def tokens(*shape: int, rows: int) -> np.ndarray:
    return RNG.integers(0, rows, shape, dtype=np.int32)


def plain(device: Device, table: np.ndarray, dims: tuple[int, ...]) -> OpProgram:
    args = [Const(table), In(dims, "int32"), -1, False, False]
    return OpProgram(device, "aten.embedding.default", args, Out((*dims, table.shape[1]), str(table.dtype)))


def quantized(device: Device, rows: int, width: int, group: int, dims: tuple[int, ...], linear: bool) -> OpProgram:
    weight = RNG.integers(0, 256, (rows, width // 2), dtype=np.uint8)
    scales = RNG.uniform(0.01, 1, (rows, width // group)).astype(np.float32)
    args = [Const(weight), Const(scales), group, In(dims, "int32"), linear]
    return OpProgram(device, "et_vk.embedding_q4gsw.default", args, Out((*dims, width)))


@pytest.mark.parametrize("width", [1, 7, 8, 576])
def test_rows_are_gathered(device: Device, width: int) -> None:
    table = RNG.standard_normal((17, width), dtype=np.float32)
    with plain(device, table, (1, 13)) as program:
        program.check([np.array([[0, 16, 16, 3, 0, 1, 2, 15, 4, 5, 6, 7, 8]], np.int32)])
        for length in (1, 5, 5, 13):
            program.check([tokens(1, length, rows=17)])


def test_half_precision_and_integer_tables(device: Device) -> None:
    for table in (
        RNG.standard_normal((11, 6)).astype(np.float16),
        RNG.integers(-9, 9, (11, 5), dtype=np.int32),
    ):
        with plain(device, table, (2, 3)) as program:
            program.check([tokens(2, 3, rows=11)])


def test_a_vector_of_indices(device: Device) -> None:
    with plain(device, RNG.standard_normal((11, 8), dtype=np.float32), (4,)) as program:
        program.check([tokens(4, rows=11)])


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize(("width", "group"), [(32, 32), (96, 32), (64, 16), (6, 2)])
def test_rows_are_dequantized(device: Device, width: int, group: int, linear: bool) -> None:
    with quantized(device, 13, width, group, (1, 7), linear) as program:
        for length in (7, 1, 4, 4, 7):
            program.check([tokens(1, length, rows=13)])


def test_nibbles_lie_as_documented(device: Device) -> None:
    weight, scales = np.array([[0x9A]], np.uint8), np.ones((1, 1), np.float32)
    for linear, expected in ((True, [2, 1]), (False, [1, 2])):
        args = [Const(weight), Const(scales), 2, In((1,), "int32"), linear]
        with OpProgram(device, "et_vk.embedding_q4gsw.default", args, Out((1, 2))) as program:
            assert program.run([np.zeros(1, np.int32)]).tolist() == [expected]


@pytest.mark.parametrize("bad", [-1, 17, 2**31 - 1, -(2**31)])
def test_unknown_tokens_are_rejected_and_the_next_step_works(device: Device, bad: int) -> None:
    programs = [
        plain(device, RNG.standard_normal((17, 8), dtype=np.float32), (1, 5)),
        quantized(device, 17, 32, 32, (1, 5), True),
    ]
    for program in programs:
        with program:
            for _ in range(2):
                with pytest.raises(InvalidInputError, match=f"token {bad} is not in the vocabulary of 17 tokens"):
                    program.run([np.array([[1, 2, bad, 3, 4]], np.int32)])
                program.check([tokens(1, 5, rows=17)])


def test_tables_that_do_not_fit_are_refused_at_load(device: Device) -> None:
    with pytest.raises(UnsupportedProgramError, match=r"a row of .* must be a multiple of 4 bytes"):
        plain(device, RNG.standard_normal((4, 3)).astype(np.float16), (1,))
    with pytest.raises(UnsupportedProgramError, match="must be float32"):
        args = [
            Const(np.zeros((4, 16), np.uint8)),
            Const(np.zeros((4, 3), np.float32)),
            16,
            In((1,), "int32"),
            True,
        ]
        OpProgram(device, "et_vk.embedding_q4gsw.default", args, Out((1, 32)))


def test_every_variant_compiles_on_dawn() -> None:
    for unit in ("u32", "vec4<u32>"):
        compile_check("dawn", "embedding/gather_rows", {"unit": unit})
    for low_first in (False, True):
        compile_check("dawn", "embedding/gather_rows_q4", {"low_first": low_first})

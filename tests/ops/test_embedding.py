"""Embedding tables, plain and quantized."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.matmul.formats import Q4GAW, Q8GSW

from .harness import Const, In, OpProgram, Out, assert_close

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


LAYER_FORMATS = {"q8gsw": Q8GSW, "q4gaw": Q4GAW}
every_layer_format = pytest.mark.parametrize("name", LAYER_FORMATS)


@dataclass(frozen=True)
class LayerTable:
    """A table of the constants of a linear layer, whose padding nobody may use."""

    name: str
    weights: np.ndarray
    scales: np.ndarray
    group: int
    width: int

    @classmethod
    def random(cls, name: str, rows: int, width: int, group: int, spare_words: int = 0) -> LayerTable:
        weight_format = LAYER_FORMATS[name]
        row_bytes = (-(-width // weight_format.per_word) + spare_words) * 4
        weights = RNG.integers(0, 256, (rows, row_bytes), dtype=np.uint8).view(weight_format.dtype)
        tail = (2,) if weight_format.mins else ()
        scales = RNG.uniform(-1, 1, (-(-width // group), -(-rows // 4) * 4, *tail)).astype(np.float16)
        scales[:, rows:] = np.nan
        return cls(name, weights, scales, group, width)

    def program(self, device: Device, dims: tuple[int, ...], route: str = "rows") -> OpProgram:
        args = [Const(self.weights), Const(self.scales), self.group, In(dims, "int32")]
        op, routes = f"et_webgpu.embedding_{self.name}.default", {f"embedding_{self.name}": route}
        return OpProgram(device, op, args, Out((*dims, self.width)), routes=routes)

    def check(self, program: OpProgram, indices: np.ndarray) -> None:
        """The reference does not know how much of a row is padding."""
        program.poison()
        assert_close(program.run([indices]), program.reference([indices])[..., : self.width], 0, 1e-7)


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


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(list(LAYER_FORMATS)),
    rows=st.sampled_from([1, 2, 5, 13, 16, 67]),
    width=st.sampled_from([1, 2, 3, 4, 7, 8, 31, 32, 36, 67, 96]),
    group=st.sampled_from([8, 16, 24, 32, 96]),
    spare_words=st.integers(0, 5),
    route=st.sampled_from(["rows", "packed"]),
)
def test_rows_of_a_linear_layer(
    device: Device, name: str, rows: int, width: int, group: int, spare_words: int, route: str
) -> None:
    table = LayerTable.random(name, rows, width, group, spare_words)
    with table.program(device, (1, 7), route) as program:
        for length in (7, 1, 4, 4, 7):
            table.check(program, tokens(1, length, rows=rows))


@every_layer_format
@pytest.mark.parametrize("route", ["rows", "packed"])
def test_a_tied_head_multiplies_with_the_rows_that_the_embedding_gives(device: Device, name: str, route: str) -> None:
    table = LayerTable.random(name, 13, 64, 32)
    with table.program(device, (13,), route) as program:
        embedded = program.run([np.arange(13, dtype=np.int32)])
    args = [In((64, 64)), Const(table.weights), Const(table.scales), table.group, None]
    with OpProgram(device, f"et_webgpu.linear_{name}.default", args, Out((64, 13))) as program:
        assert_close(program.run([np.eye(64, dtype=np.float32)]), embedded.T.astype(np.float64), 1e-5, 1e-5)


@every_layer_format
def test_extreme_codes_and_scales_are_exact(device: Device, name: str) -> None:
    """A product of a code and a float16 number has few enough bits for float32; scales may be subnormal."""
    table = LayerTable.random(name, 8, 32, 32)
    for byte in (0x00, 0x7F, 0x80, 0xFF, 0x0F):
        weights = np.full(table.weights.shape, byte, np.uint8).view(table.weights.dtype)
        for bits in (0x0001, 0x8001, 0x03FF, 0x7BFF):
            scales = np.full(table.scales.shape, bits, np.uint16).view(np.float16)
            extreme = replace(table, weights=weights, scales=scales)
            with extreme.program(device, (8,)) as program:
                extreme.check(program, np.arange(8, dtype=np.int32))


@every_layer_format
def test_tables_of_a_layer_that_do_not_fit_are_refused_at_load(device: Device, name: str) -> None:
    good = LayerTable.random(name, 13, 32, 16)
    cases = {
        "group size": replace(good, group=10),
        "hold 65 weights": replace(good, width=65),
        r"scales .* must be \[2, 13": replace(good, scales=good.scales[:1].copy()),
        "padded to a multiple of 4": replace(good, scales=good.scales[:, :13].copy()),
        f"takes {good.weights.dtype} weights": replace(good, weights=good.weights.astype(np.int32)),
        "float16 scales": replace(good, scales=good.scales.astype(np.float32)),
    }
    for message, table in cases.items():
        with pytest.raises(UnsupportedProgramError, match=message):
            table.program(device, (1,))
    with pytest.raises(UnsupportedProgramError, match="one dimension more"):
        args = [Const(good.weights), Const(good.scales), good.group, In((1, 2), "int32")]
        OpProgram(device, f"et_webgpu.embedding_{name}.default", args, Out((2, 32)))


@pytest.mark.parametrize("bad", [-1, 17, 2**31 - 1, -(2**31)])
def test_unknown_tokens_are_rejected_and_the_next_step_works(device: Device, bad: int) -> None:
    programs = [
        plain(device, RNG.standard_normal((17, 8), dtype=np.float32), (1, 5)),
        quantized(device, 17, 32, 32, (1, 5), True),
        LayerTable.random("q8gsw", 17, 32, 32).program(device, (1, 5)),
    ]
    for program in programs:
        with program:
            for _ in range(2):
                with pytest.raises(InvalidInputError, match=f"token {bad} is not in the vocabulary of 17 tokens"):
                    program.run([np.array([[1, 2, bad, 3, 4]], np.int32)])
                program.check([tokens(1, 5, rows=17)])


def test_tables_that_do_not_fit_are_refused_at_load(device: Device) -> None:
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
    for weight_format in LAYER_FORMATS.values():
        for quads in (False, True):
            compile_check("dawn", "embedding/gather_rows_quantized", {**weight_format.template, "vec4_out": quads})

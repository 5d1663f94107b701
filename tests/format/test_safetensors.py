"""Headers of safetensors files: what the library writes is read as the library reads it, damage is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from executorch_webgpu.errors import InvalidProgramError
from executorch_webgpu.format.mapped_file import MappedFile
from executorch_webgpu.format.safetensors import BITS, SafetensorsTensor, read_safetensors_header
from tests.models.tiny_huggingface import with_header

TORCH_DTYPES = {
    **{"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E5M2": torch.float8_e5m2},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu, "F8_E4M3FNUZ": torch.float8_e4m3fnuz},
    **{"F8_E5M2FNUZ": torch.float8_e5m2fnuz, "U16": torch.uint16, "I16": torch.int16, "F16": torch.float16},
    **{"BF16": torch.bfloat16, "U32": torch.uint32, "I32": torch.int32, "F32": torch.float32, "U64": torch.uint64},
    **{"I64": torch.int64, "F64": torch.float64, "C64": torch.complex64},
}
VECTOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def read(path: Path) -> dict[str, SafetensorsTensor]:
    with MappedFile(path) as file:
        return read_safetensors_header(file.data, path)


def read_by_library(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    with safetensors.safe_open(path, framework="np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}


@pytest.fixture(scope="module")
def library_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the library wrote, with tensors of several dtypes, of no elements and of no dims."""
    path = tmp_path_factory.mktemp("library") / "model.safetensors"
    bits = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, 3, 8), np.uint8))
    tensors = {f"a.{name}": bits.clone().view(dtype) for name, dtype in TORCH_DTYPES.items() if name != "BOOL"}
    tensors |= {"bool": torch.ones(3, dtype=torch.bool), "日本": torch.zeros(0, 4), "scalar": torch.tensor(2.5)}
    save_file(tensors, path, {"format": "pt"})
    return path


def test_agrees_with_the_library(library_file: Path) -> None:
    found = read(library_file)
    assert {name: (tensor.dtype, tensor.dims) for name, tensor in found.items()} == read_by_library(library_file)
    data = library_file.read_bytes()
    with safetensors.safe_open(library_file, framework="pt") as file:
        for name, tensor in found.items():
            expected = file.get_tensor(name).flatten().view(torch.uint8).numpy().tobytes()
            assert data[tensor.start : tensor.start + tensor.nbytes] == expected


def test_every_dtype_is_here(library_file: Path) -> None:
    assert TORCH_DTYPES.keys() | {"F4", "F6_E2M3", "F6_E3M2"} == BITS.keys()
    assert {tensor.dtype for tensor in read(library_file).values()} == TORCH_DTYPES.keys()


def test_elements_smaller_than_a_byte(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    entries = {
        "a": {"dtype": "F4", "shape": [3, 2], "data_offsets": [0, 3]},
        "b": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [3, 6]},
    }
    path.write_bytes(with_header(json.dumps(entries).encode(), bytes(6)))
    assert {name: tensor.nbytes for name, tensor in read(path).items()} == {"a": 3, "b": 3}


def test_tensors_in_any_order(tmp_path: Path) -> None:
    """One without elements begins where another does."""
    path = tmp_path / "m.safetensors"
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    entries = {"last": VECTOR | {"data_offsets": [8, 16]}, "first": VECTOR, "empty": empty}
    path.write_bytes(with_header(json.dumps(entries).encode(), bytes(16)))
    base = path.stat().st_size - 16
    assert {name: tensor.start - base for name, tensor in read(path).items()} == {"last": 8, "first": 0, "empty": 0}
    assert read_by_library(path) == {"last": ("F32", (2,)), "first": ("F32", (2,)), "empty": ("F32", (0,))}


def test_truncated_at_any_byte(library_file: Path, tmp_path: Path) -> None:
    whole = library_file.read_bytes()
    for size in range(1, len(whole), 7):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        with pytest.raises(InvalidProgramError, match="cut.safetensors"):
            read(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"a": VECTOR | {"dtype": "F5"}}, "unknown dtype 'F5'"),
        ({"a": VECTOR | {"dtype": ["F32"]}}, "unknown dtype"),
        ({"a": VECTOR | {"shape": 2}}, "has the shape 2"),
        ({"a": VECTOR | {"shape": [2.0]}}, "has the shape"),
        ({"a": VECTOR | {"shape": [True, 2]}}, "has the shape"),
        ({"a": VECTOR | {"shape": [-1, -2]}}, "has the shape"),
        ({"a": VECTOR | {"shape": [1] * 17 + [2]}}, "has the shape"),
        ({"a": VECTOR | {"shape": [3]}}, r"is \[3\] of F32, which is not 8 bytes"),
        ({"a": VECTOR | {"shape": [2**61, 8]}}, "which is not 8 bytes"),
        ({"a": VECTOR | {"data_offsets": [8, 0]}}, "which is not -8 bytes"),
        ({"a": VECTOR | {"data_offsets": [0]}}, "the offsets"),
        ({"a": VECTOR | {"data_offsets": [4, 12]}}, "'a' begins at byte"),
        ({"a": VECTOR, "b": VECTOR}, "'b' begins at byte"),
        ({"a": VECTOR, "b": VECTOR | {"data_offsets": [4, 12]}}, "'b' begins at byte"),
        ({"a": VECTOR, "b": VECTOR | {"data_offsets": [16, 24]}}, "'b' begins at byte"),
        ({"a": VECTOR, "b": VECTOR | {"data_offsets": [8, 16]}}, "its tensors end at"),
        ({}, "its tensors end at"),
        ({"a": 5}, "'a' is not described by an object"),
        ({"a": {"dtype": "F32"}}, "has the shape None"),
        ({"__metadata__": [], "a": VECTOR}, "its metadata"),
        ([VECTOR], "not an object"),
    ],
)
def test_entries_that_contradict_themselves(entries: Any, why: str, tmp_path: Path) -> None:
    header = json.dumps(entries).encode()
    (tmp_path / "bad.safetensors").write_bytes(with_header(header, bytes(8)))
    with pytest.raises(InvalidProgramError, match=f"bad.safetensors.*{why}"):
        read(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"GGUF", "its 4 bytes are no header"),
        (b"\xff" * 8 + b"{}", "a header of 18446744073709551615 bytes is announced"),
        (with_header(b'{"a": }'), "Expecting value"),
        (with_header(b'{"a\xff": 1}'), "utf-8"),
        (with_header('{"a": 1}'.encode("utf-16")), "utf-8"),
        (with_header(b'{"a": NaN}'), "NaN is not JSON"),
        (with_header(b'{"a": 1, "a": 2}'), "the key 'a' is there twice"),
        (with_header(b'{"a": {"shape": [], "shape": [1]}}'), "the key 'shape' is there twice"),
        (with_header(b'{"\\ud800": 1}'), "is not described by an object"),
        (with_header(b"[" * 1_000_000), "nested too deeply"),
        (with_header(b"9" * 10_000), "limit"),
    ],
    ids=["short", "length", "json", "utf-8", "utf-16", "constant", "twice", "field twice", "surrogate", "deep", "long"],
)
def test_malformed_header(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(InvalidProgramError, match=why) as refused:
        read(tmp_path / "bad.safetensors")
    assert str(refused.value).encode()  # can be printed


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_read_of_mutated_bytes_the_library_reads_too(
    library_file: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """A digit of a number changes most often, since nearly all other changes end in the parser of JSON."""
    raw = bytearray(library_file.read_bytes())
    header = range(8 + int.from_bytes(raw[:8], "little"))
    digits = [at for at in header[8:] if chr(raw[at]).isdigit()]
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.integers(0, 3)):
            raw[data.draw(st.sampled_from(digits))] = ord("0") + data.draw(st.integers(0, 9))
        else:
            raw[data.draw(st.sampled_from(header))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(raw)
    try:
        found = read(path)
    except InvalidProgramError as error:
        assert str(error)
    else:
        assert {name: (tensor.dtype, tensor.dims) for name, tensor in found.items()} == read_by_library(path)

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFEndian, GGUFReader, GGUFValueType, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import Error, InvalidProgramError
from executorch_webgpu.format.gguf import open_gguf_header
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.text.tiny_vocabulary import write_bpe

SCALARS = {
    GGUFValueType.UINT8: 255,
    GGUFValueType.INT8: -128,
    GGUFValueType.UINT16: 65535,
    GGUFValueType.INT16: -32768,
    GGUFValueType.UINT32: 2**32 - 1,
    GGUFValueType.INT32: -(2**31),
    GGUFValueType.FLOAT32: 0.5,
    GGUFValueType.BOOL: True,
    GGUFValueType.STRING: "日本 🙂",
    GGUFValueType.UINT64: 2**64 - 1,
    GGUFValueType.INT64: -(2**63),
    GGUFValueType.FLOAT64: 0.1,
}


def add_every_type(writer: GGUFWriter) -> None:
    for kind, value in SCALARS.items():
        writer.add_key_value(f"scalar.{kind.name}", value, kind)
    for name, values in (
        ("ints", [1, -2]),
        ("floats", [0.5, -1.5]),
        ("bools", [True, False]),
        ("texts", ["a", ""]),
    ):
        writer.add_array(f"array.{name}", values)


def test_every_value_type(tmp_path: Path) -> None:
    metadata = open_gguf_header(write_bpe(tmp_path / "all.gguf", extra=add_every_type)).metadata
    assert {kind: metadata[f"scalar.{kind.name}"] for kind in SCALARS} == SCALARS
    assert metadata["array.ints"] == [1, -2]
    assert metadata["array.floats"] == [0.5, -1.5]
    assert metadata["array.bools"] == [True, False]
    assert metadata["array.texts"] == ["a", ""]


def test_the_bytes_of_a_string_that_is_no_utf8_are_kept(tmp_path: Path) -> None:
    raw = b"caf\xe9 \xf0\x9f"
    path = write_bpe(tmp_path / "latin.gguf", extra=lambda writer: writer.add_string("general.name", "caf? ??"))
    path.write_bytes(path.read_bytes().replace(b"caf? ??", raw))
    text = open_gguf_header(path).metadata["general.name"]
    assert text.encode("utf-8", "surrogateescape") == raw and text.startswith("caf")


def test_a_big_endian_header_says_the_same(tmp_path: Path) -> None:
    headers = []
    for order in (GGUFEndian.LITTLE, GGUFEndian.BIG):
        writer = GGUFWriter(tmp_path / "m.gguf", "llama", endianess=order)
        add_every_type(writer)
        writer.add_array("array.of.texts", ["日本", ""])
        writer.add_tensor("t", np.zeros((3, 5), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        headers.append(open_gguf_header(tmp_path / "m.gguf"))
    assert headers[0].byte_order == "little" and headers[1].byte_order == "big"
    assert headers[0].metadata == headers[1].metadata and headers[0].tensors == headers[1].tensors


def test_agrees_with_the_gguf_library(bpe_file: Path) -> None:
    fields = GGUFReader(bpe_file).fields
    expected = {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}
    assert open_gguf_header(bpe_file).metadata == expected


@pytest.mark.slow
def test_truncated_at_any_byte(bpe_file: Path, tmp_path: Path) -> None:
    whole = bpe_file.read_bytes()
    # The writer pads the header; only bytes before the padding carry a value.
    end = len(whole.rstrip(b"\0"))
    for length in range(4, end, 7):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(InvalidProgramError, match="not a readable GGUF file"):
            open_gguf_header(tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (struct.pack("<IQQ", 3, 0, 2**63), "announced"),
        (struct.pack("<IQQQ", 3, 0, 1, 2**63), "announced"),
        (struct.pack("<IQQQIIQ", 3, 0, 1, 0, 9, 10, 2**61), "announced"),
        (struct.pack("<IQQQI", 3, 0, 1, 0, 77), "unknown value type 77"),
        (struct.pack("<IQQQ2sI", 3, 0, 1, 2, b"\xff\xff", 0), "utf-8"),
        (struct.pack("<IQQ" + "Q1sIB" * 2, 3, 0, 2, *(1, b"a", 0, 7) * 2), "'a' is there twice"),
        (struct.pack("<IQQQ17sII", 3, 0, 1, 17, b"general.alignment", 4, 0), "alignment of 0"),
        (struct.pack("<IQQQ17sIB", 3, 0, 1, 17, b"general.alignment", 7, 1), "alignment of True"),
        (struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"a", 5), "5 dimensions"),
        (struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"a", 1, 0, 0, 0), "sizes"),
        (struct.pack("<IQQQ1sI" + "IQ" * 9, 3, 0, 1, 1, b"a", 9, *(9, 1) * 9), "nested too deeply"),
    ],
    ids=["version", "pairs", "string", "array", "type", "text", "twice", "zero", "bool", "rank", "empty", "nested"],
)
def test_malformed_header(tmp_path: Path, header: bytes, why: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + header)
    with pytest.raises(InvalidProgramError, match=why):
        open_gguf_header(tmp_path / "bad.gguf")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_bytes_end_in_our_errors(bpe_file: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(bpe_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "mutated.gguf").write_bytes(raw)
    try:
        tokenizer = Tokenizer.from_file(tmp_path / "mutated.gguf")
        tokenizer.decode(tokenizer.encode("hello 12"))
    except Error as error:
        assert str(error)

"""GGUF files in other forms: big-endian ones, and models that were split into parts."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from executorch_webgpu.errors import InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.format.gguf_parts import gguf_parts, part_names
from executorch_webgpu.models.convert import convert, own_tokenizer
from executorch_webgpu.models.gguf import open_gguf
from executorch_webgpu.models.gguf_bytes import are_byteswapped, byteswapped
from executorch_webgpu.models.library import find_program
from executorch_webgpu.models.llama import LlamaOptions
from tests.models.tiny_gguf import TYPES, QuantType, TinyGguf, random_matrix
from tests.text.tiny_vocabulary import write_bpe

TINY = TinyGguf(dim=32, head_dim=8, ffn=32, layers=2, vocab=40)
OPTIONS = LlamaOptions("f32", max_seq_len=8, max_context_len=16)
NAMES = [f"m-{i}-of-00003.gguf" for i in ("00001", "00002", "00003")]


def program_of(source: Path) -> bytes:
    target = source.parent / "converted" / "m.pte"
    target.parent.mkdir(exist_ok=True)
    convert(source, target, OPTIONS)
    return target.read_bytes()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The program of the model in one file."""
    (tmp_path / "whole").mkdir()
    TINY.write(tmp_path / "whole" / "m.gguf")
    return program_of(tmp_path / "whole" / "m.gguf")


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """The same model in three files."""
    dataclasses.replace(TINY, parts=3).write(tmp_path / "m.gguf")
    assert sorted(path.name for path in tmp_path.glob("m*.gguf")) == NAMES
    return [tmp_path / name for name in NAMES]


def refused(path: Path, match: str) -> None:
    with pytest.raises(InvalidProgramError, match=match) as error, open_gguf(path):
        pass
    assert "\n" not in str(error.value)


def test_any_part_stands_for_the_model(whole: bytes, parts: list[Path]) -> None:
    for part in parts:
        assert gguf_parts(part) == parts
        assert program_of(part) == whole


def test_a_missing_part_is_named(parts: list[Path]) -> None:
    parts[1].unlink()
    refused(parts[0], f"one of 3 parts of a model, and {NAMES[1]} is missing")
    parts[0].unlink()
    refused(parts[2], f"one of 3 parts of a model, and {NAMES[0]} and {NAMES[1]} are missing")


def test_parts_that_lost_their_names(parts: list[Path]) -> None:
    shutil.copy(parts[0], parts[0].with_name("model.gguf"))
    refused(parts[0].with_name("model.gguf"), "one of 3 parts of a model, and its name must say so")
    parts[1].rename(parts[1].with_suffix(".tmp"))
    parts[2].rename(parts[1])
    parts[1].with_suffix(".tmp").rename(parts[2])
    refused(parts[0], "is not part 2 of 3, as its name says")


def test_parts_of_other_models(parts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    dataclasses.replace(TINY, parts=3, layers=3).write(tmp_path / "other" / "m.gguf")
    shutil.copy(tmp_path / "other" / NAMES[1], parts[1])
    refused(parts[0], "announces|both have the tensor")


def test_parts_are_known_by_their_names() -> None:
    assert part_names("a-00002-of-00003.gguf") == [f"a-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for name in ("a.gguf", "a-00004-of-00003.gguf", "a-00000-of-00003.gguf", "a-00001-of-00000.gguf", "a-1-of-3.gguf"):
        assert part_names(name) is None
    assert part_names("a-00002-of-00003.gguf", 4) is None


def test_every_part_decides_what_is_in_the_cache(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path / "cache"))
    first = find_program(str(parts[0]), OPTIONS)
    assert find_program(str(parts[2]), OPTIONS) == first
    data = bytearray(parts[2].read_bytes())
    data[-1] ^= 1
    parts[2].write_bytes(data)
    assert find_program(str(parts[0]), OPTIONS) != first


def test_the_vocabulary_is_in_the_first_part(tmp_path: Path) -> None:
    def split(writer: gguf.GGUFWriter) -> None:
        writer.add_uint16("split.no", 0)
        writer.add_uint16("split.count", 2)

    first = write_bpe(tmp_path / "t-00001-of-00002.gguf", extra=split)
    second = gguf.GGUFWriter(tmp_path / "t-00002-of-00002.gguf", "llama")
    second.add_uint16("split.no", 1)
    second.add_uint16("split.count", 2)
    second.write_header_to_file()
    second.write_kv_data_to_file()
    second.close()
    found, expected = own_tokenizer(tmp_path / "t-00002-of-00002.gguf"), own_tokenizer(first)
    assert found is not None and expected is not None
    assert found.files() == expected.files()


# ggml's blocks as the library's C structs have them.
RECORDS: dict[QuantType, list[tuple[Any, ...]]] = {
    QuantType.F32: [("w", "<f4")],
    QuantType.F16: [("w", "<f2")],
    QuantType.BF16: [("w", "<u2")],
    QuantType.Q8_0: [("d", "<f2"), ("q", "i1", 32)],
    QuantType.Q4_0: [("d", "<f2"), ("q", "u1", 16)],
    QuantType.Q4_1: [("dm", "<f2", 2), ("q", "u1", 16)],
    QuantType.Q5_0: [("d", "<f2"), ("h", "<u4"), ("q", "u1", 16)],
    QuantType.Q5_1: [("dm", "<f2", 2), ("h", "<u4"), ("q", "u1", 16)],
    QuantType.Q4_K: [("dm", "<f2", 2), ("s", "u1", 12), ("q", "u1", 128)],
    QuantType.Q5_K: [("dm", "<f2", 2), ("s", "u1", 12), ("h", "u1", 32), ("q", "u1", 128)],
    QuantType.Q6_K: [("l", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), ("d", "<f2")],
}


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_numbers_are_turned_around(kind: QuantType) -> None:
    data = random_matrix(np.random.default_rng(1), (7, 512), kind)
    raw = np.ascontiguousarray(data).view(np.uint8).reshape(7, -1)
    other = raw.view(np.dtype(RECORDS[kind])).byteswap().view(np.uint8).reshape(raw.shape)
    np.testing.assert_array_equal(byteswapped(other, kind.value), raw)
    assert not np.array_equal(other, raw)


@pytest.mark.parametrize(
    "kind", [QuantType.BF16, QuantType.Q8_0, QuantType.Q4_0, QuantType.Q5_1], ids=lambda kind: kind.name
)
@pytest.mark.parametrize("rows", [2, 300])
def test_the_order_of_blocks_is_told_by_their_factors(kind: QuantType, rows: int) -> None:
    raw = np.ascontiguousarray(random_matrix(np.random.default_rng(2), (rows, 512), kind)).view(np.uint8)
    assert not are_byteswapped([(kind.value, raw.reshape(rows, -1))])
    assert are_byteswapped([(kind.value, byteswapped(raw.reshape(rows, -1), kind.value))])
    assert are_byteswapped([])


def test_a_big_endian_file_is_the_same_model(whole: bytes, tmp_path: Path) -> None:
    """As the gguf library writes it, which leaves the bytes of blocks alone; three parts, too."""
    for model in (dataclasses.replace(TINY, big_endian=True), dataclasses.replace(TINY, big_endian=True, parts=3)):
        folder = tmp_path / f"{model.parts}"
        folder.mkdir()
        model.write(folder / "m.gguf")
        path = min(folder.glob("*.gguf"))
        assert path.read_bytes()[:8] == b"GGUF\0\0\0\3"
        assert program_of(path) == whole


def test_versions_that_are_not_read_are_named(tmp_path: Path) -> None:
    for raw, number in ((b"\1\0\0\0", 1), (b"\0\0\0\1", 1), (b"\4\0\0\0", 4)):
        (tmp_path / "m.gguf").write_bytes(b"GGUF" + raw + bytes(64))
        refused(tmp_path / "m.gguf", f"GGUF of version {number}, and versions 2 and 3 are read here")


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_tensors_in_one_place(tmp_path: Path) -> None:
    TINY.write(tmp_path / "m.gguf")
    name = b"blk.0.attn_k.weight"

    def move(data: bytes) -> bytes:
        at = data.index(name) + len(name) + 4 + 16 + 4  # rank, two dims, type
        return data[:at] + bytes(8) + data[at + 8 :]

    edit(tmp_path / "m.gguf", move)
    refused(tmp_path / "m.gguf", r"has the tensor '.+' in the place of '.+'")


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    TINY.write(tmp_path / "m.gguf")
    edit(tmp_path / "m.gguf", lambda data: data[:-200])
    refused(tmp_path / "m.gguf", "ends before its tensor '.+' does: download it again")


def test_a_shape_that_no_tensor_of_its_type_has(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 34), np.uint8), raw_dtype=QuantType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    edit(tmp_path / "m.gguf", lambda data: data.replace((32).to_bytes(8, "little"), (33).to_bytes(8, "little"), 1))
    with pytest.raises((InvalidProgramError, UnsupportedProgramError), match="33"), open_gguf(tmp_path / "m.gguf"):
        pass

"""Opening files, letting pages go, and closing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from executorch_webgpu.errors import ClosedError, InvalidInputError, InvalidProgramError
from executorch_webgpu.format.mapped_file import MappedFile
from executorch_webgpu.format.pte import open_program
from tests.format.samples import FILE, SEGMENTS

STATUS = Path("/proc/self/status")  # of Linux; elsewhere the test looks at the bytes only


def resident_bytes() -> int:
    """Bytes of this process's files that are mapped and in memory."""
    (kilobytes,) = re.findall(r"RssFile:\s+(\d+) kB", STATUS.read_text())
    return int(kilobytes) * 1024


@pytest.fixture
def program_path(tmp_path: Path) -> Path:
    path = tmp_path / "model.pte"
    path.write_bytes(FILE)
    return path


def test_open_program(program_path: Path) -> None:
    file, program = open_program(program_path)
    with file:
        assert [bytes(segment) for segment in program.segments] == list(SEGMENTS)
        assert file.data.readonly
        assert file.data == FILE


def test_a_file_that_is_no_program(program_path: Path) -> None:
    program_path.write_bytes(b"#!/bin/sh\necho hello\n")
    with pytest.raises(InvalidProgramError, match="ET12"):
        open_program(program_path)


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pte"
    empty.touch()
    for path in (tmp_path / "none.pte", empty, tmp_path, f"{tmp_path}/\0"):
        with pytest.raises(InvalidProgramError, match="Cannot read"):
            open_program(path)


def test_views_outlive_close(program_path: Path) -> None:
    file = MappedFile(program_path)
    view = file.data[4:8]
    file.close()
    file.close()
    assert bytes(view) == b"ET12"
    with pytest.raises(ClosedError):
        _ = file.data


def test_released_pages_leave_memory_and_come_back(tmp_path: Path) -> None:
    size = 32 << 20
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * (size // 256))
    with MappedFile(path) as file:
        view = file.data[100 : size - 100]
        assert sum(view[::4096]) > 0  # every page is touched
        before = resident_bytes() if STATUS.exists() else None
        file.release(view)
        if before is not None:
            assert before - resident_bytes() > size * 0.9
        assert bytes(view[:3]) == bytes([100, 101, 102])
        file.release(file.data[10:20])  # less than a page: nothing to let go
        file.release(file.data)
        assert file.data[-1] == 255


def test_only_views_of_the_file_are_released(program_path: Path) -> None:
    with MappedFile(program_path) as file, pytest.raises(InvalidInputError, match="not a part of this file"):
        file.release(memoryview(bytes(100)))

"""Data files beside a program: read as the exporter writes them, found, and refused when damaged or contradictory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidProgramError, UnsupportedProgramError
from executorch_webgpu.format.ptd import DataFiles, data_files_beside, read_data

MODULE = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
EXAMPLE = (torch.randn(2, 8),)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program on the host whose parameters are in a data file beside it."""
    folder = tmp_path_factory.mktemp("host")
    lowered = to_edge_transform_and_lower(torch.export.export(MODULE, EXAMPLE))
    program = lowered.to_executorch(ExecutorchBackendConfig(external_constants=True))
    program.write_tensor_data_to_file(str(folder))
    (folder / "model.pte").write_bytes(program.buffer)
    return folder / "model.pte"


@pytest.fixture(scope="module")
def delegated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A delegated one: the partitioner itself puts constants elsewhere."""
    folder = tmp_path_factory.mktemp("delegated")
    partitioner = VulkanPartitioner({"external_constants_max_data_bytes": 2**20})
    program = to_edge_transform_and_lower(torch.export.export(MODULE, EXAMPLE), partitioner=[partitioner])
    written = program.to_executorch()
    written.write_tensor_data_to_file(str(folder))
    (folder / "model.pte").write_bytes(written.buffer)
    return folder / "model.pte"


def data_file(program: Path) -> Path:
    (found,) = program.parent.glob("*.ptd")
    return found


@pytest.mark.parametrize("kind", ["host", "delegated"])
def test_programs_with_their_data_elsewhere(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = request.getfixturevalue(kind)
    x = torch.randn(2, 8)
    with Runtime.get().load_program(path) as program:
        got = program.load_method("forward").execute([x])[0]
        torch.testing.assert_close(got, MODULE(x), rtol=1e-4, atol=1e-5)
        program.load_method("forward").state.save(tmp_path / "state")  # reads everything for the fingerprint
    alone = tmp_path / "alone.pte"
    shutil.copy(path, alone)
    with Runtime.get().load_program(alone, data_files=[data_file(path)]) as program:
        torch.testing.assert_close(program.load_method("forward").execute([x])[0], got)
        program.load_method("forward").load_state(tmp_path / "state")
    with Runtime.get().load_program(path.read_bytes(), data_files=cast(Any, data_file(path))) as program:
        torch.testing.assert_close(program.load_method("forward").execute([x])[0], got)
    with (
        Runtime.get().load_program(alone) as program,
        pytest.raises((UnsupportedProgramError, InvalidProgramError), match=r"\.ptd file, which was not found"),
    ):
        program.load_method("forward")


def test_data_of_another_program_is_not_taken(host: Path, tmp_path: Path) -> None:
    for name in ("one.pte", "one_more.pte"):
        shutil.copy(host, tmp_path / name)
    shutil.copy(data_file(host), tmp_path / "one_more__default.ptd")
    assert data_files_beside(tmp_path / "one_more.pte") == [tmp_path / "one_more__default.ptd"]
    assert data_files_beside(tmp_path / "one.pte") == []
    shutil.copy(data_file(host), tmp_path / "_default_external_constant.ptd")
    assert data_files_beside(tmp_path / "one.pte") == [tmp_path / "_default_external_constant.ptd"]
    (tmp_path / "text.ptd").write_text("no data")
    assert data_files_beside(tmp_path / "one.pte") == [tmp_path / "_default_external_constant.ptd"]


def test_files_that_differ_are_refused_where_it_matters(host: Path, tmp_path: Path) -> None:
    good, damaged = data_file(host), tmp_path / "other.ptd"
    content = bytearray(good.read_bytes())
    entries = read_data(memoryview(bytes(content)))
    last = max(entries.values(), key=lambda view: np.frombuffer(view, np.uint8).__array_interface__["data"][0])
    content[bytes(content).rindex(bytes(last))] ^= 1
    damaged.write_bytes(content)
    files = DataFiles(lambda: [good, damaged])
    outcomes = []
    for name in files:
        try:
            outcomes.append(files[name] is not None)
        except InvalidProgramError as error:
            assert "differ" in str(error)
            outcomes.append(False)
    assert sorted(outcomes) == [False, *[True] * (len(entries) - 1)]
    files.close()


def test_a_file_that_is_none_is_refused_at_once(host: Path, tmp_path: Path) -> None:
    for content in (b"", b"FT01", bytes(200)):
        (tmp_path / "none.ptd").write_bytes(content)
        with pytest.raises(InvalidProgramError, match=r"none\.ptd"):
            Runtime.get().load_program(host, data_files=[tmp_path / "none.ptd"])
    with pytest.raises(InvalidProgramError, match="missing"):
        Runtime.get().load_program(host, data_files=[tmp_path / "missing.ptd"])


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_files_end_in_our_error(host: Path, data: st.DataObject) -> None:
    content = bytearray(data_file(host).read_bytes())
    head = min(len(content), 600)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        for view in read_data(memoryview(bytes(content[:cut] if cut % 3 == 0 else content))).values():
            assert view.nbytes <= len(content)
    except InvalidProgramError:
        pass

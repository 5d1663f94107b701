"""Buffers that several methods of a program write and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from executorch.exir import ExecutorchBackendConfig, to_edge
from executorch.exir.passes import MemoryPlanningPass
from torch import nn

from executorch_webgpu import InvalidInputError, Program, Runtime


class Store(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(3))


class Put(nn.Module):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.store.kept.copy_(x * 2)
        return x + 1


class Get(nn.Module):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.store.kept


@pytest.fixture(scope="module")
def data() -> bytes:
    store = Store()
    methods = {
        "put": torch.export.export(Put(store), (torch.ones(3),)),
        "get": torch.export.export(Get(store), (torch.ones(3),)),
    }
    config = ExecutorchBackendConfig(
        memory_planning_pass=MemoryPlanningPass(share_mutable_buffers=True), emit_mutable_buffer_names=True
    )
    return to_edge(methods).to_executorch(config).buffer


@pytest.fixture
def program(data: bytes) -> Program:
    return Runtime.get().load_program(data)


ONES, ZEROS = np.ones(3, np.float32), np.zeros(3, np.float32)


def test_one_method_sees_what_another_has_written(program: Program) -> None:
    put, get = program.load_method("put"), program.load_method("get")
    assert get.execute([ZEROS])[0].tolist() == [0, 0, 0]
    put.execute([ONES])
    assert get.execute([ONES])[0].tolist() == [3, 3, 3]
    assert program.load_method("get").execute([ONES])[0].tolist() == [3, 3, 3]
    get.reset()
    assert get.execute([ONES])[0].tolist() == [1, 1, 1]


def test_another_program_and_new_states_have_buffers_of_their_own(program: Program, data: bytes) -> None:
    put, get = program.load_method("put"), program.load_method("get")
    mine = put.new_state()
    theirs = get.new_state(shares=mine)
    put.execute([ONES], mine)
    assert get.execute([ONES], theirs)[0].tolist() == [3, 3, 3]
    assert get.execute([ONES])[0].tolist() == [1, 1, 1]
    other = Runtime.get().load_program(data).load_method("get")
    assert other.execute([ONES])[0].tolist() == [1, 1, 1]
    with pytest.raises(InvalidInputError, match="same program"):
        other.new_state(shares=mine)


def test_saved_states_hold_shared_buffers(program: Program, tmp_path: Path) -> None:
    put = program.load_method("put")
    put.execute([ONES])
    put.state.save(tmp_path / "state")
    put.reset()
    get = program.load_method("get")
    put.state.load(tmp_path / "state")
    assert get.execute([ONES])[0].tolist() == [3, 3, 3]

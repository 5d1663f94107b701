"""The check of a method against its references: integers and floats that 32 bits cannot hold are reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from executorch_webgpu import Runtime
from executorch_webgpu.cli import main


class Products(nn.Module):
    """Products of integers, state that grows, and a float that overflows."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3, dtype=torch.int64))

    def forward(self, i: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.total.add_(i * 100_000)
        return self.total * 2, torch.relu(x * 1e30)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lowered = to_edge_transform_and_lower(
        torch.export.export(Products(), (torch.ones(3, dtype=torch.int64), torch.ones(4))),
        partitioner=[VulkanPartitioner({"alias_buffer_mutations": True})],
    )
    path = tmp_path_factory.mktemp("check") / "products.pte"
    path.write_bytes(lowered.to_executorch().buffer)
    return path


def test_what_fits_is_not_reported(path: Path) -> None:
    with Runtime.get().load_program(path) as program:
        report = program.check("forward", [[np.array([1, -2, 3]), np.ones(4, np.float32)] for _ in range(3)])
    assert (report.steps, report.overflows) == (3, ())
    assert [d.error for d in report.differences if d.output == 0] == [0]
    assert all(d.error <= 1e-6 * d.largest for d in report.differences)


def test_integers_that_grow_past_32_bits_over_steps_are_named(path: Path) -> None:
    with Runtime.get().load_program(path) as program:
        steps = [[np.array([9_000, 1, -1]), np.ones(4, np.float32)] for _ in range(3)]
        report = program.check("forward", steps)
    named = {(o.operator, o.high) for o in report.overflows}
    assert ("aten.mul.Tensor", 2 * 3 * 9_000 * 100_000) in named
    assert {name for name, _ in named} == {"aten.mul.Tensor", "aten.add.Tensor"}


def test_floats_that_float32_makes_infinite_are_named(path: Path) -> None:
    with Runtime.get().load_program(path) as program:
        report = program.check("forward", [[np.array([1, 1, 1]), np.full(4, 1e20, np.float32)]])
    assert any(overflow.high == pytest.approx(1e50) for overflow in report.overflows)


def test_the_command_ends_with_1_when_it_has_something_to_say(path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.array([30_000, 1, 1]))
    np.save(tmp_path / "x.npy", np.ones(4, np.float32))
    inputs = ["--input", str(tmp_path / "i.npy"), "--input", str(tmp_path / "x.npy")]
    result = CliRunner().invoke(main, ["check", str(path), *inputs])
    assert result.exit_code == 1 and "aten.mul.Tensor gives" in result.output
    assert CliRunner().invoke(main, ["check", str(path)]).exit_code == 0

"""The quads route: packed quantized weights on adapters that are CPUs."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.matmul import quads
from tests.ops.harness import OpProgram
from tests.ops.samples import Sample, fused_linear_sample

GROUPED = ("q4gsw", "q4gaw", "q8gsw")


def program(device: Device, sample: Sample) -> OpProgram:
    assert device.features.subgroup_size, "the size of its subgroups must be known"
    return OpProgram(device, sample.op, sample.args, sample.out, routes={"fused_linear": "quads"})


@pytest.mark.parametrize("weight_format", [*GROUPED, "q8csw", "q4csw"])
@pytest.mark.parametrize("k", [40, 67, 96, 131])
def test_every_number_of_rows(device: Device, weight_format: str, k: int) -> None:
    """Every mix of the rows that a lane may compute; K that ends within a block, or within a vec4."""
    if weight_format in GROUPED and k % 8:
        k += 8 - k % 8
    for norm, gated in ((False, False), (True, False), (True, True)):
        widths = [37, 37] if gated else [37, 6]
        sample = fused_linear_sample(weight_format, k, widths, norm, True, gated, gated, (15, 1), 64)
        with program(device, sample) as loaded:
            for m in range(1, 16):
                loaded.check([np.asarray(x)[:, :m] for x in sample.inputs(live=False)])


@pytest.mark.parametrize("weight_format", GROUPED)
def test_wide_outputs_and_long_groups(device: Device, weight_format: str) -> None:
    for k, group in ((64, 32), (192, 96), (224, 224), (288, 32)):
        sample = fused_linear_sample(weight_format, k, [515, 13], True, False, False, False, (3, 1), group)
        with program(device, sample) as loaded:
            loaded.check(sample.inputs(live=False))


def test_runs_repeat_bit_for_bit(device: Device) -> None:
    sample = fused_linear_sample("q4gaw", 128, [515, 515], True, True, True, True, (7, 1), 32)
    with program(device, sample) as loaded:
        inputs = sample.inputs(live=False)
        first = [np.asarray(x) for x in loaded.run(inputs)]
        for _ in range(3):
            for before, again in zip(first, loaded.run(inputs), strict=True):
                np.testing.assert_array_equal(again, before)


def test_rows_of_a_lane_follow_what_they_cost() -> None:
    assert [quads._rows(m) for m in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 256)] == [1, 1, 4, 4, 6, 6, 4, 4, 6, 6, 6]

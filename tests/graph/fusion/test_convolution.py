"""Batch norms and bounds behind convolutions become a part of them, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from tests.graph_builder import GraphBuilder, Ref

from .graphs import check, is_unchanged, names, normal

DIMS = (2, 4, 5, 5)
PASS = "convolution"
FUSED, CLAMPED = "et_webgpu.fused_convolution.default", "et_vk.conv_with_clamp.default"


class Net(GraphBuilder):
    """Convolutions of 4 channels over images that keep their size."""

    def __init__(self) -> None:
        super().__init__()
        self.x = self.input(DIMS)

    def conv(self, x: Ref, weight: Ref | None = None) -> Ref:
        pairs = [[1, 1], [1, 1], [1, 1]]
        given = self.constant(normal(4, 4, 3, 3)) if weight is None else weight
        rest = [normal(4), *pairs, False, [0, 0], 1]
        return self.call("aten.convolution.default", x, given, *rest, self.tensor(DIMS))

    def norm(self, x: Ref, variance: np.ndarray | Ref | None = None) -> Ref:
        given = np.abs(normal(4)) + np.float32(0.5) if variance is None else variance
        outs = [self.tensor(DIMS), self.tensor((0,)), self.tensor((0,))]
        name = "aten._native_batch_norm_legit_no_training.default"
        self.call(name, x, normal(4), normal(4), normal(4), given, 0.1, 1e-5, outs)
        return outs[0]

    def relu(self, x: Ref) -> Ref:
        return self.call("aten.relu.default", x, self.tensor(DIMS))

    def clamp(self, x: Ref, low: float | None, high: float | None) -> Ref:
        return self.call("aten.hardtanh.default", x, low, high, self.tensor(DIMS))

    def steps(self, *batches: int) -> list[list[np.ndarray]]:
        return [[normal(n, *DIMS[1:])] for n in batches]


def test_all_in_one(device: Device) -> None:
    build = Net()
    build.output(build.relu(build.norm(build.conv(build.x))))
    assert names(check(device, build, [PASS], build.steps(2, 1))) == {FUSED: 1}


@pytest.mark.parametrize("bounds", [(-0.5, 0.5), (None, 0.25), (0, None)])
def test_bounds_alone(device: Device, bounds: tuple[float | None, float | None]) -> None:
    build = Net()
    build.output(build.clamp(build.conv(build.x), *bounds))
    assert names(check(device, build, [PASS], build.steps(2))) == {CLAMPED: 1}


def test_a_norm_alone_and_twice(device: Device) -> None:
    build = Net()
    first = build.norm(build.conv(build.x))
    build.output(build.norm(build.conv(first)))
    assert names(check(device, build, [PASS], build.steps(2, 1))) == {FUSED: 2}


def test_a_norm_before_or_behind_bounds_only(device: Device) -> None:
    """Its result is no convolution's."""
    build = Net()
    build.output(build.norm(build.relu(build.conv(build.norm(build.x)))))
    graph = check(device, build, [PASS], build.steps(2))
    assert names(graph)[CLAMPED] == 1 and sum(names(graph).values()) == 3


def read_twice(build: Net) -> None:
    y = build.conv(build.x)
    build.output(build.relu(y), build.norm(y))


def is_an_output(build: Net) -> None:
    y = build.conv(build.x)
    build.output(y, build.relu(y))


def by_no_number(build: Net) -> None:
    build.output(build.norm(build.conv(build.x), np.full(4, -1, np.float32)))


def variance_of_the_program(build: Net) -> None:
    build.output(build.norm(build.conv(build.x), build.input((4,))))


def weights_of_the_program(build: Net) -> None:
    build.output(build.norm(build.conv(build.x, build.input((4, 4, 3, 3)))))


def not_the_first_operand(build: Net) -> None:
    build.output(build.call("aten.add.Tensor", build.x, build.conv(build.x), 1, build.tensor(DIMS)))


@pytest.mark.parametrize(
    "describe",
    [
        read_twice,
        is_an_output,
        by_no_number,
        variance_of_the_program,
        weights_of_the_program,
        not_the_first_operand,
    ],
)
def test_what_stays_as_it_is(describe: object) -> None:
    build = Net()
    assert callable(describe)
    describe(build)
    assert is_unchanged(build, PASS)


def test_other_results_of_the_norm_that_are_read() -> None:
    build = Net()
    out = build.norm(build.conv(build.x))
    build.output(out, Ref(out.id + 1))
    assert is_unchanged(build, PASS)

"""Linear layers that quantize what they read: the choice of scales joins them, and then they fuse like others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from tests.graph_builder import Ref

from .graphs import FUSED_LINEAR, Model, check, is_unchanged, names, normal

CHOOSE, LINEAR = "torchao.choose_qparams_affine.default", "et_vk.linear_dq8ca_q4gsw.default"
ONE = "et_webgpu.linear_q4gsw_dq8.default"
random = np.random.default_rng(3)


class Dynamic(Model):
    """A model of linear layers with 4-bit weights and 8-bit rows, [.., 32] -> [.., n]."""

    def __init__(self) -> None:
        super().__init__(width=32)

    def choice(self, x: Ref, zero: str = "int8", **changed: Any) -> list[Ref]:
        """Scales and zero points for the rows of ``x``."""
        given: dict[str, Any] = {"mapping": "ASYMMETRIC", "blocks": [1, 1, 32], "low": -128, "high": 127, "eps": None}
        given |= changed
        outs = [self.tensor((1, self.most)), self.tensor((1, self.most), zero)]
        mapping, blocks, low, high, eps = given.values()
        return self.call(CHOOSE, x, mapping, blocks, None, low, high, eps, None, None, False, outs)

    def layer(self, x: Ref, n: int = 16, qparams: list[Ref] | None = None, bias: bool = False) -> Ref:
        codes = random.integers(0, 256, (n, 16), np.uint8)
        scales = random.uniform(0.01, 0.1, (1, -(-n // 4) * 4)).astype(np.float32)
        sums, added = np.zeros((1, n), np.int32), normal(n) if bias else None
        return self.call(LINEAR, x, *(qparams or self.choice(x)), codes, sums, scales, 32, added, self.rows(n))


@pytest.mark.parametrize("bias", [False, True])
def test_each_layer_takes_its_choice(device: Device, bias: bool) -> None:
    build = Dynamic()
    build.output(build.layer(build.x, 13, bias=bias))
    graph = check(device, build, ["dynamic_linear"], build.steps(7, 1, 3))
    assert names(graph)[ONE] == 1 and not {CHOOSE, LINEAR} & set(names(graph))


def test_layers_share_a_choice(device: Device) -> None:
    build = Dynamic()
    qparams = build.choice(build.x)
    build.output(*(build.layer(build.x, n, qparams) for n in (16, 8)))
    graph = check(device, build, ["dynamic_linear"], build.steps(7, 1))
    assert names(graph)[ONE] == 2 and names(graph)[CHOOSE] == 0


def test_layers_behind_a_norm_become_one(device: Device) -> None:
    build = Dynamic()
    x = build.norm(build.x)
    build.output(*(build.layer(x, n) for n in (16, 8, 8)))
    graph = check(device, build, ["dynamic_linear", "norm_linear"], build.steps(7, 1, 3))
    (layer,) = [call for call in graph.calls if call.name == FUSED_LINEAR]
    assert layer.named["weight_format"] == "q4gsw_dq8" and len(layer.named["weights"]) == 3


def test_a_gate_and_a_residual(device: Device) -> None:
    build = Dynamic()
    x = build.layer(build.x, 32)
    gate, up = build.layer(x, 32), build.layer(x, 32)
    product = build.mul(build.mul(gate, build.sigmoid(gate)), up)
    build.output(build.add(x, build.layer(product, 32)))
    graph = check(device, build, ["dynamic_linear", "norm_linear", "gate", "residual"], build.steps(7, 1))
    assert names(graph)[FUSED_LINEAR] == 2 and names(graph)[ONE] == 1 and names(graph)["aten.mul.Tensor"] == 0


def test_only_rows_that_are_wanted_are_computed(device: Device) -> None:
    build = Dynamic()
    logits = build.layer(build.norm(build.x), 16)
    build.output(build.call("aten.slice_copy.Tensor", logits, 1, -1, None, 1, build.tensor((1, 1, 16))))
    graph = check(device, build, ["dynamic_linear", "last_row"], build.steps(7, 1))
    (layer,) = [call for call in graph.calls if call.name == ONE]
    assert layer.args[0].max_dims == (1, 1, 32)


@pytest.mark.parametrize(
    "changed",
    [
        {"mapping": "SYMMETRIC"},
        {"low": -127},
        {"high": 100},
        {"eps": 1e-3},
        {"zero": "int32"},
    ],
    ids=str,
)
def test_other_choices_stay(device: Device, changed: dict[str, Any]) -> None:
    build = Dynamic()
    build.output(build.layer(build.x, qparams=build.choice(build.x, **changed)))
    assert is_unchanged(build, "dynamic_linear")
    check(device, build, ["dynamic_linear"], build.steps(7, 1))


def test_a_choice_for_other_rows_stays(device: Device) -> None:
    build = Dynamic()
    build.output(build.layer(build.x, qparams=build.choice(build.norm(build.x))))
    assert is_unchanged(build, "dynamic_linear")
    check(device, build, ["dynamic_linear"], build.steps(7, 1))


def test_a_choice_that_others_read_is_still_made(device: Device) -> None:
    build = Dynamic()
    qparams = build.choice(build.x)
    build.output(build.layer(build.x, qparams=qparams), qparams[0])
    graph = check(device, build, ["dynamic_linear"], build.steps(7, 1))
    assert names(graph)[ONE] == 1 and names(graph)[CHOOSE] == 1

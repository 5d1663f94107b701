"""RMSNorms written as single operators are found, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from executorch_webgpu.gpu.device import Device
from tests.graph_builder import Ref

from .graphs import FUSED_LINEAR, Model, check, is_unchanged, names, normal

NORM = "et_vk.rms_norm.default"


class Norms(Model):
    """A model whose norm is written out; parts may be exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.start = self.linear(self.x)
        self.weight = self.constant(normal(16))

    def column(self) -> Ref:
        return self.tensor((1, self.most, 1))

    def square(self, x: Ref) -> Ref:
        return self.call("aten.pow.Tensor_Scalar", x, 2, self.rows())

    def mean(self, x: Ref, dim: int = -1) -> Ref:
        out = self.tensor((1, 1, 16)) if dim == 1 else self.column()
        return self.call("aten.mean.dim", x, [dim], True, None, out)

    def shifted(self, x: Ref) -> Ref:
        return self.call("aten.add.Scalar", x, 1e-3, 1, self.column())

    def shifted_by_a_tensor(self, x: Ref) -> Ref:
        eps = self.call("et_vk.prepack.default", self.constant(np.array(1e-3, np.float32)), self.tensor(()))
        return self.call("aten.add.Tensor", eps, x, 1, self.column())

    def root(self, x: Ref, name: str = "rsqrt") -> Ref:
        return self.call(f"aten.{name}.default", x, self.column())

    def norm_of(self, x: Ref) -> Ref:
        """The factor of each row."""
        return self.root(self.shifted(self.mean(self.square(x))))


FORMS: dict[str, Callable[[Norms, Ref], Ref]] = {
    "rsqrt": lambda b, x: b.mul(b.mul(x, b.norm_of(x)), b.weight),
    "turned round": lambda b, x: b.mul(b.weight, b.mul(b.norm_of(x), x)),
    "x times x": lambda b, x: b.mul(b.mul(x, b.root(b.shifted(b.mean(b.mul(x, x), 2)))), b.weight),
    "eps in a tensor": lambda b, x: b.mul(b.mul(x, b.root(b.shifted_by_a_tensor(b.mean(b.square(x))))), b.weight),
    "division": lambda b, x: b.mul(
        b.call("aten.div.Tensor", x, b.root(b.shifted(b.mean(b.square(x))), "sqrt"), b.rows()), b.weight
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(device: Device, form: str) -> None:
    build = Norms()
    build.output(FORMS[form](build, build.start))
    graph = check(device, build, ["rms_norm"], build.steps(7, 1, 3))
    assert set(names(graph)) - {"et_vk.prepack.default"} == {"sym_size.int", "aten.linear.default", NORM}


def test_norms_then_join_layers(device: Device) -> None:
    build = Norms()
    normed = FORMS["rsqrt"](build, build.start)
    build.output(build.linear(normed), build.linear(normed, 8))
    graph = check(device, build, ["rms_norm", "norm_linear"], build.steps(7, 1))
    assert names(graph)[FUSED_LINEAR] == 1 and names(graph)[NORM] == 0


@pytest.mark.parametrize("inside", ["square", "mean", "shifted", "root", "normed"])
@pytest.mark.parametrize("how", ["output", "reader"])
def test_who_else_wants_a_part_blocks_it(inside: str, how: str) -> None:
    build = Norms()
    parts = {"square": build.square(build.start)}
    parts["mean"] = build.mean(parts["square"])
    parts["shifted"] = build.shifted(parts["mean"])
    parts["root"] = build.root(parts["shifted"])
    parts["normed"] = build.mul(build.start, parts["root"])
    out = build.mul(parts["normed"], build.weight)
    part = parts[inside]
    dims = build.rows() if inside in ("square", "normed") else build.column()
    build.output(out, part if how == "output" else build.call("aten.neg.default", part, dims))
    assert is_unchanged(build, "rms_norm")


OTHERS: dict[str, Callable[[Norms, Ref], Ref]] = {
    "a cube": lambda b, x: b.mul(
        b.mul(x, b.root(b.shifted(b.mean(b.call("aten.pow.Tensor_Scalar", x, 3, b.rows()))))), b.weight
    ),
    "the norm of something else": lambda b, x: b.mul(b.mul(x, b.norm_of(b.sigmoid(x))), b.weight),
    "a mean over tokens": lambda b, x: b.mul(
        b.mul(x, b.call("aten.rsqrt.default", b.mean(b.square(x), 1), b.tensor((1, 1, 16)))), b.weight
    ),
    "no number to add": lambda b, x: b.mul(b.mul(x, b.root(b.mean(b.square(x)))), b.weight),
    "a weight that is an input": lambda b, x: b.mul(b.mul(x, b.norm_of(x)), b.input((16,))),
    "one weight for all": lambda b, x: b.mul(b.mul(x, b.norm_of(x)), b.constant(normal(1))),
    "the root of a root": lambda b, x: b.mul(b.mul(x, b.root(b.norm_of(x), "sqrt")), b.weight),
    "divided by": lambda b, x: b.mul(b.call("aten.div.Tensor", b.norm_of(x), x, b.rows()), b.weight),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_norm(other: str) -> None:
    build = Norms()
    build.output(OTHERS[other](build, build.start))
    assert is_unchanged(build, "rms_norm")


def test_memory_that_is_written_blocks_it() -> None:
    build = Norms()
    x = build.constant(normal(1, 7, 16))
    out = FORMS["rsqrt"](build, x)
    build.call("aten.add.Tensor", x, build.start, 1, x)
    build.output(out)
    assert is_unchanged(build, "rms_norm")

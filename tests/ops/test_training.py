"""Operators of on-device training as their eager stand-ins compute them, and steps that learn."""

from __future__ import annotations

from typing import Any

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401, registers et_vk's operators
import numpy as np
import pytest
import torch

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops.matmul.formats import Q4GSW, dequantize
from executorch_webgpu.ops.plan import Planning

from .harness import Const, In, Mutable, OpProgram, Out, call_graph

RNG = np.random.default_rng(0)
et_vk = torch.ops.et_vk
NUMBERS = (0.01, 0.9, 0.999, 1e-8, 0.1, 0.1, 0.001)  # of AdamW, at its first step


def floats(*dims: int) -> np.ndarray:
    return RNG.standard_normal(dims).astype(np.float32)


@pytest.mark.parametrize(("rows", "width"), [(4, 32), (8, 131), (3, 5003), (1, 1)])
def test_cross_entropy_is_that_of_torch(device: Device, rows: int, width: int) -> None:
    logits, labels = floats(rows, width) * 5, RNG.integers(-1, width, rows).astype(np.int32)
    args = [In((rows, width)), In((rows,), "int32"), float(rows)]
    with OpProgram(device, "et_vk.fused_ce.default", args, [Out(()), Out((rows, width))]) as program:
        loss, gradient = program.check([logits, labels])
    expected = et_vk.fused_ce(torch.from_numpy(logits), torch.from_numpy(labels), float(rows))
    np.testing.assert_allclose(loss, expected[0].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected[1].numpy(), rtol=1e-4, atol=1e-6)
    assert not gradient[labels < 0].any()


def test_logits_far_from_zero_do_not_overflow(device: Device) -> None:
    logits = np.array([[3e38, -3e38, 0], [-1e5, -1e5, -1e5 + 1]], np.float32)
    args = [In((2, 3)), In((2,), "int32"), 1.0]
    with OpProgram(device, "et_vk.fused_ce.default", args, [Out(()), Out((2, 3))]) as program:
        loss, gradient = program.check([logits, np.array([0, 2], np.int32)])
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_labels_outside_the_classes_are_refused(device: Device) -> None:
    args = [In((2, 3)), In((2,), "int32"), 1.0]
    with OpProgram(device, "et_vk.fused_ce.default", args, [Out(()), Out((2, 3))]) as program:
        with pytest.raises(InvalidInputError, match="label 3 is not one of 3 classes"):
            program.run([floats(2, 3), np.array([0, 3], np.int32)])
        program.check([floats(2, 3), np.array([0, 2], np.int32)])


@pytest.mark.parametrize(("m", "k", "n"), [(13, 18, 10), (1, 1, 1), (67, 131, 71), (5, 257, 3)])
def test_the_gradient_of_a_weight(device: Device, m: int, k: int, n: int) -> None:
    d_out, x = floats(m, n), floats(m, k)
    with OpProgram(device, "et_vk.linear_dW.default", [In((m, n)), In((m, k))], Out((n, k))) as program:
        got = program.check([d_out, x])
    np.testing.assert_allclose(got, et_vk.linear_dW(*map(torch.from_numpy, (d_out, x))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("m", "k", "n", "group"), [(3, 64, 10, 32), (1, 8, 1, 8), (66, 136, 71, 8)])
def test_the_gradient_of_an_input_goes_through_codes(device: Device, m: int, k: int, n: int, group: int) -> None:
    weights, d_out = RNG.integers(0, 256, (n, k // 2)).astype(np.uint8), floats(m, n)
    scales = RNG.uniform(0.01, 0.1, (k // group, n)).astype(np.float32)
    args = [In((m, n)), Const(weights), Const(scales), group]
    with OpProgram(device, "et_vk.linear_q4gsw_backward.default", args, Out((m, k))) as program:
        got = program.check([d_out])
    expected = et_vk.linear_q4gsw_backward(*map(torch.from_numpy, (d_out, weights, scales)), group)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("n", "k", "group"), [(6, 129, 64), (5, 1, 4), (7, 30, 8), (16, 256, 32)])
def test_new_codes_are_those_of_torch(device: Device, n: int, k: int, group: int) -> None:
    scales = RNG.uniform(0.05, 0.15, (-(-k // group), n)).astype(np.float32)
    scales[0, 0] = 0
    latent = floats(n, k)
    halves = scales[np.arange(k) // group].T * (RNG.integers(-20, 20, (n, k)) + np.float32(0.5))
    latent = np.where(RNG.random((n, k)) < 0.5, latent, halves).astype(np.float32)
    args = [In((n, k)), In(scales.shape), group]
    with OpProgram(device, "et_vk.q4gsw_requant.default", args, Out((n, -(-k // 2)), "uint8")) as program:
        got = program.check([latent, scales])
    np.testing.assert_array_equal(got, et_vk.q4gsw_requant(*map(torch.from_numpy, (latent, scales)), group))


@pytest.mark.parametrize("dims", [(67,), (5, 13), (1, 1)])
def test_steps_of_adamw_change_the_state(device: Device, dims: tuple[int, ...]) -> None:
    state = [floats(*dims), floats(*dims), np.abs(floats(*dims))]
    expected = [torch.from_numpy(t.copy()) for t in state]
    args: list[Any] = [*map(Mutable, state), In(dims), *NUMBERS]
    with OpProgram(device, "et_vk.adamw_step.default", args, [Out(dims)] * 3) as program:
        for _ in range(3):
            grad = floats(*dims)
            got = program.check([grad])
            et_vk.adamw_step(*expected, torch.from_numpy(grad), *NUMBERS)
            for i, after in enumerate(expected):
                np.testing.assert_allclose(program.mutable(i), after.numpy(), rtol=1e-5, atol=1e-6)
                np.testing.assert_array_equal(program.mutable(i), got[i])


REFUSED = {
    "other dims": (lambda a: [*a[:2], Mutable(floats(3))], "the same dims"),
    "another dtype": (lambda a: [*a[:2], Mutable(np.zeros(4, np.int32))], "takes float32"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_states_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    state = change([Mutable(floats(4)) for _ in range(3)])
    graph = build_graph(call_graph("et_vk.adamw_step.default", [*state, In((4,)), *NUMBERS], [Out((4,))] * 3))
    with pytest.raises(UnsupportedProgramError, match=message):
        plan_graph(graph, Planning(Features.none(), Limits.floor()))


def test_new_codes_are_what_linear_layers_read(device: Device) -> None:
    """What is exact in 4 bits comes back as it was."""
    scales = np.full((2, 4), 0.25, np.float32)
    weights = (RNG.integers(-8, 8, (4, 16)) * 0.25).astype(np.float32)
    args = [In((4, 16)), Const(scales), 8]
    with OpProgram(device, "et_vk.q4gsw_requant.default", args, Out((4, 8), "uint8")) as program:
        codes = program.run([weights])
    np.testing.assert_array_equal(dequantize(Q4GSW, codes, scales, 8), weights)


def test_the_example_learns() -> None:
    """On any device the losses of the last steps are a fraction of those of the first, and state starts anew."""
    import train_lora

    losses = train_lora.main(steps=40)
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:5])
    assert train_lora.main(steps=1) == losses[:1]

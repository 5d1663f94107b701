"""Convolutions: what they mean, held against torch; edges; and every route at sizes that do not fit its tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError, UnsupportedProgramError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.convolution.cut import H100, SPLITS, Option, best_cut
from executorch_webgpu.ops.convolution.reference import conv_with_clamp_reference, convolution_reference

from .harness import Const, In, OpProgram, Out, assert_close

CONVOLUTION, WITH_CLAMP = "aten.convolution.default", "et_vk.conv_with_clamp.default"


@st.composite
def calls(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """x, weight, and what follows the bias."""
    spatial, transposed = draw(st.integers(1, 3)), draw(st.booleans())

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=spatial, max_size=spatial))

    groups, group_in, group_out = (draw(st.integers(1, 3)) for _ in range(3))
    stride, dilation, padding = each(1, 3), each(1, 3), each(0, 3)
    added = [draw(st.integers(0, max(s, d) - 1)) if transposed else 0 for s, d in zip(stride, dilation, strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    first, second = (group_in, group_out) if transposed else (group_out, group_in)
    x = rng.standard_normal((draw(st.integers(0, 2)), groups * group_in, *each(1, 7)))
    weight = rng.standard_normal((groups * first, second, *each(1, 4)))
    return x, weight, [stride, padding, dilation, transposed, added, groups]


@settings(max_examples=200, deadline=None)
@given(calls(), st.booleans())
def test_the_reference_is_torch(call: tuple[np.ndarray, np.ndarray, list[Any]], with_bias: bool) -> None:
    x, weight, rest = call
    bias = np.arange(weight.shape[1] * rest[-1] if rest[3] else len(weight)) - 1.5 if with_bias else None
    tensors = [None if a is None else torch.from_numpy(a) for a in (x, weight, bias)]
    try:
        expected = torch.convolution(*tensors, *rest).numpy()
    except RuntimeError:  # the kernel does not fit
        return
    np.testing.assert_allclose(convolution_reference(x, weight, bias, *rest), expected, rtol=1e-9, atol=1e-9)
    clamped = conv_with_clamp_reference(x, weight, bias, *rest, -0.5, 1)
    np.testing.assert_allclose(clamped, expected.clip(-0.5, 1), rtol=1e-9, atol=1e-9)


def program(device: Device, x: tuple[int, ...], weight: np.ndarray, rest: list[Any], out: Out, **options: Any) -> Any:
    op = CONVOLUTION if len(rest) == 6 else WITH_CLAMP
    return OpProgram(device, op, [In(x), Const(weight), None, *rest], out, **options)


@given(st.integers(1, 3000), st.integers(1, 300), st.integers(1, 10**6))
def test_a_cut_covers_all_of_k_once(workgroups: int, all_steps: int, numel: int) -> None:
    options = [Option("large", 4.0, workgroups, all_steps), Option("small", 2.0, 4 * workgroups, all_steps)]
    cut = best_cut(options, SPLITS, numel, 1 << 26, H100)
    assert (cut.splits - 1) * cut.steps < all_steps <= cut.splits * cut.steps
    assert cut.splits == 1 or 4 * numel * cut.splits <= 1 << 26


def test_the_cut_of_products_that_are_typical() -> None:
    """Many tiles are not shared, and few are."""
    many = best_cut([Option("large", 4.2, 1000, 100), Option("small", 1.7, 4000, 100)], SPLITS, 1 << 24, 1 << 26, H100)
    assert (many.tile, many.splits) == ("large", 1)
    few = best_cut([Option("large", 4.2, 4, 144), Option("small", 1.7, 8, 144)], SPLITS, 1 << 15, 1 << 26, H100)
    assert few.splits > 8


PLAIN: list[Any] = [[1, 1], [0, 0], [1, 1], False, [0, 0], 1]


def test_not_a_number_and_infinity_pass_bounds_as_in_torch(device: Device) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3, -3], np.float32).reshape(1, 1, 1, 5)
    weight = np.ones((1, 1, 1, 1), np.float32)
    with program(device, x.shape, weight, [*PLAIN, -1, 1], Out(x.shape)) as made:
        assert_close(made.run([x]), torch.clamp(torch.from_numpy(x), -1, 1).numpy())
    with program(device, x.shape, weight, [*PLAIN, 2, 1], Out(x.shape)) as made:
        assert_close(made.run([x]), torch.clamp(torch.from_numpy(x), 2, 1).numpy())


def test_what_lies_around_x_is_zero_whatever_x_holds(device: Device) -> None:
    """Places beside x are read from somewhere in it, and must not bring its NaN."""
    x = np.full((1, 1, 4, 4), np.nan, np.float32)
    weight = np.ones((1, 1, 1, 1), np.float32)
    with program(device, x.shape, weight, [[1, 1], [1, 1], *PLAIN[2:]], Out((1, 1, 6, 6))) as made:
        expected = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
        assert_close(made.run([x]), expected)


def test_an_empty_batch(device: Device) -> None:
    with program(device, (2, 1, 4, 4), np.ones((1, 1, 2, 2), np.float32), PLAIN, Out((2, 1, 3, 3))) as made:
        assert made.run([np.ones((0, 1, 4, 4), np.float32)]).shape == (0, 1, 3, 3)
        assert (made.run([np.ones((2, 1, 4, 4), np.float32)]) == 4).all()


def test_weights_may_be_computed(device: Device) -> None:
    args = [In((2, 3, 5, 7)), In((4, 3, 2, 2)), In((4,)), *PLAIN]
    rng = np.random.default_rng(0)
    with OpProgram(device, CONVOLUTION, args, Out((2, 4, 4, 6))) as made:
        made.check([rng.standard_normal(d).astype(np.float32) for d in ((2, 3, 5, 7), (4, 3, 2, 2), (4,))])


def test_an_input_smaller_than_the_kernel_is_refused(device: Device) -> None:
    weight = np.ones((1, 1, 3, 3), np.float32)
    with program(device, (1, 1, 5, 5), weight, PLAIN, Out((1, 1, 3, 3))) as made:
        with pytest.raises(InvalidInputError, match="kernel"):
            made.run([np.ones((1, 1, 5, 2), np.float32)])
        assert (made.run([np.ones((1, 1, 5, 5), np.float32)]) == 9).all()


@pytest.mark.parametrize(
    ("x", "weight", "rest"),
    [
        ((1, 4, 5, 5), (2, 3, 3, 3), PLAIN),
        ((1, 4, 5, 5), (3, 2, 3, 3), [*PLAIN[:5], 2]),
        ((1, 4, 5, 5), (2, 4, 6, 3), PLAIN),
        ((1, 4, 5, 5), (2, 4, 3, 3), [[0, 1], *PLAIN[1:]]),
        ((1, 4, 5, 5), (2, 4, 3, 3), [[1, 1], [-1, 0], *PLAIN[2:]]),
        ((1, 4, 5, 5), (4, 2, 3, 3), [[2, 2], [0, 0], [1, 1], True, [2, 0], 1]),
        ((1, 4, 5, 5), (2, 4, 3), PLAIN),
        ((4, 5), (2, 4), PLAIN),
        ((1, 4, 5, 5), (2, 4, 3, 3), [*PLAIN[:5], 0]),
    ],
)
def test_what_torch_refuses_is_refused(
    device: Device, x: tuple[int, ...], weight: tuple[int, ...], rest: list[Any]
) -> None:
    with pytest.raises(RuntimeError):
        torch.convolution(torch.ones(x), torch.ones(weight), None, *rest)
    with pytest.raises(UnsupportedProgramError):
        program(device, x, np.ones(weight, np.float32), rest, Out((1, 2, 3, 3)))

"""Functions of floats to a few units in the last place of float32, and edge values as torch has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.elementwise.unary import FLOAT, PLAIN

from .harness import In, OpProgram, Out

SMALLEST = float(np.finfo(np.float32).tiny)  # GPUs may flush what is smaller
LARGEST = float(np.finfo(np.float32).max)
SPECIAL = np.array(
    [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, -2.5, 3, np.inf, -np.inf, np.nan, LARGEST, -LARGEST, SMALLEST, -SMALLEST],
    np.float32,
)


def of_all_sizes(count: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    """Numbers of both signs whose logarithms are even."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(math.log(low), math.log(high), count))
    return (size * rng.choice([-1, 1], count)).astype(np.float32)


def check_ulps(device: Device, got: np.ndarray, exact: np.ndarray, most: float, least: float = SMALLEST) -> None:
    """Finite numbers within ``most`` units in the last place of those of ``least`` and more; special ones exactly.

    Only a GPU may have zeros for what is smaller than all normal numbers.
    """
    with np.errstate(all="ignore"):
        right = exact.astype(np.float32)
    finite = np.isfinite(right)
    np.testing.assert_array_equal(got[~finite], right[~finite])
    size = np.maximum(np.abs(right[finite]), np.float32(least))
    error = np.abs(got[finite].astype(np.float64) - exact[finite]) / np.spacing(size)
    if not device.features.cpu:
        error[(got[finite] == 0) & (np.abs(right[finite]) < SMALLEST)] = 0
    at = int(np.argmax(error))
    assert error[at] <= most, f"{got[finite][at]} where {exact[finite][at]} is right: {error[at]:.1f} units"


def run(device: Device, op: str, args: list[Any], given: list[np.ndarray], out: Out) -> np.ndarray:
    with OpProgram(device, op, args, out) as program:
        program.poison()
        return np.asarray(program.run(given))


@pytest.mark.parametrize("op", FLOAT)
def test_functions_are_right_to_a_few_units_in_the_last_place(device: Device, op: str) -> None:
    """Over all sizes of float32: arguments of sin and its like are reduced exactly, however large."""
    even = np.linspace(-100, 100, 4001, dtype=np.float32)
    x = np.concatenate([of_all_sizes(6000, 1e-37, LARGEST), even, SPECIAL])
    if op == "aten.hardswish.default":
        x = x[~(np.abs(x) > LARGEST / 8)]  # six times that is infinite, in torch too
    if op in ("aten.silu.default", "aten.mish.default"):
        x = x[~(x < -87)]  # below, their factor is no normal number
    with OpProgram(device, op, [In(x.shape)], Out(x.shape)) as program:
        program.poison()
        got, exact = np.asarray(program.run([x])), np.asarray(program.reference([x]))
        check_ulps(device, got, exact, 8 if "erfc" in op else 4)


TORCH: dict[str, Callable[..., torch.Tensor]] = {
    "aten.hardsigmoid.default": functional.hardsigmoid,
    "aten.hardswish.default": functional.hardswish,
    "aten.log_sigmoid.default": functional.logsigmoid,
    "aten.mish.default": functional.mish,
    "aten.silu.default": functional.silu,
}


def of_torch(op: str) -> Callable[..., torch.Tensor]:
    """What torch has under the name of an operator."""
    _, name, overload = op.split(".")
    return TORCH.get(op) or getattr(getattr(torch.ops.aten, name), overload)


def same(got: np.ndarray, wanted: np.ndarray, relative: float = 2e-6) -> None:
    """Equal, NaN and infinities too, and zeros of the same sign; numbers within ``relative``."""
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, wanted, rtol=relative, atol=SMALLEST)
    zeros = (got == 0) & (wanted == 0)
    np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(wanted[zeros]))


@pytest.mark.parametrize("op", [*FLOAT, *PLAIN])
def test_edges_are_torchs(device: Device, op: str) -> None:
    wanted = of_torch(op)(torch.from_numpy(SPECIAL)).numpy()
    got = run(device, op, [In(SPECIAL.shape)], [SPECIAL], Out(SPECIAL.shape, str(wanted.dtype)))
    if op == "aten.relu.default":
        got, wanted = got + 0.0, wanted + 0.0  # which zero is the larger one is open
    same(got.astype(wanted.dtype), wanted)


BINARY = ("atan2.default", "hypot.default", "copysign.Tensor", "fmod.Tensor", "remainder.Tensor", "pow.Tensor_Tensor")
# torch's own give NaN where the quotient is beyond float32; these are exact there, too.
REMAINDERS: dict[str, Callable[..., Any]] = {"fmod.Tensor": np.fmod, "remainder.Tensor": np.remainder}
CHOICES = ("minimum.default", "maximum.default", "fmin.default", "fmax.default", "heaviside.default")


@pytest.mark.parametrize("op", [*BINARY, *CHOICES])
def test_edges_of_two_tensors_are_torchs(device: Device, op: str) -> None:
    a, b = (m.reshape(-1) for m in np.meshgrid(SPECIAL, SPECIAL))
    with np.errstate(all="ignore"):
        exact = REMAINDERS[op](a, b) if op in REMAINDERS else None
    wanted = of_torch(f"aten.{op}")(torch.from_numpy(a), torch.from_numpy(b)).numpy() if exact is None else exact
    got = run(device, f"aten.{op}", [In(a.shape), In(b.shape)], [a, b], Out(a.shape))
    # Which zero is the larger one is open, and NumPy's remainder of 0 has another sign than torch's.
    same(*((got, wanted) if op in BINARY and op != "remainder.Tensor" else (got + 0.0, wanted + 0.0)))


@pytest.mark.parametrize("op", BINARY)
def test_functions_of_two_tensors(device: Device, op: str) -> None:
    """Powers within 32 units: an error of their logarithm is one of their digits. Remainders exactly."""
    a, b = of_all_sizes(20011, 1e-30, 1e30, seed=1), of_all_sizes(20011, 1e-30, 1e30, seed=2)
    if op == "pow.Tensor_Tensor":
        a, b = np.abs(of_all_sizes(20011, 1e-4, 1e4)), of_all_sizes(20011, 1e-3, 30, seed=2)
    x, y = a.astype(np.float64), b.astype(np.float64)
    with OpProgram(device, f"aten.{op}", [In(a.shape), In(b.shape)], Out(a.shape)) as program:
        got = np.asarray(program.run([a, b]))
        if op in REMAINDERS:
            np.testing.assert_array_equal(got, REMAINDERS[op](a, b))
        else:
            check_ulps(device, got, np.asarray(program.reference([x, y])), 32 if "pow" in op else 4)


ACTIVATIONS: dict[str, tuple[list[Any], Callable[..., torch.Tensor]]] = {
    "aten.elu.default": ([0.7, 1.5, 2.0], lambda x: torch.ops.aten.elu(x, 0.7, 1.5, 2.0)),
    "aten.celu.default": ([0.7], lambda x: functional.celu(x, 0.7)),
    "aten.selu.default": ([], functional.selu),
    "aten.softplus.default": ([2.0, 3.0], lambda x: functional.softplus(x, 2.0, 3.0)),
    "aten.threshold.default": ([0.5, -1.0], lambda x: functional.threshold(x, 0.5, -1.0)),
    "aten.logit.default": ([1e-3], lambda x: torch.logit(x, 1e-3)),
    "aten.nan_to_num.default": ([None, None, None], torch.nan_to_num),
    "aten.round.decimals": ([2], lambda x: torch.round(x, decimals=2)),
    "aten.hardshrink.default": ([0.5], lambda x: functional.hardshrink(x, 0.5)),
    "aten.softshrink.default": ([0.5], lambda x: functional.softshrink(x, 0.5)),
    "aten.leaky_relu.default": ([0.1], lambda x: functional.leaky_relu(x, 0.1)),
    "aten.clamp.default": ([-0.5, math.nan], lambda x: torch.clamp(x, -0.5, math.nan)),
    "aten.relu6.default": ([], functional.relu6),
    "aten.copysign.Scalar": ([-0.0], lambda x: torch.copysign(x, -0.0)),
    "aten.pow.Tensor_Scalar": ([-1.5], lambda x: torch.pow(x, -1.5)),
    "aten.remainder.Scalar": ([-3], lambda x: torch.remainder(x, -3)),
    "aten.fmod.Scalar": ([3], lambda x: torch.fmod(x, 3)),
    "aten.div.Scalar_mode": ([0.3, "floor"], lambda x: torch.div(x, 0.3, rounding_mode="floor")),
}


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_activations_are_torchs(device: Device, op: str) -> None:
    scalars, wanted_of = ACTIVATIONS[op]
    x = np.concatenate([of_all_sizes(500, 1e-4, 60), SPECIAL])
    wanted = wanted_of(torch.from_numpy(x)).numpy()
    got = run(device, op, [In(x.shape), *scalars], [x], Out(x.shape))
    if op == "aten.div.Scalar_mode":
        got, wanted = got[np.abs(x) < 1e30], wanted[np.abs(x) < 1e30]
    np.testing.assert_allclose(got, wanted, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("base", [2.0, 0.5, -2.0, 0.0, 1.0, math.inf, 2])
def test_a_number_to_the_power_of_a_tensor(device: Device, base: float) -> None:
    x = np.concatenate([of_all_sizes(500, 1e-4, 100), SPECIAL])
    wanted = torch.pow(base, torch.from_numpy(x)).numpy()
    with OpProgram(device, "aten.pow.Scalar", [base, In(x.shape)], Out(x.shape)) as program:
        np.testing.assert_allclose(np.asarray(program.run([x])), wanted, rtol=4e-6, atol=SMALLEST)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_keeps_its_digits_where_it_is_small(device: Device, approximate: str) -> None:
    """Where torch's own has none left: its 1 + erf(x) cancels for a negative x."""
    x = np.concatenate([of_all_sizes(2000, 1e-30, 9), np.linspace(-9, 9, 2001, dtype=np.float32)])
    with OpProgram(device, "aten.gelu.default", [In(x.shape), approximate], Out(x.shape)) as program:
        got = np.asarray(program.run([x]))
    z = x.astype(np.float64)
    inner = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
    exact = {"none": z * np.vectorize(math.erfc)(-z / math.sqrt(2)) / 2, "tanh": z / (1 + np.exp(-2 * inner))}
    np.testing.assert_allclose(got, exact[approximate], rtol=2e-5)

"""Hadamard transforms of rows, as language models rotate activations before they are quantized."""

from __future__ import annotations

import math

import numpy as np

from ..plan import Planner
from ..registry import op
from ..rows import Cut
from ..sizes import like_first
from ..values import Tensor

# A Hadamard matrix of order 28, whose rows ExecuTorch has in this order: bit j of a row is set where column j is -1.
ORDER_28 = (
    *(0xCD69E7E, 0x9AD7C7D, 0x37AB8FB, 0x6D571F7, 0xD8AE3EF, 0xB3587DF, 0x66B4F3F),
    *(0xB467F43, 0x6ACBE87, 0xD593D8E, 0xAB27B9C, 0x564F7B8, 0xAC9AFF0, 0x5B31FE1),
    *(0x87FB325, 0x0FF66CA, 0x1DECD95, 0x39DDB2A, 0x71BF654, 0xE17ECA9, 0xC2FD9D2),
    *(0xFCF1299, 0xFBE2532, 0xF7C4AE4, 0xEF8D549, 0xDF1EA13, 0xBE3D4A6, 0x7E7A94C),
)
_MOST = 16  # elements that an invocation combines at a time, of powers of two
_WORKGROUP = 64


def _factors(width: int) -> tuple[int, int] | None:
    """(1 or 28, a power of two) whose product is ``width``; None if there are none."""
    for order in (1, 28):
        power = width // order
        if power * order == width and power > 0 and power & (power - 1) == 0:
            return order, power
    return None


def fast_hadamard_transform_reference(x: np.ndarray) -> np.ndarray:
    found = _factors(x.shape[-1])
    if found is None:
        raise ValueError(f"rows have {x.shape[-1]} elements, but must have a power of two, or 28 times one")
    order, power = found
    matrix = np.ones((1, 1))
    while len(matrix) < power:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    of_28 = [[1 - 2 * (row >> column & 1) for column in range(28)] for row in ORDER_28]
    first = np.array(of_28 if order == 28 else [[1]])
    parts = x.reshape(*x.shape[:-1], order, power)
    result: np.ndarray = first @ (parts @ matrix) / math.sqrt(power)
    return result.reshape(x.shape)


def rows_of_all_but_the_last(cut: Cut, x: Tensor, out: Tensor) -> int | None:
    axis = cut.only(x)
    return None if axis == x.rank - 1 else axis


@op(
    "llama.fast_hadamard_transform.default",
    reference=fast_hadamard_transform_reference,
    sizes=like_first,
    rows=rows_of_all_but_the_last,
)
def fast_hadamard_transform(planner: Planner, x: Tensor, out: Tensor) -> None:
    """Every row of ``x``, float32, times a matrix of 1 and -1, over the square root of the power of two in its width.

    The width is a power of two, or 28 times one; then the matrix is the Kronecker product of one of order 28 and that.
    """
    planner.check(x.dtype == out.dtype == "float32", f"fast_hadamard_transform takes float32, not {x}")
    found = _factors(x.dims[-1]) if x.rank else None
    planner.check(
        found is not None, f"fast_hadamard_transform: the width of {x} must be a power of two, or 28 times one"
    )
    assert found is not None
    planner.resize(out)
    order, power = found
    step, source = 1, x
    radices = []
    while power > 1:
        radices.append(min(power, _MOST))
        power //= radices[-1]
    for radix in [*radices, *([order] if order > 1 else [])] or [1]:
        n = x.numel // radix
        planner.dispatch(
            "hadamard/butterflies",
            planner.grid_1d(n, _WORKGROUP),
            {"out": out} if source is out else {"x": source, "out": out},
            {"n": n, "step": step, "scale": 1 / math.sqrt(found[1]) if source is x else 1.0},
            template={"radix": radix, "in_place": source is out},
            overrides={"wg_size": _WORKGROUP},
        )
        step, source = step * radix, out

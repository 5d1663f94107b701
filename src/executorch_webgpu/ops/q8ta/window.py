"""How the kernel of a convolution over two dimensions moves over its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Planner
from ..quantize.numbers import Array
from ..values import IntLike

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Heights and widths: of the kernel, of its steps, and of what is added around the input."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    transposed: bool = False
    output_padding: Pair = (0, 0)

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def output(self, size: int, axis: int) -> int:
        """The size of the output along height (0) or width (1)."""
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        if self.transposed:
            return (size - 1) * self.stride[axis] - 2 * self.padding[axis] + reach + self.output_padding[axis] + 1
        return (size + 2 * self.padding[axis] - reach - 1) // self.stride[axis] + 1

    def keeps(self, axis: int) -> bool:
        """Whether the output is as large as the input, whatever that is."""
        return self.stride[axis] == 1 and self.output(1, axis) == 1


POINT = Window((1, 1), (1, 1), (0, 0), (1, 1))


def pair(numbers: Sequence[Any]) -> Any:
    """A list of one number is for both dimensions, as in torch."""
    return (numbers[0], numbers[0]) if len(numbers) == 1 else tuple(numbers)


def window_of(lists: Sequence[Sequence[int]], transposed: bool) -> Window:
    """Of kernel, stride, padding, dilation and, if transposed, output padding."""
    kernel, stride, padding, dilation, *rest = map(pair, lists)
    return Window(kernel, stride, padding, dilation, transposed, rest[0] if rest else (0, 0))


def checked_window(planner: Planner, name: str, lists: Sequence[Sequence[IntLike]], transposed: bool) -> Window:
    """The window of kernel, stride, padding, dilation and, if transposed, output padding."""
    found = [planner.values(numbers) for numbers in lists]
    planner.check(all(len(n) in (1, 2) for n in found), f"{name} works over two dimensions, not over those of {found}")
    window = window_of(found, transposed)
    kernel, stride, padding, dilation = window.kernel, window.stride, window.padding, window.dilation
    added = window.output_padding
    planner.check(
        all(0 < n < 2**15 for n in (*kernel, *stride, *dilation)) and all(0 <= n < 2**15 for n in padding),
        f"{name}: kernel {kernel}, stride {stride} and dilation {dilation} must be positive and padding {padding} not "
        "negative, and all of them below 32768",
    )
    planner.check(
        all(0 <= a < max(s, d) for a, s, d in zip(added, stride, dilation, strict=True)),
        f"{name}: the output padding {added} must be less than the stride {stride} or the dilation {dilation}",
    )
    return window


def sums(x: Array, weights: Array, window: Window, groups: int) -> Array:
    """The convolution of ``x`` [N, C, H, W] and ``weights`` [O, taps, C / groups], as float64, exact if they are whole.

    Beyond the edges of ``x`` there are zeros.
    """
    n, _, height, width = x.shape
    out_height, out_width = window.output(height, 0), window.output(width, 1)
    by_group = x.reshape(n, groups, -1, height, width).astype(np.float64)
    kernels = weights.reshape(groups, -1, *weights.shape[1:]).astype(np.float64)  # [groups, O of one, taps, C of one]
    (pad_y, pad_x), (step_y, step_x) = window.padding, window.stride
    out = np.zeros((n, groups, kernels.shape[1], max(out_height, 0), max(out_width, 0)))
    if not out.size:
        return out.reshape(n, len(weights), *out.shape[3:])
    reach_y, reach_x = ((k - 1) * d for k, d in zip(window.kernel, window.dilation, strict=True))
    if window.transposed:
        canvas = np.zeros(
            (
                *out.shape[:3],
                max((height - 1) * step_y + reach_y + 1, pad_y + out_height),
                max((width - 1) * step_x + reach_x + 1, pad_x + out_width),
            )
        )
    else:
        padded = np.pad(by_group, ((0, 0),) * 3 + ((pad_y, pad_y), (pad_x, pad_x)))
    for tap in range(window.taps):
        y, across = (i * d for i, d in zip(divmod(tap, window.kernel[1]), window.dilation, strict=True))
        kernel = kernels[:, :, tap]
        if window.transposed:
            part = np.einsum("ngchw,goc->ngohw", by_group, kernel, optimize=True)
            canvas[..., y : y + height * step_y : step_y, across : across + width * step_x : step_x][
                ..., :height, :width
            ] += part
        else:
            seen = padded[..., y : y + out_height * step_y : step_y, across : across + out_width * step_x : step_x]
            out += np.einsum("ngchw,goc->ngohw", seen[..., :out_height, :out_width], kernel, optimize=True)
    if window.transposed:
        out[:] = canvas[..., pad_y : pad_y + out_height, pad_x : pad_x + out_width]
    return out.reshape(n, len(weights), out_height, out_width)

"""A convolution, or the first half of a transposed one, as a product of matrices for each group of channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...shapes import ceil_div
from ...values import Dims, Repacked, Tensor
from ..call import Convolution, Window

Array = np.ndarray
K_STEP = 32  # rows of packed weights are a multiple of this, and of the depth of every tile


@dataclass(frozen=True)
class Product:
    """``weights`` [groups, k, rows] times what lies under ``window`` at ``batch`` times ``places`` of ``x``.

    ``x`` is [batch, groups, group_in, in_dims]; ``table`` tells what each of K reads.
    """

    x: Tensor
    batch: int
    groups: int
    group_in: int
    rows: int
    window: Window
    in_dims: Dims
    out_dims: Dims
    weights: Repacked
    weights_dtype: str
    table: Repacked

    @property
    def places(self) -> int:
        return math.prod(self.out_dims)

    @property
    def columns(self) -> int:
        """Places of all images."""
        return self.batch * self.places

    @property
    def taps(self) -> int:
        return math.prod(self.window.kernel)

    @property
    def k(self) -> int:
        return self.group_in * self.taps

    @property
    def numel(self) -> int:
        """Of the result."""
        return self.columns * self.groups * self.rows


def product_of(call: Convolution) -> Product:
    """The product that is the convolution."""
    weights, rows = call.weight, call.group_out
    packed = call.repacked(
        f"{call.groups} groups of [element of the kernel, input channel, output channel]",
        _packed_bytes(call, call.group_in * call.taps, rows),
        lambda array: _pack(array.reshape(call.groups, rows, call.group_in, call.taps).transpose(0, 3, 2, 1)),
    )
    sizes = call.x.dims[2:], call.out.dims[2:]
    shape = call.batch, call.groups, call.group_in, rows
    return Product(call.x, *shape, call.window, *sizes, packed, weights.dtype, _table(call))


def columns_of(call: Convolution) -> Product:
    """What each place of ``x`` adds to a transposed convolution: rows are output channels by elements of the kernel."""
    rows, sizes = call.group_out * call.taps, call.x.dims[2:]
    packed = call.repacked(
        f"{call.groups} groups of [input channel, output channel and element of the kernel]",
        _packed_bytes(call, call.group_in, rows),
        lambda array: _pack(array.reshape(call.groups, 1, call.group_in, rows)),
    )
    ones, none = (1,) * len(sizes), (0,) * len(sizes)
    window = Window(ones, ones, none, ones, False, none)
    shape = call.batch, call.groups, call.group_in, rows
    return Product(call.x, *shape, window, sizes, sizes, packed, call.weight.dtype, _table(call))


def packed_rows(k: int) -> int:
    return ceil_div(k, K_STEP) * K_STEP


def _packed_bytes(call: Convolution, k: int, rows: int) -> int:
    return call.groups * packed_rows(k) * ceil_div(rows, 4) * 4 * call.weight.element.itemsize


def _pack(weights: Array) -> Array:
    """[groups, taps, input channels, rows] as [groups, K, rows], zero where it is filled up."""
    groups, taps, inputs, rows = weights.shape
    packed = np.zeros((groups, packed_rows(taps * inputs), ceil_div(rows, 4) * 4), weights.dtype)
    packed[:, : taps * inputs, :rows] = weights.reshape(groups, taps * inputs, rows)
    return packed


def _table(call: Convolution) -> Repacked:
    """[K] of an input channel, and depth, height and width from the first place under the kernel; int32."""
    kernel, dilation = call.window.kernel, call.window.dilation

    def table(_: Array) -> Array:
        taps = np.indices(kernel, np.int32).reshape(len(kernel), -1).T * np.array(dilation, np.int32)
        made = np.zeros((call.taps, call.group_in, 4), np.int32)
        made[..., 0] = np.arange(call.group_in)
        made[..., 4 - len(kernel) :] = taps[:, None]
        return made

    layout = f"places of {call.group_in} channels under a kernel {kernel} with dilation {dilation}"
    return Repacked(layout, (call.weight,), 16 * call.taps * call.group_in, table)

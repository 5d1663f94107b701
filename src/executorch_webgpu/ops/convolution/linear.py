"""The linear route: a kernel that covers a whole image, such as 1 x 1 on averages, is a row of a linear layer."""

from __future__ import annotations

import math

from ..matmul import Product, multiply
from ..plan import Planner
from ..values import Dims, Tensor
from . import sums
from .call import Convolution


def fits(call: Convolution) -> bool:
    """Whether each output channel is one number, of all of the image; float32, though weights may be float16."""
    window = call.window
    whole = call.x.max_dims[2:] == window.kernel and not any(window.padding) and not window.transposed
    floats = [t for t in (call.x, call.bias, call.out) if t is not None]
    return whole and call.groups == 1 and call.norm is None and all(t.dtype == "float32" for t in floats)


def run(planner: Planner, call: Convolution) -> None:
    """Bounds, if there are some, are applied by a kernel of their own."""
    rows, width = call.out_channels, call.group_in * call.taps
    x, weight = _seen_as(call.x, (call.batch, width)), _seen_as(call.weight, (rows, width))
    if math.isinf(call.low) and math.isinf(call.high):
        multiply(planner, "linear", Product(x, call.batch, (weight,), (call.bias,), (call.out,)))
        return
    products = planner.scratch(4 * call.out.numel)
    multiply(planner, "linear", Product(x, call.batch, (weight,), (None,), (products,)))
    sums.add(planner, call, products, 1)


def _seen_as(tensor: Tensor, dims: Dims) -> Tensor:
    """A tensor with other dims, over the same memory."""
    return Tensor(tensor.id, tensor.dtype, dims, tensor.constant)

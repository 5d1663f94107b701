"""One convolution as the kernels take it: checked, over three dimensions of which the first ones may be 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..plan import Planner
from ..values import Dims, IntLike, Repacked, Tensor
from .batch_norm import BatchNorm

Array = np.ndarray

MAX_SPATIAL = 3
_LARGEST = 2**31 - 1  # kernels compute with signed places


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an input: a number for each spatial dimension."""

    kernel: Dims
    stride: Dims
    padding: Dims
    dilation: Dims
    transposed: bool
    output_padding: Dims

    @property
    def reach(self) -> Dims:
        """From the first to the last element under the kernel, in elements."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True))

    def output(self, size: Any, axis: int) -> Any:
        """The output's size along spatial dimension ``axis`` for an input of ``size``."""
        stride, reach, padding = self.stride[axis], self.reach[axis], 2 * self.padding[axis]
        if self.transposed:
            return (size - 1) * stride + reach + self.output_padding[axis] + 1 - padding
        return (size + padding - reach - 1) // stride + 1

    @property
    def keeps(self) -> tuple[bool, ...]:
        """Of each dimension, whether the output is as large as the input, whatever that is."""
        return tuple(s == 1 and self.output(1, a) == 1 for a, s in enumerate(self.stride))

    @property
    def is_plain(self) -> bool:
        """Whether each output place reads one input place, the same one."""
        return all(self.keeps) and math.prod(self.kernel) == 1 and not any(self.padding)


def window_of(
    weight: Dims,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
) -> Window:
    """The window of a weight [., ., kernel...]; lists of one number are for all dimensions, as in torch."""
    kernel = weight[2:]

    def each(numbers: Sequence[int]) -> Dims:
        return tuple(numbers) * len(kernel) if len(numbers) == 1 else tuple(numbers)

    # Only a transposed convolution has padding of its output.
    added = each(output_padding) if transposed else (0,) * len(kernel)
    return Window(kernel, each(stride), each(padding), each(dilation), transposed, added)


@dataclass(frozen=True)
class Convolution:
    """``out`` [N, O, ...] of ``x`` [N, C, ...], normalized by ``norm``, and held between ``low`` and ``high``.

    ``weight`` is [O, C / groups, kernel...], or [C, O / groups, kernel...] if the window is transposed.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    out: Tensor
    window: Window
    groups: int
    low: float = -math.inf
    high: float = math.inf
    norm: BatchNorm | None = None

    @property
    def largest(self) -> Convolution:
        """The same at maximum dims."""
        x, out = (Tensor(t.id, t.dtype, t.max_dims, t.constant) for t in (self.x, self.out))
        return replace(self, x=x, out=out)

    # -- constants, with the norm in them ----------------------------------------------------------------------------

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """What weights and bias are made of."""
        return (self.weight, *(() if self.norm is None else self.norm.tensors))

    def repacked(self, layout: str, nbytes: int, pack: Callable[[Array], Array]) -> Repacked:
        """``pack`` of the weights, which lie as in the file."""
        norm = self.norm
        if norm is None:
            return Repacked(layout, (self.weight,), nbytes, pack)

        def folded(weights: Array, *arrays: Array) -> Array:
            scale, groups = norm.scale(arrays), self.groups
            with np.errstate(all="ignore"):
                if self.window.transposed:  # [groups, inputs, outputs, kernel]
                    by_group = weights.reshape(groups, -1, self.group_out, self.taps)
                    scaled = by_group * scale.reshape(groups, 1, self.group_out, 1)
                else:
                    scaled = weights.reshape(len(scale), -1) * scale[:, None]
            return pack(scaled.reshape(weights.shape).astype(weights.dtype))

        kind = f"in {self.groups} groups" if self.window.transposed else "by row"
        return Repacked(f"{layout}, after {norm.layout} {kind}", (self.weight, *norm.tensors), nbytes, folded)

    @property
    def weights(self) -> Tensor | Repacked:
        """As they lie in the file."""
        return self.weight if self.norm is None else self.repacked("as in the file", self.weight.nbytes, lambda a: a)

    @property
    def shift(self) -> Tensor | Repacked | None:
        """What is added to each output channel."""
        norm = self.norm
        if norm is None:
            return self.bias
        nbytes, given = 4 * self.out_channels, () if self.bias is None else (self.bias,)

        def pack(*arrays: Array) -> Array:
            before = arrays[0].astype(np.float64) if given else 0.0
            return norm.shift(arrays[len(given) :], before).astype(np.float32)

        return Repacked(f"{len(given)} bias after {norm.layout}", (*given, *norm.tensors), nbytes, pack)

    @property
    def shift_dtype(self) -> str | None:
        return "float32" if self.norm is not None else None if self.bias is None else self.bias.dtype

    # -- sizes -------------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        return self.x.dims[0]

    @property
    def group_in(self) -> int:
        """Input channels of a group."""
        return self.x.dims[1] // self.groups

    @property
    def group_out(self) -> int:
        """Output channels of a group."""
        return self.out_channels // self.groups

    @property
    def out_channels(self) -> int:
        dims = self.weight.dims
        return dims[1] * self.groups if self.window.transposed else dims[0]

    @property
    def taps(self) -> int:
        """Elements of the kernel."""
        return math.prod(self.window.kernel)

    @property
    def places(self) -> int:
        """Of a channel of the output."""
        return math.prod(self.out.dims[2:])


def checked(
    planner: Planner,
    name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lists: tuple[Sequence[IntLike], Sequence[IntLike], Sequence[IntLike], Sequence[IntLike]],
    transposed: bool,
    groups: IntLike,
    out: Tensor,
) -> Convolution:
    """The convolution of a call, with its output resized. ``lists``: stride, padding, dilation, output padding.

    Refuses what torch refuses.
    """
    spatial = x.rank - 2
    planner.check(
        1 <= spatial <= MAX_SPATIAL and weight.rank == out.rank == x.rank,
        f"{name}: {x}, {weight} and {out} must have as many dimensions, from 3 to {MAX_SPATIAL + 2}",
    )
    stride, padding, dilation, output_padding = map(planner.values, lists)
    planner.check(
        all(len(n) in (1, spatial) for n in (stride, padding, dilation)),
        f"{name} over {spatial} dimensions has stride {stride}, padding {padding} and dilation {dilation}",
    )
    planner.check(
        not transposed or len(output_padding) in (1, spatial),
        f"{name} over {spatial} dimensions has an output padding of {output_padding}",
    )
    planner.check(
        all(0 < n <= _LARGEST for n in (*stride, *dilation)) and all(0 <= n <= _LARGEST for n in padding),
        f"{name}: stride {stride} and dilation {dilation} must be positive, and padding {padding} not negative",
    )
    window = window_of(weight.dims, stride, padding, dilation, transposed, output_padding)
    _check_channels(planner, name, x, weight, bias, window, planner.value(groups))
    _check_sizes(planner, name, x, window)
    planner.resize(out)
    return Convolution(x, weight, bias, out, window, planner.value(groups))


def _check_channels(
    planner: Planner, name: str, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int
) -> None:
    planner.check(groups > 0, f"{name}: groups must be positive, not {groups}")
    planner.check(weight.numel > 0, f"{name}: weight {weight} has no elements")
    channels, given = x.dims[1], weight.dims[0] if window.transposed else weight.dims[1] * groups
    planner.check(
        channels == given and weight.dims[0] % groups == 0,
        f"{name} in {groups} groups: weight {weight} does not fit the {channels} channels of {x}",
    )
    wanted = weight.dims[1] * groups if window.transposed else weight.dims[0]
    planner.check(bias is None or bias.dims == (wanted,), f"{name}: bias {bias} must have {wanted} elements")


def _check_sizes(planner: Planner, name: str, x: Tensor, window: Window) -> None:
    added = zip(window.output_padding, window.stride, window.dilation, strict=True)
    planner.check(
        all(0 <= more < max(stride, dilation) for more, stride, dilation in added),
        f"{name}: output padding {window.output_padding} must be smaller than stride or dilation",
    )
    sizes = [window.output(size, axis) for axis, size in enumerate(x.dims[2:])]
    fits = all(size > 0 for size in sizes) and all(size > 0 for size in x.dims[2:])
    planner.check(fits, f"{name}: a kernel {window.kernel} does not fit into {x} with padding {window.padding}")
    reach = max(map(max, (window.reach, sizes, x.dims[2:])))
    planner.check(reach + max(window.padding) <= _LARGEST, f"{name}: the window {window} is too large")


def in_three(numbers: Dims, fill: int) -> Dims:
    """Numbers of one to three spatial dimensions as those of three, and a zero: a vec4 of a kernel's parameters."""
    return (fill,) * (MAX_SPATIAL - len(numbers)) + numbers + (0,)


def volume(sizes: Dims) -> Dims:
    """Sizes as those of three dimensions, and their product."""
    return (*in_three(sizes, 1)[:MAX_SPATIAL], math.prod(sizes))


def window_params(window: Window, in_dims: Dims, out_dims: Dims) -> dict[str, Any]:
    """The parameters that say how a window moves over ``in_dims`` for ``out_dims``."""
    return {
        "in_size": volume(in_dims),
        "out_size": volume(out_dims),
        "kernel": volume(window.kernel),
        "stride": in_three(window.stride, 1),
        "padding": in_three(window.padding, 0),
        "dilation": in_three(window.dilation, 1),
    }

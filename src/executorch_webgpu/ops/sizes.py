"""How sizes follow through operators, without numbers for what changes from step to step, and the rules for it.

A rule is called like the plan function of its operator, with the known ``Sizes`` in place of the planner. It returns
the sizes of the output (a list of them for a list of outputs), of a SymInt its value, and None where nothing follows,
or for a single size that does not. Rules see calls that no plan has checked: what does not fit is refused when the call
is planned. They serve the plan, too: ``planner.resize(out)`` takes what a rule makes of live
sizes, which are numbers.

Two tensors with equal maximum dims may differ in a step, so what may be done only where sizes agree asks here. A size
is a number, or a symbol, and equal symbols are equal in every step that no call refuses: a view states that two
products are the same. A size of at most 1 counts as 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import shapes
from .values import IntLike, SymInt, Tensor

# A number; or a symbol: (tensor id, dimension), (tensor id, dimension, index) of an element, or (id of a SymInt,).
Size = int | tuple[int, ...]
Shape = tuple[Size, ...]
Found = tuple[Size | None, ...]  # what a rule returns
SizeRule = Callable[..., Any]
_Ratio = tuple[int, int, list[Size], list[Size]]  # number * symbols / (number * symbols)


class Sizes:
    """What is known of the sizes of tensors and of the values of SymInts.

    ``before``: what is known to be equal already, from calls that may have said more.
    """

    def __init__(self, before: Sizes | None = None) -> None:
        self._sizes: dict[int, Shape] = {}
        self._values: dict[int, Size] = {}
        self._equal: dict[Size, Size] = dict(before._equal) if before is not None else {}

    def of(self, tensor: Tensor) -> Shape:
        """The sizes of a tensor."""
        shape = self._sizes.get(tensor.id) or unknown(tensor)
        return tuple(map(self._resolved, shape)) if self._equal else shape

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors have the same sizes in every step."""
        return self.of(a) == self.of(b)

    def value(self, size: IntLike) -> Size:
        """What is known of a number that may be live."""
        return self._resolved(self._values.get(size.id, (size.id,))) if isinstance(size, SymInt) else size

    def follow(self, rule: SizeRule, args: Sequence[Any]) -> None:
        """Take note of what a call says about its outputs."""
        for out, found in stated(self, rule, args):
            if isinstance(out, SymInt) and found is not None:
                self._values[out.id] = found
            elif isinstance(out, Tensor) and found is not None and len(found) == out.rank:
                sizes = zip(found, unknown(out), strict=True)
                self._sizes[out.id] = tuple(symbol if n is None else n for n, symbol in sizes)

    def equate(self, above: Iterable[Size], below: Iterable[Size]) -> None:
        """Two products are equal: what one symbol is then, if that follows."""
        number, divisor, left, right = _ratio(above, below)
        if 0 in (number, divisor) or len(left) > 1 or len(right) > 1:
            return
        if left and right:
            if number == divisor:
                self._equal[left[0]] = right[0]
        elif left and divisor % number == 0:
            self._equal[left[0]] = divisor // number
        elif right and number % divisor == 0:
            self._equal[right[0]] = number // divisor

    def _resolved(self, size: Size) -> Size:
        while size in self._equal:
            size = self._equal[size]
        return size


def stated(s: Sizes, rule: SizeRule, args: Sequence[Any]) -> Iterable[tuple[Tensor | SymInt, Any]]:
    """What a rule says of each output of a call."""
    out, found = args[-1], rule(s, *args)
    return zip(out, found or (), strict=False) if isinstance(out, list) else [(out, found)]


def unknown(tensor: Tensor) -> Shape:
    """A symbol for every size that may change, as far as the tensor alone tells."""
    if tensor.constant is not None:
        return tensor.max_dims
    return tuple(1 if n == 1 else (tensor.id, axis) for axis, n in enumerate(tensor.max_dims))


def quotient(above: Iterable[Size], below: Iterable[Size]) -> Size | None:
    """One product over another, if it is a number or a single symbol."""
    number, divisor, left, right = _ratio(above, below)
    if divisor != 1 or right or len(left) > 1 or (left and number != 1):
        return None
    return left[0] if left else number


def _ratio(above: Iterable[Size], below: Iterable[Size]) -> _Ratio:
    """The product of some sizes over that of others, in lowest terms."""
    numbers = [1, 1]
    symbols: list[Counter[Size]] = [Counter(), Counter()]
    for side, sizes in enumerate((above, below)):
        for size in sizes:
            if isinstance(size, int):
                numbers[side] *= size
            else:
                symbols[side][size] += 1
    common = math.gcd(*numbers) or 1
    left, right = (list((symbols[i] - symbols[1 - i]).elements()) for i in (0, 1))
    return numbers[0] // common, numbers[1] // common, left, right


# -- rules that several operators share -------------------------------------------------------------------------------


def like_first(s: Sizes, x: Tensor, *rest: Any) -> Shape:
    """Those of the first argument."""
    return s.of(x)


def broadcast(s: Sizes, *args: Any) -> Found:
    """Those of all tensors together, by NumPy's rule."""
    return shapes.broadcast(*(s.of(t) for t in args[:-1] if isinstance(t, Tensor)))


def linear(s: Sizes, x: Tensor, weight: Tensor, *rest: Any) -> Shape:
    """[..., K] and [N, K] -> [..., N]."""
    s.equate(s.of(x)[-1:], s.of(weight)[-1:])
    return packed_linear(s, x, weight)


def packed_linear(s: Sizes, x: Tensor, weight: Tensor, *rest: Any) -> Shape:
    """[..., K] and [N, some bytes] -> [..., N]."""
    return (*s.of(x)[:-1], *s.of(weight)[:1])


def other_dims(s: Sizes, x: Tensor, dim: int, *rest: Any) -> Found:
    """Those of the first argument, and along ``dim`` one that does not follow."""
    axis = shapes.normalize_dim(dim, x.rank)
    return tuple(None if a == axis else n for a, n in enumerate(s.of(x)))


def listed(s: Sizes, size: Sequence[IntLike], *rest: Any) -> Shape:
    """Those that the first argument lists."""
    return tuple(s.value(n) for n in size)

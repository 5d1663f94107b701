"""Sizes of a graph's tensors as far as they follow from its calls, without numbers for what changes from step to step.

Two tensors with equal maximum dims may differ in a step, so what may be fused only where sizes agree asks here. A size
is a number, or a symbol, and equal symbols are equal in every step that no call refuses: a view states that two
products are the same. A size of at most 1 counts as 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ...ops.elementwise.binary import BINARY, BITWISE, WITH_ALPHA
from ...ops.elementwise.unary import FLOAT, PLAIN, WITH_SCALAR, WITH_TWO_SCALARS
from ...ops.shapes import normalize_dim
from ...ops.values import SymInt, Tensor
from ..build import Graph, OpCall

# A number; or a symbol: (tensor id, dimension), (tensor id, dimension, index) of an element, or (id of a SymInt,).
Size = int | tuple[int, ...]
Sizes = tuple[Size, ...]
_Ratio = tuple[int, int, list[Size], list[Size]]  # number * symbols / (number * symbols)

FUSED_LINEAR = "et_webgpu.fused_linear.default"
VIEW = "aten.view_copy.default"
COPIES = frozenset(
    {
        "aten.alias_copy.default",
        "aten.clone.default",
        "dim_order_ops._clone_dim_order.default",
        "dim_order_ops._to_dim_order_copy.default",
        "aten._to_copy.default",
    }
)
# Results with the sizes of the first argument.
_LIKE_FIRST = COPIES.union(
    *(FLOAT, PLAIN, WITH_SCALAR, WITH_TWO_SCALARS),
    {
        "aten.bitwise_not.default",
        "aten.clamp.default",
        "aten.gelu.default",
        "aten.hardtanh.default",
        "aten.pow.Tensor_Scalar",
        "aten.relu.default",
        "et_vk.prepack.default",
        "et_vk.rms_norm.default",
        "et_webgpu.rope_sdpa_with_kv_cache.default",
        "llama.sdpa_with_kv_cache.default",
        "sdpa_with_kv_cache.default",
    },
)
_BINARY = frozenset({*BINARY, *BITWISE, *WITH_ALPHA, "aten.div.Tensor_mode", "aten.pow.Tensor_Tensor"})
# Linear layers: [..., K] -> [..., N].
LINEAR = frozenset(
    {
        "aten.linear.default",
        "aten._weight_int8pack_mm.default",
        "et_vk.linear_q4gsw.default",
        "et_webgpu.linear_q4gaw.default",
        "et_webgpu.linear_q8gsw.default",
    }
)
_WIDTH_OF = ("et_vk.rms_norm.default", "aten.linear.default", "aten._weight_int8pack_mm.default")
_SIZE_OF = ("sym_size.int", "aten.sym_size.int")
_ELEMENT = "et_vk.select_as_symint.default"


class Shapes:
    """The sizes of every tensor of one graph.

    ``before``: those of a graph that this one was made of, whose calls may have said more about them.
    """

    def __init__(self, graph: Graph, before: Shapes | None = None) -> None:
        self._sizes: dict[int, Sizes] = {}
        self._symints: dict[int, Size] = {}
        self._equal: dict[Size, Size] = dict(before._equal) if before is not None else {}
        for call in graph.calls:
            for tensor in call.outputs:
                sizes = self._result(call, tensor)
                # What does not fit is refused when the call is planned.
                self._sizes[tensor.id] = sizes if sizes is not None and len(sizes) == tensor.rank else _unknown(tensor)
            if call.name in _SIZE_OF:
                x, dim, out = call.args
                axis = normalize_dim(dim, x.rank)
                if 0 <= axis < x.rank:
                    self._symints[out.id] = self.of(x)[axis]
            elif call.name == _ELEMENT and call.args[0].max_dims == (1,):
                x, _, _, out = call.args
                self._symints[out.id] = (x.id, 0, 0)

    def of(self, tensor: Tensor) -> Sizes:
        """The sizes of a tensor."""
        return tuple(self._resolved(size) for size in self._sizes.get(tensor.id, _unknown(tensor)))

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors have the same sizes in every step."""
        return self.of(a) == self.of(b)

    def value(self, size: int | SymInt) -> Size:
        """What is known of a number that may be live."""
        return self._resolved(self._symints.get(size.id, (size.id,))) if isinstance(size, SymInt) else size

    def _resolved(self, size: Size) -> Size:
        while size in self._equal:
            size = self._equal[size]
        return size

    def _result(self, call: OpCall, out: Tensor) -> Sizes | None:
        """The sizes of a call's output; None where nothing is known of them."""
        first = call.args[0]
        weight = _as_wide_as_rows(call)
        if weight is not None:
            self._learn(_ratio(self.of(first)[-1:], self.of(weight)[-1:]))
        if call.name in _LIKE_FIRST:
            return self.of(first)
        if call.name in LINEAR:
            return (*self.of(first)[:-1], *self.of(call.args[1])[:1])
        if call.name in _BINARY:
            return self._broadcast(first, call.args[1], out)
        rule = _RULES.get(call.name)
        return rule(self, call.args, out) if rule is not None else None

    def _broadcast(self, a: Tensor, b: Tensor, out: Tensor) -> Sizes | None:
        left, right = ((1,) * (out.rank - t.rank) + self.of(t) for t in (a, b))
        if not len(left) == len(right) == out.rank:
            return None
        pairs = zip(left, right, _unknown(out), strict=True)
        return tuple(m if n in (m, 1) else n if m == 1 else unknown for m, n, unknown in pairs)

    def _view(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        x, size, _ = args
        sizes = [self.value(n) for n in size]
        if len(sizes) != out.rank or sizes.count(-1) > 1:
            return None
        ratio = _ratio(self.of(x), [n for n in sizes if n != -1])
        if -1 not in sizes:
            self._learn(ratio)
            return tuple(sizes)
        number, divisor, above, below = ratio
        rest: Size = number if not above else above[0]
        exact = divisor == 1 and not below and (not above or (number == 1 and len(above) == 1))
        return tuple((rest if exact else u) if n == -1 else n for n, u in zip(sizes, _unknown(out), strict=True))

    def _learn(self, ratio: _Ratio) -> None:
        """What one symbol is, if a ratio is 1."""
        number, divisor, above, below = ratio
        if 0 in (number, divisor) or len(above) > 1 or len(below) > 1:
            return
        if above and below:
            if number == divisor:
                self._equal[above[0]] = below[0]
        elif above and divisor % number == 0:
            self._equal[above[0]] = divisor // number
        elif below and number % divisor == 0:
            self._equal[below[0]] = number // divisor

    def _embedding(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        table, indices, *_ = args
        return (*self.of(indices), *self.of(table)[1:])

    def _paired_embedding(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        table, indices = args[0], args[3]
        return (*self.of(indices), *(2 * n for n in table.max_dims[1:]))

    def _packed_embedding(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        return (*self.of(args[3]), *out.max_dims[-1:])

    def _select(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        x, dim, *_ = args
        axis = normalize_dim(dim, x.rank)
        sizes = self.of(x)
        return (*sizes[:axis], *sizes[axis + 1 :]) if 0 <= axis < x.rank else None

    def _squeeze(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        """Of squeeze and unsqueeze: only sizes of 1 come and go."""
        x = args[0]
        kept = [size for size, most in zip(self.of(x), x.max_dims, strict=True) if most != 1]
        if len(kept) != sum(n != 1 for n in out.max_dims):
            return None
        return tuple(1 if n == 1 else kept.pop(0) for n in out.max_dims)

    def _projected(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        """Of a fused linear layer: rows of the matrix that the result belongs to."""
        weights, outs = args[4], args[-1]
        return (*self.of(args[0])[:-1], *self.of(weights[outs.index(out)])[:1])

    def _chained(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        return next((self.of(x) for x in args[0] if any(n != 1 for n in x.max_dims)), None)

    def _rotated(self, args: Sequence[Any], out: Tensor) -> Sizes | None:
        xq, xk, *_, outs = args
        return self.of(xq if out is outs[0] else xk)


_RULES: dict[str, Callable[[Shapes, Sequence[Any], Tensor], Sizes | None]] = {
    VIEW: Shapes._view,
    "aten.select_copy.int": Shapes._select,
    "aten.squeeze_copy.default": Shapes._squeeze,
    "aten.squeeze_copy.dim": Shapes._squeeze,
    "aten.squeeze_copy.dims": Shapes._squeeze,
    "aten.unsqueeze_copy.default": Shapes._squeeze,
    "aten.embedding.default": Shapes._embedding,
    "et_webgpu.embedding_q8gsw.default": Shapes._packed_embedding,
    "et_webgpu.embedding_q4gaw.default": Shapes._packed_embedding,
    "et_vk.embedding_q4gsw.default": Shapes._paired_embedding,
    "et_vk.apply_rotary_emb.default": Shapes._rotated,
    "et_vk.apply_rotary_emb_hf.default": Shapes._rotated,
    "et_webgpu.elementwise_chain.default": Shapes._chained,
    FUSED_LINEAR: Shapes._projected,
}


def _as_wide_as_rows(call: OpCall) -> Tensor | None:
    """The weight, if any, of a layer that refuses rows of any other width than that weight's."""
    if call.name == FUSED_LINEAR:
        norm, form, weights = call.args[1], call.args[3], call.args[4]
        return norm if norm is not None else weights[0] if form in ("f32", "q8csw") else None
    return call.args[1] if call.name in _WIDTH_OF else None


def _unknown(tensor: Tensor) -> Sizes:
    """A symbol for every size that may change, as far as the tensor alone tells."""
    if tensor.constant is not None:
        return tensor.max_dims
    return tuple(1 if n == 1 else (tensor.id, axis) for axis, n in enumerate(tensor.max_dims))


def _ratio(above: Sequence[Size], below: Sequence[Size]) -> _Ratio:
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

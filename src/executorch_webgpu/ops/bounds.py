"""How bounds of integers follow through operators, by the name that all overloads of an operator share.

An operator that is not here may give any integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

Range = tuple[int, int]
Rule = Callable[..., Range]  # called with how many elements the first operand and the result have, and operands' bounds

# Results that are elements of the operands.
MOVES = frozenset(
    [
        "view_copy",
        "rot90",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "native_channel_shuffle",
        "diagonal_scatter",
        "as_strided_scatter",
        "take_along_dim",
        "split",
        "unbind",
        "et_view",
        "clone",
        "alias_copy",
        "lift_fresh_copy",
        "detach_copy",
        "expand_copy",
        "permute_copy",
        "transpose_copy",
        "t_copy",
        "squeeze_copy",
        "unsqueeze_copy",
        "select_copy",
        "slice_copy",
        "split_copy",
        "split_with_sizes_copy",
        "unbind_copy",
        "cat",
        "stack",
        "repeat",
        "flip",
        "roll",
        "gather",
        "index",
        "index_select",
        "index_put",
        "index_copy",
        "index_fill",
        "scatter",
        "slice_scatter",
        "select_scatter",
        "masked_fill",
        "masked_scatter",
        "where",
        "maximum",
        "minimum",
        "amax",
        "amin",
        "aminmax",
        "kthvalue",
        "nanmedian",
        "msort",
        "max",
        "min",
        "clamp",
        "copy",
        "copy_",
        "unfold_copy",
        "diagonal_copy",
        "as_strided_copy",
        "tril",
        "triu",
        "constant_pad_nd",
        "sort",
        "topk",
        "full",
        "full_like",
        "fill",
        "scalar_tensor",
        "_to_copy",
        "_to_dim_order_copy",
        "_clone_dim_order",
        "relu",
        "take",
        "embedding",
        "median",
        "mode",
        "cummax",
        "cummin",
        "unsafe_index",
        "repeat_interleave",
        "reflection_pad1d",
        "reflection_pad2d",
        "reflection_pad3d",
        "replication_pad1d",
        "replication_pad2d",
        "replication_pad3d",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "native_channel_shuffle",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "narrow_copy",
    ]
)

# Results with the operands' bits.
BITWISE = frozenset({"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "logical_not"})

# Results that are positions along the first operand's dimensions, in whichever output holds no operand's elements.
POSITIONS = frozenset(
    [
        "argmax",
        "argmin",
        "max",
        "min",
        "sort",
        "argsort",
        "topk",
        "median",
        "nanmedian",
        "kthvalue",
        "mode",
        "cummax",
        "cummin",
        "max_pool1d_with_indices",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
    ]
)


# Results that count, or are positions among, elements of some operand.
COUNTS = frozenset(
    {"count_nonzero", "bucketize", "searchsorted", "_embedding_bag", "_embedding_bag_forward_only", "nonzero"}
)
# What chooses zero points, which are among the codes: those of int8, or between the bounds that it is given.
ZERO_POINTS = frozenset(
    {
        *("choose_qparams", "choose_qparams_symmetric", "choose_qparams_per_token"),
        *("choose_qparams_per_token_asymmetric", "_choose_qparams_per_token_asymmetric_impl"),
    }
)
# What adds or multiplies elements if it is told so.
SUMS_IF_ASKED = frozenset({"index_put", "index_put_", "_unsafe_index_put", "scatter", "put"})
# What takes positions after its first operand.
INDEXED = frozenset(
    (
        *("embedding", "gather", "index", "_unsafe_index", "index_select", "index_put", "index_put_", "index_copy"),
        *("index_add", "index_fill", "scatter", "scatter_add", "scatter_reduce", "take", "take_along_dim"),
        *("update_cache_with_indices",),
        *("_embedding_bag", "_embedding_bag_forward_only"),
    )
)


def joined(ranges: Sequence[Range | None]) -> Range | None:
    """Bounds of what is in any of these; those that are not known do not count."""
    known = [r for r in ranges if r is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _corners(fn: Callable[[int, int], int], a: Range, b: Range) -> Range:
    found = [fn(x, y) for x, y in product(a, b)]
    return (min(found), max(found))


def _sum(count: int, results: int, x: Range, *rest: Range) -> Range:
    return (min(x[0] * count, 0), max(x[1] * count, 0))


def _scaled(a: Range, b: Range, sign: int, alpha: Range = (1, 1)) -> Range:
    scaled = _corners(lambda x, y: sign * x * y, b, alpha)
    return (a[0] + scaled[0], a[1] + scaled[1])


def _arange(count: int, results: int, *given: Range) -> Range:
    """From the start on, by steps, as many as there are results."""
    start, step = (given[0], given[2]) if len(given) > 2 else (given[0], (1, 1)) if len(given) > 1 else ((0, 0), (1, 1))
    ends = _corners(lambda x, y: x + y * max(results - 1, 0), start, step)
    return (min(start[0], ends[0]), max(start[1], ends[1]))


def _quotient(count: int, results: int, a: Range, b: Range) -> Range:
    """No larger than what is divided; the one quotient of int32 that is, -2^31 / -1, is left out."""
    largest = min(max(map(abs, a)), 2**31 - 1)
    return (-largest, largest)


def _remainder(count: int, results: int, a: Range, b: Range) -> Range:
    """Less than the divisor."""
    largest = max(max(map(abs, b)) - 1, 0)
    return (-largest, largest)


def _made(count: int, results: int, *rest: Range) -> Range:
    return (0, 1)


ARITHMETIC: dict[str, Rule] = {
    "add": lambda n, m, a, b, *alpha: _scaled(a, b, 1, *alpha),
    "sub": lambda n, m, a, b, *alpha: _scaled(a, b, -1, *alpha),
    "rsub": lambda n, m, a, b, *alpha: _scaled(b, a, -1, *alpha),
    "mul": lambda n, m, a, b: _corners(lambda x, y: x * y, a, b),
    "neg": lambda n, m, a: (-a[1], -a[0]),
    "abs": lambda n, m, a: (0, max(abs(a[0]), abs(a[1]))),
    "sign": lambda n, m, a: (-1, 1),
    "sum": _sum,
    "cumsum": _sum,
    "arange": _arange,
    "div": _quotient,
    "floor_divide": _quotient,
    "remainder": _remainder,
    "fmod": _remainder,
    "zeros": _made,
    "zeros_like": _made,
    "ones": _made,
    "ones_like": _made,
    "empty": _made,
}

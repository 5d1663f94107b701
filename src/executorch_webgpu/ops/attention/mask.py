"""Additive attention masks: what is accepted, and where their elements lie."""

from __future__ import annotations

from ...errors import InvalidInputError
from ..plan import Planner
from ..values import IntLike, Tensor

Strides = tuple[int, int, int, int]


def check_mask(planner: Planner, name: str, mask: Tensor, dims: tuple[int, ...]) -> None:
    """Refuse a mask that is no float32 or cannot be broadcast from the right to ``dims``."""
    planner.check(mask.dtype == "float32", f"{name} adds its mask to the scores, so it must be float32, not {mask}")
    pairs = zip(mask.dims[::-1], dims[::-1], strict=False)
    fits = mask.rank <= len(dims) and all(n in (1, wanted) for n, wanted in pairs)
    planner.check(fits, f"{name}: the mask {mask} cannot be broadcast to {list(dims)}")


def check_context_mask(planner: Planner, name: str, mask: Tensor, q: Tensor, input_pos: IntLike) -> None:
    """The same for [1, Hq, S, context]; there may be columns past the context."""
    columns = mask.dims[-1] if mask.rank else 1
    check_mask(planner, name, mask, (1, q.dims[2], q.dims[1], columns))

    length = q.dims[1]  # a number, so that all layers watch the same function

    def covers(position: int) -> bool:
        if 1 < columns < position + length:
            raise InvalidInputError(
                f"{name}: the mask {mask} has fewer columns than the context, {position} + {length}"
            )
        return True

    planner.derive(covers, input_pos)


def mask_strides(mask: Tensor | None) -> Strides:
    """Elements between batches, heads, tokens and columns; 0 where the mask is broadcast."""
    if mask is None:
        return (0, 0, 0, 0)
    dims = (1,) * (4 - mask.rank) + mask.dims
    steps = (dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1)
    batch, head, token, column = (step if n > 1 else 0 for n, step in zip(dims, steps, strict=True))
    return batch, head, token, column

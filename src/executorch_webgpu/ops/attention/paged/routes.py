"""How the rows of a step are attended with, by what the host knows of where they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....errors import InvalidInputError
from ...plan import Planner
from ...values import Scratch, Tensor
from ..cache_update.plan import update_caches
from ..call import AttentionCall
from ..paging import Paging
from ..rotate_and_store import plan as rotate_and_store
from . import tokens
from .tokens import Splits, TokenKernel, Tokens

Array = np.ndarray


@dataclass(frozen=True)
class Shape:
    """What a plan depends on. ``alone``: every row is of a sequence of its own."""

    alone: bool
    splits: Splits


def attend(planner: Planner, name: str, call: AttentionCall, paging: Paging) -> None:
    """Rotate q and k, if the call has a rotation, write the rows to their pages, and attend.

    One dispatch does all of that where no two rows are of one sequence, on devices whose subgroups have one size.
    """
    kernels = {
        "flash_decode_subgroups": tokens.subgroups_kernel(planner, call, paging),
        "flash_decode": tokens.plain_kernel(planner, call),
    }
    order = sorted(kernels, reverse=planner.features.cpu, key=list(kernels).index)
    planner.check(
        any(kernels.values()), f"{name}: heads of {call.head_dim} elements need more workgroup memory than there is"
    )
    route = planner.choose("paged_sdpa", {each: kernels[each] is not None for each in order})
    kernel, rotating = kernels[route], None
    assert kernel is not None, "it is the route of a kernel that there is"
    if call.rotation is not None and route == "flash_decode_subgroups":
        rotating = tokens.subgroups_kernel(planner, call, paging, call.rotation)
    for each in (kernel, rotating):
        if each is not None:
            tokens.prepare(planner, call, each, listed=False)
    if call.rotation is not None:
        rotate_and_store.prepare(planner, call, paging)
    _check_pages(planner, name, paging, call.k_cache.dims[0])
    shape = _shape(planner, name, call, paging, kernel)
    every = Tokens(paging.places, call.length, listed=False)
    if rotating is not None and shape.alone:
        tokens.run(planner, call, paging, rotating, every, shape.splits, call.q)
        return
    q: Tensor | Scratch = call.q
    if call.rotation is not None:
        q = rotate_and_store.rotate(planner, call, paging)
    else:
        update_caches(planner, [(call.k, call.k_cache), (call.v, call.v_cache)], None, paging)
    tokens.run(planner, call, paging, kernel, every, shape.splits, q)


def _shape(planner: Planner, name: str, call: AttentionCall, paging: Paging, kernel: TokenKernel) -> Shape:
    """The shape of this step; places that are not there are refused."""
    sequences, capacity, length = paging.block_tables.dims[0], paging.capacity, call.length
    angles = capacity if call.rotation is None else min(capacity, call.rotation.cos.dims[0])

    def found(places: Array | None) -> Shape:
        if places is None or not places.size:
            return Shape(False, kernel.splits(call, capacity, capacity * max(1, length)))
        low, high = places.min(axis=0), places.max(axis=0)
        if low.min() < 0 or high[0] >= angles or high[1] >= sequences:
            raise InvalidInputError(
                f"{name}: places go from {low.tolist()} to {high.tolist()}, but there are "
                f"{sequences} sequences of up to {angles} rows"
            )
        contexts = places[:, 0] + 1
        alone = bool(np.bincount(places[:, 1]).max() == 1)
        longest, total = tokens.rounded(int(contexts.max()), int(contexts.sum()), len(contexts))
        return Shape(alone, kernel.splits(call, min(longest, capacity), min(total, capacity * len(contexts))))

    # Layers with the same heads, pools and kernel find the same shape.
    sizes = (call.q.dims, call.k_cache.dims, angles, paging.block_tables.dims)
    key = (name, sizes, kernel.name, kernel.rows, kernel.step, kernel.max_chunk)
    shape: Shape = planner.inspect(paging.places, found, key)
    return shape


def _check_pages(planner: Planner, name: str, paging: Paging, pages: int) -> None:
    def known(tables: Array | None) -> bool:
        if tables is not None and tables.size and not 0 <= int(tables.min()) <= int(tables.max()) < pages:
            bad = tables[(tables < 0) | (tables >= pages)][0]
            raise InvalidInputError(f"{name}: the pool has {pages} pages, 0 to {pages - 1}, not {bad}")
        return True

    planner.inspect(paging.block_tables, known, (name, pages))

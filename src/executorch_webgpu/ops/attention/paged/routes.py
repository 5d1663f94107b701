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
from ..spans import plan as span_lists
from ..spans.plan import Cut
from . import spans, tokens
from .spans import SpanKernel
from .tokens import Splits, TokenKernel, Tokens

Array = np.ndarray


@dataclass(frozen=True)
class Kernels:
    """What a call may dispatch: for single rows, the same with its rotation, and for spans of rows."""

    single: TokenKernel | None
    rotating: TokenKernel | None
    span: SpanKernel | None

    @property
    def cut(self) -> Cut | None:
        """What spans are; of all rows if no kernel takes single ones."""
        if self.span is None:
            return None
        return self.span.cut if self.single is not None else Cut(self.span.rows, 1)


@dataclass(frozen=True)
class Shape:
    """What a plan depends on: how many rows are ``single`` ones, and in how many ``spans`` the others are, rounded up.

    ``splits``: of the single rows' contexts. ``alone``: every row is of a sequence of its own.
    """

    alone: bool
    single: int
    spans: int
    splits: Splits


def attend(planner: Planner, name: str, call: AttentionCall, paging: Paging) -> None:
    """Rotate q and k, if the call has a rotation, write the rows to their pages, and attend.

    One dispatch does all of that where no two rows are of one sequence, on devices whose subgroups have one size.
    """
    kernels = _kernels(planner, name, call, paging)
    _prepare(planner, call, paging, kernels)
    _check_pages(planner, name, paging, call.k_cache.dims[0])
    shape = _shape(planner, name, call, paging, kernels)
    found = None if kernels.cut is None else span_lists.new_list(planner, paging.places)
    if kernels.rotating is not None and shape.alone:
        every = Tokens(paging.places, call.length, listed=False)
        tokens.run(planner, call, paging, kernels.rotating, every, shape.splits, call.q)
        return
    q: Tensor | Scratch = call.q
    if call.rotation is not None:
        q = rotate_and_store.rotate(planner, call, paging)
    else:
        update_caches(planner, [(call.k, call.k_cache), (call.v, call.v_cache)], None, paging)
    single = Tokens(paging.places, shape.single, listed=False)
    if shape.spans and kernels.span is not None and kernels.cut is not None and found is not None:
        span_lists.find(planner, paging.places, kernels.cut, found)
        spans.run(planner, call, paging, kernels.span, found, shape.spans, q)
        single = Tokens(found.entries, shape.single, listed=True)
    if shape.single and kernels.single is not None:
        tokens.run(planner, call, paging, kernels.single, single, shape.splits, q)


def _kernels(planner: Planner, name: str, call: AttentionCall, paging: Paging) -> Kernels:
    of_tokens = {
        "flash_decode_subgroups": tokens.subgroups_kernel(planner, call, paging),
        "flash_decode": tokens.plain_kernel(planner, call),
    }
    of_spans = dict(spans.kernels(planner, call))
    planner.check(
        any(of_tokens.values()) or bool(of_spans),
        f"{name}: heads of {call.head_dim} elements need more workgroup memory or storage buffers than there are",
    )
    span = None
    if of_spans:
        rounded = planner.rounds  # then the kernel that rounds comes before the one that does not
        order = sorted(of_spans, key=lambda route: (route == "flash", (route == "flash_matrix") == rounded))
        span = of_spans[planner.choose("paged_sdpa_spans", dict.fromkeys(order, True))]
    single, rotating = None, None
    if any(of_tokens.values()):
        order = sorted(of_tokens, reverse=planner.features.cpu, key=list(of_tokens).index)
        route = planner.choose("paged_sdpa", {each: of_tokens[each] is not None for each in order})
        single = of_tokens[route]
        if call.rotation is not None and route == "flash_decode_subgroups":
            rotating = tokens.subgroups_kernel(planner, call, paging, call.rotation)
    return Kernels(single, rotating, span)


def _prepare(planner: Planner, call: AttentionCall, paging: Paging, kernels: Kernels) -> None:
    for kernel in (kernels.single, kernels.rotating):
        if kernel is not None:
            tokens.prepare(planner, call, kernel, listed=False)
    if call.rotation is not None:
        rotate_and_store.prepare(planner, call, paging)
    if kernels.span is not None:
        span_lists.prepare(planner, paging.places)
        planner.prepare(kernels.span.name, template=kernels.span.template)
        if kernels.single is not None:
            tokens.prepare(planner, call, kernels.single, listed=True)


def _shape(planner: Planner, name: str, call: AttentionCall, paging: Paging, kernels: Kernels) -> Shape:
    """The shape of this step; places that are not there are refused."""
    sequences, capacity, length, cut = paging.block_tables.dims[0], paging.capacity, call.length, kernels.cut
    angles = capacity if call.rotation is None else min(capacity, call.rotation.cos.dims[0])
    kernel = kernels.single

    def splits(contexts: Array) -> Splits:
        if kernel is None or not contexts.size:
            return Splits(1, 1)
        longest, total = tokens.rounded(int(contexts.max()), int(contexts.sum()), len(contexts))
        return kernel.splits(call, min(longest, capacity), min(total, capacity * len(contexts)))

    def found(places: Array | None) -> Shape:
        if places is None or not places.size:
            single = 0 if kernel is None else length
            return Shape(False, single, length - single, splits(np.full(max(1, length), capacity)))
        low, high = places.min(axis=0), places.max(axis=0)
        if low.min() < 0 or high[0] >= angles or high[1] >= sequences:
            raise InvalidInputError(
                f"{name}: places go from {low.tolist()} to {high.tolist()}, but there are "
                f"{sequences} sequences of up to {angles} rows"
            )
        contexts = places[:, 0] + 1
        if np.bincount(places[:, 1]).max() == 1 and kernel is not None:
            return Shape(True, length, 0, splits(contexts))
        alone, count = (contexts > 0, 0) if cut is None else span_lists.counts(places, cut)
        if not count:
            return Shape(False, length, 0, splits(contexts))
        return Shape(False, min(length, _rounded(int(alone.sum()))), _rounded(count), splits(contexts[alone]))

    # Layers with the same heads, pools and kernels find the same shape.
    sizes = (call.q.dims, call.k_cache.dims, angles, paging.block_tables.dims)
    key = (name, sizes, cut, kernel and (kernel.name, kernel.rows, kernel.step, kernel.max_chunk))
    shape: Shape = planner.inspect(paging.places, found, key)
    return shape


def _rounded(count: int) -> int:
    """Workgroups that are planned for so many, so that a step with a few more or less has the same plan."""
    step = max(8, (1 << count.bit_length()) // 8)
    return -(-count // step) * step


def _check_pages(planner: Planner, name: str, paging: Paging, pages: int) -> None:
    def known(tables: Array | None) -> bool:
        if tables is not None and tables.size and not 0 <= int(tables.min()) <= int(tables.max()) < pages:
            bad = tables[(tables < 0) | (tables >= pages)][0]
            raise InvalidInputError(f"{name}: the pool has {pages} pages, 0 to {pages - 1}, not {bad}")
        return True

    planner.inspect(paging.block_tables, known, (name, pages))

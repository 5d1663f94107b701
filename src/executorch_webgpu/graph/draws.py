"""Tokens of many rows drawn on the device, and fed to the step after without the host.

``RowSampler`` is a small graph of one call, ``sample_rows``, that follows a model's dispatches in the same pass and
submission. ``with_fed_tokens`` lets a model's graph take the tokens that it left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidInputError
from ..gpu.buffers import Buffer, create
from ..gpu.device import Device
from ..ops.plan import SCRATCH_BYTES, Planning
from ..ops.sampling.draws import (
    CHANGE_WORDS,
    DRAW_WORDS,
    MOST_LIKELIEST,
    POSITION,
    Draw,
    PackedDraws,
    packed,
    packed_masks,
)
from ..ops.shapes import ceil_div
from ..ops.values import INT32_MAX, Tensor
from .build import Graph, OpCall, make_call
from .casts import cast_call
from .constants import ConstantPool
from .device_array import DeviceTokens
from .execute import GraphExecutor
from .fusion.dataflow import new_ids, with_calls
from .step import Step

SAMPLE_ROWS, FEED_TOKENS = "et_webgpu.sample_rows.default", "et_webgpu.feed_tokens.default"
_LOGITS, _DRAWS, _CHANGES, _MASKS, _TOKENS, _LOGPROBS, _LIKELIEST = range(7)  # ids in the sampler's graph
_FIRST_CHANGES = 1024  # that there is room for at first
_CHANGE_BYTES = 4 * CHANGE_WORDS


def with_fed_tokens(graph: Graph, tokens: Tensor, rows: int, vocab: int) -> Graph:
    """``graph`` in which -1 - i in its input ``tokens`` means the i-th of ``rows`` tokens that were drawn before.

    These are a further input, the last one, int32 [rows]. Whatever reads the tokens reads what they are then; the host
    does not know them any more. ``vocab``: of the head, unless a table that the tokens are looked up in has fewer rows.
    """
    ids = new_ids(graph)
    given, drawn = Tensor(next(ids), "int32", tokens.max_dims), Tensor(next(ids), "int32", (rows,))
    least = min([vocab, *_table_rows(graph, tokens)])
    call = make_call(FEED_TOKENS, (given, drawn, least, tokens))
    inputs = (*(given if value.id == tokens.id else value for value in graph.inputs), drawn)
    return replace(with_calls(graph, [call, *graph.calls]), inputs=inputs)


def with_float_logits(graph: Graph) -> Graph:
    """``graph`` whose one output is float32; as it is, if it is so already."""
    (logits,) = graph.outputs
    assert isinstance(logits, Tensor)
    if logits.dtype == "float32":
        return graph
    wide = Tensor(next(new_ids(graph)), "float32", logits.max_dims)
    return replace(with_calls(graph, [*graph.calls, cast_call(logits, wide)]), outputs=(wide,))


def _table_rows(graph: Graph, tokens: Tensor) -> list[int]:
    """The numbers of rows of the tables in which tokens are looked up, also through views of them."""
    same, found = {tokens.id}, []
    for call in graph.calls:
        if call.op.view and call.inputs and call.inputs[0].id in same:
            same |= {out.id for out in call.outputs}
        elif call.op.table is not None and call.named[call.op.table.indices].id in same:
            name, axis = next(iter(call.op.table.rows.items()))
            found.append(call.named[name].max_dims[axis])
    return found


class RowSampler:
    """Draws tokens of the first rows of ``logits`` [..., V], at most ``rows``, which lie in ``buffer``.

    Owns ``tokens`` int32 [rows], those drawn last, and ``logprobs`` float32 [rows, 21] and ``likeliest`` int32
    [rows, 20], as ``sample_rows`` leaves them. It changes the logits. The caller holds the device's lock in each call.
    """

    def __init__(
        self, device: Device, logits: Tensor, buffer: Buffer, rows: int, scratch_bytes: int = SCRATCH_BYTES
    ) -> None:
        self.vocab = logits.max_dims[-1]
        self.tokens = DeviceTokens(device, (rows,), self.vocab)
        self._device, self._logits, self._scratch_bytes = device, logits, scratch_bytes
        self._executor: GraphExecutor | None = None
        self._buffers = {_LOGITS: buffer, _TOKENS: self.tokens.buffer}
        self._before: tuple[list[Any], PackedDraws] = [], packed((), self.vocab)
        try:
            for id, width in ((_LOGPROBS, 1 + MOST_LIKELIEST), (_LIKELIEST, MOST_LIKELIEST)):
                self._buffers[id] = create(device, 4 * rows * width, "log probabilities")
            self._make(_FIRST_CHANGES)
        except BaseException:
            self.close()
            raise

    @property
    def logprobs(self) -> Buffer:
        """Log probabilities of the drawn tokens and of the likeliest ones."""
        return self._buffers[_LOGPROBS]

    @property
    def likeliest(self) -> Buffer:
        """The likeliest tokens."""
        return self._buffers[_LIKELIEST]

    def begin_step(self, draws: Sequence[Draw]) -> Step:
        """A step that draws one token for each of the first rows; see ``GraphExecutor.begin_step``.

        Raises InvalidInputError for values out of range, for a mask that allows nothing, and for more changes of
        logits than a buffer of the device can hold.
        """
        given = self._packed(draws)
        if (count := len(given.changes)) > self._room:
            if count * _CHANGE_BYTES > (most := self._device.limits.max_binding_bytes):
                raise InvalidInputError(
                    f"a step changes the logits of {count} tokens; the device binds {most // _CHANGE_BYTES} at most"
                )
            self._make(count)
        assert self._executor is not None
        return self._executor.begin_step([given.rows, given.changes, given.masks])

    def _packed(self, draws: Sequence[Draw]) -> PackedDraws:
        """``packed``; of draws that are like those before but for positions and masks, only these are new."""
        how = [
            (d.seed, d.temperature, d.top_k, d.top_p, d.min_p, d.logprobs, d.changes, d.allowed is not None)
            for d in draws
        ]
        positions = [draw.position for draw in draws]
        alike = all(draw.changes is None for draw in draws)
        if not alike or how != self._before[0] or not 0 <= min(positions) <= max(positions) <= INT32_MAX:
            self._before = (how if alike else []), packed(draws, self.vocab)
            return self._before[1]
        before = self._before[1]
        rows = before.rows.copy()
        rows[:, POSITION] = positions
        return replace(before, rows=rows, masks=packed_masks(draws, self.vocab))

    def _make(self, changes: int) -> None:
        """The graph with room for so many changes of logits, in place of one with less."""
        if self._executor is not None:
            self._executor.close()
        self._room = changes
        graph = _graph(self._logits, self.tokens.shape[0], changes)
        features, limits = self._device.features, self._device.limits
        planning = Planning(features, limits, scratch_bytes=self._scratch_bytes)
        pool = ConstantPool(self._device, lambda view: None)
        self._executor = GraphExecutor(graph, pool, planning, borrowed=self._buffers)

    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""
        self.tokens.close()
        if self._executor is not None:
            self._executor.close()
        for id, buffer in self._buffers.items():
            if id != _LOGITS:
                buffer.destroy()


def _graph(logits: Tensor, rows: int, changes: int) -> Graph:
    """draws, changes, masks -> tokens, log probabilities, likeliest. The logits lie in a borrowed buffer."""
    vocab = logits.max_dims[-1]
    x, draws = Tensor(_LOGITS, "float32", logits.max_dims), Tensor(_DRAWS, "int32", (rows, DRAW_WORDS))
    changed = Tensor(_CHANGES, "int32", (changes, CHANGE_WORDS))
    masks = Tensor(_MASKS, "int32", (1 << (rows - 1).bit_length(), ceil_div(vocab, 32)))
    tokens, logprobs = Tensor(_TOKENS, "int32", (rows,)), Tensor(_LOGPROBS, "float32", (rows, 1 + MOST_LIKELIEST))
    likeliest = Tensor(_LIKELIEST, "int32", (rows, MOST_LIKELIEST))
    outputs = (tokens, logprobs, likeliest)
    call: OpCall = make_call(SAMPLE_ROWS, (x, draws, changed, masks, list(outputs)))
    return Graph((call,), (draws, changed, masks), outputs, (), {})

"""Tokens drawn on the device, from logits where they lie.

A small graph of one call, ``sample_token``, follows the model's dispatches in the same pass and submission. It leaves
the token where the model's next step takes it from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace

import numpy as np

from ..gpu.buffers import Buffer, create, upload
from ..gpu.device import Device
from ..ops.plan import Planning
from ..ops.registry import find
from ..ops.sampling.reference import bits_of
from ..ops.sampling.single import PIPELINES, signed_halves
from ..ops.shapes import ceil_div
from ..ops.values import SymInt, Tensor
from .build import Constant, Graph, OpCall
from .constants import ConstantPool
from .device_array import DeviceTokens
from .execute import GraphExecutor
from .step import Step

SAMPLE = "et_webgpu.sample_token.default"
_LOGITS, _ROW, _POSITION, _SEED_LOW, _SEED_HIGH, _TOKEN, _SEEN = range(7)  # ids in the sampler's graph


@dataclass(frozen=True)
class SamplerConfig:
    """How tokens are drawn; see ``ops.sampling``, whose arguments these are, in order. ``seed``: 64 bits."""

    seed: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @property
    def seedless(self) -> SamplerConfig:
        """What a sampler is made for: any seed will do."""
        return replace(self, seed=0)


class Sampler:
    """Draws a token of a row of ``logits`` [..., V], which lie in ``buffer``. Owns ``token``, the one drawn last.

    The caller holds the device's lock in each call.
    """

    def __init__(self, device: Device, logits: Tensor, buffer: Buffer, config: SamplerConfig) -> None:
        self.use_seed(config.seed)
        self._device = device
        self._vocab = logits.max_dims[-1]
        self._executor: GraphExecutor | None = None
        self._seen: Buffer | None = None  # the tokens that the text has, if that matters
        self.token = DeviceTokens(device, (1, 1), self._vocab)
        try:
            borrowed = {_LOGITS: buffer, _TOKEN: self.token.buffer}
            if config.repetition_penalty != 1:
                self._seen = create(device, 4 * ceil_div(self._vocab, 32), "the set of tokens in the text")
                borrowed[_SEEN] = self._seen
            planning = Planning(device.features, device.limits)
            constants = ConstantPool(device, lambda view: None)
            self._executor = GraphExecutor(_graph(logits, config), constants, planning, borrowed=borrowed)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def prepare(device: Device) -> None:
        """Make all pipelines, so that no step has to."""
        for kernel, template, overrides in PIPELINES:
            device.kernels.pipeline(kernel, template, overrides)

    def use_seed(self, seed: int) -> None:
        """Draw the tokens of another seed from the next step on."""
        self._seed = signed_halves(seed)

    def begin(self, text: Iterable[int]) -> None:
        """Exactly these tokens have occurred before the next one that is drawn; each that is drawn from now on joins.

        Whatever is in flight comes before this, so what it draws is forgotten.
        """
        if self._seen is not None:
            seen = np.zeros(self._vocab, np.bool_)
            seen[list(text)] = True
            upload(self._device, self._seen, bits_of(seen))

    def begin_step(self, row: int, position: int) -> Step:
        """A step that draws the token for ``position`` from one row of the logits; see ``GraphExecutor.begin_step``."""
        assert self._executor is not None
        return self._executor.begin_step([row, position, *self._seed])

    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""
        self.token.close()
        if self._executor is not None:
            self._executor.close()
        if self._seen is not None:
            self._seen.destroy()


def _graph(logits: Tensor, config: SamplerConfig) -> Graph:
    """row, position, halves of a seed -> token. The logits are no input of it: they lie in a borrowed buffer."""
    op = find(SAMPLE)
    assert op is not None
    x = Tensor(_LOGITS, "float32", logits.max_dims)
    live = tuple(SymInt(id) for id in (_ROW, _POSITION, _SEED_LOW, _SEED_HIGH))
    token = Tensor(_TOKEN, "int32", (1,))
    bits = (ceil_div(logits.max_dims[-1], 32),)
    seen = None if config.repetition_penalty == 1 else Tensor(_SEEN, "int32", bits, constant=_SEEN)
    kept = () if seen is None else (seen,)
    _, *how = astuple(config)
    args = (x, *live, *how, seen, token)
    call = OpCall(0, SAMPLE, op, args, inputs=(x, *kept), outputs=(token,), mutated=kept)
    return Graph((call,), live, (token,), live, {t.id: Constant.zeros(t) for t in kept})

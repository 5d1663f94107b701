"""One attention call as its routes see it."""

from __future__ import annotations

from dataclasses import dataclass

from ..plan import Planner
from ..shapes import ceil_div
from ..values import IntLike, Scratch, Tensor

CONTEXT_STEP = 256  # tokens; grids are sized for a context length that is a multiple of this
TILE_COLUMNS = 8  # columns of the scores that one invocation computes


@dataclass(frozen=True)
class Rotation:
    """Rotary embedding of q and k, from row ``start_pos`` of the tables on; ``turned`` becomes the rotated q."""

    cos: Tensor  # [rows, D/2], with halves [rows, 2 * half]
    sin: Tensor
    start_pos: IntLike
    halves: bool  # element i goes with i + half, not with its neighbour
    half: int  # pairs in a head
    turned: Tensor  # like q

    @property
    def kind(self) -> str:
        return "halves" if self.halves else "pairs"


@dataclass(frozen=True)
class AttentionCall:
    """Checked arguments. The caches hold this step's rows already when a route runs, unless there is a ``rotation``.

    ``context`` is the live context length rounded up by ``round_context`` (at most the capacity): good for grids and
    strides, while the kernels take the exact length from ``input_pos``.
    """

    q: Tensor  # [1, S, Hq, D]
    k: Tensor  # [1, S, Hkv, D]
    v: Tensor
    k_cache: Tensor  # [1, Cmax, Hkv, D]: float32, float16, or int8
    v_cache: Tensor
    input_pos: IntLike
    scale: float
    out: Tensor  # [1, S, Hq, D]
    context: int
    mask: Tensor | None = None  # float32, added to the scaled scores: broadcast to [1, Hq, S, context]
    causal: bool = True
    rotation: Rotation | None = None  # q and k come without it, and the route writes the caches

    @property
    def length(self) -> int:
        """S, the number of new tokens."""
        return self.q.dims[1]

    @property
    def k_scales(self) -> Tensor | None:
        """Of an int8 cache float32 [1, Cmax, Hkv], where value = code * scale; None of others."""
        return self.k_cache.scales

    @property
    def v_scales(self) -> Tensor | None:
        return self.v_cache.scales

    @property
    def scales(self) -> dict[str, Tensor]:
        """Bindings of both, if the caches have them."""
        scales = {"k_scales": self.k_scales, "v_scales": self.v_scales}
        return {name: tensor for name, tensor in scales.items() if tensor is not None}

    @property
    def kv_heads(self) -> int:
        return self.k_cache.dims[2]

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.q.dims[2] // self.k_cache.dims[2]

    @property
    def head_dim(self) -> int:
        return self.q.dims[3]

    @property
    def vectors(self) -> int:
        """vec4s in a head."""
        return self.q.dims[3] // 4

    @property
    def capacity(self) -> int:
        return self.k_cache.dims[1]


def round_context(length: int) -> int:
    """A context length that a plan is made for: steps of ``CONTEXT_STEP``, longer ones past eight of them.

    Steps are at least an eighth of the length, so decode is planned again a few times each time the context doubles.
    """
    step = max(CONTEXT_STEP, (1 << length.bit_length()) // 8)
    return ceil_div(length, step) * step


def scores_bytes(call: AttentionCall, tokens: int, columns: int) -> int:
    """Bytes of float32 scores for ``tokens`` query rows of every head; rows are padded to a kernel's tile."""
    return 4 * call.q.dims[2] * tokens * ceil_div(columns, TILE_COLUMNS) * TILE_COLUMNS


def scores_scratch(g: Planner, call: AttentionCall) -> Scratch:
    """The scores' buffer: as much as any step of this program can need, but at most ``g.scratch_bytes``."""
    return g.scratch(min(g.scratch_bytes, scores_bytes(call, call.q.max_dims[1], call.capacity)))

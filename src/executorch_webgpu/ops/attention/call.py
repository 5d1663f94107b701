"""One attention call as its routes see it."""

from __future__ import annotations

from dataclasses import dataclass

from ..plan import Binding
from ..shapes import ceil_div
from ..values import IntLike, Scratch, Tensor

CONTEXT_STEP = 256  # tokens; grids are sized for a context length that is a multiple of this


@dataclass(frozen=True)
class Rotation:
    """Rotary embedding of q and k, from row ``start_pos`` of the tables on; ``rotated_q`` becomes the rotated q.

    Without a ``start_pos`` each token takes the row of its own position.
    """

    cos: Tensor  # [rows, D/2], with halves [rows, 2 * half]
    sin: Tensor
    start_pos: IntLike | None
    kind: str  # "halves": element i goes with i + half; "pairs": with its neighbour
    half: int  # pairs in a head
    rotated_q: Tensor | Scratch  # like q

    @property
    def tables(self) -> dict[str, Binding]:
        """Bindings of what the angles are."""
        start: dict[str, Binding] = {} if self.start_pos is None else {"start_pos": self.start_pos}
        return {"cos_table": self.cos, "sin_table": self.sin, **start}

    @property
    def bindings(self) -> dict[str, Binding]:
        return {**self.tables, "rotated_q": self.rotated_q}


@dataclass(frozen=True)
class AttentionCall:
    """Checked arguments. The caches hold this step's rows already when a route runs, unless there is a ``rotation``.

    ``context`` is the live context length rounded up by ``round_context`` (at most the capacity): good for grids and
    strides, while the kernels take the exact length from ``input_pos``.
    """

    q: Tensor  # [1, S, Hq, D]
    k: Tensor  # [1, S, Hkv, D]; read with a ``rotation`` only
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
    def whole(self) -> bool:
        """Whether all rows of the caches are seen: where a mask has columns for all of them, it says which count."""
        return not self.causal and self.mask is not None and self.mask.dims[-1:] == (self.capacity,)

    @property
    def length(self) -> int:
        """S, the number of new tokens."""
        return self.q.dims[1]

    @property
    def keys(self) -> dict[str, Tensor]:
        """Bindings of the cache of keys, and of its scales if it has any."""
        return cache_bindings("k", self.k_cache)

    @property
    def values(self) -> dict[str, Tensor]:
        return cache_bindings("v", self.v_cache)

    @property
    def caches(self) -> dict[str, Tensor]:
        return self.keys | self.values

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


def cache_bindings(name: str, cache: Tensor) -> dict[str, Tensor]:
    return {f"{name}_cache": cache} | ({f"{name}_scales": cache.scales} if cache.scales is not None else {})


def round_context(length: int) -> int:
    """A context length that a plan is made for: steps of ``CONTEXT_STEP``, longer ones past eight of them.

    Steps are at least an eighth of the length, so decode is planned again a few times each time the context doubles.
    """
    step = max(CONTEXT_STEP, (1 << length.bit_length()) // 8)
    return ceil_div(length, step) * step

"""How a method is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InvalidInputError
from ..graph.fusion import chosen_fusions
from ..graph.kv_cache import check_dtype
from ..graph.lowering.placement import LOWERINGS
from ..ops.plan import MATMUL_PRECISIONS, SCRATCH_BYTES


@dataclass(frozen=True)
class LoadOptions:
    """What ``Program.load_method`` and all that calls it take: an object of this, or its fields by name.

    ``profile`` measures GPU time by operator. ``routes`` forces kernels by operator family, for tests and benchmarks.
    ``scratch_bytes`` bounds the scratch memory of blocked operators.
    ``kv_cache_dtype``: "f32" keeps KV caches as the file states them; "f16" and "int8" (with a float32 scale for each
    row and head) store them in a half and about a quarter of the memory of float32, whatever the file states.
    ``matmul_precision``: "highest" multiplies x by weights nearly as exactly as float32; "high" rounds both to float16
    (11 significant bits, as in TF32) where tensor cores multiply several rows by weights, or two computed matrices
    (mm, bmm, addmm), with errors up to about 1e-3 of the largest output, and queries of attention over float16 or int8
    caches, where scores near 1,000 are then off by up to 0.5, for speed. On GPUs it takes the one row of a decode step
    as whole numbers of 16 bits, each eight by their largest, where large layers of 4-bit weights multiply it. Sums are
    float32 in either.
    ``lower``: "all" runs every operator on the device that has a kernel there, delegated or not, in one graph with the
    delegates; "delegates" leaves to the host, in NumPy, what the exporter did not delegate.
    ``check`` holds every operator call of a step against its float64 reference, one after the other, and raises
    DivergenceError at the first one that differs; slow.
    ``fuse``: whether several operator calls become one where that computes the same, or names of the passes that do
    so, as ``inspect`` lists them.
    Raises InvalidInputError for a name that is none of the choices.
    """

    profile: bool = False
    routes: Mapping[str, str] | None = None
    scratch_bytes: int = SCRATCH_BYTES
    kv_cache_dtype: str = "f32"
    matmul_precision: str = "highest"
    lower: str = "all"
    check: bool = False
    fuse: bool | Iterable[str] = True
    fusions: tuple[str, ...] = field(init=False)  # the passes that ``fuse`` chooses, in their order

    def __post_init__(self) -> None:
        check_dtype(self.kv_cache_dtype)
        if self.matmul_precision not in MATMUL_PRECISIONS:
            raise InvalidInputError(
                f"there is no matmul precision {self.matmul_precision!r}; choose {', '.join(MATMUL_PRECISIONS)}"
            )
        if self.lower not in LOWERINGS:
            raise InvalidInputError(f"there is no lowering {self.lower!r}; choose {' or '.join(LOWERINGS)}")
        object.__setattr__(self, "fusions", chosen_fusions(self.fuse))
        if not isinstance(self.fuse, bool):  # an iterator gives its names once only
            object.__setattr__(self, "fuse", self.fusions)

    @classmethod
    def of(cls, options: LoadOptions | None, changes: Mapping[str, Any]) -> LoadOptions:
        """``options``, by default the defaults, with other values for some fields."""
        return replace(options or cls(), **changes)

"""The routes of ``sdpa_with_kv_cache``, in the order in which they are tried.

Every route reads ``input_pos`` from its live uniform. What a plan fixes is the number of workgroups, for the context
length rounded up, so decode is planned again only once in ``CONTEXT_STEP`` tokens, and less often at long contexts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..plan import Planner
from .call import AttentionCall
from .decode_cpu import plan as decode_cpu
from .flash import plan as flash
from .flash_decode import plan as flash_decode
from .flash_decode_subgroups import plan as flash_decode_subgroups
from .flash_matrix import plan as flash_matrix
from .lanes import plan as lanes
from .large_heads import plan as large_heads
from .rotate_and_store import plan as rotate_and_store


@dataclass(frozen=True)
class Route:
    """One way to compute attention: whether it can run a call, what to compile at load, and how it runs."""

    fits: Callable[[Planner, AttentionCall], bool]
    prepare: Callable[[Planner, AttentionCall], None]
    run: Callable[[Planner, AttentionCall], None]
    any_mask: bool = False  # takes a mask, and calls that are not causal
    rotates: Callable[[Planner, AttentionCall], bool] = lambda planner, call: False  # does the ``rotation`` itself

    def takes(self, call: AttentionCall) -> bool:
        """Whether the route knows what ``call`` is about; ``fits`` then says whether it can run it."""
        return self.any_mask or (call.mask is None and call.causal)


_ROUTES = {
    "flash_decode_subgroups": Route(
        flash_decode_subgroups.fits,
        flash_decode_subgroups.prepare,
        flash_decode_subgroups.run,
        rotates=flash_decode_subgroups.rotates,
    ),
    "flash_decode": Route(flash_decode.fits, flash_decode.prepare, flash_decode.run),
    "lanes": Route(lanes.fits, lanes.prepare, lanes.run),
    "decode_cpu": Route(decode_cpu.fits, decode_cpu.prepare, decode_cpu.run),
    "flash_matrix": Route(
        flash_matrix.fits, partial(flash_matrix.prepare, exact=True), partial(flash_matrix.run, exact=True)
    ),
    "flash_matrix_f16": Route(
        flash_matrix.fits, partial(flash_matrix.prepare, exact=False), partial(flash_matrix.run, exact=False)
    ),
    "flash": Route(flash.fits, flash.prepare, flash.run, any_mask=True),
    "large_heads": Route(large_heads.fits, large_heads.prepare, large_heads.run),
}

# What rounds more than the others, and comes before them where a load allows that.
_ROUNDED = ("flash_matrix_f16",)

# A software adapter has no workgroup memory that is faster than other, and small subgroups that take turns.
_CPU_FIRST = ("lanes", "decode_cpu", "flash_decode")


def attend(planner: Planner, call: AttentionCall) -> None:
    """Dispatch attention by the first route that can run it; the caches hold this step's rows by then.

    With a ``rotation`` they do not: q and k are rotated and the caches written first, unless the route does so itself.
    """
    if planner.building:
        for route in _ROUTES.values():
            if route.takes(call):
                route.prepare(planner, call)
    names = [*_CPU_FIRST, *_ROUTES] if planner.features.cpu else [*_ROUTES]
    if planner.rounds:
        names = [*_ROUNDED, *names]
    routes = {name: _ROUTES[name].takes(call) and _ROUTES[name].fits(planner, call) for name in names}
    if not any(routes.values()):
        q = call.q
        planner.check(
            call.mask is None and call.causal, f"sdpa_with_kv_cache: {q} needs is_causal and no mask above D = 256"
        )
        large_heads.check_scratch(planner, call)
    route = _ROUTES[planner.choose("sdpa_with_kv_cache", routes)]
    if call.rotation is not None and not route.rotates(planner, call):
        call = rotate_and_store.run(planner, call)
    route.run(planner, call)

"""Which kernel computes a convolution.

* ``direct``: an invocation computes a few outputs alone; right for every convolution.
"""

from __future__ import annotations

from ..plan import Planner
from .call import Convolution
from .direct import plan as direct


def convolve(planner: Planner, call: Convolution) -> None:
    """Plans ``call`` by one of the routes."""
    tensors = [t for t in (call.x, call.weight, call.bias, call.out) if t is not None]
    planner.check(all(t.dtype == "float32" for t in tensors), f"convolution takes float32 tensors, not {tensors}")
    if call.out.numel == 0:
        return
    planner.choose("convolution", {"direct": True})
    direct.run(planner, call)

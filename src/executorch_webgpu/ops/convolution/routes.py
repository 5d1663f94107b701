"""Which kernel computes a convolution.

* ``linear``: where the kernel covers the whole image, it is a linear layer;
* ``depthwise``: of groups with one input channel, an invocation computes a few neighbours;
* ``gemm``: a product of matrices, by workgroups that share tiles, with weights that are repacked at load;
* ``direct``: an invocation computes a few outputs alone; right for every convolution, and what adapters that are CPUs
  run best.
"""

from __future__ import annotations

from ..plan import Planner
from . import linear
from .call import Convolution
from .depthwise import plan as depthwise
from .direct import plan as direct
from .gemm import plan as gemm

_GEMM_ROWS = 16  # a tile has 64


def convolve(planner: Planner, call: Convolution) -> None:
    """Plans ``call`` by one of the routes."""
    tensors = [t for t in (call.x, call.weight, call.bias, call.out) if t is not None]
    planner.check(
        {t.dtype for t in tensors} <= {"float32", "float16"} and call.x.dtype == call.out.dtype,
        f"convolution takes float32 or float16 tensors, not {tensors}",
    )
    if call.out.numel == 0:
        return
    can = {
        "linear": linear.fits(call),
        "depthwise": depthwise.fits(planner, call),
        "gemm": gemm.fits(planner, call),
        "direct": True,
    }
    route = planner.choose("convolution", {name: can[name] for name in _order(planner, call)})
    match route:
        case "gemm":
            gemm.prepare(planner, call)
            gemm.run(planner, call)
        case "depthwise":
            depthwise.run(planner, call)
        case "linear":
            linear.run(planner, call)
        case _:
            direct.run(planner, call)


def _order(planner: Planner, call: Convolution) -> list[str]:
    rows = call.group_out * (call.taps if call.window.transposed else 1)
    if planner.features.cpu or rows < _GEMM_ROWS:
        return ["linear", "depthwise", "direct", "gemm"]
    return ["linear", "depthwise", "gemm", "direct"]

"""Which kernel computes a convolution.

* ``linear``: where the kernel covers the whole image, it is a linear layer;
* ``depthwise``: of groups with one input channel, an invocation computes a few neighbours;
* ``matrix``: a product of matrices on tensor cores, of many operations;
* ``matrix_f16``: faster and less exact, chosen where the method was loaded with ``matmul_precision="high"``;
* ``gemm``: a product of matrices in float32, by workgroups that share tiles, and transposed convolutions;
* ``direct``: an invocation computes a few outputs alone; right for every convolution, and what adapters that are CPUs
  run best.

The matrix routes and ``gemm`` read weights that are repacked at load, so they want constants.
"""

from __future__ import annotations

from ..plan import Planner
from . import linear
from .call import Convolution
from .depthwise import plan as depthwise
from .direct import plan as direct
from .gemm import plan as gemm
from .matrix import plan as matrix

_GEMM_ROWS = 16  # a tile has 64
_MATRIX_PARTS = {"matrix": 2, "matrix_f16": 1}  # float16 numbers for each float32


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
        **{name: matrix.fits(planner, call, parts) for name, parts in _MATRIX_PARTS.items()},
        "gemm": gemm.fits(planner, call),
        "direct": True,
    }
    route = planner.choose("convolution", {name: can[name] for name in _order(planner, call)})
    if route in ("gemm", *_MATRIX_PARTS) and can["gemm"]:
        gemm.prepare(planner, call)  # for smaller inputs, too
    match route:
        case "linear":
            linear.run(planner, call)
        case "depthwise":
            depthwise.run(planner, call)
        case "gemm":
            gemm.run(planner, call)
        case "direct":
            direct.run(planner, call)
        case _:
            matrix.prepare(planner, call, _MATRIX_PARTS[route])
            matrix.run(planner, call, _MATRIX_PARTS[route])


def _matrix_pays(planner: Planner, call: Convolution) -> bool:
    return matrix.estimated(planner, call) < gemm.estimated(planner, call)


def _order(planner: Planner, call: Convolution) -> list[str]:
    """All routes, those that pay first."""
    first = ["linear", "depthwise"]
    rows = call.group_out * (call.taps if call.window.transposed else 1)
    if planner.features.cpu:
        first.append("direct")
    elif matrix.takes(planner, call) and all(_matrix_pays(planner, c) for c in (call.largest, call)):
        first += ["matrix_f16", "matrix", "gemm"] if planner.rounds else ["matrix", "gemm"]
    elif rows >= _GEMM_ROWS:
        first.append("gemm")
    return [*first, *(name for name in ("direct", "gemm", *_MATRIX_PARTS) if name not in first)]

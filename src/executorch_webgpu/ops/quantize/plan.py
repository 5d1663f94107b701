"""The dispatch behind all operators that quantize or dequantize: by numbers of a call, or by tensors of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan import Binding, Planner
from ..shapes import ceil_div
from ..values import Scratch, Tensor
from .blocks import Blocks, index_params
from .numbers import inverse

WORKGROUP = 64
FLOATS = ("float32", "float16", "bfloat16")
CODES = ("int8", "uint8", "int32", "int16")
ZEROS = (*CODES, "float32")
Number = int | float


@dataclass(frozen=True)
class QParams:
    """Where scales and zero points are, and which elements share them; ``zero`` None: it is 0."""

    scale: Tensor
    zero: Tensor | None
    blocks: Blocks | None  # None: one for all


def _as_float32(value: float) -> float:
    """A number of a call as float32 has it, so that one that is too large is inf."""
    with np.errstate(all="ignore"):
        return float(np.float32(value))


@dataclass(frozen=True)
class Numbers:
    """A scale and a zero point for a whole tensor, which a call states."""

    scale: float
    zero: int

    def params(self, formula: str) -> dict[str, Any]:
        scale = _as_float32(self.scale)
        if formula == "fake_quantize":
            return {"factor": _as_float32(inverse(self.scale)), "scale": scale, "zero": self.zero}
        factor = _as_float32(inverse(self.scale)) if formula == "quantize" else scale
        return {"factor": factor, "zero": self.zero}


def run_affine(
    planner: Planner,
    formula: str,
    x: Tensor,
    out: Tensor,
    qparams: QParams | Numbers,
    bounds: tuple[Number, Number] | None = None,
) -> None:
    """Plans an operator. ``bounds`` are those of codes."""
    codes, floats = (out, x) if formula.startswith("quantize") else (x, out)
    planner.check(
        codes.dtype in CODES and floats.dtype in FLOATS, f"{formula}: {floats} must hold floats, and {codes} integers"
    )
    planner.resize(out)
    _dispatch(planner, formula, x, out, out.dtype, qparams, bounds)


def fake_quantize(planner: Planner, name: str, x: Tensor, qparams: QParams | Numbers) -> Scratch:
    """``x``, of floats or int8 codes, as what its int8 codes stand for: float32, in memory of this call."""
    planner.check(x.dtype in (*FLOATS, "int8"), f"{name}: {x} must hold floats or int8 codes")
    out = planner.scratch(4 * x.numel)
    if x.dtype == "int8":
        _dispatch(planner, "dequantize", x, out, "float32", qparams, None)
    else:
        _dispatch(planner, "fake_quantize", x, out, "float32", qparams, (-128, 127))
    return out


def _dispatch(
    planner: Planner,
    formula: str,
    x: Tensor,
    out: Tensor | Scratch,
    out_dtype: str,
    qparams: QParams | Numbers,
    bounds: tuple[Number, Number] | None,
) -> None:
    template: dict[str, Any] = {"formula": formula, "x": x.dtype, "out": out_dtype, "scale": None, "zero": None}
    bindings: dict[str, Binding] = {"input": x, "out": out}
    params: dict[str, Any] = {"n": x.numel}
    if bounds is not None:
        params |= {"low": float(bounds[0]), "high": float(bounds[1])}
    if isinstance(qparams, Numbers):
        template |= {"qparams": "numbers", "shared": False}
        params |= qparams.params(formula)
    else:
        blocks = _check_qparams(planner, formula, qparams)
        bindings |= {"scales": qparams.scale} | ({} if qparams.zero is None else {"zeros": qparams.zero})
        template |= {
            "scale": qparams.scale.dtype,
            "zero": None if qparams.zero is None else qparams.zero.dtype,
            "qparams": "single" if blocks is None else "blocks",
            "shared": blocks is not None and _shared(blocks.coalesced()),
        }
        if blocks is not None:
            params |= index_params(blocks.coalesced())
            for shared in (False, True):  # live sizes decide
                _prepare(planner, {**template, "shared": shared})
    planner.dispatch(
        "quantize/affine",
        planner.grid_1d(ceil_div(x.numel, 4), WORKGROUP),
        bindings,
        params,
        overrides={"wg_size": WORKGROUP},
        template=template,
    )


def _prepare(planner: Planner, template: dict[str, Any]) -> None:
    planner.prepare("quantize/affine", overrides={"wg_size": WORKGROUP}, template=template)


def _shared(dims: Sequence[tuple[int, int, int]]) -> bool:
    """Whether four neighbours lie in one block."""
    if not dims:
        return True
    size, block, step = dims[-1]
    return block % 4 == 0 and size % 4 == 0 if step or len(dims) > 1 else True


def _check_qparams(planner: Planner, name: str, qparams: QParams) -> Blocks | None:
    scale, zero, blocks = qparams.scale, qparams.zero, qparams.blocks
    planner.check(scale.dtype in FLOATS, f"{name}: scales {scale} must be floats")
    planner.check(zero is None or zero.dtype in ZEROS, f"{name}: zero points {zero} must be numbers")
    count = 1
    if blocks is not None:
        planner.check(
            blocks.divide, f"{name}: blocks of {list(blocks.sizes)} must divide dims {list(blocks.dims)} without a rest"
        )
        count = blocks.count
    for tensor in [scale] if zero is None else [scale, zero]:
        planner.check(tensor.numel == count, f"{name}: {tensor} must have {count} elements, one for each block")
    return blocks

"""One product as the kernels over packed weights take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..norm import normalize_rows
from ..plan import Binding, Planner
from ..quantize.rows import fake_quantize_rows
from ..values import Repacked, Tensor
from .packed import Matrix, Packed, pack, pack_biases

MAX_OUTPUTS = 3  # of one dispatch: with weights, scales, x, a norm and biases they are 8 buffers
NONE_SHIFT = 31  # no unit has this bit: a group is a whole row


@dataclass(frozen=True)
class Norm:
    """RMSNorm of x before the product: x / sqrt(mean(x²) + eps) * weight."""

    weight: Tensor
    eps: float


@dataclass(frozen=True)
class Product:
    """``outs[i]`` [m, N_i] = ``x`` [m, K] times the transpose of ``matrices[i]`` plus ``biases[i]``; float32.

    ``quantizes``: rows of x, after the norm, become what their int8 codes stand for, by a scale for every row.
    ``gated``: of two matrices with as many rows, the one output is silu of the first product times the second one.
    ``residual`` is added to the one output.
    """

    x: Binding
    m: int
    matrices: tuple[Matrix, ...]
    biases: tuple[Tensor | None, ...]
    outs: tuple[Binding, ...]
    norm: Norm | None = None
    gated: bool = False
    residual: Binding | None = None
    quantizes: bool = False

    @property
    def width(self) -> int:
        """Input features."""
        first = self.matrices[0]
        return first.dims[1] if isinstance(first, Tensor) else first.width


def normalized(planner: Planner, product: Product) -> Product:
    """The product with its norm done, by a dispatch of its own."""
    norm, m = product.norm, product.m
    if norm is None:
        return product
    x = planner.scratch(4 * m * product.width)
    if m:
        normalize_rows(planner, product.x, m, norm.weight, norm.eps, x)
    return replace(product, x=x, norm=None)


def quantized(planner: Planner, product: Product) -> Product:
    """The product of rows that are quantized already, by dispatches of their own."""
    before = normalized(planner, product)
    x = fake_quantize_rows(planner, before.x, product.m, product.width)
    return replace(before, x=x, quantizes=False)


@dataclass(frozen=True)
class Call:
    """A product with packed weights."""

    product: Product
    packed: Packed
    bias: Tensor | Repacked | None

    @classmethod
    def of(cls, product: Product) -> Call:
        packed = pack(product.matrices, product.gated)
        return cls(product, packed, pack_biases(product.biases, packed.rows, product.gated))

    @property
    def m(self) -> int:
        return self.product.m

    @property
    def norm(self) -> Norm | None:
        return self.product.norm

    @property
    def gated(self) -> bool:
        return self.product.gated

    @property
    def group_units(self) -> int:
        """Units of a group, or 0 where it is a whole row."""
        return 0 if self.packed.groups == 1 else self.packed.group_size // self.packed.per_unit

    @property
    def group_shift(self) -> bool:
        """Whether the units of a group are a power of two."""
        return self.group_units & (self.group_units - 1) == 0


def bindings(call: Call) -> dict[str, Binding]:
    product, packed = call.product, call.packed
    bound: Mapping[str, Binding | None] = {
        "x": product.x,
        "weights": packed.weights,
        "scales": packed.scales,
        "norm_weight": None if product.norm is None else product.norm.weight,
        "bias": call.bias,
        "residual": product.residual,
        **{f"out{i}": out for i, out in enumerate(product.outs)},
    }
    return {name: value for name, value in bound.items() if value is not None}


def params(call: Call, column_tiles: int) -> dict[str, Any]:
    product, packed = call.product, call.packed
    found: dict[str, Any] = {
        "m": product.m,
        "k": packed.width,
        "units": packed.units,
        "quads": packed.quads,
        "column_tiles": column_tiles,
        "ends": _four(packed.ends),
        "widths": _four(packed.rows[: len(product.outs)]),
    }
    if packed.weight_format is None:
        found["last"] = (packed.rows[0] if isinstance(packed.weights, Tensor) else 4 * packed.quads) - 1
    else:
        size = call.group_units
        found["groups"] = packed.groups
        found["group"] = size if not call.group_shift else size.bit_length() - 1 if size else NONE_SHIFT
    if product.norm is not None:
        found["eps"] = product.norm.eps
    return found


def template(call: Call) -> dict[str, Any]:
    """The template inputs of the kernels over packed weights that say what the product is."""
    product, packed = call.product, call.packed
    floats = {"bits": 16 if packed.dtype == "float16" else 32, "zero_point": 0, "scales": None}
    return {
        **(floats if packed.weight_format is None else packed.weight_format.template),
        "group_shift": call.group_shift,
        "vec4_x": packed.width % 4 == 0,
        "guarded": packed.width % packed.per_unit != 0,
        "outputs": len(product.outs),
        "norm": product.norm is not None,
        "bias": call.bias is not None,
        "gated": product.gated,
        "residual": product.residual is not None,
    }


def stored(call: Call) -> dict[str, bool]:
    """The template input of the kernels that store whole quads: whether none passes the end of a row."""
    return {"fours": all(n % 4 == 0 for n in call.packed.rows)}


def _four(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return numbers + (0,) * (4 - len(numbers))

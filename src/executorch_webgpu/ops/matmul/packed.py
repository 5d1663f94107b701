"""Weights as the fast kernels read them: repacked at load, several matrices one after the other.

Four neighbouring rows of weights, which are four columns of the output, are a *quad*. Of a quad, a vec4<u32> holds one
word of each row: 8 weights of 4 bits, or 4 of 8, at the same place of K. Neighbouring vectors are neighbours along K,
so lanes read x and weights side by side, and one x serves four columns. The scales of a quad lie together, too:

    weights [quads, units] vec4<u32>            a unit is a word of K
    scales  [quads, groups] of four scales, or four pairs of a scale and a minimum

Matrices of floats keep their rows [N, K]: there a unit is four weights along K. What pads the last quad of a matrix,
or the last word of a row, is multiplied by x that are zero or summed to columns that are not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..plan import Planner
from ..shapes import ceil_div
from ..values import Repacked, Tensor
from .formats import QuantizedMatrix, WeightFormat

Matrix = QuantizedMatrix | Tensor  # a tensor is float32 or float16 [N, K]
Array = np.ndarray
_CACHED = 1 << 18  # bytes
_GROUPS = 4  # rows of scales at a time: new memory costs more than the sums
LEAST_SUBGROUP = 8  # lanes, where a team sums up two quads (own_sum.wgsl)


def rows_of(matrix: Matrix) -> int:
    """Output features."""
    return matrix.dims[0] if isinstance(matrix, Tensor) else matrix.rows


def tensors_of(matrix: Matrix) -> list[Tensor]:
    return [matrix] if isinstance(matrix, Tensor) else [matrix.weights, matrix.scales]


@dataclass(frozen=True)
class Packed:
    """Matrices with the same input, as one.

    ``rows``: output features of each; ``weight_format`` None: floats of ``dtype``.
    ``gated``: two matrices, whose quads take turns: one of the first, one of the second.
    """

    weight_format: WeightFormat | None
    dtype: str
    weights: Tensor | Repacked
    scales: Repacked | None
    rows: tuple[int, ...]
    width: int  # input features
    group_size: int
    gated: bool

    @property
    def quads(self) -> int:
        return sum(ceil_div(n, 4) for n in self.rows)

    @property
    def per_unit(self) -> int:
        """Weights of a row in one unit."""
        return 4 if self.weight_format is None else self.weight_format.per_word

    @property
    def units(self) -> int:
        """Of a row, or a quad of rows."""
        return ceil_div(self.width, self.per_unit)

    @property
    def groups(self) -> int:
        """Groups of a row; floats have a single one."""
        return ceil_div(self.width, self.group_size)

    @property
    def ends(self) -> tuple[int, ...]:
        """The quad of the output after the last one of each output."""
        of_outputs = self.rows[:1] if self.gated else self.rows
        return tuple(sum(ceil_div(n, 4) for n in of_outputs[: i + 1]) for i in range(len(of_outputs)))


def groups_of_set(units: int, unit_group: int) -> int:
    """At least the groups of ``units`` side by side, from a multiple of ``units`` on; a power of two.

    ``unit_group`` units share a scale; 0: all of a row.
    """
    if unit_group == 0 or unit_group % units == 0:
        return 1
    aligned = units % unit_group == 0
    most = units // unit_group if aligned else (units - 2) // unit_group + 2
    return 1 << (most - 1).bit_length()


def lanes_of_team(slots: int, units: int, workgroups: int, size: int, subgroup: int, unroll: int) -> int:
    """Lanes that share the K of two quads: so many that the fewest batches, and then units, come one after the other.

    ``workgroups`` of ``size`` invocations take turns with ``slots`` pairs of quads of ``units``, of which a lane
    loads ``unroll`` at a time.
    """

    def cost(lanes: int) -> tuple[int, int]:
        turns, each = ceil_div(slots, workgroups * (size // lanes)), ceil_div(units, lanes)
        return turns * ceil_div(each, unroll), turns * each

    choices = [subgroup << i for i in range((size // subgroup).bit_length())]
    return min((lanes for lanes in choices if size % lanes == 0), key=cost)


def can_pack(planner: Planner, matrices: Sequence[Matrix], biases: Sequence[Tensor | None]) -> bool:
    """Whether ``pack`` takes them: all are constants, and not too large as one, or there is nothing to repack."""
    if len(matrices) == 1 and isinstance(matrices[0], Tensor) and matrices[0].dims[1] % 4 == 0:
        return True
    several = [b for b in biases if b is not None] if len(matrices) > 1 else []
    constant = all(planner.is_constant(t) for t in [*several, *(t for m in matrices for t in tensors_of(m))])
    return constant and _weight_bytes(matrices) <= planner.limits.max_binding_bytes


def pack(matrices: Sequence[Matrix], gated: bool) -> Packed:
    """The matrices, of one format and width, as one."""
    first, rows = matrices[0], tuple(map(rows_of, matrices))
    quads = sum(ceil_div(n, 4) for n in rows)
    if isinstance(first, Tensor):
        width = first.dims[1]
        weights: Tensor | Repacked = first
        if len(matrices) > 1 or width % 4:
            weights = Repacked(
                f"{_order(gated)} rows of {first.dtype}",
                tuple(m for m in matrices if isinstance(m, Tensor)),
                quads * 4 * ceil_div(width, 4) * 4 * first.element.itemsize,
                lambda *arrays: _in_order([_pad_rows(a) for a in arrays], gated),
            )
        return Packed(None, first.dtype, weights, None, rows, width, width, gated)
    quantized = [m for m in matrices if isinstance(m, QuantizedMatrix)]
    layout, width, group_size = first.weight_format, first.width, first.group_size
    units, groups = ceil_div(width, layout.per_word), ceil_div(width, group_size)
    per_group = np.dtype(layout.scales_dtype).itemsize * (2 if layout.mins else 1)
    return Packed(
        layout,
        layout.dtype,
        Repacked(
            f"{_order(gated)} quads of {units} words" + (", nibbles swapped" if layout.high_first else ""),
            tuple(m.weights for m in quantized),
            quads * units * 16,
            lambda *arrays: _in_order([_pack_words(_low_first(layout, a), units) for a in arrays], gated),
        ),
        Repacked(
            f"{_order(gated)} quads of {groups} scales",
            tuple(m.scales for m in quantized),
            quads * groups * 4 * per_group,
            lambda *arrays: _in_order(
                [
                    _pack_scales(a if layout.grouped else a.reshape(-1), n, groups)
                    for a, n in zip(arrays, rows, strict=True)
                ],
                gated,
            ),
        ),
        rows,
        width,
        group_size,
        gated,
    )


def pack_biases(biases: Sequence[Tensor | None], rows: Sequence[int], gated: bool) -> Tensor | Repacked | None:
    """The biases of matrices of ``rows``, zero where there is none, in the order of their quads; None without any."""
    given = tuple(b for b in biases if b is not None)
    if not given or len(biases) == 1:
        return given[0] if given else None
    present = [b is not None for b in biases]

    def packed(*arrays: Array) -> Array:
        left = iter(arrays)
        parts = [np.zeros((ceil_div(n, 4), 4), np.float32) for n in rows]
        for part, n, there in zip(parts, rows, present, strict=True):
            if there:
                part.reshape(-1)[:n] = next(left).reshape(-1)[:n]
        return _in_order(parts, gated)

    return Repacked(
        f"{_order(gated)} biases {present} of {list(rows)}", given, sum(ceil_div(n, 4) for n in rows) * 16, packed
    )


def column_powers(packed: Packed) -> Repacked:
    """[4 * quads] float32: powers of two that bring the largest weight that a column may hold near 2^14.

    Of columns of zeros, and of those with scales that are no numbers, it is 1.
    """
    layout, scales = packed.weight_format, packed.scales
    if layout is None or scales is None:
        return _powers_of_floats(packed)
    most = {4: max(layout.zero_point, 15 - layout.zero_point), 8: 128}[layout.bits]

    def powers(*arrays: Array) -> Array:
        parts = []
        for given, n in zip(arrays, packed.rows, strict=True):
            by_group = _scales_by_column(layout, given, n, packed.groups)
            if layout.mins:
                sizes = np.abs(by_group.astype(np.float32))
                largest = (sizes[..., 0] * most + sizes[..., 1]).max(axis=0)
            else:
                largest = _largest(by_group, 0) * most
            parts.append(_powers(largest).reshape(-1, 4))
        return _in_order(parts, packed.gated)

    return Repacked(f"{scales.layout}: powers of columns", scales.sources, packed.quads * 16, powers)


def gate_power(packed: Packed, norm_weight: Tensor) -> Repacked:
    """[1 / p, p, 0, 0] float32 of a gate of normalized rows: p brings what its largest result may be near 2^14.

    |silu(g) u| is at most |g| |u|, and these at most the length of x times those of their columns. Before the weights
    of the norm, which count to the columns here, that of x is at most sqrt(K). The bound is large, some K times what
    results are, but float16 has exponents to spare: two of them still hold 22 bits of numbers far below the largest.
    """
    layout, scales = packed.weight_format, packed.scales
    assert layout is not None and scales is not None and packed.gated
    least, most = {4: (-layout.zero_point, 15 - layout.zero_point), 8: (-128, 127)}[layout.bits]
    starts = range(0, packed.width, packed.group_size)

    def power(*arrays: Array) -> Array:
        *of_scales, weights = arrays
        squares = np.add.reduceat(np.square(weights.astype(np.float64)), starts)
        bounds = np.full(4 * ceil_div(packed.rows[0], 4), float(packed.width))
        for given, n in zip(of_scales, packed.rows, strict=True):
            lengths = np.zeros(len(bounds))
            by_group = _scales_by_column(layout, given, n, packed.groups)
            for first in range(0, packed.groups, _GROUPS):
                scale = by_group[first : first + _GROUPS].astype(np.float64)
                if layout.mins:
                    scale, minimum = scale[..., 0], scale[..., 1]
                    with np.errstate(invalid="ignore"):
                        scale = np.maximum(np.abs(scale * least + minimum), np.abs(scale * most + minimum))
                lengths += squares[first : first + _GROUPS] @ np.square(scale, out=scale)
            bounds *= np.sqrt(lengths) * (1 if layout.mins else max(-least, most))
        finite = bounds[np.isfinite(bounds)]  # what other columns give is no number either
        (found,) = _powers(finite.max(initial=0.0, keepdims=True))
        return np.array([1 / found, found, 0, 0], np.float32)

    layout_name = f"{scales.layout}: power of a gate of {packed.width} by groups of {packed.group_size}"
    return Repacked(layout_name, (*scales.sources, norm_weight), 16, power)


def _scales_by_column(layout: WeightFormat, scales: Array, n: int, groups: int) -> Array:
    """[groups, columns to 4(, 2)] of the scales of ``n`` columns, those that are not stored included."""
    given, columns = scales[:groups] if layout.grouped else scales.reshape(1, -1), 4 * ceil_div(n, 4)
    if given.shape[1] < columns:
        given = np.pad(given, ((0, 0), (0, columns - given.shape[1]), *((0, 0) for _ in given.shape[2:])))
    return given[:, :columns]


def _largest(floats: Array, axis: int) -> Array:
    """The largest magnitudes along an axis, as float64. As integers, magnitudes have the same order, and are faster."""
    word = np.dtype(f"u{floats.itemsize}")
    magnitudes = floats.view(word) & word.type(np.iinfo(word).max >> 1)
    return magnitudes.max(axis=axis, initial=0).view(floats.dtype).astype(np.float64)


def _powers_of_floats(packed: Packed) -> Repacked:
    """Of the finite weights of each column."""
    weights, columns = packed.weights, 4 * packed.quads

    def powers(*arrays: Array) -> Array:
        rows = arrays[0] if isinstance(weights, Tensor) else weights.pack(*arrays)
        rows = rows.reshape(-1, 4 * packed.units)
        largest = np.zeros(columns)
        largest[: len(rows)] = _largest(rows, 1)
        for row in np.flatnonzero(~np.isfinite(largest)):
            largest[row] = np.abs(rows[row][np.isfinite(rows[row])].astype(np.float64)).max(initial=0.0)
        return _powers(largest)

    layout, sources = ("rows", (weights,)) if isinstance(weights, Tensor) else (weights.layout, weights.sources)
    return Repacked(f"{layout}: powers of columns", sources, columns * 4, powers)


def _powers(largest: Array) -> Array:
    usable = np.isfinite(largest) & (largest > 0)
    exponents = np.frexp(np.where(usable, largest, 1.0))[1]
    return np.where(usable, np.exp2(np.clip(14 - exponents, -100, 100)), 1.0).astype(np.float32)


def _weight_bytes(matrices: Sequence[Matrix]) -> int:
    """Of the repacked weights, which are never smaller than the scales."""
    packed = pack(matrices, gated=False).weights
    return packed.nbytes


def _order(gated: bool) -> str:
    return "alternating" if gated else "successive"


def _in_order(parts: Sequence[Array], gated: bool) -> Array:
    """Arrays [quads, ...] one after the other, or, of a gate, quad by quad in turn, in C order."""
    if len(parts) == 1 and parts[0].flags.c_contiguous:
        return parts[0]
    quads = [len(part) for part in parts]
    shape = (quads[0], 2) if gated else (sum(quads),)
    joined = np.empty(shape + parts[0].shape[1:], parts[0].dtype)
    for i, part in enumerate(parts):
        _copy(joined[:, i] if gated else joined[sum(quads[:i]) : sum(quads[: i + 1])], part)
    return joined


def _copy(to: Array, part: Array) -> None:
    """``to[:] = part``. One of four rows at a time and few quads, which stay in a cache, is nearly twice as fast."""
    if part.flags.c_contiguous:
        to[:] = part
        return
    block = max(1, _CACHED // (part[0].nbytes or 1))
    for start in range(0, len(part), block):
        for row in range(part.shape[2]):
            to[start : start + block, :, row] = part[start : start + block, :, row]


def _pad_rows(matrix: Array) -> Array:
    """[N, K] as [quads, 4, K to 4], zero where there is nothing."""
    n, k = matrix.shape
    padded = np.zeros((ceil_div(n, 4) * 4, ceil_div(k, 4) * 4), matrix.dtype)
    padded[:n, :k] = matrix
    return padded.reshape(-1, 4, padded.shape[1])


def _low_first(layout: WeightFormat, codes: Array) -> Array:
    """Bytes with the even one of two codes in the low nibble, as kernels have it."""
    return (codes << 4) | (codes >> 4) if layout.high_first else codes


def _pack_words(codes: Array, units: int) -> Array:
    """Rows of bytes [N, B] as [quads, units, 4] words, of which ``_in_order`` makes the copy."""
    n, nbytes = codes.shape
    if n % 4 or nbytes % 4:
        padded = np.zeros((ceil_div(n, 4) * 4, ceil_div(nbytes, 4) * 4), np.uint8)
        padded[:n, :nbytes] = codes.view(np.uint8)
        codes = padded
    words = codes.view(np.uint32)[:, :units]
    return words.reshape(-1, 4, units).swapaxes(1, 2)


def _pack_scales(scales: Array, n: int, groups: int) -> Array:
    """Scales [groups, n to 4 at least(, 2)], or [n] of whole rows, as [quads, groups, 4(, 2)]; see ``_pack_words``."""
    quads = ceil_div(n, 4)
    if scales.ndim == 1:
        scales = np.pad(scales[:n], (0, 4 * quads - n))[None]
    by_quad = scales[:groups, : 4 * quads].reshape(groups, quads, 4, *scales.shape[2:])
    return by_quad.swapaxes(0, 1)

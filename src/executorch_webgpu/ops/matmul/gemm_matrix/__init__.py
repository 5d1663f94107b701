"""The matrix routes: many rows of x times packed weights on tensor cores, by subgroup matrices of 16 x 16.

Tensor cores multiply float16, and a number rounded to float16 is off by up to 2^-11: sums in which terms cancel then
miss the float64 reference by far more than 1e-3. So the route ``matrix`` multiplies sums of two float16 numbers each,
of x and of the weights, which is three products, and exact to about 2^-21 of each term. Tensor cores cut off the sums
that they add up, though: on an H100 outputs are off by 1e-5 of the largest at K 2048 and 3e-5 at K 8192, where float32
is by 1e-6. ``matrix_f16`` multiplies rounded numbers, once: a third of the operations for errors like those of TF32.
Only ``matmul_precision="high"``, or its name in ``routes``, chooses it.

float16 has few exponents. Each row of x, and each column of weights, is multiplied by a power of two that puts its
largest element near 2^14, and sums are divided by both: no float32 overflows, and small ones keep their bits.

x may come as float16 from whoever has computed it, then with one power of two for all rows; of a gate, ``packed.py``
says which. Those of float32 come from ``split_rows``, whose dispatch also does a norm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from ....errors import KernelError
from ...handover import SplitForm, SplitRows
from ...plan import Binding, Planner
from ...shapes import ceil_div
from ...values import Scratch, Tensor
from .. import splits
from ..call import Call, Norm, Product, bindings, params, stored, template
from ..formats import QuantizedMatrix
from ..packed import column_powers, gate_power

SHAPE = ("f16", "f32", 16, 16, 16)  # component type, result type, m, n, k
LEAST = 16  # output and input features of a matrix of floats: those of one matrix of the tensor cores
_SHORT_ROW = 256  # elements


class Staged(Protocol):
    """What ``split_rows`` needs to know of a tile: rows, and what it takes along K at a time, by pieces of a depth."""

    @property
    def rows(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def step(self) -> int: ...


@dataclass(frozen=True)
class Tile:
    """``row_subgroups`` x ``column_subgroups`` subgroups, each of ``row_tiles`` x ``column_tiles`` matrices."""

    row_subgroups: int
    column_subgroups: int
    row_tiles: int
    column_tiles: int
    depth: int  # along K at a time; a multiple of 16

    def __post_init__(self) -> None:
        # At the end the blocks of both operands are the place of sums: of each subgroup, 16 rows of 16 columns or more.
        subgroups = self.row_subgroups * self.column_subgroups
        sharing = ceil_div(subgroups, self.row_subgroups + self.column_subgroups)
        if 80 * sharing > self.block_rows * (self.depth // 8 + 1):
            raise KernelError(f"{self} leaves no place for its sums")
        if any(n & (n - 1) for n in asdict(self).values()):
            raise KernelError(f"{self} is not made of powers of two, so it cannot be staged in equal parts")
        if min(self.rows, self.columns) * self.depth // 8 < self.invocations:
            raise KernelError(f"{self} has invocations with nothing to stage, which would read past x")

    @property
    def invocations(self) -> int:
        return 32 * self.row_subgroups * self.column_subgroups

    @property
    def rows(self) -> int:
        return 16 * self.row_tiles * self.row_subgroups

    @property
    def step(self) -> int:
        return self.depth

    @property
    def columns(self) -> int:
        return 16 * self.column_tiles * self.column_subgroups

    @property
    def block_rows(self) -> int:
        """Of workgroup memory, for a row or a column of subgroups and each part: all blocks have the same size."""
        return 16 * max(self.row_tiles, self.column_tiles)

    def workgroup_bytes(self, parts: int) -> int:
        blocks = self.row_subgroups + self.column_subgroups
        return parts * blocks * self.block_rows * (self.depth // 8 + 1) * 16

    def workgroups(self, rows: int, columns: int) -> int:
        return ceil_div(rows, self.rows) * ceil_div(columns, self.columns)


@dataclass(frozen=True)
class Tuning:
    """Tiles, the largest first: the first one that gives enough workgroups."""

    tiles: tuple[Tile, ...] = (Tile(2, 2, 4, 4, 16), Tile(2, 2, 2, 2, 32))
    rounded: tuple[Tile, ...] = ()  # those of matrix_f16, if others
    workgroups: int = 128
    shared: int = 264  # workgroups to which those that share a tile add up at most, and
    shared_k: int = 512  # what each has of K at least

    def of(self, parts: int) -> tuple[Tile, ...]:
        return self.rounded if parts == 1 and self.rounded else self.tiles


TUNING = Tuning(rounded=(Tile(2, 2, 4, 4, 32), Tile(2, 2, 2, 2, 64)))


def fits(planner: Planner, product: Product, parts: int) -> bool:
    """Whether the device has such tensor cores, and weights are codes, or float constants, whose powers load finds."""
    known = all(isinstance(m, QuantizedMatrix) or planner.is_constant(m) for m in product.matrices)
    return has_cores(planner) and len(tiles_of(planner, parts)) > 0 and known


def pays(product: Product) -> bool:
    """Whether these routes are faster than float32: of floats, a layer of few features does not fill a matrix."""
    return all(isinstance(m, QuantizedMatrix) or min(m.dims) >= LEAST for m in product.matrices)


def has_cores(planner: Planner) -> bool:
    features = planner.features
    return (
        features.subgroup_matrix
        and SHAPE in features.subgroup_matrix_shapes
        and features.subgroup_min_size == features.subgroup_max_size == 32
        and features.f16
        and features.subgroups
    )


def prepare(planner: Planner, call: Call, parts: int) -> None:
    """Pipelines for any number of rows."""
    for tile in tiles_of(planner, parts):
        prepare_split_rows(planner, call.packed.width, tile, parts, call.norm is not None, pairs=_pairs(call, parts))
        planner.prepare("matmul/gemm_matrix", template=_template(call, tile, parts))
        if (form := _form_of_output(planner, call)) is not None:
            planner.prepare("matmul/gemm_matrix", template=_template(call, tile, parts, form=form))
    smallest = tiles_of(planner, parts)[-1]
    if _splits(planner, call, smallest, parts, 1) > 1:
        planner.prepare("matmul/gemm_matrix", template=_template(call, smallest, parts, shared=True))
        splits.prepare(planner, call)


def run(planner: Planner, call: Call, parts: int) -> None:
    """``parts``: float16 numbers for each float32, 1 or 2."""
    tile = _tile(planner, call, parts)
    steps = ceil_div(call.packed.width, tile.depth)
    bound: dict[str, Binding] = {name: b for name, b in bindings(call).items() if name not in ("x", "norm_weight")}
    bound["column_powers"] = column_powers(call.packed)
    given = params(call, ceil_div(call.packed.quads, tile.columns // 4)) | {"steps": steps}
    given = {name: value for name, value in given.items() if name not in ("k", "eps")}
    _bind_x(planner, call, tile, parts, steps, bound, given)
    tiles = tile.workgroups(call.m, 4 * call.packed.quads)
    shares = _splits(planner, call, tile, parts, tiles)
    form = _form_of_output(planner, call) if shares == 1 else None
    if form is None:
        of_sharing = partial(_template, call, tile, parts)
        splits.dispatch(planner, "matmul/gemm_matrix", call, (tiles, steps, shares), bound, given, of_sharing)
        return
    (out,), norm_weight = call.product.outs, _norm_constant(planner, call)
    assert isinstance(out, Tensor) and norm_weight is not None
    power = gate_power(call.packed, norm_weight)
    planner.result.splits[out.id] = SplitRows(form, power)
    bound |= {"split_out": bound.pop("out0"), "out_power": power}
    given = {name: value for name, value in given.items() if name not in ("ends", "widths")}
    given["out_words"] = form.depth // 8
    template = _template(call, tile, parts, form=form)
    planner.dispatch("matmul/gemm_matrix", planner.grid_1d(tiles, 1), bound, given, template=template)


def form_of_x(planner: Planner, call: Call, parts: int) -> SplitForm | None:
    """How x may come as float16: where rows end with a step, so that float32 has as much memory."""
    depth = _tile(planner, call, parts).depth
    return None if call.packed.width % depth else SplitForm(parts, depth, _pairs(call, parts))


def most_past(planner: Planner) -> int:
    """Bytes behind such an x that tiles may read, for rows that do not exist."""
    return max((2 * p * t.rows * t.depth for p in (1, 2) for t in tiles_of(planner, p)), default=0)


def _form_of_output(planner: Planner, call: Call) -> SplitForm | None:
    """How who reads the output of a gate takes it, if there is a bound for its elements."""
    bounded = _norm_constant(planner, call) is not None and call.packed.scales is not None
    if not (call.gated and bounded and call.bias is None and call.product.residual is None):
        return None
    reader = planner.reader(call.product.outs[0])
    return None if reader is None else reader.form(call.m, call.packed.rows[0])


def _norm_constant(planner: Planner, call: Call) -> Tensor | None:
    return None if call.norm is None else planner.constant_of(call.norm.weight)


def _bind_x(
    planner: Planner,
    call: Call,
    tile: Tile,
    parts: int,
    steps: int,
    bound: dict[str, Binding],
    given: dict[str, Any],
) -> None:
    """x in float16, as it comes or by a dispatch of its own, normalized if there is a norm."""
    x, norm = call.product.x, call.norm
    if isinstance(x, Tensor) and x.split is not None:
        if x.split.form != form_of_x(planner, call, parts):
            raise KernelError(f"{x} was split to {x.split.form}, which tiles of {tile} do not take")
        bound |= {"split": x, "x_inverses": x.split.power}
        given |= {"inverse_from": 0, "inverse_step": 0}
        return
    sizes = (call.m, call.packed.width, steps)
    bound["split"] = split = split_rows(planner, x, sizes, tile, parts, norm, pairs=_pairs(call, parts))
    if _has_x_powers(call):
        bound["x_inverses"] = split
        given |= {"inverse_from": steps * call.m * parts * tile.depth // 8, "inverse_step": 1}


def _splits(planner: Planner, call: Call, tile: Tile, parts: int, tiles: int) -> int:
    """Workgroups that share each of ``tiles``."""
    tuning = _tuning(planner)
    if tile != tiles_of(planner, parts)[-1] or tiles == 0:
        return 1
    room = planner.scratch_bytes // max(1, splits.scratch_bytes(call, 1))
    return max(1, min(tuning.shared // tiles, call.packed.width // tuning.shared_k, room))


def split_rows(
    planner: Planner,
    x: Binding,
    sizes: tuple[int, int, int],
    tile: Staged,
    parts: int,
    norm: Norm | None = None,
    largest_k: int | None = None,
    pairs: int = 0,
) -> Scratch:
    """``x`` [m, k] in float16; ``sizes``: m, k and steps along K.

    ``largest_k``: other k have the same pipelines. ``pairs``: of so many bits a code, in whose order elements come.
    """
    m, k, steps = sizes
    past = tile.rows * tile.depth * parts * 2  # what the last tile reads for rows that do not exist
    split = planner.scratch(m * (steps * tile.depth * parts * 2 + 16) + past)
    bound: dict[str, Binding] = {"x": x, "split_out": split}
    given: dict[str, Any] = {"m": m, "k": k, "steps": steps}
    if norm is not None:
        bound["norm_weight"] = norm.weight
        given["eps"] = norm.eps
    template, overrides = _split_pipeline(k, tile, parts, norm is not None, largest_k, pairs)
    planner.dispatch("matmul/split_rows", planner.grid_1d(m, 1), bound, given, overrides=overrides, template=template)
    return split


def prepare_split_rows(
    planner: Planner,
    k: int,
    tile: Staged,
    parts: int,
    norm: bool = False,
    largest_k: int | None = None,
    pairs: int = 0,
) -> None:
    template, overrides = _split_pipeline(k, tile, parts, norm, largest_k, pairs)
    planner.prepare("matmul/split_rows", template=template, overrides=overrides)


def _split_pipeline(
    k: int, tile: Staged, parts: int, norm: bool, largest_k: int | None, pairs: int
) -> tuple[dict[str, Any], dict[str, int]]:
    """Template and overrides. Short rows are many, and would leave most of a large workgroup idle."""
    template = {
        "vec4_x": k % 4 == 0,
        "guarded": largest_k is not None or k % tile.step != 0,
        "norm": norm,
        "depth": tile.depth,
        "out_parts": parts,
        "out_pairs": pairs,
    }
    return template, {"wg_size": 32 if (largest_k or k) <= _SHORT_ROW else 256}


def _pairs(call: Call, parts: int) -> int:
    """Bits of codes that are dequantized in pairs, or 0: rounded ones only, since a scale has 11 bits in float16."""
    layout = call.packed.weight_format
    return 0 if layout is None or parts == 2 else layout.bits


def _tuning(planner: Planner) -> Tuning:
    return planner.tuning("matmul/gemm_matrix", TUNING)


def tiles_of(planner: Planner, parts: int) -> list[Tile]:
    """Those that the device has room for."""
    most, lanes = planner.limits.max_workgroup_bytes, planner.limits.max_invocations
    tiles = _tuning(planner).of(parts)
    return [t for t in tiles if t.workgroup_bytes(parts) <= most and t.invocations <= lanes]


def _tile(planner: Planner, call: Call, parts: int) -> Tile:
    fitting = tiles_of(planner, parts)
    enough = (t for t in fitting if t.workgroups(call.m, 4 * call.packed.quads) >= _tuning(planner).workgroups)
    return next(enough, fitting[-1])


def _has_x_powers(call: Call) -> bool:
    """Whether the powers of x are a binding of their own, as they must be where x may come as float16."""
    return call.norm is None and len(call.product.outs) == 1


def _template(
    call: Call, tile: Tile, parts: int, shared: bool = False, form: SplitForm | None = None
) -> dict[str, Any]:
    """``form``: that of the output, if it is not float32."""
    given = {name: value for name, value in template(call).items() if name not in ("norm", "vec4_x", "guarded")}
    given |= stored(call)
    given = splits.unfinished(given) if shared else given
    return {
        **given,
        **asdict(tile),
        "parts": parts,
        "split_weights": False,
        "shared": shared,
        "paired": _pairs(call, parts) > 0,
        "x_powers": _has_x_powers(call),
        "out_parts": 0 if form is None else form.parts,
        "out_pairs": 0 if form is None else form.pairs,
    }

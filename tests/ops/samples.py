"""Small calls of every operator: what a test needs that holds for all of them.

A sample is one call with arguments as ``OpProgram`` takes them, and inputs for it at two sizes. Operators of one
signature share a builder; together the samples reach every variant of every kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.ops.sampling.draws import MOST_LIKELIEST, Draw, LogitChanges, packed
from executorch_webgpu.ops.symint import BINARY as SYMINT_BINARY
from executorch_webgpu.ops.values import ELEMENT_TYPES

from .harness import Const, In, Mutable, Out, Sym, call_graph

Dims = tuple[int, ...]
Outs = Out | list[Out]
SYMINT = Out(dtype="symint")


@dataclass(frozen=True)
class Input(In):
    """An input with smaller dims for the second step (by default the same), and the range of its elements."""

    live: Dims | None = None
    low: float = -2
    high: float = 2


@dataclass(frozen=True)
class Position(Sym):
    """A live integer: its value in the step at maximum dims, and in the one at smaller dims."""

    full: int = 0
    live: int = 0


@dataclass(frozen=True)
class Sample:
    """One call. ``options`` are those of ``Planning``, such as a forced route."""

    op: str
    args: list[Any]
    out: Outs
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """For the names of tests."""
        kinds = [a.dtype for a in self.args if isinstance(a, Input) and a.dtype != "float32"]
        return "-".join([self.op, *kinds, *self.options.get("routes", {}).values()])

    @property
    def dynamic(self) -> bool:
        """Whether the second step differs in its sizes or positions."""
        return any(
            (isinstance(a, Input) and a.live not in (None, a.max_dims))
            or (isinstance(a, Position) and a.live != a.full)
            for a in flat(self.args)
        )

    @property
    def tolerance(self) -> dict[str, float]:
        outs = self.out if isinstance(self.out, list) else [self.out]
        if any(o.dtype == "bfloat16" for o in outs):
            return {"absolute": 1e-2, "relative": 8e-3}
        if self.options.get("matmul_precision") == "high":  # on tensor cores operands are rounded to float16
            return {"absolute": 2e-2, "relative": 2e-3}
        half = any(o.dtype == "float16" for o in outs)
        return {"absolute": 2e-3, "relative": 2e-3} if half else {}

    def inputs(self, live: bool, seed: int = 0) -> list[np.ndarray | int]:
        """Random inputs at maximum or at live dims, in the order of the arguments."""
        rng = np.random.default_rng(seed)
        found: list[np.ndarray | int] = []
        for arg in flat(self.args):
            if isinstance(arg, Position):
                found.append(arg.live if live else arg.full)
            elif isinstance(arg, Input):
                dims = arg.live if live and arg.live is not None else arg.max_dims
                found.append(numbers(rng, dims, arg.dtype, arg.low, arg.high))
        return found

    def graph(self) -> vk.VkGraph:
        """The call as a whole delegate."""
        return call_graph(self.op, self.args, self.out)


def flat(args: Sequence[Any]) -> Iterator[Any]:
    for arg in args:
        if isinstance(arg, list):
            yield from flat(arg)
        else:
            yield arg


def numbers(rng: np.random.Generator, dims: Sequence[int], dtype: str, low: float, high: float) -> np.ndarray:
    """Random elements as they lie in a device buffer; unsigned ones and bools are not negative."""
    layout = ELEMENT_TYPES[dtype].numpy
    if ELEMENT_TYPES[dtype].is_float:
        with np.errstate(over="ignore"):
            return rng.uniform(low, high, dims).astype(layout)
    if layout.kind == "u":
        low, high = max(low, 0), max(high, 0)
    high = min(high, 1) if dtype == "bool" else high
    return rng.integers(int(low), int(high), dims, endpoint=True).astype(layout)


_rng = np.random.default_rng(0)


def _const(*dims: int, dtype: str = "float32", low: float = -2, high: float = 2) -> Const:
    return Const(numbers(_rng, dims, dtype, low, high))


def _rows(rows: int, live: int, *rest: int, **more: Any) -> Input:
    """An input [rows, rest...] whose first dimension shrinks."""
    return Input((rows, *rest), live=(live, *rest), **more)


DTYPES = tuple(ELEMENT_TYPES)


# -- reindexing -----------------------------------------------------------------------------------------------------


def _moves(x: Input, op: str, *args: Any, out: Dims | list[Dims]) -> Sample:
    outs = [Out(o, x.dtype) for o in out] if isinstance(out, list) else Out(out, x.dtype)
    return Sample(op, [x, *args], outs)


def same_order() -> Iterator[Sample]:
    x = _rows(8, 4, 6)
    for op, args in {
        "aten.clone.default": [None],
        "aten.alias_copy.default": [],
        "dim_order_ops._clone_dim_order.default": [False, [0, 1]],
    }.items():
        yield _moves(x, op, *args, out=(8, 6))
    yield _moves(x, "aten.view_copy.default", [-1, 2, 3], out=(8, 2, 3))
    yield _moves(x, "aten.view_copy.default", [Position(full=8, live=4), 6], out=(8, 6))
    yield _moves(_rows(8, 4, 3, 2), "aten.view_copy.default", [1, Position(full=8, live=4), -1], out=(1, 8, 6))
    yield _moves(x, "aten.unsqueeze_copy.default", -2, out=(8, 1, 6))
    thin = _rows(8, 4, 1, 3)
    yield _moves(thin, "aten.squeeze_copy.default", out=(8, 3))
    yield _moves(thin, "aten.squeeze_copy.dim", 1, out=(8, 3))
    yield _moves(thin, "aten.squeeze_copy.dims", [0, 1], out=(8, 3))
    yield Sample("et_vk.prepack.default", [_const(3, 5)], Out((3, 5)))


def reindex() -> Iterator[Sample]:
    # An innermost dimension of 8 floats moves in vec4s, one of 3 in words, and 3 bytes in parts of words.
    for inner, dtype in ((8, "float32"), (3, "float32"), (3, "uint8"), (3, "float16")):
        x = _rows(11, 7, inner, dtype=dtype)
        yield _moves(x, "aten.slice_copy.Tensor", 0, 1, -1, 2, out=(5, inner))
        yield _moves(x, "aten.slice_copy.Tensor", 0, Position(full=2, live=5), None, 1, out=(11, inner))
        yield _moves(x, "aten.select_copy.int", 0, -1, out=(inner,))
        yield _moves(x, "aten.select_copy.int", 0, Position(full=9, live=3), out=(inner,))
    x = _rows(5, 2, 6)
    yield _moves(x, "aten.slice_copy.Tensor", 1, None, 2**63 - 1, 1, out=(5, 6))
    yield _moves(x, "aten.split_with_sizes_copy.default", [1, 5], 1, out=[(5, 1), (5, 5)])
    yield _moves(x, "aten.unfold_copy.default", 1, 3, 2, out=(5, 2, 3))
    for op in ("aten.permute_copy.default", "aten.permute.default"):
        yield _moves(_rows(5, 2, 3, 4), op, [2, 0, 1], out=(4, 5, 3))
    yield _moves(x, "aten.transpose_copy.int", 0, -1, out=(6, 5))
    yield _moves(x, "aten.t_copy.default", out=(6, 5))
    yield _moves(x, "aten.flip.default", [0, 1], out=(5, 6))
    yield _moves(_rows(3, 1, 8, 2, 5), "aten.pixel_shuffle.default", 2, out=(3, 2, 4, 10))
    yield _moves(_rows(5, 2, 1), "aten.expand_copy.default", [3, -1, 4], False, out=(3, 5, 4))
    yield _moves(_rows(5, 2, 1), "aten.expand_copy.default", [Position(full=3, live=2), -1, 4], False, out=(3, 5, 4))
    yield _moves(x, "aten.repeat.default", [2, 1, 3], out=(2, 5, 18))
    yield Sample("aten.cat.default", [[x, _const(3, 6)], 0], Out((8, 6)))
    yield Sample("aten.cat.default", [[x, Input((5, 6), live=(2, 6))], -1], Out((5, 12)))
    yield Sample("aten.cat.default", [[x], 0], Out((5, 6)))


# -- live integers --------------------------------------------------------------------------------------------------


def symints() -> Iterator[Sample]:
    for op in ("sym_size.int", "aten.sym_size.int"):
        yield Sample(op, [_rows(7, 4, 3), 0], SYMINT)
    yield Sample("et_vk.select_as_symint.default", [Input((2,), "int32", low=-9, high=9), 0, -1], SYMINT)
    for op in SYMINT_BINARY:
        yield Sample(op, [Position(full=17, live=-9), Position(full=5, live=4)], SYMINT)
        yield Sample(op, [Position(full=17, live=-9), 4], SYMINT)
    yield Sample("neg", [Position(full=3, live=-5)], SYMINT)


# -- tables and matrices --------------------------------------------------------------------------------------------


def _quantized(bits: int, rows: int, row_bytes: int, scales: Dims, dtype: str = "float16") -> list[Const]:
    """Codes and scales of a matrix; a last dimension of 2 holds scales and minima."""
    span = ("uint8", 0, 255) if bits == 4 else ("int8", -128, 127)
    codes = _const(rows, row_bytes, dtype=span[0], low=span[1], high=span[2])
    return [codes, _const(*scales, dtype=dtype, low=0.01, high=0.1)]


def embedding() -> Iterator[Sample]:
    indices = Input((1, 5), "int32", live=(1, 2), low=0, high=10)
    for width in (8, 3):
        args = [_const(11, width), indices, -1, False, False]
        yield Sample("aten.embedding.default", args, Out((1, 5, width)))
    yield Sample("et_webgpu.index_in_part.default", [indices, 3, 5, 11], Out((1, 5), "int32"))
    for low_first in (True, False):
        weight, scales = _const(11, 8, dtype="uint8", low=0, high=255), _const(11, 2, low=0.01, high=0.1)
        args = [weight, scales, 8, indices, low_first]
        yield Sample("et_vk.embedding_q4gsw.default", args, Out((1, 5, 16)))
    for name, table, group, width in (
        ("embedding_q8gsw", _quantized(8, 11, 20, (3, 12), "float16"), 8, 20),
        ("embedding_q4gaw", _quantized(4, 11, 12, (2, 12, 2), "float16"), 16, 24),
        ("embedding_q8gsw", _quantized(8, 11, 8, (1, 12), "float16"), 7, 7),  # rows that are not whole quads
    ):
        args, out = [*table, group, indices], Out((1, 5, width))
        yield from _routed(name, ("rows", "packed"), f"et_webgpu.{name}.default", args, out)


def _routed(family: str, routes: Sequence[str], op: str, args: list[Any], out: Outs) -> Iterator[Sample]:
    """The call by the planner's own choice of route, and by each route."""
    yield Sample(op, args, out)
    for route in routes:
        yield Sample(op, args, out, {"routes": {family: route}})


LINEAR_ROUTES = ("columns", "gemv", "gemm")


def linear() -> Iterator[Sample]:
    for dtype, k, bias in itertools.product(("float32", "float16"), (36, 13), (None, _const(21))):
        args = [_rows(7, 1, k), _const(21, k, dtype=dtype), bias]
        yield from _routed("linear", LINEAR_ROUTES, "aten.linear.default", args, Out((7, 21)))
    many = [_rows(19, 9, 36), _const(20, 36), _const(20)]  # of few tiles, which workgroups share on tensor cores
    yield Sample("aten.linear.default", many, Out((19, 20)))
    for columns in (_const(36, 21), Input((36, 21))):
        yield Sample("aten.mm.default", [_rows(7, 3, 36), columns], Out((7, 21)))
    batched = Input((2, 7, 13), live=(2, 3, 13)), Input((2, 13, 5))
    yield Sample("aten.bmm.default", [*batched], Out((2, 7, 5)))
    for bias, beta in ((_const(21), 0.5), (_const(7, 1), 2.0), (_const(21), 0.0)):
        rows = 7 if len(bias.array.shape) == 2 else 3
        args = [bias, _rows(7, rows, 13), _const(13, 21), beta, 1.5]
        yield Sample("aten.addmm.default", args, Out((7, 21)))
    vectors = [Input((7,), live=(3,)), _rows(7, 3, 13), Input((13,))]
    yield Sample("aten.addmv.default", [*vectors, 0.5, 1.5], Out((7,)))
    for dims in ((7, 21), (1, 21), (7, 1), (21,), (1,)):
        args = [Input(dims), _rows(7, 7, 13), Input((13, 21)), 0.5, 1.5]
        yield Sample("aten.addmm.default", args, Out((7, 21)))


def linear_quantized() -> Iterator[Sample]:
    # (K, group, N): whole blocks of 32 weights, 8 at a time, rows that end early, a wide layer.
    for k, group, n in ((64, 32, 21), (40, 8, 6), (33, 64, 6), (32, 32, 515)):
        groups, columns, row = -(-k // group), -(-n // 4) * 4, -(-k // 8) * 8
        for op, bits, scales, dtype in (
            ("et_vk.linear_q4gsw", 4, (groups, columns), "float32"),
            ("et_webgpu.linear_q4gaw", 4, (groups, columns, 2), "float16"),
            ("et_webgpu.linear_q8gsw", 8, (groups, columns), "float16"),
        ):
            matrix = _quantized(bits, n, row * bits // 8, scales, dtype)
            for bias in (None, _const(n)):
                args = [_rows(7, 1, k), *matrix, group, bias]
                family = op.split(".")[1]
                yield from _routed(family, LINEAR_ROUTES, f"{op}.default", args, Out((7, n)))
        args = [_rows(7, 1, k), *_quantized(8, n, k, (n,), "float32")]
        yield from _routed("weight_int8pack_mm", LINEAR_ROUTES, "aten._weight_int8pack_mm.default", args, Out((7, n)))


# By format of weights: bits of a weight, and what a group of them has: the dtype of scales, and how many there are.
WEIGHT_FORMATS = {
    "q4gsw": (4, "float32", 1),
    "q4gaw": (4, "float16", 2),
    "q8gsw": (8, "float16", 1),
    "q8csw": (8, "float32", 1),
    "q4csw": (4, "float32", 1),
    "q4gsw_dq8": (4, "float32", 1),
    "f32": (32, "float32", 0),
    "f16": (16, "float16", 0),
}
BY_CHANNEL = ("q8csw", "q4csw")  # one scale for a row
FLOATS = ("f32", "f16")  # ``fused_linear`` calls both "f32"


def matrix_of(weight_format: str, n: int, k: int, group: int) -> list[Const]:
    """Constants of a matrix [n, k] as ``fused_linear`` takes them, weights and, but for "f32", scales.

    Weights are below one, so that a product of two outputs is no large number either.
    """
    bits, dtype, count = WEIGHT_FORMATS[weight_format]
    if weight_format in FLOATS:
        return [_const(n, k, dtype=dtype, low=-0.5, high=0.5)]
    codes = _quantized(bits, n, -(-k * bits // 8) if weight_format in BY_CHANNEL else -(-k // 8) * bits, ())[0]
    dims = (n,) if weight_format in BY_CHANNEL else (-(-k // group), -(-n // 4) * 4, count)[: 1 + count]
    high = 2.0**-bits
    scales = _const(*dims, dtype=dtype, low=high / 8, high=high)
    if weight_format not in BY_CHANNEL:
        scales.array[:, n:] = np.nan  # nobody may use them
    return [codes, scales]


def fused_linear_sample(
    weight_format: str,
    k: int,
    widths: Sequence[int],
    norm: bool = False,
    bias: bool = False,
    gated: bool = False,
    residual: bool = False,
    rows: Sequence[int] = (7, 1),
    group: int = 32,
) -> Sample:
    """A call with matrices [n, k] for the n in ``widths``, and with ``rows``: at most, and in the second step.

    Its numbers depend on the arguments alone: of other ones, some int8 code of a format that makes them lies on a tie.
    """
    with numbers_of(k, *widths, *rows, norm, bias, gated, residual):
        return _fused_linear_sample(weight_format, k, widths, norm, bias, gated, residual, rows, group)


@contextmanager
def numbers_of(*seed: int) -> Iterator[None]:
    """Constants that are made meanwhile depend on the seed alone, and do not change those that come after them."""
    global _rng
    others, _rng = _rng, np.random.default_rng(seed)
    try:
        yield
    finally:
        _rng = others


def _fused_linear_sample(
    weight_format: str,
    k: int,
    widths: Sequence[int],
    norm: bool,
    bias: bool,
    gated: bool,
    residual: bool,
    rows: Sequence[int],
    group: int,
) -> Sample:
    x = Input((1, rows[0], k), live=(1, rows[1], k))
    matrices = [matrix_of(weight_format, n, k, group) for n in widths]
    weights, scales = [m[0] for m in matrices], [s for m in matrices for s in m[1:]]
    biases = [_const(n) if bias else None for n in widths]
    outs = [Out((1, rows[0], n)) for n in (widths[:1] if gated else widths)]
    other = Input((1, rows[0], widths[0]), live=(1, rows[1], widths[0])) if residual else None
    norm_weight = _const(k) if norm else None
    args = [
        x,
        norm_weight,
        1e-5,
        "f32" if weight_format in FLOATS else weight_format,
        weights,
        scales,
        group,
        biases,
        gated,
        other,
    ]
    return Sample("et_webgpu.fused_linear.default", args, outs)


def fused_linear() -> Iterator[Sample]:
    yield fused_linear_sample("q4gsw", 1024, [21, 6], bias=True, rows=(19, 1))  # several workgroups may share K
    for weight_format in ("q4gsw", "q4gaw"):  # many columns, as those of a head
        yield fused_linear_sample(weight_format, 40, [24 << 10], norm=True, residual=True, rows=(1, 1), group=8)
    for weight_format, k in itertools.product(WEIGHT_FORMATS, (64, 33)):
        yield fused_linear_sample(weight_format, k, [21], norm=True, residual=True, rows=(19, 1))
        yield fused_linear_sample(weight_format, k, [21, 6, 5], norm=True, bias=True)
        yield fused_linear_sample(weight_format, k, [21, 21], gated=True, residual=True)
        for route in LINEAR_ROUTES:
            sample = fused_linear_sample(weight_format, k, [21, 21], norm=True, bias=True, gated=True)
            yield replace(sample, options={"routes": {"fused_linear": route}})


def norms() -> Iterator[Sample]:
    x = _rows(7, 2, 67)
    yield Sample("et_vk.rms_norm.default", [x, _const(67), 1e-5], Out((7, 67)))
    long = 4099  # more than a workgroup keeps
    yield Sample("et_vk.rms_norm.default", [_rows(3, 2, long), _const(long), 1e-5], Out((3, long)))
    for weight, bias in itertools.product((None, _const(67)), (None, _const(67))):
        outs = [Out((7, 67)), Out((7, 1)), Out((7, 1))]
        yield Sample("aten.native_layer_norm.default", [x, [67], weight, bias, 1e-5], outs)


# -- attention ------------------------------------------------------------------------------------------------------


def _tokens(heads: int, head_dim: int, most: int = 11, live: int = 1) -> Input:
    return Input((1, most, heads, head_dim), live=(1, live, heads, head_dim))


def rope() -> Iterator[Sample]:
    heads, outs = [_tokens(4, 8), _tokens(2, 8)], [Out((1, 11, 4, 8)), Out((1, 11, 2, 8))]
    yield Sample("et_vk.apply_rotary_emb.default", [*heads, _const(11, 4), _const(11, 4)], outs)
    for rotary_dim, position in ((8, Position(full=3, live=13)), (4, 2)):
        args = [*heads, _const(20, rotary_dim), _const(20, rotary_dim), position]
        yield Sample("et_vk.apply_rotary_emb_hf.default", args, outs)
    x = Input((3, 5, 6), live=(1, 5, 6))
    yield Sample("et_vk.apply_rotary_emb_interleaved.default", [x, _const(5, 6)], Out((3, 5, 6)))
    # The angles of each token beside it.
    for name, width, more in (("apply_rotary_emb", 4, []), ("apply_rotary_emb_hf", 8, [0])):
        yield Sample(f"et_vk.{name}.default", [*heads, _rows(11, 1, width), _rows(11, 1, width), *more], outs)
    # Heads before tokens, with angles for all batches or for each.
    by_heads = [Input((2, heads, 11, 8), live=(2, heads, 3, 8)) for heads in (4, 2)]
    for batches, width in ((1, 4), (2, 8)):
        tables = [Input((batches, 11, width), live=(batches, 3, width)) for _ in range(2)]
        outs = [Out((2, heads, 11, 8)) for heads in (4, 2)]
        yield Sample("et_vk.apply_rotary_emb_hf.default", [*by_heads, *tables, 0], outs)
    angles = _rows(5, 2, 3, 2)
    args = [Input((3, 5, 6), live=(1, 2, 6)), angles]
    yield Sample("et_vk.apply_rotary_emb_interleaved.default", args, Out((3, 5, 6)))


def attention() -> Iterator[Sample]:
    ops = ("llama.sdpa_with_kv_cache.default", "sdpa_with_kv_cache.default")
    for op, (heads, kv_heads, head_dim), position in itertools.product(
        ops, ((6, 2, 8), (1, 1, 4), (4, 2, 16)), (Position(full=5, live=16), 2)
    ):
        query, key = _tokens(heads, head_dim), _tokens(kv_heads, head_dim)
        caches = [Mutable(_const(1, 23, kv_heads, head_dim).array) for _ in "kv"]
        args = [query, key, key, *caches, position, 1, None, 0.0, True, None]
        yield Sample(op, args, Out(query.max_dims))
        yield Sample(op, args, Out(query.max_dims), {"routes": {"sdpa_with_kv_cache": "large_heads"}})
        # The scores of three tokens at a time.
        yield Sample(op, args, Out(query.max_dims), {"scratch_bytes": 4 * heads * 24 * 3})
        mask = Input((11, 23), live=(1, 23))
        for causal in (True, False):
            masked = [query, key, key, *caches, position, 1, mask, 0.0, causal, None]
            yield Sample(op, masked, Out(query.max_dims), {"routes": {"sdpa_with_kv_cache": "flash"}})
        held = [_const(1, 23, kv_heads, head_dim) for _ in "kv"]
        yield Sample("llama.custom_sdpa.default", [query, *held, position, None, 0.0, True, None], Out(query.max_dims))
    places = Const(np.array([[4, 1], [3, 1], [0, 0], [9, 2], [10, 2]], np.int32))  # position and sequence of each row
    tables = Const(np.array([[5, 0, 0], [2, 6, 0], [1, 4, 3]], np.int32))
    for heads, kv_heads, head_dim in ((6, 2, 8), (1, 1, 4)):
        query, key = Input((1, 5, heads, head_dim)), Input((1, 5, kv_heads, head_dim))
        pools = [Mutable(_const(7, 4, kv_heads, head_dim).array) for _ in "kv"]
        args = [query, key, key, *pools, places, tables, None]
        yield Sample("et_webgpu.paged_sdpa.default", args, Out(query.max_dims))
        for halves, width in ((False, head_dim // 2), (True, head_dim)):
            rotated = [query, key, key, _const(11, width), _const(11, width), halves, *args[3:]]
            yield Sample("et_webgpu.rope_paged_sdpa.default", rotated, Out(query.max_dims))
    for op, head_dim in itertools.product(("llama.update_cache.default", "update_cache.default"), (8, 3)):
        cache = Mutable(_const(1, 23, 1, head_dim).array)
        args = [_tokens(1, head_dim), cache, Position(full=5, live=22)]
        yield Sample(op, args, Out((1,)))


def sampling() -> Iterator[Sample]:
    logits = Input((1, 3, 1031), live=(1, 2, 1031), low=-9, high=9)
    row, position = Position(full=2, live=1), Position(full=7, live=1000)
    filters = ((0, 1.0, 0.0), (40, 1.0, 0.0), (0, 0.9, 0.0), (40, 0.9, 0.0), (0, 1.0, 0.1), (40, 0.9, 0.1))
    for temperature, (top_k, top_p, min_p) in ((0.0, filters[0]), *((0.7, each) for each in filters)):
        for penalty in (1.0, 1.3):
            seen = None if penalty == 1 else Mutable(np.arange(33, dtype=np.int32) * 1_234_567)
            args = [logits, row, position, -5, 1 << 8, temperature, top_k, top_p, min_p, penalty, seen]
            yield Sample("et_webgpu.sample_token.default", args, Out((1,), "int32"))
    args = [Input((5,)), 0, 0, 3, 0, 1.0, 0, 1.0, 0.0, 1.0, None]
    yield Sample("et_webgpu.sample_token.default", args, Out((1,), "int32"))


def sampling_rows() -> Iterator[Sample]:
    ones = np.ones(100, np.float32)
    changes = LogitChanges(np.arange(0, 900, 9, dtype=np.int32), ones * np.float32(1.3), ones)
    allowed = np.full(33, 0x5A5A5A5A, np.uint32)
    filters = ((0, 1.0, 0.0), (0, 1.0, 0.0), (40, 0.9, 0.0), (0, 0.9, 0.1), (0, 1.0, 0.1))
    draws = [
        Draw(7, 1 << 40, min(i, 1) * 0.7, top_k, top_p, min_p, changes, allowed if i % 2 else None, i)
        for i, (top_k, top_p, min_p) in enumerate(filters)
    ]
    given = packed(draws, 1031)
    logits = Mutable(numbers(_rng, (1, 5, 1031), "float32", -9, 9))
    args = [logits, *map(Const, (given.rows, given.changes, given.masks))]
    outs = [Out((5,), "int32"), Out((5, 1 + MOST_LIKELIEST)), Out((5, MOST_LIKELIEST), "int32")]
    yield Sample("et_webgpu.sample_rows.default", args, outs)
    tokens, drawn = Input((1, 70), "int32", live=(1, 9), low=-5, high=9), Input((5,), "int32", low=0, high=20)
    yield Sample("et_webgpu.feed_tokens.default", [tokens, drawn, 10], Out((1, 70), "int32"))


def rope_attention() -> Iterator[Sample]:
    query, key = _tokens(4, 8), _tokens(2, 8)
    caches = [Mutable(_const(1, 23, 2, 8).array) for _ in "kv"]
    position, outs = Position(full=5, live=16), [Out((1, 11, 4, 8))] * 2
    for halves, columns, start in ((False, 4, 0), (True, 8, position), (True, 4, 3), (False, 4, Position(2, 12))):
        tables = [_const(27, columns), _const(27, columns)]
        args = [query, key, key, *tables, halves, start, *caches, position, None, True, None]
        yield Sample("et_webgpu.rope_sdpa_with_kv_cache.default", args, outs)


def dense_attention() -> Iterator[Sample]:
    for head_dim in (8, 80):
        query = Input((2, 3, 9, head_dim), live=(2, 3, 4, head_dim))
        key = Input((2, 3, 7, head_dim), live=(2, 3, 5, head_dim))
        mask = Input((2, 1, 9, 7), live=(2, 1, 4, 5))
        for given in (mask, None):
            yield Sample("et_vk.sdpa.default", [query, key, key, given, None], Out(query.max_dims))
    one_head = [Input((2, 3, 9, 8), live=(1, 3, 9, 8)), *[Input((2, 1, 7, 8), live=(1, 1, 7, 8))] * 2]
    yield Sample("et_vk.sdpa.default", [*one_head, Input((3, 1, 7)), 0.5], Out((2, 3, 9, 8)))
    flat = [Input((9, 8), live=(4, 8)), *[Input((7, 8), live=(5, 8))] * 2]
    yield Sample("et_vk.sdpa.default", [*flat, None, None], Out((9, 8)))
    tokens_first = "et_webgpu.sdpa_tokens_first.default"
    query, key = Input((2, 9, 4, 8), live=(2, 4, 4, 8)), Input((2, 7, 4, 8), live=(2, 5, 4, 8))
    columns = Input((2, 1, 1, 7), live=(2, 1, 1, 5))
    yield Sample(tokens_first, [query, key, key, columns, None], Out(query.max_dims))
    query, key = Input((2, 9, 4, 8)), Input((2, 7, 2, 8))
    yield Sample(tokens_first, [query, key, key, Input((2, 4, 9, 7)), 0.5], Out(query.max_dims))
    query, key = Input((2, 9, 4, 8), live=(1, 9, 4, 8)), Input((2, 7, 1, 8), live=(1, 7, 1, 8))
    yield Sample(tokens_first, [query, key, key, None, None], Out(query.max_dims))


from . import samples_elementwise, samples_indexing, samples_llama  # noqa: E402, whose samples are made of what is above
from . import samples_spatial as spatial  # noqa: E402, it takes Sample from here
from .samples_convolution import FAMILY as CONVOLUTIONS  # noqa: E402, which takes the types above
from .samples_quantize import QUANTIZE  # noqa: E402, which takes the types above
from .samples_reduce import reductions, scans, softmax, sorts  # noqa: E402, which takes the types above

FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    *samples_elementwise.FAMILIES,
    same_order,
    reindex,
    symints,
    embedding,
    linear,
    linear_quantized,
    fused_linear,
    norms,
    softmax,
    reductions,
    scans,
    sorts,
    rope,
    attention,
    sampling,
    sampling_rows,
    rope_attention,
    dense_attention,
    *samples_llama.FAMILIES,
    *samples_indexing.FAMILIES,
    spatial.pooling,
    spatial.average_pooling,
    spatial.resampling,
    spatial.grids,
    spatial.padding,
    spatial.channel_norms,
    spatial.distances,
    *CONVOLUTIONS,
    *QUANTIZE,
)
SAMPLES = [sample for family in FAMILIES for sample in family()]

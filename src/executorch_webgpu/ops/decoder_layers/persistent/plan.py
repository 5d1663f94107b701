"""The persistent route: layers for one token in one dispatch, whose workgroups run at once and meet between phases.

WebGPU does not promise that all workgroups of a dispatch run at once, so how many do is found by trying (see
``graph/persistent.py``), and a dispatch whose workgroups do not meet ends by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...attention.call import AttentionCall
from ...matmul.call import Call, Product
from ...matmul.formats import QuantizedMatrix, WeightFormat
from ...matmul.gemv_bytes import x_bytes
from ...matmul.packed import LEAST_SUBGROUP, can_pack, groups_of_set, lanes_of_team
from ...plan import Binding, Planner
from ...shapes import ceil_div
from ...values import Joined, Kept, Repacked, Scratch

KERNEL = "decoder_layers/persistent"
FAILED = 2  # the word of what a dispatch keeps that says whether its workgroups ever failed to meet
MOST_WORKGROUPS = 1024
_HEADER_WORDS = 16  # as in the kernel
_STORAGE_BUFFERS = 10
_LARGE_LAYER = 8 << 20  # bytes of weights: the next ones are worth registers during attention
# Bytes of a layer's weights, and of its K and V, from which larger workgroups are faster,
_WIDE_LAYER, _WIDE_CACHE = 48 << 20, 64 << 20
# and up to which one dispatch was seen to be at least as fast as one a call.
_LARGEST_LAYER, _LARGEST_CACHE = 128 << 20, 256 << 20


@dataclass(frozen=True)
class Tuning:
    """What the kernel's speed depends on, not its result."""

    size: int = 256  # invocations of a workgroup
    unroll: int = 2  # units of each of two quads that a lane loads at a time
    workgroups: int = MOST_WORKGROUPS  # at most; fewer where fewer run at once
    expected: int = 132  # workgroups that teams are chosen for
    keys: int = 2  # rows of the caches that a group of lanes loads at a time
    least_chunk: int = 128  # rows of the caches that are worth a workgroup
    merged: int = 8  # chunks of a head whose results an invocation loads at a time
    early: bool | None = None  # weights after attention are asked for before it; None: those of large layers are
    throttle: bool = False
    looks: int = 1  # at the others in one turn of the loop that waits for them
    patience: int = 1 << 18  # looks at the others before a workgroup gives up: about 0.1 s


TUNING = Tuning()
WIDE_TUNING = Tuning(size=512, early=False)
CPU_TUNING = Tuning(size=32, expected=2, throttle=True, looks=16, patience=1 << 31)


@dataclass(frozen=True)
class Layer:
    """Norm and projections of q, k and v, attention with rotation, output, norm and gate, and the way back."""

    qkv: Product
    attention: AttentionCall
    output: Product
    gated: Product
    down: Product

    @property
    def products(self) -> tuple[Product, ...]:
        return self.qkv, self.output, self.gated, self.down


def fits(planner: Planner, layers: Sequence[Layer]) -> bool:
    """Whether the kernel can compute these layers, all of them alike, for one token."""
    features, limits = planner.features, planner.limits
    first = layers[0]
    if features.subgroup_size < LEAST_SUBGROUP or not _is_quantized(first):
        return False
    tuning = tuning_of(planner, first)
    if limits.max_storage_buffers < _STORAGE_BUFFERS or tuning.size > limits.max_invocations:
        return False
    if len({_shape(layer) for layer in layers}) != 1 or not _takes(planner, first):
        return False
    return (
        all(can_pack(planner, product.matrices, product.biases) for layer in layers for product in layer.products)
        and _layers_of_dispatch(planner, layers) > 0
    )


def pays(planner: Planner, layers: Sequence[Layer]) -> bool:
    """Whether it is faster than the calls: on GPUs, for 4-bit layers that a dispatch each would not fill with work."""
    features, first = planner.features, layers[0]
    return (
        not features.cpu
        and features.byte_products
        and _format(first).bits == 4
        and _layer_bytes(first) <= _LARGEST_LAYER
        and _cache_bytes(first) <= _LARGEST_CACHE
    )


def tuning_of(planner: Planner, layer: Layer) -> Tuning:
    return planner.tuning(KERNEL, _default_tuning(planner, layer))


def _default_tuning(planner: Planner, layer: Layer) -> Tuning:
    if planner.features.cpu:
        return CPU_TUNING
    is_large = _layer_bytes(layer) > _WIDE_LAYER
    nbytes = _workgroup_bytes(WIDE_TUNING, planner.features.subgroup_size, layer.attention, 0)
    has_room = planner.limits.max_invocations >= WIDE_TUNING.size and planner.limits.max_workgroup_bytes >= nbytes
    if not has_room or not (is_large or _cache_bytes(layer) > _WIDE_CACHE):
        return TUNING
    return replace(WIDE_TUNING, unroll=4) if is_large and x_bytes(planner) < 3 else WIDE_TUNING


def prepare(planner: Planner, layers: Sequence[Layer]) -> None:
    planner.prepare("decoder_layers/persistent", template=_template(planner, layers[0]))


def run(planner: Planner, layers: Sequence[Layer], x: Binding, out: Binding, workgroups: int) -> None:
    """``out`` [hidden] = all layers of ``x`` [hidden], by so many workgroups, which must be able to run at once."""
    first = layers[0]
    tuning = tuning_of(planner, first)
    rotation = first.attention.rotation
    assert rotation is not None and rotation.start_pos is not None
    template, each = _template(planner, first), _layers_of_dispatch(planner, layers)
    width, hidden = template["width"], template["hidden"]
    for begin in range(0, len(layers), each):
        part = layers[begin : begin + each]
        end = begin + len(part) == len(layers)
        target = out if end else Scratch(begin // each % 2, 4 * hidden)
        calls = [Call.of(product) for layer in part for product in layer.products]
        weights, scales = Joined(tuple(_weights(calls))), Joined(tuple(_scales(calls)))
        keys = Joined(tuple(layer.attention.k_cache for layer in part))
        values = Joined(tuple(layer.attention.v_cache for layer in part))
        stride = ceil_div(hidden, 64) * 64
        of_scales = 4 * np.dtype(_format(first).scales_dtype).itemsize * (2 if _format(first).mins else 1)
        planner.dispatch(
            "decoder_layers/persistent",
            (workgroups, 1, 1),
            {
                "x": x,
                "weights": weights,
                "scales": scales,
                "norms": _norms(part, stride),
                "k_caches": keys,
                "v_caches": values,
                "cos_table": rotation.cos,
                "sin_table": rotation.sin,
                "out": target,
                "work": Kept(f"{KERNEL} {first.attention.k_cache.id}", 4 * _words(template)),
                "input_pos": first.attention.input_pos,
                "start_pos": rotation.start_pos,
            },
            {
                "layers": len(part),
                "patience": tuning.patience,
                "least_chunk": tuning.least_chunk,
                "scale": first.attention.scale,
                "weights_at": [at // 16 for at in weights.offsets[:4]],
                "scales_at": [at // of_scales for at in scales.offsets[:4]],
                "weights_of_layer": weights.offsets[4] // 16,
                "scales_of_layer": scales.offsets[4] // of_scales,
                "norms_of_layer": 2 * stride,
                "second_norm": stride,
                "caches_of_layer": keys.offsets[1] // (width * first.attention.k_cache.element.itemsize),
                "eps": _eps(first.qkv),
                "second_eps": _eps(first.gated),
            },
            template=template,
        )
        x = target


def _takes(planner: Planner, layer: Layer) -> bool:
    attention, tuning = layer.attention, tuning_of(planner, layer)
    subgroup, group = planner.features.subgroup_size, attention.group
    width, head_dim = _width(attention), attention.head_dim
    products = layer.products
    layout = _format(layer)
    of_group = {_group(product) for product in products}
    rotation = attention.rotation
    template = _template(planner, layer)
    return (
        tuning.size % subgroup == 0
        and all(not any(product.biases) and not product.quantizes for product in products)
        and all(product.width % layout.per_word == 0 for product in products)
        and all(m.rows % 4 == 0 for product in products for m in product.matrices if isinstance(m, QuantizedMatrix))
        and all(_rows(product) % 8 == 0 for product in products)
        and len(of_group) == 1
        and all(product.width % (_group(product) or layout.per_word) == 0 for product in products)
        and attention.mask is None
        and attention.causal
        and attention.k_cache.dtype in ("float32", "float16")
        and head_dim % width == 0
        and (head_dim // width) & (head_dim // width - 1) == 0
        and head_dim // width <= subgroup
        and group * width <= 64
        and group <= 8
        and rotation is not None
        and rotation.start_pos is not None
        and template["chunk"] > 0
        and _workgroup_bytes(tuning, subgroup, attention, template["chunk"]) <= planner.limits.max_workgroup_bytes
        and layer.qkv.norm is not None
        and layer.gated.norm is not None
        and all(planner.is_constant(p.norm.weight) for p in products if p.norm is not None)
    )


def _is_quantized(layer: Layer) -> bool:
    return all(isinstance(m, QuantizedMatrix) for product in layer.products for m in product.matrices)


def _shape(layer: Layer) -> tuple[Any, ...]:
    """What must be the same of all layers."""
    attention, rotation = layer.attention, layer.attention.rotation
    formats = [
        (m.weight_format, m.rows, m.width, m.group_size) if isinstance(m, QuantizedMatrix) else m.dtype
        for product in layer.products
        for m in product.matrices
    ]
    tables = None if rotation is None else (rotation.cos.id, rotation.sin.id, rotation.start_pos, rotation.kind)
    cache = attention.k_cache.dtype, attention.k_cache.max_dims, attention.input_pos, attention.scale
    return *formats, tables, *cache, _eps(layer.qkv), _eps(layer.gated)


def _eps(product: Product) -> float:
    return 0.0 if product.norm is None else product.norm.eps


def _layer_bytes(layer: Layer) -> int:
    """Of weights, without scales."""
    return sum(_rows(product) * product.width * _format(layer).bits // 8 for product in layer.products)


def _cache_bytes(layer: Layer) -> int:
    """Of K and V."""
    return 2 * layer.attention.k_cache.max_nbytes


def _format(layer: Layer) -> WeightFormat:
    matrix = layer.qkv.matrices[0]
    assert isinstance(matrix, QuantizedMatrix)
    return matrix.weight_format


def _group(product: Product) -> int:
    """Weights that share a scale; 0: whole rows."""
    first = product.matrices[0]
    assert isinstance(first, QuantizedMatrix)
    return 0 if first.group_size == first.width and not first.weight_format.grouped else first.group_size


def _width(attention: AttentionCall) -> int:
    """Elements of a load of a cache, at most 16 bytes."""
    widest = 16 // attention.k_cache.element.itemsize
    return next((w for w in (8, 4) if w <= widest and attention.head_dim % w == 0), 4)


def _template(planner: Planner, layer: Layer) -> dict[str, Any]:
    tuning, attention, rotation = tuning_of(planner, layer), layer.attention, layer.attention.rotation
    assert rotation is not None
    layout, subgroup = _format(layer), planner.features.subgroup_size
    widest = ceil_div(max(product.width for product in layer.products), 8) * 8
    left = planner.limits.max_workgroup_bytes - _workgroup_bytes(tuning, subgroup, attention, 0, bare=True)
    whole = math.lcm(8, _group(layer.qkv) or 8)  # chunks of x end where groups of weights do
    return {
        "size": tuning.size,
        "subgroup": subgroup,
        "hidden": layer.qkv.width,
        "heads": attention.group * attention.kv_heads,
        "kv_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "ffn": layer.down.width,
        "lanes": [_lanes(planner, layer, product) for product in layer.products],
        "unroll": tuning.unroll,
        "chunk": min(widest, left // (4 * whole) * whole),
        **layout.template,
        "x_bytes": x_bytes(planner),
        "group": _group(layer.qkv),
        "of_set": groups_of_set(subgroup, _group(layer.qkv) // layout.per_word),
        "cache": attention.k_cache.dtype,
        "width": _width(attention),
        "keys": tuning.keys,
        "rotation": rotation.kind,
        "half": rotation.half,
        "merged": tuning.merged,
        "early": _layer_bytes(layer) >= _LARGE_LAYER if tuning.early is None else tuning.early,
        "throttle": tuning.throttle,
        "looks": tuning.looks,
    }


def _workgroup_bytes(tuning: Tuning, subgroup: int, attention: AttentionCall, chunk: int, *, bare: bool = False) -> int:
    """Of workgroup memory, with ``chunk`` elements of x; ``bare``: without what the kernel has in x's place."""
    subgroups = tuning.size // subgroup
    in_turn = max(chunk, (attention.group * (1 + subgroups) + 2) * attention.head_dim)
    parts = 16 * ceil_div(subgroups, 4) + 32 * subgroups + 16 * ceil_div(subgroups * attention.group, 2) + 16
    return parts + (0 if bare else 4 * in_turn)


def _rows(product: Product) -> int:
    return sum(m.rows for m in product.matrices if isinstance(m, QuantizedMatrix))


def _slots(product: Product) -> int:
    """Pairs of quads of rows: of neighbours, or of gate and up."""
    return _rows(product) // 8


def _lanes(planner: Planner, layer: Layer, product: Product) -> int:
    tuning, units = tuning_of(planner, layer), product.width // _format(layer).per_word
    subgroup = planner.features.subgroup_size
    return lanes_of_team(_slots(product), units, tuning.expected, tuning.size, subgroup, tuning.unroll)


def _layers_of_dispatch(planner: Planner, layers: Sequence[Layer]) -> int:
    """As many as can be bound at once."""
    calls = [Call.of(product) for product in layers[0].products]
    caches = layers[0].attention.k_cache.max_nbytes
    largest = max(Joined(tuple(_weights(calls))).offsets[-1], Joined(tuple(_scales(calls))).offsets[-1], caches + 256)
    most = min(planner.limits.max_binding_bytes, planner.limits.max_buffer_bytes) // largest
    return ceil_div(len(layers), ceil_div(len(layers), most)) if most else 0


def _words(template: dict[str, Any]) -> int:
    """Of what the kernel keeps and hands over, as it counts them."""
    heads, kv_heads, head_dim = template["heads"], template["kv_heads"], template["head_dim"]
    streams = 2 * template["hidden"] + (2 * heads + 2 * kv_heads) * head_dim + template["ffn"]
    return _HEADER_WORDS + streams + heads * max(1, MOST_WORKGROUPS // kv_heads) * (2 + head_dim)


def _weights(calls: Sequence[Call]) -> Iterator[Repacked]:
    for call in calls:
        assert isinstance(call.packed.weights, Repacked)
        yield call.packed.weights


def _scales(calls: Sequence[Call]) -> Iterator[Repacked]:
    for call in calls:
        assert call.packed.scales is not None
        yield call.packed.scales


def _norms(layers: Sequence[Layer], stride: int) -> Repacked:
    """The weights of all norms, from a multiple of ``stride`` floats on each."""
    weights = tuple(p.norm.weight for layer in layers for p in (layer.qkv, layer.gated) if p.norm is not None)

    def pack(*arrays: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(arrays), stride), np.float32)
        for row, array in zip(rows, arrays, strict=True):
            row[: array.size] = array.reshape(-1)
        return rows

    return Repacked(f"norms, {stride} apart", weights, 4 * len(weights) * stride, pack)

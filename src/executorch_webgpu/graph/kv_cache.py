"""KV caches of fewer bits than the file states: float16, or int8 with a scale for each row and head.

Only operators that write caches by rows may then see one, since they alone know how it is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from ..errors import InvalidInputError, UnsupportedProgramError
from ..ops.values import Tensor
from .build import PREPACK, Constant, Graph, make_call
from .fusion.dataflow import substituted
from .state import cache_writes

KV_CACHE_DTYPES = {"f32": "float32", "f16": "float16", "int8": "int8"}


def has_kv_cache(graph: Graph) -> bool:
    """Whether an operator of the graph writes a KV cache."""
    return bool(cache_writes(graph))


def check_dtype(name: str) -> None:
    """Raise InvalidInputError unless ``name`` is a key of ``KV_CACHE_DTYPES``."""
    if name not in KV_CACHE_DTYPES:
        raise InvalidInputError(f"there is no KV cache dtype {name!r}; choose {', '.join(KV_CACHE_DTYPES)}")


def store_kv_caches(graph: Graph, dtype: str) -> Graph:
    """``graph`` with its KV caches stored as ``dtype``, "float16" or "int8".

    Raises UnsupportedProgramError when a cache does not begin with zeros or anything but attention uses it.
    """
    families = _families(graph)
    _check_users(graph, families)
    constants = dict(graph.constants)
    tensors = {t.id: t for call in graph.calls for t in (*call.inputs, *call.outputs)}
    stored: dict[int, Tensor] = {}
    unused = min(tensors, default=0) - 1
    for number, root in enumerate({root.id: root for root in families.values()}.values()):
        _check_contents(graph, root)
        scales = None
        if dtype == "int8":
            scales = Tensor(min(unused, -1) - number, "float32", root.max_dims[:3], root.constant)
            constants[scales.id] = Constant.zeros(scales)
        members = [t for t in (root, *tensors.values()) if families.get(t.id) is root]
        stored |= {t.id: replace(t, dtype=dtype, scales=scales) for t in members}
        constants[root.id] = Constant.zeros(stored[root.id])
    calls = tuple(
        make_call(call.name, tuple(substituted(arg, stored) for arg in call.args), call.index)
        if any(t.id in stored for t in (*call.inputs, *call.outputs))
        else call
        for call in graph.calls
    )
    return replace(graph, calls=calls, constants=constants)


def _families(graph: Graph) -> dict[int, Tensor]:
    """By id of every tensor that is a KV cache: the constant whose memory it is."""
    prepacked, families = graph.prepacked, dict[int, Tensor]()
    for write in cache_writes(graph):
        root = prepacked.get(write.cache.id, write.cache)
        if root.constant is None or root.rank != 4:
            raise UnsupportedProgramError(
                f"the KV cache {write.cache} is no constant [1, C, heads, D] of the program, so it stays as it is: "
                "load the method without kv_cache_dtype"
            )
        families[root.id] = root
    families |= {out: root for out, root in prepacked.items() if root.id in families}
    return families


def _check_users(graph: Graph, families: Mapping[int, Tensor]) -> None:
    writes = Counter((w.call, w.cache.id) for w in cache_writes(graph))
    for call in graph.calls:
        used = (*call.inputs, *call.outputs)
        for tensor in used:
            if tensor.id not in families or call.name == PREPACK:
                continue
            if used.count(tensor) != writes[call.index, tensor.id]:
                raise UnsupportedProgramError(
                    f"call {call.index} ({call.name}) uses the KV cache {tensor} too, so it must stay as it is: load "
                    "the method without kv_cache_dtype"
                )
    for value in graph.outputs:
        if isinstance(value, Tensor) and value.id in families:
            raise UnsupportedProgramError(
                f"the KV cache {value} is an output of the program, so it must stay as it is: load the method without "
                "kv_cache_dtype"
            )


def _check_contents(graph: Graph, root: Tensor) -> None:
    if graph.constants[root.id].unless_zeros(root) is not None:
        raise UnsupportedProgramError(
            f"the KV cache {root} does not begin with zeros, so it must stay as it is: load the method without "
            "kv_cache_dtype"
        )

"""Runs a random graph in every way, and says what is wrong with it.

On the device, every call is held against its reference, one after the other; the same graph run as a whole must give
the same bits. So small errors do not add up, however deep a graph is. Fused graphs are held to the same, and against
the graph as it was by the references alone, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from executorch_webgpu.errors import DivergenceError, Error
from executorch_webgpu.gpu.buffers import upload
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.fusion import chosen_fusions, fuse_graph
from executorch_webgpu.graph.memory import Kind
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.ops.plan import Planning

from .graphs_model import RandomGraph

# Of the largest element: rewriting in float64 changes last bits only, but what jumps is computed in float32.
REWRITTEN = 1e-5
PASSES = chosen_fusions(True)


@dataclass(frozen=True)
class Wrong:
    """What is wrong: which ``check`` found it, in words, and the operator that is to blame, if one is known."""

    check: str
    text: str
    operator: str | None = None

    def __str__(self) -> str:
        return f"{self.check}: {self.text}"


def wrong_with(graph: RandomGraph, device: Device, fuse: bool = True) -> Wrong | None:
    """The first thing that is wrong with a graph; None if it is right."""
    plain = build_graph(graph.described())
    fused, _ = fuse_graph(plain, PASSES)
    if fuse:
        found = _rewritten(graph, plain, fused)
        if found is not None:
            return found
    for name, built in (("plain", plain), *([("fused", fused)] if fuse and fused.calls != plain.calls else [])):
        found = _on_device(graph, built, device, name)
        if found is not None:
            return found
    return None


def _rewritten(graph: RandomGraph, plain: Graph, fused: Graph) -> Wrong | None:
    """Whether fusion changes what the references compute."""
    executors = [ReferenceExecutor(plain), ReferenceExecutor(fused)]
    with np.errstate(all="ignore"):
        for step in range(graph.count):
            wanted, got = (executor.execute(graph.given(step)) for executor in executors)
            for place, (a, b) in enumerate(zip(got, wanted, strict=True)):
                text = _difference(np.asarray(a), np.asarray(b))
                if text is not None:
                    return Wrong("fusion", f"output {place} in step {step}: {text}")
    return None


def _difference(got: np.ndarray, wanted: np.ndarray) -> str | None:
    if got.shape != wanted.shape:
        return f"dims {list(got.shape)}, which are {list(wanted.shape)} without passes"
    same = (got == wanted) | ((got != got) & (wanted != wanted))
    error = np.where(same, 0, np.abs(got.astype(np.float64) - wanted.astype(np.float64))).max(initial=0)
    largest = np.abs(wanted[np.isfinite(wanted)].astype(np.float64)).max(initial=1)
    return None if error <= REWRITTEN * largest else f"it differs by {error:.3g}, and has elements up to {largest:.3g}"


def _on_device(graph: RandomGraph, built: Graph, device: Device, name: str) -> Wrong | None:
    """Whether calls agree with their references, and whole steps with single calls."""
    try:
        with loaded(built, device, check=True) as checked, loaded(built, device) as whole:
            for step in range(graph.count):
                wanted = checked.execute(graph.given(step))
                if step == 0:
                    _poison(whole)
                got = whole.execute(graph.given(step))
                for place, (a, b) in enumerate(zip(got, wanted, strict=True)):
                    if not isinstance(a, np.ndarray):
                        same = a == b
                    else:
                        assert isinstance(b, np.ndarray)
                        same = (a.shape, a.tobytes()) == (b.shape, b.tobytes())
                    if not same:
                        return Wrong(f"{name}, as a whole", f"output {place} in step {step} is not what calls gave")
    except DivergenceError as error:
        operator = error.divergence.operator if error.divergence is not None else None
        return Wrong(f"{name}, call by call", str(error), operator)
    except Error as error:
        return Wrong(f"{name}, {type(error).__name__}", str(error))
    return None


@contextmanager
def loaded(built: Graph, device: Device, **options: Any) -> Iterator[GraphExecutor]:
    planning = Planning(device.features, device.limits)
    executor = GraphExecutor(built, ConstantPool(device, lambda view: None), planning, **options)
    try:
        yield executor
    finally:
        executor.close()


def _poison(executor: GraphExecutor) -> None:
    """Fill memory between calls with NaN, so that an element that nobody writes is seen."""
    for index, storage in enumerate(executor.memory.storages):
        if storage.kind is Kind.SHARED:
            buffer = executor._bound.buffer(index)
            upload(executor.device, buffer, np.full(buffer.size // 4, 0x7FC00001, np.uint32))

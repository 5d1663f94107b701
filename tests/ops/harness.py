"""One operator call as a program: run it on a device and hold it against its float64 reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.gpu.buffers import upload
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.memory import Kind
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.registry import find
from executorch_webgpu.ops.values import Tensor
from executorch_webgpu.portable.dtypes import is_float
from tests.graph_builder import GraphBuilder, Ref

# The peer's tolerances: either one suffices.
ABSOLUTE, RELATIVE = 1e-4, 1e-3


def contents(executor: GraphExecutor, tensor: Tensor) -> np.ndarray:
    """What a tensor that a graph writes and keeps, such as a KV cache, holds in the default state."""
    index = executor.memory.storage_of[tensor.id]
    return executor.state.read_buffer(index, rows=tensor.max_nbytes).reshape(tensor.max_dims)  # no cache has more rows


@dataclass(frozen=True)
class In:
    """A graph input with its capacity."""

    max_dims: Sequence[int]
    dtype: str = "float32"


@dataclass(frozen=True)
class Const:
    """A read-only constant."""

    array: np.ndarray


@dataclass(frozen=True)
class Mutable:
    """A constant that the operator writes; it keeps its contents from run to run."""

    array: np.ndarray


@dataclass(frozen=True)
class Sym:
    """A SymInt that comes from an int64 [1] input of its own, through select_as_symint."""


@dataclass(frozen=True)
class Out:
    """An output with its capacity; a dtype of "symint" makes it a SymInt."""

    max_dims: Sequence[int] = ()
    dtype: str = "float32"


class OpProgram:
    """A loaded program that consists of one call of ``op``. ``options`` go to ``Planning``."""

    def __init__(self, device: Device, op: str, args: Sequence[Any], out: Out | Sequence[Out], **options: Any) -> None:
        self._op = op
        self._args = list(args)
        self._out = out
        self.device = device
        self.constants = ConstantPool(device, lambda view: None)
        self.executor = GraphExecutor(
            build_graph(call_graph(op, args, out)), self.constants, Planning(device.features, device.limits, **options)
        )
        self._reference_state = [
            np.array(a.array, np.float64 if is_float(a.array.dtype) else a.array.dtype)
            for a in args
            if isinstance(a, Mutable)
        ]

    def __enter__(self) -> OpProgram:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.close()

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Any]) -> Any:
        """One step; an array (or an int for a Sym) for each In and Sym, in order of the arguments."""
        given = [np.asarray([v], np.int32) if isinstance(v, int) else np.asarray(v, order="C") for v in inputs]
        results = self.executor.execute(given)
        return results if isinstance(self._out, Sequence) else results[0]

    def reference(self, inputs: Sequence[Any]) -> Any:
        """The float64 reference for the same step; it keeps mutable state of its own."""
        op = find(self._op)
        assert op is not None
        given, state = iter(inputs), iter(self._reference_state)

        def resolve(arg: Any) -> Any:
            match arg:
                case In():
                    return as_float64(next(given))
                case Sym():
                    return int(next(given))
                case Const():
                    return as_float64(arg.array)
                case Mutable():
                    return next(state)
                case list():
                    return [resolve(a) for a in arg]
                case _:
                    return arg

        return op.reference(*[resolve(a) for a in self._args])

    def check(self, inputs: Sequence[Any], absolute: float = ABSOLUTE, relative: float = RELATIVE) -> Any:
        """Run, compare with the reference, and answer with the outputs."""
        self.poison()
        got = self.run(inputs)
        expected = self.reference(inputs)
        pairs = zip(got, expected, strict=True) if isinstance(self._out, Sequence) else [(got, expected)]
        for planner, e in pairs:
            assert_close(planner, e, absolute, relative)
        return got

    def mutable(self, index: int = 0) -> np.ndarray:
        """Current contents of the ``index``-th mutable argument on the device."""
        tensors = [t for c in self.executor.graph.calls for t in c.mutated]
        return contents(self.executor, tensors[index])

    def poison(self) -> None:
        """Fill shared memory with NaN, so that an element nobody writes is seen."""
        for index, storage in enumerate(self.executor.memory.storages):
            if storage.kind is Kind.SHARED:
                buffer = self.executor._bound.buffer(index)
                upload(self.device, buffer, np.full(buffer.size // 4, 0x7FC00001, np.uint32))


def call_graph(op: str, args: Sequence[Any], out: Any) -> vk.VkGraph:
    """A delegate of one call; anything may stand for an argument, and for the output too."""
    build = GraphBuilder()
    ids = [_value(build, a) for a in args]
    outs = out if isinstance(out, Sequence) else [out]
    results = [_value(build, o) for o in outs]
    build.call(op, *ids, results if isinstance(out, Sequence) else results[0])
    build.output(*(r for r in results if isinstance(r, Ref)))
    return build.build()


def _value(build: GraphBuilder, arg: Any) -> Any:
    match arg:
        case In():
            return build.input(arg.max_dims, arg.dtype)
        case Out():
            return build.symint() if arg.dtype == "symint" else build.tensor(arg.max_dims, arg.dtype)
        case Const() | Mutable():
            return build.constant(arg.array)
        case Sym():
            return build.live()
        case list():
            return [_value(build, a) for a in arg]
        case _:
            return arg


def as_float64(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float64) if is_float(array.dtype) else array


def assert_close(got: np.ndarray | int, expected: Any, absolute: float = ABSOLUTE, relative: float = RELATIVE) -> None:
    """Shapes equal; integers and bools exact; floats within ``absolute`` or ``relative``; NaN and inf in place."""
    if isinstance(got, int):
        assert got == expected
        return
    expected = np.asarray(expected)
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    if not is_float(got.dtype):
        np.testing.assert_array_equal(got, expected.astype(got.dtype))
        return
    stored, got = got.dtype, got.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite].astype(stored).astype(np.float64))
    error = np.abs(got[finite] - expected[finite])
    allowed = np.maximum(absolute, relative * np.abs(expected[finite]))
    worst = int(np.argmax(error - allowed)) if error.size else 0
    assert (error <= allowed).all(), (
        f"{int((error > allowed).sum())} of {error.size} elements are off, "
        f"worst {got[finite][worst]} where {expected[finite][worst]} is expected"
    )

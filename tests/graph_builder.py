"""Delegate graphs by hand, right or wrong: whatever calls and values a test wants, as it wants them.

``executorch_webgpu.models.builder`` is for models, and keeps its users from wrong graphs: it makes each output itself,
at the right size. This one also writes an operator's output over its input, calls with arguments that do not fit,
values that nobody computes, every type of value, and constants inside the blob.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from executorch_webgpu.format import values
from executorch_webgpu.format import vkgraph as vk
from executorch_webgpu.graph import build as build_module
from executorch_webgpu.ops.values import ELEMENT_TYPES

# Dtypes that programs have and delegates cannot state go by their own names, and the reader of graphs learns these.
VK_DTYPES: dict[str, Any] = {n: vk.DataType.__members__.get(n.upper(), n) for n in ELEMENT_TYPES}
for _name in (n for n, code in VK_DTYPES.items() if n == code):
    build_module._DTYPES.setdefault(_name, _name)  # type: ignore[arg-type]
    build_module._FILE_DTYPES.setdefault(_name, ELEMENT_TYPES[_name].numpy)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Ref:
    """A value that is in the graph already."""

    id: int


class GraphBuilder:
    """Collects values and calls; ``build`` gives the graph as the reader of delegate blobs would.

    Arguments of ``call`` are Refs, numbers, strings, None, arrays (constants), or lists of these.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.chain: list[vk.OperatorCall] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.constants: list[np.ndarray] = []

    def input(self, max_dims: Sequence[int], dtype: str = "float32") -> Ref:
        ref = self.tensor(max_dims, dtype)
        self.inputs.append(ref.id)
        return ref

    def tensor(self, max_dims: Sequence[int], dtype: str = "float32") -> Ref:
        return self._add(vk.VkTensor(VK_DTYPES[dtype], tuple(max_dims)))

    def symint(self) -> Ref:
        return self._add(vk.SymInt(0))

    def constant(self, array: np.ndarray) -> Ref:
        self.constants.append(np.ascontiguousarray(array))
        dtype = VK_DTYPES[str(array.dtype)]
        return self._add(vk.VkTensor(dtype, tuple(array.shape), constant_id=len(self.constants) - 1))

    def live(self) -> Ref:
        """A SymInt that comes from an int64 [1] input of its own."""
        out = self.symint()
        self.call("et_vk.select_as_symint.default", self.input((1,), "int32"), 0, 0, out)
        return out

    def size_of(self, x: Ref, dim: int) -> Ref:
        """A SymInt that follows a live dim."""
        out = self.symint()
        self.call("sym_size.int", x, dim, out)
        return out

    def call(self, op: str, *args: Any) -> Any:
        """One call; the last argument is its output, or the list of them, and is answered."""
        self.chain.append(vk.OperatorCall(0, op, tuple(self.value(a).id for a in args)))
        return args[-1]

    def output(self, *refs: Ref) -> None:
        self.outputs.extend(r.id for r in refs)

    def build(self) -> vk.VkGraph:
        return vk.VkGraph(
            tuple(self.chain),
            tuple(self.values),
            tuple(self.inputs),
            tuple(self.outputs),
            tuple(vk.VkBytes(i, a.nbytes) for i, a in enumerate(self.constants)),
            tuple(memoryview(a.tobytes()) for a in self.constants),
        )

    def value(self, arg: Any) -> Ref:
        """The Ref of an argument, added to the graph if it is not there yet."""
        match arg:
            case Ref():
                return arg
            case np.ndarray():
                return self.constant(arg)
            case None:
                return self._add(values.Null())
            case bool():
                return self._add(values.Bool(arg))
            case int():
                return self._add(values.Int(arg))
            case float():
                return self._add(values.Double(arg))
            case str():
                return self._add(values.String(arg))
            case list():
                return self._add(self._list(arg))
        raise TypeError(f"no graph value for {arg!r}")

    def _list(self, items: list[Any]) -> Any:
        if all(isinstance(i, bool) for i in items):
            return values.BoolList(tuple(items))
        if all(isinstance(i, int) for i in items):
            return values.IntList(tuple(items))
        if all(isinstance(i, float) for i in items):
            return values.DoubleList(tuple(items))
        return vk.ValueList(tuple(self.value(i).id for i in items))

    def _add(self, value: Any) -> Ref:
        self.values.append(value)
        return Ref(len(self.values) - 1)

"""A delegated graph written as one writes a model: a method an operator, tensors in and tensors out.

    b = GraphBuilder()
    tokens = b.input((1, 511), DataType.INT32, dynamic=True)
    x = b.embedding(tokens, table)
    x = b.add(x, b.linear(b.rms_norm(x, norm, 1e-5), w))
    b.output(x)

Dims are upper bounds. A size that changes from run to run is a Scalar, which knows its own bound; it goes where
an int goes. Weights are Constants, and enter the graph when they are first used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import InvalidInputError
from ..format.values import Bool, Double, Int, IntList, Null, String
from ..format.vkgraph import (
    NAMED,
    DataType,
    MemoryLayout,
    OperatorCall,
    StorageType,
    SymInt,
    Value,
    ValueList,
    VkBytes,
    VkGraph,
    VkTensor,
)
from .matrix import Matrix
from .memory import share_memory
from .weights import Constant, zeros


@dataclass(frozen=True)
class TensorRef:
    """A tensor of the graph that is being built, and the upper bounds of its dims."""

    id: int
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Scalar:
    """An integer that is known when the program runs, at most ``bound``."""

    id: int
    bound: int


Size: TypeAlias = int | Scalar
Argument: TypeAlias = TensorRef | Scalar | Constant | int | float | bool | str | Sequence["Argument"] | None


class GraphBuilder:
    """Collects the values and calls of a graph; ``graph`` gives them, ``constants`` what the file must hold."""

    def __init__(self) -> None:
        self.inputs: list[TensorRef] = []
        self.dynamic: set[int] = set()  # inputs and outputs whose sizes are upper bounds
        self.outputs: list[TensorRef] = []
        self.constants: dict[str, Constant] = {}
        self._values: list[Value] = []
        self._calls: list[OperatorCall] = []
        self._bytes: list[VkBytes] = []
        self._interned: dict[tuple[type, Argument], int] = {}
        self._placed: dict[str, TensorRef] = {}
        self._state: set[int] = set()

    # -- what goes in and out ---------------------------------------------------------------------------------------

    def input(self, dims: Sequence[int], dtype: DataType = DataType.FLOAT32, *, dynamic: bool = False) -> TensorRef:
        """The next input. ``dynamic``: its dims are upper bounds."""
        tensor = self._tensor(dims, dtype)
        self.inputs.append(tensor)
        if dynamic:
            self.dynamic.add(tensor.id)
        return tensor

    def output(self, *tensors: TensorRef, dynamic: bool = False) -> None:
        """The next outputs. ``dynamic``: their dims are upper bounds."""
        self.outputs.extend(tensors)
        if dynamic:
            self.dynamic.update(tensor.id for tensor in tensors)

    def constant(self, constant: Constant) -> TensorRef:
        """A tensor that is only read: always the same one for the same name."""
        if constant.name not in self._placed:
            self._placed[constant.name] = self._stored(constant)
        return self._placed[constant.name]

    def state(self, first: tuple[int, ...] | Constant) -> TensorRef:
        """A new tensor that operators write, and what it begins with: zeros of those dims, or a constant.

        Equal ones share bytes in the file only.
        """
        begin = first if isinstance(first, Constant) else zeros("zeros." + "x".join(map(str, first)), first)
        tensor = self._stored(begin)
        self._state.add(tensor.id)
        return tensor

    # -- live integers ----------------------------------------------------------------------------------------------

    def size(self, x: TensorRef, dim: int) -> Scalar:
        """How large a dimension is in this run."""
        return self._scalar("sym_size.int", x, dim, bound=x.dims[dim])

    def scalar(self, x: TensorRef, bound: int) -> Scalar:
        """The first element of an integer input."""
        return self._scalar("et_vk.select_as_symint.default", x, 0, 0, bound=bound)

    def sum(self, a: Scalar, b: Scalar, bound: int) -> Scalar:
        """a + b."""
        return self._scalar("add", a, b, bound=bound)

    # -- operators --------------------------------------------------------------------------------------------------

    def embedding(self, indices: TensorRef, table: Matrix) -> TensorRef:
        """Rows of ``table`` [V, D]."""
        out = (*indices.dims, table.dims[1])
        if isinstance(table, Constant):
            return self._call("aten.embedding.default", table, indices, -1, False, False, out=out)
        if table.format == "q4gsw":
            packed_as_linear = True
            arguments = table.packed, table.row_scales, table.group, indices, packed_as_linear
            return self._call("et_vk.embedding_q4gsw.default", *arguments, out=out)
        op = {"q8gsw": "et_webgpu.embedding_q8gsw.default", "q4gaw": "et_webgpu.embedding_q4gaw.default"}[table.format]
        return self._call(op, table.packed, table.scales, table.group, indices, out=out)

    def linear(self, x: TensorRef, w: Matrix, bias: Constant | None = None) -> TensorRef:
        """x times the transpose of ``w`` [N, K], plus ``bias`` [N]."""
        out = (*x.dims[:-1], w.dims[0])
        if isinstance(w, Constant):
            return self._call("aten.linear.default", x, w, bias, out=out)
        if w.format == "q8csw":
            product = self._call("aten._weight_int8pack_mm.default", x, w.packed, w.scales, out=out)
            return product if bias is None else self._call("aten.add.Tensor", product, bias, 1, out=out)
        namespace = "et_vk" if w.format == "q4gsw" else "et_webgpu"
        return self._call(f"{namespace}.linear_{w.format}.default", x, w.packed, w.scales, w.group, bias, out=out)

    def rms_norm(self, x: TensorRef, weight: Constant, eps: float) -> TensorRef:
        """x / sqrt(mean(x²) + eps) * weight, over the last dimension."""
        return self._call("et_vk.rms_norm.default", x, weight, eps, out=x.dims)

    def add(self, a: TensorRef, b: TensorRef) -> TensorRef:
        return self._call("aten.add.Tensor", a, b, 1, out=a.dims)

    def mul(self, a: TensorRef, b: TensorRef) -> TensorRef:
        return self._call("aten.mul.Tensor", a, b, out=a.dims)

    def silu(self, x: TensorRef) -> TensorRef:
        """x * sigmoid(x)."""
        return self.mul(x, self._call("aten.sigmoid.default", x, out=x.dims))

    def view(self, x: TensorRef, sizes: Sequence[Size]) -> TensorRef:
        """The same elements in another shape."""
        return self._call("aten.view_copy.default", x, list(sizes), out=[_bound(size) for size in sizes])

    def rows(self, x: TensorRef, start: Size, end: Size, most: int) -> TensorRef:
        """x[start:end], which is at most ``most`` rows."""
        return self._call("aten.slice_copy.Tensor", x, 0, start, end, 1, out=(most, *x.dims[1:]))

    def select(self, x: TensorRef, dim: int, index: int) -> TensorRef:
        """One index of a dimension, which goes away."""
        return self._call("aten.select_copy.int", x, dim, index, out=x.dims[:dim] + x.dims[dim + 1 :])

    def prepack(self, table: Constant) -> TensorRef:
        """A constant for operators that take no constants."""
        return self._call("et_vk.prepack.default", table, out=table.dims, dtype=table.dtype)

    def apply_rotary_emb(
        self, q: TensorRef, k: TensorRef, cos: TensorRef, sin: TensorRef
    ) -> tuple[TensorRef, TensorRef]:
        """Rotate neighbours (2i, 2i+1) of q, k [1, S, heads, D]; token s takes row s of cos, sin [S, D/2]."""
        rotated = self._tensor(q.dims), self._tensor(k.dims)
        self._append("et_vk.apply_rotary_emb.default", q, k, cos, sin, rotated)
        return rotated

    def apply_rotary_emb_hf(
        self, q: TensorRef, k: TensorRef, cos: TensorRef, sin: TensorRef, start: Size
    ) -> tuple[TensorRef, TensorRef]:
        """Rotate i with i + D/2 of q, k [1, S, heads, D]; token s takes row start + s of cos, sin [rows, D]."""
        rotated = self._tensor(q.dims), self._tensor(k.dims)
        self._append("et_vk.apply_rotary_emb_hf.default", q, k, cos, sin, start, rotated)
        return rotated

    def sdpa_with_kv_cache(
        self, q: TensorRef, k: TensorRef, v: TensorRef, k_cache: TensorRef, v_cache: TensorRef, input_pos: Size
    ) -> TensorRef:
        """Write k, v into the caches [1, C, Hkv, D] from row ``input_pos``, then causal attention of q to them."""
        sequence, mask, dropout, causal, scale = 1, None, 0, True, None  # the exporter says 1 for every length
        arguments = (q, k, v, k_cache, v_cache, input_pos, sequence, mask, dropout, causal, scale)
        return self._call("sdpa_with_kv_cache.default", *arguments, out=q.dims)

    def layer_norm(self, x: TensorRef, weight: Constant, bias: Constant, eps: float) -> TensorRef:
        """(x - mean) / sqrt(variance + eps) * weight + bias, over the last dimension."""
        statistics = (*x.dims[:-1], 1)
        arguments = x, [x.dims[-1]], weight, bias, eps
        return self.calls("aten.native_layer_norm.default", *arguments, outs=[x.dims, statistics, statistics])[0]

    def gelu(self, x: TensorRef, approximate: str = "none") -> TensorRef:
        """x * P(X <= x) of a normal X; ``approximate``: "none", or "tanh"."""
        return self._call("aten.gelu.default", x, approximate, out=x.dims)

    def permute(self, x: TensorRef, order: Sequence[int]) -> TensorRef:
        """The dimensions of x in another order."""
        return self._call("aten.permute_copy.default", x, list(order), out=[x.dims[dim] for dim in order])

    def cast(self, x: TensorRef, dtype: DataType) -> TensorRef:
        """x in another dtype."""
        return self._call("aten._to_copy.default", x, *[None] * 6, out=x.dims, dtype=dtype)

    def call(self, op: str, *arguments: Argument, out: Sequence[int], dtype: DataType = DataType.FLOAT32) -> TensorRef:
        """Any operator with one result, by its name in the registry."""
        return self._call(op, *arguments, out=out, dtype=dtype)

    def calls(self, op: str, *arguments: Argument, outs: Sequence[Sequence[int]]) -> tuple[TensorRef, ...]:
        """Any operator with a list of float32 results."""
        results = tuple(self._tensor(dims) for dims in outs)
        self._append(op, *arguments, results)
        return results

    # -- the result -------------------------------------------------------------------------------------------------

    def graph(self) -> VkGraph:
        """The graph, whose constants are entries of the program's named data."""
        inputs, outputs = [t.id for t in self.inputs], [t.id for t in self.outputs]
        values = share_memory(self._values, self._calls, inputs, outputs, self._state)
        return VkGraph(tuple(self._calls), values, tuple(inputs), tuple(outputs), tuple(self._bytes))

    def dtype(self, tensor: TensorRef) -> DataType:
        """The tensor's element type on the device."""
        value = self._values[tensor.id]
        assert isinstance(value, VkTensor)
        return value.datatype

    def _call(self, op: str, *arguments: Argument, out: Sequence[int], dtype: DataType = DataType.FLOAT32) -> TensorRef:
        result = self._tensor(out, dtype)
        self._append(op, *arguments, result)
        return result

    def _scalar(self, op: str, *arguments: Argument, bound: int) -> Scalar:
        result = Scalar(self._add(SymInt(0)), bound)
        self._append(op, *arguments, result)
        return result

    def _append(self, op: str, *arguments: Argument) -> None:
        args = tuple(self._id(argument) for argument in arguments)
        self._calls.append(OperatorCall(len(self._calls), op, args))

    def _tensor(self, dims: Sequence[int], dtype: DataType = DataType.FLOAT32) -> TensorRef:
        layout = StorageType.BUFFER, MemoryLayout.WIDTH_PACKED
        return TensorRef(self._add(VkTensor(dtype, tuple(dims), -1, -1, *layout, dtype)), tuple(dims))

    def _stored(self, constant: Constant) -> TensorRef:
        known = self.constants.setdefault(constant.name, constant)
        if (known.dtype, known.dims) != (constant.dtype, constant.dims):
            raise InvalidInputError(f"two constants are called '{constant.name}': give each a name of its own")
        value = VkTensor(constant.dtype, constant.dims, len(self._bytes), staging_datatype=constant.dtype)
        self._bytes.append(VkBytes(NAMED, constant.nbytes, constant.name))
        return TensorRef(self._add(value), constant.dims)

    def _id(self, argument: Argument) -> int:
        """The id of the value that an argument is, which is added to the graph if it is not there yet."""
        match argument:
            case TensorRef() | Scalar():
                return argument.id
            case Constant():
                return self.constant(argument).id
            case None | bool() | int() | float() | str():
                key = type(argument), argument
                if key not in self._interned:
                    self._interned[key] = self._add(_plain(argument))
                return self._interned[key]
            case _ if all(isinstance(item, int) for item in argument):
                return self._add(IntList(tuple(item for item in argument if isinstance(item, int))))
        return self._add(ValueList(tuple(self._id(item) for item in argument)))

    def _add(self, value: Value) -> int:
        self._values.append(value)
        return len(self._values) - 1


def _plain(argument: bool | int | float | str | None) -> Value:
    match argument:
        case None:
            return Null()
        case bool():
            return Bool(argument)
        case int():
            return Int(argument)
        case str():
            return String(argument)
    assert math.isfinite(argument)
    return Double(argument)


def _bound(size: Size) -> int:
    return size.bound if isinstance(size, Scalar) else size

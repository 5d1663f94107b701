"""A real program with a KV cache, whose answers NumPy works out: they depend on the whole text, and on its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from executorch_webgpu.format import program_schema as schema
from executorch_webgpu.format.pte import write_program
from executorch_webgpu.format.values import Bool, Int, String
from executorch_webgpu.format.vkgraph import write_vkgraph
from executorch_webgpu.runtime.metadata import TensorMetadata
from tests.graph_builder import GraphBuilder, Ref
from tests.programs import delegate_plan

DIM, POSITIONS = 16, 256
Stated = int | bool | str | np.ndarray  # what a constant method returns; an array is one int64

_SCALAR_TYPES = {"int64": schema.ScalarType.LONG, "float32": schema.ScalarType.FLOAT}


@cache
def tables(vocab_size: int) -> dict[str, np.ndarray]:
    """Queries, keys and values of tokens, keys of positions, and the head."""
    random = np.random.default_rng(vocab_size)
    rows = {"q": vocab_size, "k": vocab_size, "v": vocab_size, "position": POSITIONS, "head": vocab_size}
    return {name: random.standard_normal((count, DIM)).astype(np.float32) for name, count in rows.items()}


@cache
def wide_tables(vocab_size: int) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float64) for name, array in tables(vocab_size).items()}


def next_token(text: Sequence[int], vocab_size: int) -> int:
    """The token that a text goes on with: it depends on every token and on its position."""
    table = wide_tables(vocab_size)
    tokens = list(text)
    keys = table["k"][tokens] + table["position"][: len(tokens)]
    scores = keys @ table["q"][tokens[-1]] / np.sqrt(DIM)
    weights = np.exp(scores - scores.max())
    logits = table["head"] @ (weights / weights.sum() @ table["v"][tokens])
    best, second = np.sort(logits)[[-1, -2]]
    assert best - second > 1e-4  # float32 must tell them apart
    return int(logits.argmax())


def continuation(prompt: Sequence[int], count: int, vocab_size: int) -> list[int]:
    """``count`` tokens after a prompt, each from the whole text before it."""
    text = list(prompt)
    for _ in range(count):
        text.append(next_token(text, vocab_size))
    return text[len(prompt) :]


def tiny_program(
    *,
    vocab_size: int,
    context_len: int = 64,
    max_tokens: int = 5,
    dynamic: bool = True,
    all_logits: bool = False,
    dtype: str = "int64",
    constants: Mapping[str, Sequence[Stated]] | None = None,
    inputs: Sequence[TensorMetadata] | None = None,
    outputs: Sequence[TensorMetadata] | None = None,
) -> bytes:
    """The file of a language model of the usual shape; ``constants`` states its context length unless it is given.

    ``inputs`` and ``outputs`` are what the file says of ``forward`` instead of what is true, for what never runs it.
    """
    build = GraphBuilder()
    _build_forward(build, vocab_size, context_len, max_tokens, all_logits)
    plan = delegate_plan(build, [dtype, "int64", "float32"], dynamic=[0] if dynamic else [])
    if inputs is not None:
        plan = _with_values(plan, "inputs", inputs)
    if outputs is not None:
        plan = _with_values(plan, "outputs", outputs)
    stated: Mapping[str, Sequence[Stated]] = {"get_max_context_len": [context_len]} if constants is None else constants
    buffers = [schema.Buffer(memoryview(b""))]
    plans = [plan, *(_constant_plan(name, values, buffers) for name, values in stated.items())]
    blob = write_vkgraph(build.build(), [np.ascontiguousarray(a).tobytes() for a in build.constants])
    return write_program(schema.Program(execution_plan=tuple(plans), constant_buffer=tuple(buffers)), [blob])


def _build_forward(build: GraphBuilder, vocab: int, context_len: int, max_tokens: int, all_logits: bool) -> None:
    """tokens, input_pos -> logits: one layer of attention, whose keys know their positions."""
    table = tables(vocab)
    tokens, start = build.input((1, max_tokens), "int32"), build.live()
    length = build.size_of(tokens, 1)
    wide, heads = (1, max_tokens, DIM), (1, max_tokens, 1, DIM)

    def embedded(name: str) -> Ref:
        return build.call("aten.embedding.default", table[name], tokens, -1, False, False, build.tensor(wide))

    def as_heads(x: Ref) -> Ref:
        return build.call("aten.view_copy.default", x, [1, length, 1, DIM], build.tensor(heads))

    end = build.call("add", start, length, build.symint())
    position = build.call(
        "aten.slice_copy.Tensor", table["position"], 0, start, end, 1, build.tensor((max_tokens, DIM))
    )
    keys = build.call("aten.add.Tensor", embedded("k"), position, 1, build.tensor(wide))
    q, k, v = map(as_heads, (embedded("q"), keys, embedded("v")))
    caches = [build.constant(np.zeros((1, context_len, 1, DIM), np.float32)) for _ in range(2)]
    attended = build.call(
        "sdpa_with_kv_cache.default", q, k, v, *caches, start, length, None, 0.0, True, None, build.tensor(heads)
    )
    x = build.call("aten.view_copy.default", attended, [1, length, DIM], build.tensor(wide))
    if all_logits:
        out = build.tensor((1, max_tokens, vocab))
    else:
        x, out = build.call("aten.select_copy.int", x, 1, -1, build.tensor((1, DIM))), build.tensor((1, vocab))
    build.output(build.call("aten.linear.default", x, table["head"], None, out))


def _with_values(plan: schema.ExecutionPlan, role: str, described: Sequence[TensorMetadata]) -> schema.ExecutionPlan:
    """The method with inputs or outputs that nothing computes."""
    first = len(plan.values)
    values = tuple(schema.EValue(_tensor(each) if each.is_tensor else Int(0)) for each in described)
    places = tuple(range(first, first + len(values)))
    changed: dict[str, Any] = {role: places}
    return replace(plan, values=(*plan.values, *values), **changed)


def _tensor(described: TensorMetadata) -> schema.Tensor:
    dynamism = schema.ShapeDynamism.DYNAMIC_BOUND if described.dynamic_dims else schema.ShapeDynamism.STATIC
    order = tuple(range(len(described.max_dims)))
    return schema.Tensor(
        _SCALAR_TYPES[described.dtype], sizes=described.max_dims, dim_order=order, shape_dynamism=dynamism
    )


def _constant_plan(name: str, values: Sequence[Stated], buffers: list[schema.Buffer]) -> schema.ExecutionPlan:
    """A method without inputs that returns these values."""

    def boxed(value: Stated) -> schema.EValue:
        match value:
            case bool():
                return schema.EValue(Bool(value))
            case int():
                return schema.EValue(Int(value))
            case str():
                return schema.EValue(String(value))
        buffers.append(schema.Buffer(memoryview(value.astype(np.int64).tobytes())))
        order = tuple(range(value.ndim))
        return schema.EValue(
            schema.Tensor(schema.ScalarType.LONG, sizes=value.shape, dim_order=order, data_buffer_idx=len(buffers) - 1)
        )

    return schema.ExecutionPlan(
        name,
        values=tuple(map(boxed, values)),
        outputs=tuple(range(len(values))),
        chains=(schema.Chain(),),
        non_const_buffer_sizes=(0,),
    )

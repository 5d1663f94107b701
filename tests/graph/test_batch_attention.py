"""Attention that a program writes out, in all the ways that there are, is found where it is causal, and only there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.graph import batch_positions
from executorch_webgpu.graph.batching import BatchSizes, batched
from executorch_webgpu.graph.build import Graph, build_graph
from executorch_webgpu.graph.reference import ReferenceExecutor
from executorch_webgpu.ops.values import Tensor
from tests.graph_builder import GraphBuilder, Ref
from tests.ops.harness import assert_close

CONTEXT, MOST, VOCAB, HEAD = 12, 5, 11, 4
SIZES = BatchSizes(rows=16, wanted=6, sequences=3, context_len=CONTEXT, page_rows=4, pages=9)
LAYOUTS = {  # of a cache, with the dimension of its rows
    "rows first": ("chd", 0),
    "batch, rows": ("1chd", 1),
    "batch, heads": ("1hcd", 2),
    "heads": ("hcd", 1),
    "flat": ("1cx", 1),
}


@dataclass(frozen=True)
class Form:
    """How a program is written. ``window``, ``bound`` and ``wrong`` are what no batch can do."""

    one: bool = False
    of_each: bool = False
    layout: str = "batch, heads"
    kv_heads: int = 2
    group: int = 2
    write: str = "put"
    mask: str = "table"
    scale: float = 0.5
    scaled: str = "scores"
    cut: bool = False  # caches end after the last row
    last: str = "select"
    angles: bool = False  # embeddings are turned by angles that follow from positions
    inserted: tuple[int, str, int] | None = None  # after which call, what, along which dimension
    window: int | None = None
    bound: float | None = None
    wrong: str | None = None


class Program(GraphBuilder):
    """One layer: learned positions, attention, and a head."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.most = 1 if form.one else MOST
        self.tokens = self.input((1, self.most), "int32")
        self.input_pos = self.input((self.most if form.of_each else 1,), "int32")
        self.count: Ref | int = 1 if form.one else self.size_of(self.tokens, 1)
        self.start = self.call("et_vk.select_as_symint.default", self.input_pos, 0, 0, self.symint())
        self.end = self.call("add", self.start, self.count, self.symint())
        self.random = np.random.default_rng(0)
        self.made = 0
        self.changed: list[tuple[Ref, Ref]] = []  # what caches become at the end

    def op(self, name: str, dims: tuple[int, ...], *args: object, dtype: str = "float32") -> Ref:
        result: Ref = self.call(name, *args, self.tensor(dims, dtype))
        self.made += 1
        place, kind, dim = self.form.inserted or (0, "", 0)
        if self.made != place or dtype != "float32" or not dims:
            return result
        out = self.tensor(dims)
        match kind:
            case "neg" | "abs":
                return Ref(self.call(f"aten.{kind}.default", result, out).id)
            case "flip":
                return Ref(self.call("aten.flip.default", result, [dim % len(dims)], out).id)
            case "cumsum":
                return Ref(self.call("aten.cumsum.default", result, dim % len(dims), None, out).id)
            case "softmax":
                return Ref(self.call("aten._softmax.default", result, dim % len(dims), False, out).id)
            case _:
                return Ref(self.call("aten.mul.Scalar", result, 0.9, out).id)

    def positions(self) -> Ref:
        if self.form.of_each or self.form.one:
            return Ref(self.input_pos.id)
        rows = self.op("aten.arange.start_step", (self.most,), 0, self.count, 1, None, None, None, None, dtype="int32")
        return self.op("aten.add.Tensor", (self.most,), rows, self.input_pos, 1, dtype="int32")

    def view(self, x: Ref, *dims: int | str) -> Ref:
        sizes = [self.count if d == "s" else d for d in dims]
        return self.op("aten.view_copy.default", tuple(self.most if d == "s" else int(d) for d in dims), x, sizes)

    def permute(self, x: Ref, dims: tuple[int, ...], order: list[int]) -> Ref:
        return self.op("aten.permute_copy.default", tuple(dims[i] for i in order), x, order)

    def matrix(self, *dims: int) -> np.ndarray:
        return self.random.standard_normal(dims).astype(np.float32)

    def stored(self, rows: Ref, positions: Ref) -> tuple[Ref, list[str]]:
        """A cache after ``rows`` [S, h, d] are written, and what its dimensions are."""
        form = self.form
        names, axis = LAYOUTS[form.layout]
        sizes = {"1": 1, "c": CONTEXT, "h": form.kv_heads, "d": HEAD, "x": form.kv_heads * HEAD}
        dims = tuple(sizes[n] for n in names)
        if names.replace("1", "").startswith("h"):
            rows = self.permute(rows, (self.most, form.kv_heads, HEAD), [1, 0, 2])
        rows = self.view(rows, *("s" if n == "c" else sizes[n] for n in names))
        cache = self.constant(np.zeros(dims, np.float32))
        if form.wrong == "place":
            positions = self.op("aten.add.Scalar", (self.most,), positions, 1, 1, dtype="int32")
        if form.write == "slice":
            end = self.end
            self.call("et_webgpu.slice_scatter_.default", cache, rows, axis, self.start, end, 1, cache)
            return cache, list(names)
        if form.write == "put":
            self.call("aten.index_put_.default", cache, [*[None] * axis, positions], rows, False, cache)
            return cache, list(names)
        changed = self.op("aten.index_copy.default", dims, cache, axis, positions, rows)
        self.changed.append((changed, cache))
        return changed, list(names)

    def heads_first(self, cache: Ref, names: list[str]) -> tuple[Ref, int | str]:
        """A cache as [h, C, d]; C is how many rows it has, or where the text ends."""
        form, kept = self.form, [n for n in names if n != "1"]
        sizes: dict[str, int] = {"c": CONTEXT, "h": form.kv_heads, "d": HEAD, "x": form.kv_heads * HEAD}
        x = self.view(cache, *(sizes[n] for n in kept))
        if kept == ["c", "x"]:
            x, kept = self.view(x, CONTEXT, form.kv_heads, HEAD), ["c", "h", "d"]
        if kept[0] == "c":
            x = self.permute(x, (CONTEXT, form.kv_heads, HEAD), [1, 0, 2])
        if not form.cut:
            return x, CONTEXT
        dims = (form.kv_heads, CONTEXT, HEAD)
        return self.op("aten.slice_copy.Tensor", dims, x, 1, 0, self.end, 1), "end"

    def cosines(self, positions: Ref) -> Ref:
        """[S, 8], the first half of which is the second one."""
        column = self.op("aten.unsqueeze_copy.default", (self.most, 1), positions, 1, dtype="int32")
        cast = "dim_order_ops._to_dim_order_copy.default"
        column = self.op(cast, (self.most, 1), column, None, None, None, None, False, [])
        angles = self.op("aten.mul.Tensor", (self.most, 4), column, np.array([1, 0.5, 0.2, 0.1], np.float32))
        angles = self.op("aten.cat.default", (self.most, 8), [angles, angles], -1)
        return self.op("aten.cos.default", (self.most, 8), angles)

    def seen(self, positions: Ref, width: int | str) -> Ref:
        """[S, C]: 0 where a row is seen, and very little where it is not."""
        form, dims = self.form, (self.most, CONTEXT)
        if form.mask == "table" and width == CONTEXT:
            distance = np.arange(CONTEXT)[:, None] - np.arange(CONTEXT)
            seen = (distance >= (1 if form.wrong == "mask" else 0)) & (distance < (form.window or CONTEXT))
            table = np.where(seen, 0, np.finfo(np.float32).min).astype(np.float32)
            return self.op("aten.index_select.default", dims, table, 0, positions)
        size = self.end if width == "end" else CONTEXT
        columns = self.op("aten.arange.start_step", (CONTEXT,), 0, size, 1, None, None, None, None, dtype="int32")
        rows = self.op("aten.unsqueeze_copy.default", (self.most, 1), positions, 1, dtype="int32")
        hidden = self.op("aten.gt.Tensor", dims, columns, rows, dtype="bool")
        if form.window is not None:
            far = self.op("aten.sub.Tensor", dims, rows, columns, 1, dtype="int32")
            far = self.op("aten.ge.Scalar", dims, far, form.window, dtype="bool")
            hidden = self.op("aten.logical_or.default", dims, hidden, far, dtype="bool")
        if form.wrong == "mask":
            hidden = self.op("aten.ge.Tensor", dims, columns, rows, dtype="bool")
        zero = self.op("aten.scalar_tensor.default", (), 0.0, None, None, None, None)
        least = self.op("aten.scalar_tensor.default", (), -1e9, None, None, None, None)
        return self.op("aten.where.self", dims, hidden, least, zero)

    def repeated(self, x: Ref) -> Ref:
        form, heads = self.form, self.form.kv_heads * self.form.group
        if form.group == 1:
            return x
        order = (form.kv_heads, form.group) if form.wrong != "heads" else (form.group, form.kv_heads)
        x = self.op(
            "aten.unsqueeze_copy.default",
            (form.kv_heads, 1, CONTEXT, HEAD) if form.wrong != "heads" else (1, form.kv_heads, CONTEXT, HEAD),
            x,
            1 if form.wrong != "heads" else 0,
        )
        width: Ref | int = self.end if form.cut else CONTEXT
        x = self.op("aten.expand_copy.default", (*order, CONTEXT, HEAD), x, [*order, width, HEAD], False)
        return self.op("aten.view_copy.default", (heads, CONTEXT, HEAD), x, [heads, width, HEAD])

    def attention(self, x: Ref, positions: Ref) -> Ref:
        """[S, heads * d] of x [S, 8]."""
        form, heads = self.form, self.form.kv_heads * self.form.group
        q, k, v = (
            self.view(self.op("aten.mm.default", (self.most, n * HEAD), x, self.matrix(8, n * HEAD)), "s", n, HEAD)
            for n in (heads, form.kv_heads, form.kv_heads)
        )
        keys, width = self.heads_first(*self.stored(k, positions))
        values, _ = self.heads_first(*self.stored(v, positions))
        keys, values = self.repeated(keys), self.repeated(values)
        q = self.permute(q, (self.most, heads, HEAD), [1, 0, 2])
        if form.scaled == "both":
            q = self.op("aten.mul.Scalar", (heads, self.most, HEAD), q, form.scale**0.5)
            keys = self.op("aten.mul.Scalar", (heads, CONTEXT, HEAD), keys, form.scale**0.5)
        keys = self.permute(keys, (heads, CONTEXT, HEAD), [0, 2, 1])
        dims = (heads, self.most, CONTEXT)
        scores = self.op("aten.bmm.default", dims, q, keys)
        if form.scaled == "scores":
            scores = self.op("aten.mul.Scalar", dims, scores, form.scale)
        if form.bound is not None:
            scores = self.op("aten.mul.Scalar", dims, scores, 1 / form.bound)
            scores = self.op("aten.tanh.default", dims, scores)
            scores = self.op("aten.mul.Scalar", dims, scores, form.bound)
        scores = self.op("aten.add.Tensor", dims, scores, self.seen(positions, width), 1)
        weights = self.op("aten._softmax.default", dims, scores, -1, False)
        y = self.op("aten.bmm.default", (heads, self.most, HEAD), weights, values)
        return self.view(self.permute(y, (heads, self.most, HEAD), [1, 0, 2]), "s", heads * HEAD)

    def graph(self) -> Graph:
        form, most, heads = self.form, self.most, self.form.kv_heads * self.form.group
        embedded = self.call(
            "aten.embedding.default", self.matrix(VOCAB, 8), self.tokens, -1, False, False, self.tensor((1, most, 8))
        )
        positions = self.positions()
        place = self.op("aten.index_select.default", (most, 8), self.matrix(CONTEXT, 8), 0, positions)
        x = self.view(self.op("aten.add.Tensor", (1, most, 8), embedded, place, 1), "s", 8)
        if form.angles:
            x = self.op("aten.mul.Tensor", (most, 8), x, self.cosines(positions))
        y = self.op("aten.mm.default", (most, 8), self.attention(x, positions), self.matrix(heads * HEAD, 8))
        x = self.view(self.op("aten.add.Tensor", (most, 8), x, y, 1), 1, "s", 8)
        if form.last == "select":
            x = self.op("aten.select_copy.int", (1, 8), x, 1, -1)
            self.output(self.op("aten.mm.default", (1, VOCAB), x, self.matrix(8, VOCAB)))
        elif form.last == "index":
            x = self.op("aten.index.Tensor", (1, 1, 8), x, [None, np.array([-1], np.int32)])
            x = self.op("aten.view_copy.default", (1, 8), x, [1, 8])
            self.output(self.op("aten.mm.default", (1, VOCAB), x, self.matrix(8, VOCAB)))
        else:
            x = self.view(x, "s", 8)
            self.output(self.op("aten.mm.default", (most, VOCAB), x, self.matrix(8, VOCAB)))
        for changed, cache in self.changed:
            self.call("aten.clone.default", changed, None, cache)
        return build_graph(self.build())


def run_both(form: Form, seed: int) -> None:
    """Two texts in one batch, and each alone, in float64."""
    graph, random = Program(form).graph(), np.random.default_rng(seed)
    tokens, input_pos = graph.inputs
    assert isinstance(tokens, Tensor) and isinstance(input_pos, Tensor)
    batch = batched(graph, tokens, input_pos, SIZES)
    many, alone = ReferenceExecutor(batch.graph), [ReferenceExecutor(graph) for _ in range(2)]
    tables = random.permutation(SIZES.pages).reshape(3, 3).astype(np.int32)
    texts, lengths = random.integers(0, VOCAB, (2, CONTEXT)).astype(np.int32), [0, 0]
    most = tokens.max_dims[1]
    while lengths != [CONTEXT, CONTEXT]:
        given: list[int] = []
        places: list[tuple[int, int]] = []
        wanted, expected = [], []
        for sequence in random.permutation(2):
            start = lengths[sequence]
            count = min(int(random.integers(0, MOST + 1)), CONTEXT - start)
            if not count:
                continue
            for first in range(start, start + count, most):
                chunk = texts[sequence, first : min(first + most, start + count)]
                where = np.arange(first, first + (len(chunk) if form.of_each else 1), dtype=np.int32)
                (logits,) = alone[sequence].execute([chunk[None], where])
            given += texts[sequence, start : start + count].tolist()
            places += [(position, 2 * int(sequence)) for position in range(start, start + count)]
            wanted.append(len(given) - 1)
            expected.append(logits.reshape(-1, VOCAB)[-1])
            lengths[sequence] += count
        if given:
            arrays = [np.array(a, np.int32) for a in ([given], places, tables, wanted)]
            (got,) = many.execute(arrays)
            assert_close(got.reshape(len(wanted), VOCAB), np.stack(expected), 1e-4, 1e-4)  # tables are float32


FORMS = st.builds(
    Form,
    one=st.booleans(),
    of_each=st.booleans(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    write=st.sampled_from(["put", "slice", "copy"]),
    mask=st.sampled_from(["table", "compare"]),
    scale=st.sampled_from([0.5, 1.0, 0.037]),
    scaled=st.sampled_from(["scores", "both", "nothing"]),
    cut=st.booleans(),
    last=st.sampled_from(["select", "index", "all"]),
    angles=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(FORMS, st.integers(0, 99))
def test_causal_attention_in_any_form(form: Form, seed: int) -> None:
    run_both(form, seed)


@settings(max_examples=40, deadline=None)
@given(
    FORMS,
    st.integers(1, 40),
    st.sampled_from(["neg", "abs", "flip", "cumsum", "softmax", "mul"]),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_any_other_call_is_refused_or_right(form: Form, place: int, kind: str, dim: int, seed: int) -> None:
    """Wherever it stands: before a cache, in a mask, among scores, between rows."""
    changed = replace(form, inserted=(place, kind, dim))
    with suppress(UnsupportedProgramError):
        run_both(changed, seed)


@pytest.mark.parametrize("one", [False, True])
def test_positions_of_long_contexts_are_computed_by_row(monkeypatch: pytest.MonkeyPatch, one: bool) -> None:
    """A table of all positions would take too many calls of the program, so its own calls run for every row."""
    form = Form(one=one, angles=True, mask="compare")
    of_table = names(form)
    assert "aten.cos.default" not in of_table
    monkeypatch.setattr(batch_positions, "_MOST_RUNS", 0)
    run_both(form, 1)
    assert "aten.cos.default" in names(form)


def names(form: Form) -> set[str]:
    """The operators of a batch."""
    graph = Program(form).graph()
    tokens, input_pos = graph.inputs
    assert isinstance(tokens, Tensor) and isinstance(input_pos, Tensor)
    return {call.name for call in batched(graph, tokens, input_pos, SIZES).graph.calls}


@settings(max_examples=20, deadline=None)
@given(FORMS, st.sampled_from(["window", "bound", "mask", "place", "heads"]))
def test_what_is_not_causal_attention_is_refused(form: Form, kind: str) -> None:
    """Each by the call where it shows, whatever the rest of the program is like."""
    changes: dict[str, Form] = {
        "window": replace(form, window=5),
        "bound": replace(form, bound=3.0),
        "mask": replace(form, wrong="mask"),
        "place": replace(form, wrong="place", write="put"),
        "heads": replace(form, wrong="heads", kv_heads=2, group=3),
    }
    graph = Program(changes[kind]).graph()
    tokens, input_pos = graph.inputs
    assert isinstance(tokens, Tensor) and isinstance(input_pos, Tensor)
    with pytest.raises(UnsupportedProgramError, match=r"call \d+ \(aten\.(bmm|index_put_)\.default\)"):
        batched(graph, tokens, input_pos, SIZES)

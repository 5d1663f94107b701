"""A real program whose logits depend on the last token only, by a table, so that its text is known in advance.

Its KV cache holds a row of another table for each token, so that one can see which tokens have run.
"""

from __future__ import annotations

import numpy as np

from tests.graph_builder import GraphBuilder
from tests.programs import write_delegated

ROW = 4  # elements of a row of the cache


def chain_table(vocab: int, seed: int = 0) -> np.ndarray:
    """Logits [vocab, vocab] whose likeliest tokens make one cycle through the whole vocabulary."""
    random = np.random.default_rng(seed)
    table = random.uniform(-2, 2, (vocab, vocab)).astype(np.float32)
    cycle = random.permutation(vocab)
    table[cycle, np.roll(cycle, -1)] = 5
    return table


def chain(table: np.ndarray, token: int, count: int) -> list[int]:
    """The likeliest ``count`` tokens after one."""
    text = [token]
    for _ in range(count):
        text.append(int(table[text[-1]].argmax()))
    return text[1:]


def cached_row(token: int) -> np.ndarray:
    return np.arange(ROW, dtype=np.float32) + token + 1


def chain_program(
    table: np.ndarray,
    *,
    context_len: int = 64,
    max_tokens: int = 5,
    rows: int | None = None,
    peeks: bool = False,
    counts: bool = False,
    last: bool = False,
) -> bytes:
    """The file of ``forward(tokens, input_pos) -> logits`` of every position.

    ``rows``: of the tables, of which the logits may promise more. ``peeks``: a token decides where a row is written
    besides. ``counts``: the program keeps something that is no KV cache. ``last``: it gives the logits [1, 1, vocab] of
    the last position.
    """
    vocab = table.shape[1]
    build = GraphBuilder()
    tokens = build.input((1, max_tokens), "int32")
    position = build.live()
    rows = vocab if rows is None else rows
    length = build.size_of(tokens, 1)
    cached = np.stack([cached_row(token) for token in range(rows)])
    values = build.call("aten.embedding.default", cached, tokens, -1, False, False, build.tensor((1, max_tokens, ROW)))
    values = build.call("aten.view_copy.default", values, [1, length, 1, ROW], build.tensor((1, max_tokens, 1, ROW)))
    cache = build.constant(np.zeros((1, context_len, 1, ROW), np.float32))
    build.call("update_cache.default", values, cache, position, build.tensor((1,)))
    if peeks:
        place = build.call("et_vk.select_as_symint.default", tokens, 1, 0, build.symint())
        build.call(
            "update_cache.default",
            values,
            build.constant(np.zeros((1, 2 * vocab, 1, ROW), np.float32)),
            place,
            build.tensor((1,)),
        )
    if counts:
        count = build.constant(np.zeros(1, np.float32))
        build.call("aten.add.Tensor", count, np.ones(1, np.float32), 1, count)
    out = build.tensor((1, max_tokens, vocab))
    build.call("aten.embedding.default", table[:rows], tokens, -1, False, False, out)
    if last:
        out = build.call("aten.slice_copy.Tensor", out, 1, -1, None, 1, build.tensor((1, 1, vocab)))
    build.output(out)
    dtypes = ["int64", "int64", "float32"]
    return write_delegated(build, dtypes, dynamic=[0], constants={"get_max_context_len": context_len})

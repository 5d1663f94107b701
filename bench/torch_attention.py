"""The same attention by PyTorch on CUDA: what a kernel of the vendor's own language takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

CALLS = 20  # at least, in one CUDA graph
REPEATS = 5
# Name, member of torch.nn.attention.SDPBackend, dtype.
_BACKENDS = (
    ("torch cuDNN", "CUDNN_ATTENTION", "f16"),
    ("torch flash", "FLASH_ATTENTION", "f16"),
    ("torch efficient", "EFFICIENT_ATTENTION", "f16"),
    ("torch efficient", "EFFICIENT_ATTENTION", "f32"),
)


@dataclass(frozen=True)
class TorchTime:
    """GPU seconds of one call. ``repeated``: the backend takes no groups, so K and V were repeated beforehand."""

    name: str
    dtype: str
    seconds: float
    repeated: bool


def cuda_available() -> bool:
    """Whether torch is installed and has a CUDA device."""
    if find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def torch_times(heads: tuple[int, int], head_dim: int, rows: int, context: int, copies: int) -> Iterator[TorchTime]:
    """The times of every backend that runs: one row over ``context`` columns, or ``rows == context`` causal ones.

    ``copies`` sets of K and V take turns, so that a cache cannot serve them all. There is no write to a KV cache.
    """
    import torch

    for name, backend, dtype in _BACKENDS:
        kind = torch.float16 if dtype == "f16" else torch.float32
        for kv_heads in sorted({heads[1], heads[0]}):
            with suppress(RuntimeError):  # this backend does not take these shapes
                q = torch.randn(1, heads[0], rows, head_dim, device="cuda", dtype=kind)
                keys_values = torch.randn(copies, 2, 1, kv_heads, context, head_dim, device="cuda", dtype=kind)
                taken = _seconds(q, keys_values, backend, causal=rows > 1)
                yield TorchTime(name, dtype, taken, repeated=kv_heads != heads[1])
                break
    torch.cuda.empty_cache()


def _seconds(q: Any, keys_values: Any, backend: str, causal: bool) -> float:
    """Time of a call, from the best of ``REPEATS`` replays of a CUDA graph of many; ``keys_values``: a pair a copy."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    copies, _, _, kv_heads, *_ = keys_values.shape
    calls = max(CALLS, copies)

    def run() -> None:
        with sdpa_kernel([getattr(SDPBackend, backend)]):
            for i in range(calls):
                k, v = keys_values[i % copies]
                scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=kv_heads != q.shape[1])

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return min(_elapsed(graph.replay) for _ in range(REPEATS)) / calls


def _elapsed(work: Callable[[], None]) -> float:
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3

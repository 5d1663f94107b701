"""Attention over a KV cache on the GPU, without a program: prefill, decode, and a cache that takes a half or a quarter.

python examples/attention.py
"""

from __future__ import annotations

import numpy as np

from executorch_webgpu.attention import KVCache, sdpa_with_kv_cache, to_device

HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64


def main(prompt: int = 100, steps: int = 20) -> dict[str, float]:
    """The largest difference that the dtype of the cache makes to any result, by dtype."""
    rng = np.random.default_rng(0)

    def rows(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        q, k, v = (rng.standard_normal((1, length, h, HEAD_DIM), np.float32) for h in (HEADS, KV_HEADS, KV_HEADS))
        return q, k, v

    text = [rows(prompt), *(rows(1) for _ in range(steps))]  # q, k and v of every call
    results: dict[str, list[np.ndarray]] = {}
    for dtype in ("f32", "f16", "int8"):
        with KVCache(capacity=1024, kv_heads=KV_HEADS, head_dim=HEAD_DIM, dtype=dtype) as cache:
            on_device = [[to_device(x) for x in step] for step in text]
            outs = [sdpa_with_kv_cache(q, k, v, cache) for q, k, v in on_device]  # appends, and does not wait
            results[dtype] = [out.numpy() for out in outs]
            print(f"{cache}: {cache.nbytes} bytes, the last step by {cache.route}")

            cache.rewind(prompt)  # another continuation of the same prompt
            sdpa_with_kv_cache(*text[1], cache)  # NumPy arrays in, a NumPy array out
    return {
        dtype: max(float(np.abs(a - b).max()) for a, b in zip(outs, results["f32"], strict=True))
        for dtype, outs in results.items()
    }


if __name__ == "__main__":
    for dtype, difference in main().items():
        print(f"{dtype}: at most {difference:.1e} from float32")
